"""Layers whose tensors cannot be replaced, and layers that a repair may give other weights."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lfgcl_env.pruning.structure.layers import (
    CONVOLUTIONS,
    TRANSPOSED,
    does_more,
    layer_kind,
    passes_channels,
)

_FORWARDS = {kind.forward for kind in (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)}
_INNER_FORWARDS = {kind._conv_forward for kind in (*CONVOLUTIONS, *TRANSPOSED)}


def find_fixed(network: nn.Module) -> dict[str, str]:
    """Find the layers that cannot be cut because of how they hold their tensors.

    Args:
        network: before any cut.

    Returns:
        Why, in one phrase, by the layer's name.
    """
    owners: dict[nn.Parameter, list[str]] = {}
    found: dict[str, str] = {}
    for name, module in network.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(parameter, []).append(name)
        if (layer_kind(module) or passes_channels(module)) and (way_out := _way_out(module)):
            found[name] = f"the weight of {name} is computed from others: {way_out} ends that"
    for name, module in network.named_modules():
        for key, parameter in module._parameters.items():
            others = [] if parameter is None else [o for o in owners[parameter] if o != name]
            if others:
                found.setdefault(name, f"{name} shares its {key} with {others[0]}")
    return found


def _way_out(module: nn.Module) -> str | None:
    """Return what turns computed tensors of a layer into plain ones; None if they are plain."""
    if parametrize.is_parametrized(module):
        return "torch.nn.utils.parametrize.remove_parametrizations(layer, name)"
    held = module._parameters.keys() | module._buffers.keys()
    computed = any(
        key not in held and isinstance(getattr(module, key, None), Tensor)
        for key in ("weight", "bias")
    )
    return "a parameter of the same values" if computed else None


def find_refittable(network: nn.Module) -> frozenset[str]:
    """Return the names of the layers that a repair may give other weights.

    These are convolutions without groups, transposed or not, and linear layers that do nothing else
    with their weights, share them with no other module, and have no hooks.

    Args:
        network: before any cut.
    """
    fixed = find_fixed(network)
    return frozenset(
        name
        for name, module in network.named_modules()
        if layer_kind(module) in ("conv", "linear", "transposed")
        and name not in fixed
        and _is_plain(module)
    )


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer is a convolution or linear layer of PyTorch, and no variation of it."""
    inner = getattr(type(module), "_conv_forward", None)
    tensors = [module.weight, *([] if module.bias is None else [module.bias])]
    return (
        not does_more(module)
        and type(module).forward in _FORWARDS
        and (inner is None or inner in _INNER_FORWARDS)
        and all(type(t) in (nn.Parameter, Tensor) and not _is_integer(t) for t in tensors)
    )


def _is_integer(tensor: object) -> bool:
    return isinstance(tensor, torch.Tensor) and not tensor.is_floating_point()
