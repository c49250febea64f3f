"""The whole network with some of its channels hidden, and norms over channels that know the others.

What the package says of norms is checked by this: nothing of its own code for them is used.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.networks.copying import copy_network
from lfgcl_env.pruning import PrunableNetwork

ROUNDING = 1e-4
"""How far a norm's output may be from its definition, relative to the largest."""


def hide(network: PrunableNetwork, kept: Sequence[NDArray[np.int64]]) -> nn.Module:
    """Return the whole network with the removed channels set to zero wherever they are read.

    Norms over all channels go by those that stay.

    Args:
        network: the baseline and its groups.
        kept: for each group, the channels that stay.
    """
    whole = copy_network(network.baseline.network)
    norms: dict[str, Tensor] = {}  # several groups may meet in one
    for group, stay in zip(network.groups, kept, strict=True):
        for member in group.members:
            module = whole.get_submodule(member.layer)
            stays = torch.from_numpy(np.isin(member.channels, stay))
            positions = torch.from_numpy(member.positions)
            if member.side == "in":
                dimension = -1 if isinstance(module, nn.Linear) else 1
                module.register_forward_pre_hook(_zero(positions[~stays], dimension))
            elif is_over_channels(module):
                known = norms.setdefault(member.layer, torch.ones(_channels(module)))
                known[positions[~stays]] = 0.0
    for name, known in norms.items():
        whole.get_submodule(name).register_forward_hook(normalising(known), with_kwargs=True)
    return whole


def _channels(norm: nn.Module) -> int:
    return norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.normalized_shape[0]


def is_over_channels(module: nn.Module) -> bool:
    """Whether a module says that it normalises over all channels, and nothing else, together."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups == 1
    return len(getattr(module, "normalized_shape", ())) == 1


def normalising(known: Tensor) -> Callable[..., Tensor]:
    """Return a forward hook for a norm that is to know some channels alone, and give zeros else.

    Which axis has the channels, and whether means are subtracted, is read off the norm's output.

    Args:
        known: 1 for channels that it knows, 0 for others; (channels,).
    """

    def hook(
        norm: nn.Module, inputs: tuple[Tensor, ...], named: Mapping[str, Tensor], output: Tensor
    ) -> Tensor:
        (x,) = (*inputs, *named.values())
        every = torch.ones_like(known)
        for axis, centred in product((1, -1), (True, False)):
            if x.shape[axis] == len(known):
                error = (_normalised(norm, x, axis, centred, every) - output).abs().max()
                if error <= ROUNDING * output.abs().max():
                    return _normalised(norm, x, axis, centred, known)
        raise ValueError(f"{type(norm).__name__} computes something else than a norm over channels")

    return hook


def _normalised(norm: Any, x: Tensor, axis: int, centred: bool, known: Tensor) -> Tensor:
    """Normalise by the definition, with sums over the channels that are known."""
    shape = [1] * x.dim()
    shape[axis] = len(known)
    axes = list(range(1, x.dim())) if isinstance(norm, nn.GroupNorm) else [axis]
    flags = known.reshape(shape).expand(x.shape)
    count = flags.sum(axes, keepdim=True).clamp(min=1)
    if centred:
        x = x - (x * flags).sum(axes, keepdim=True) / count
    variance = (x.square() * flags).sum(axes, keepdim=True) / count
    eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
    x = x / (variance + eps).sqrt()
    if norm.weight is not None:
        x = x * norm.weight.reshape(shape)
    if getattr(norm, "bias", None) is not None:
        x = x + norm.bias.reshape(shape)
    return x * flags


def _zero(gone: Tensor, dimension: int) -> Callable[[nn.Module, tuple[Tensor, ...]], Any]:
    def zero(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].index_fill(dimension, gone, 0), *inputs[1:])

    return zero
