"""Where a module multiplies matrices outside of its layers, as attention does."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchvision.ops import DeformConv2d

from lfgcl_env.pruning.structure.layers import TRANSPOSED, counting_flops, layer_kind

_MULTIPLYING = (*TRANSPOSED, nn.RNNBase, nn.RNNCellBase, nn.Bilinear, DeformConv2d)


def find_products(
    module: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> list[nn.Module | None]:
    """Call a module, and return its layers in the order of calls, None for products in between.

    Args:
        module: in evaluation mode; not changed.
        arguments: of the call.
        keywords: of the call.

    >>> import torch
    >>> from lfgcl_env.networks.head_attention import HeadAttention
    >>> attention = HeadAttention(nn.MultiheadAttention(8, 2))
    >>> called = find_products(attention, [torch.zeros(3, 8)] * 3, {})
    >>> [layer and layer.out_features for layer in called]
    [8, 8, 8, None, 8]
    """
    called: list[nn.Module | None] = []
    counted = 0

    def note_products() -> None:
        nonlocal counted
        total = int(counter.get_total_flops())
        if total > counted:
            called.append(None)
        counted = total

    def before(layer: nn.Module, _: object) -> None:
        note_products()
        called.append(layer)

    def after(*_: object) -> None:
        nonlocal counted
        counted = int(counter.get_total_flops())

    handles = []
    for layer in module.modules():
        if layer_kind(layer) or isinstance(layer, _MULTIPLYING):
            handles.append(layer.register_forward_pre_hook(before))
            handles.append(layer.register_forward_hook(after))
    try:
        with counting_flops() as counter:
            module(*arguments, **keywords)
            note_products()
    finally:
        for handle in handles:
            handle.remove()
    return called
