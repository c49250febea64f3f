"""torchvision's attention in shifted windows (Swin, Swin V2), with any number of heads.

torchvision's takes the width of a head for channels divided by heads, which is false of a module
without some of its heads, and multiplies with weights without calling the linear layers that hold
them. These compute the same, with the same tensors under the same names.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2


class _FreeHeads:
    """Computes what torchvision's class behind it does; made by :func:`freed`.

    Attributes:
        head_dim: channels of a head.
    """

    head_dim: int

    def forward(self, x: Tensor) -> Tensor:
        """Attend inside windows; (images, height, width, channels)."""
        return _forward(self, x)


class WindowAttention(_FreeHeads, ShiftedWindowAttention):  # type: ignore[misc]
    """``ShiftedWindowAttention`` of torchvision, with any number of heads."""


class WindowAttentionV2(_FreeHeads, ShiftedWindowAttentionV2):  # type: ignore[misc]
    """``ShiftedWindowAttentionV2`` of torchvision, with any number of heads."""


FREED = {ShiftedWindowAttention: WindowAttention, ShiftedWindowAttentionV2: WindowAttentionV2}
"""What stands in for torchvision's classes."""


def freed(stock: ShiftedWindowAttention) -> nn.Module:
    """Return a module that computes the same with the same tensors, and can lose heads."""
    replaced: Any = FREED[type(stock)].__new__(FREED[type(stock)])
    replaced.__dict__ = dict(stock.__dict__)
    replaced.head_dim = stock.qkv.out_features // (3 * stock.num_heads)
    return replaced  # type: ignore[no-any-return]


def _forward(self: Any, x: Tensor) -> Tensor:
    bias = self.get_relative_position_bias()
    sizes = tuple(self.window_size), tuple(self.shift_size)
    qkv = self.qkv(to_windows(x, *sizes))
    scale = getattr(self, "logit_scale", None)
    if scale is not None and self.qkv.bias is not None:
        qkv = without_key_bias(qkv, self.qkv.bias)
    dropout = self.attention_dropout if self.training else 0.0
    mixed = attend(qkv, self.num_heads, self.head_dim, bias, scale, x, *sizes, dropout)
    mixed = F.dropout(self.proj(mixed), self.dropout, self.training)
    return from_windows(mixed, x, *sizes)


def _shifts(
    x: Tensor, window: tuple[int, int], shift: tuple[int, int]
) -> tuple[int, int, tuple[int, int]]:
    """Return height and width in whole windows, and by how much windows are shifted."""
    height, width = (-(-size // w) * w for size, w in zip(x.shape[1:3], window, strict=True))
    down = 0 if window[0] >= height else shift[0]
    right = 0 if window[1] >= width else shift[1]
    return height, width, (down, right)


# Each is one operation for whoever traces the network.
@torch.fx.wrap
def to_windows(x: Tensor, window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """Cut images into shifted windows; (images * windows, positions, channels)."""
    height, width, (down, right) = _shifts(x, window, shift)
    x = F.pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))
    if down or right:
        x = torch.roll(x, (-down, -right), (1, 2))
    grid = (x.shape[0], height // window[0], window[0], width // window[1], window[1], -1)
    return x.reshape(grid).permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2)


@torch.fx.wrap
def from_windows(
    windows: Tensor, x: Tensor, window: tuple[int, int], shift: tuple[int, int]
) -> Tensor:
    """Put windows back where :func:`to_windows` took them from ``x``."""
    height, width, (down, right) = _shifts(x, window, shift)
    grid = (x.shape[0], height // window[0], width // window[1], *window)
    whole = windows.reshape(*grid, windows.shape[-1]).permute(0, 1, 3, 2, 4, 5)
    whole = whole.reshape(x.shape[0], height, width, windows.shape[-1])
    if down or right:
        whole = torch.roll(whole, (down, right), (1, 2))
    return whole[:, : x.shape[1], : x.shape[2]].contiguous()


@torch.fx.wrap
def without_key_bias(qkv: Tensor, bias: Tensor) -> Tensor:
    """Take the keys' bias off again, which Swin V2 holds and does not use."""
    none = torch.zeros_like(bias.chunk(3)[0])
    return qkv - torch.cat([none, bias.chunk(3)[1], none])


@torch.fx.wrap
def attend(
    qkv: Tensor,
    num_heads: int,
    head_dim: int,
    bias: Tensor,
    logit_scale: Tensor | None,
    x: Tensor,
    window: tuple[int, int],
    shift: tuple[int, int],
    dropout: float,
) -> Tensor:
    """Return what heads give in every window; (images * windows, positions, heads * width)."""
    apart = qkv.reshape(*qkv.shape[:2], 3, num_heads, head_dim)
    q, k, v = apart.permute(2, 0, 3, 1, 4).unbind(0)
    if logit_scale is None:
        scores = (q * head_dim**-0.5) @ k.transpose(-2, -1)
    else:
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scores = scores * logit_scale.clamp(max=math.log(100.0)).exp()
    scores = scores + bias
    mask = _mask(x, window, shift)
    if mask is not None:
        every = scores.reshape(len(x), len(mask), *scores.shape[1:])
        scores = (every + mask[:, None]).flatten(0, 1)
    weights = F.dropout(scores.softmax(-1), dropout)
    return (weights @ v).transpose(1, 2).flatten(2)


def _mask(x: Tensor, window: tuple[int, int], shift: tuple[int, int]) -> Tensor | None:
    """Return what keeps parts of an image apart that only shifting put into one window.

    Returns:
        (windows, positions, positions), of -100 and 0; None where nothing is shifted.
    """
    height, width, (down, right) = _shifts(x, window, shift)
    if not down and not right:
        return None
    rows, columns = (
        torch.arange(size, device=x.device).ge(size - w).int()
        + torch.arange(size, device=x.device).ge(size - s).int()
        for size, w, s in ((height, window[0], down), (width, window[1], right))
    )
    parts = to_windows((3 * rows[:, None] + columns)[None, :, :, None], window, (0, 0))[..., 0]
    apart = parts[:, None] != parts[:, :, None]
    return torch.zeros_like(apart, dtype=x.dtype).masked_fill_(apart, -100.0)
