"""Attention as the products that it is made of, in the thread that asks for it and no other."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_ATTENTION = (
    F.scaled_dot_product_attention,
    torch.ops.aten.scaled_dot_product_attention,
    torch.ops.aten.scaled_dot_product_attention.default,
)
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class StepByStep(TorchFunctionMode):
    """Run fused attention as matrix products and a softmax inside the block.

    ``torch.backends`` and :func:`torch.nn.attention.sdpa_kernel` switch fused attention off for the
    whole process: threads that switch at once leave it off, and others compute otherwise meanwhile.
    This mode is its thread's own. PyTorch's transformer layers take no fused path of their own
    under any mode; the attention inside of them, and that of scripts, :class:`Unfused` alone sees.

    >>> query, key = torch.randn(2, 1, 5, 8).unbind()
    >>> fused = F.scaled_dot_product_attention(query, key, key)
    >>> with StepByStep():
    ...     torch.allclose(F.scaled_dot_product_attention(query, key, key), fused, atol=1e-6)
    True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return (_attend if func in _ATTENTION else func)(*args, **(kwargs or {}))


class Unfused(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run the processor's fused attention as products and a softmax, whatever calls it."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return (_attend_fused if func is _FUSED else func)(*args, **(kwargs or {}))


def _attend_fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Attend as the fused operation, without the sums that a backward pass would take."""
    grouped = query.dim() == 4 and query.shape[1] != key.shape[1]  # it is not told so
    attended = _attend(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=grouped
    )
    return attended, query.new_zeros(query.shape[:-1])


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attend as :func:`torch.nn.functional.scaled_dot_product_attention`."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        added = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = added.masked_fill(~attn_mask, -torch.inf)
    attended: Tensor = torch._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]
    return attended
