"""Norms over all channels at a position, such as LayerNorm: each channel depends on all others.

A network that loses channels normalises over those that are left. So hiding channels from such a
norm means what it means for other readers, that they no longer count: mean and variance are those
of the rest.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_OVER_LAST = (nn.LayerNorm, nn.RMSNorm)


def is_channel_norm(module: nn.Module) -> bool:
    """Whether a module normalises over all channels together.

    One that is no LayerNorm, RMSNorm or GroupNorm of PyTorch has their attributes, such as timm's
    RmsNorm. What it computes is for :func:`channel_axis` to find.

    >>> is_channel_norm(nn.LayerNorm(8)), is_channel_norm(nn.LayerNorm((8, 4, 4)))
    (True, False)
    >>> is_channel_norm(nn.GroupNorm(1, 8)), is_channel_norm(nn.GroupNorm(2, 8))
    (True, False)
    """
    if isinstance(module, nn.GroupNorm):
        return module.num_groups == 1
    # Its tensors are not read: that would be an operation where the network is being traced.
    own = vars(module)
    shape = own.get("normalized_shape")
    known = isinstance(module, _OVER_LAST) or ("eps" in own and "weight" in module._parameters)
    return known and isinstance(shape, tuple) and len(shape) == 1


def is_centred(module: nn.Module) -> bool:
    """Whether a norm over channels subtracts means: of others than PyTorch's, those with a bias.

    >>> is_centred(nn.LayerNorm(8, bias=False)), is_centred(nn.RMSNorm(8))
    (True, False)
    """
    return isinstance(module, (nn.LayerNorm, nn.GroupNorm)) or "bias" in module._parameters


def only_input(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Return the one argument of a call, by position or by name; None where there are several."""
    given = (*arguments, *named.values())
    return given[0] if len(given) == 1 else None


def channel_axis(module: nn.Module, x: Any, output: Any) -> int | None:
    """Return the axis of its input that a norm over all channels normalises over.

    Its code is not trusted: the axis is the one for which PyTorch's own function gives its output.

    Args:
        module: the norm, uncut.
        x: its only input.
        output: of its forward.

    Returns:
        -1 or 1, None where it computes something else, or from or to anything but one tensor.
    """
    tensors = isinstance(x, Tensor) and isinstance(output, Tensor) and x.shape == output.shape
    if not (is_channel_norm(module) and tensors and output.numel()):
        return None
    rounding = 1e-5 * float(output.detach().abs().max())
    for axis in (1,) if isinstance(module, nn.GroupNorm) else (-1, 1):
        if axis < x.dim() and x.shape[axis] == _size(module):
            every = torch.arange(_size(module), device=x.device)
            given = _normalise(module, x.movedim(axis, -1), every).movedim(-1, axis)
            if float((given - output).detach().abs().max()) <= rounding:
                return axis
    return None


def normalise_kept(
    kept: Tensor,
    module: nn.Module,
    arguments: tuple[Any, ...],
    named: Mapping[str, Any],
    output: Any,
) -> Any:
    """Return what a norm gives that knows some of its channels alone, as a forward hook.

    Args:
        kept: positions of the channels that it knows; int64.
        module: the norm with all of its channels.
        arguments: of its forward, by position.
        named: of its forward, by name.
        output: of its forward.

    Returns:
        The output for these channels, and zeros for the others; what came out of a module that
        computes something else.
    """
    x = only_input(arguments, named)
    axis = channel_axis(module, x, output)
    if axis is None:
        return output
    last = x.movedim(axis, -1)
    given = torch.zeros_like(last)
    if len(kept):
        given[..., kept] = _normalise(module, last[..., kept], kept)
    return given.movedim(-1, axis)


def _size(module: nn.Module) -> int:
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    (size,) = module.normalized_shape  # type: ignore[misc]
    return int(size)


def _normalise(module: nn.Module, x: Tensor, channels: Tensor) -> Tensor:
    """Normalise channels, which come last."""
    weight, bias = (
        tensor[channels] if isinstance(tensor, Tensor) else None
        for tensor in (module.weight, getattr(module, "bias", None))
    )
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x.movedim(-1, 1), 1, weight, bias, module.eps).movedim(1, -1)
    shape, eps = (len(channels),), module.eps
    if is_centred(module):
        return F.layer_norm(x, shape, weight, bias, eps)  # type: ignore[arg-type]
    return F.rms_norm(x, shape, weight, eps)  # type: ignore[arg-type]
