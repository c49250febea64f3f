"""Norms over all channels at a position, such as LayerNorm: each channel depends on all others.

A network that loses channels normalises over those that are left. So hiding channels from such a
norm means what it means for other readers, that they no longer count: mean and variance are those
of the rest.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_OVER_LAST = (nn.LayerNorm, nn.RMSNorm)


def is_channel_norm(module: nn.Module) -> bool:
    """Whether a module normalises over all channels together.

    >>> is_channel_norm(nn.LayerNorm(8)), is_channel_norm(nn.LayerNorm((8, 4, 4)))
    (True, False)
    >>> is_channel_norm(nn.GroupNorm(1, 8)), is_channel_norm(nn.GroupNorm(2, 8))
    (True, False)
    """
    if isinstance(module, _OVER_LAST):
        return len(module.normalized_shape) == 1
    return isinstance(module, nn.GroupNorm) and module.num_groups == 1


def channel_axis(module: nn.Module, x: Tensor, output: Tensor) -> int | None:
    """Return the axis of its input that a norm over all channels normalises over.

    Its code is not trusted: the axis is the one for which PyTorch's own function gives its output.

    Args:
        module: the norm, uncut.
        x: its input.
        output: of its forward.

    Returns:
        -1 or 1, None where it computes something else.
    """
    if not is_channel_norm(module):
        return None
    rounding = 1e-5 * float(output.detach().abs().max())
    for axis in (1,) if isinstance(module, nn.GroupNorm) else (-1, 1):
        last = x.movedim(axis, -1)
        if last.shape[-1] == _size(module):
            every = torch.arange(_size(module), device=x.device)
            if torch.allclose(
                _normalise(module, last, every).movedim(-1, axis), output, 0, rounding
            ):
                return axis
    return None


def normalise_kept(
    kept: Tensor, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    """Return what a norm gives that knows some of its channels alone, as a forward hook.

    Args:
        kept: positions of the channels that it knows; int64.
        module: the norm with all of its channels.
        inputs: of its forward.
        output: of its forward.

    Returns:
        The output for these channels, and zeros for the others; what came out of a module that
        computes something else.
    """
    axis = channel_axis(module, inputs[0], output)
    if axis is None:
        return output
    last = inputs[0].movedim(axis, -1)
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
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(x, (len(channels),), weight, module.eps)
    assert isinstance(module, nn.LayerNorm)
    return F.layer_norm(x, (len(channels),), weight, bias, module.eps)
