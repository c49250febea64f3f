"""Plain modules: what wraps a network is taken off, and what hides its weights is refused."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from lfgcl_env.networks.prepared import copy_module

_PARALLEL = (nn.DataParallel, DistributedDataParallel)
_QUANTISED = (
    *("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"),
    *("torchao.", "bitsandbytes."),
)
"""How the names of modules begin that hold whole numbers instead of weights."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_HOOKED = {
    "weight_mask": "torch.nn.utils.prune.remove(layer, 'weight')",
    "bias_mask": "torch.nn.utils.prune.remove(layer, 'bias')",
    "weight_g": "torch.nn.utils.remove_weight_norm(layer)",
    "weight_u": "torch.nn.utils.remove_spectral_norm(layer)",
}
"""What ends that a hook computes a tensor, by something that such a layer holds."""


def make_plain(network: nn.Module) -> nn.Module:
    """Return a network without wrappers, in float32.

    Returns:
        The network itself where it is so, the module inside it, or a copy. It is never changed.

    Raises:
        ValueError: if it is compiled to TorchScript or quantised, or hooks compute its weights; the
            message says what to pass instead. So it is with layers whose weights are not finite.
    """
    network = unwrap(network)
    for name, module in network.named_modules():
        _check(module, name or "the network")
    return _as_float32(network)


def unwrap(network: nn.Module) -> nn.Module:
    """Take off ``torch.compile``, DataParallel and DistributedDataParallel, inside as well.

    Returns:
        The network itself, the module inside it, or a copy of it.
    """
    while (inner := _inner(network)) is not None:
        network = inner
    modules = list(network.modules())
    compiled = any(getattr(m, "_compiled_call_impl", None) is not None for m in modules)
    if not compiled and all(_inner(module) is None for module in modules):
        return network
    copied = copy_module(network)  # which leaves out what module.compile() has set
    for module in list(copied.modules()):
        for key, child in module._modules.items():
            if child is not None and _inner(child) is not None:
                module._modules[key] = unwrap(child)
    return copied


def _inner(module: nn.Module) -> nn.Module | None:
    """Return the module that another one does nothing but call, or None."""
    if isinstance(module, _PARALLEL):
        return module.module  # type: ignore[no-any-return]
    if type(module).__name__ != "OptimizedModule":  # whose import takes seconds
        return None
    return module._modules.get("_orig_mod")


def _check(module: nn.Module, name: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"{name} is a {type(module).__name__}, whose layers cannot be cut: pass the module "
            "that it was made from, and compile the pruned network"
        )
    tensors = [*module._parameters.values(), *module._buffers.values()]
    kinds = {type(module).__module__, *(type(tensor).__module__ for tensor in tensors)}
    if any(kind.startswith(_QUANTISED) for kind in kinds) or any(
        isinstance(tensor, Tensor) and tensor.is_quantized for tensor in tensors
    ):
        raise ValueError(
            f"{name} is quantised ({type(module).__name__}): pass the network with its float "
            "weights, and quantise the pruned network"
        )
    for key in ("weight", "bias"):  # other parameters may be masks
        parameter = module._parameters.get(key)
        if parameter is None or is_lazy(parameter) or parameter.dtype not in _FLOATS:
            continue
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"the {key} of {name} has NaN or infinite values")
    held = module._parameters.keys() | module._buffers.keys()
    for mark, way_out in _HOOKED.items():
        computed = mark.partition("_")[0]
        if mark in held and computed not in held and module._forward_pre_hooks:
            raise ValueError(
                f"the {computed} of {name} is computed by a hook before every call: make it a "
                f"parameter first, with {way_out}"
            )


def _as_float32(network: nn.Module) -> nn.Module:
    """Return a network in float32; a copy with a warning if it has weights of other precisions."""
    others = {p.dtype for p in network.parameters() if p.is_floating_point()} - {torch.float32}
    if not others:
        return network
    named = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))
    warnings.warn(
        f"the network has {named} weights: a float32 copy is pruned, and comes out in float32; "
        "convert the pruned network to get back",
        UserWarning,
        stacklevel=2,
    )
    return copy_module(network).float()
