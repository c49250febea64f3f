"""FLOPs of products that PyTorch's counter leaves out, in the form in which it takes formulas."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

Formula = Callable[..., int]

Shape = tuple[int, ...]


def _trilinear(rows: Shape, weight: Shape, columns: Shape, *_: Any, **__: Any) -> int:
    """Count ``nn.Bilinear``: as the two contractions that ``torch.einsum`` makes of it."""
    out, left, right = weight
    return 2 * rows[0] * out * right * (left + 1)


def _deformed(x: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    """Count torchvision's deformable convolution: as one that is not; positions cost nothing."""
    return 2 * prod(out_shape) * prod(weight[1:])


def _matrix_vector(matrix: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _added_matrix_vector(added: Shape, matrix: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _summed_products(added: Shape, left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(left) * right[-1]


def _recurrent(x: Shape, from_input: Shape, from_state: Shape, *_: Any, **__: Any) -> int:
    """Count the processor's fused layer of an ``nn.LSTM``: the products of all gates and steps."""
    steps = prod(x[:-1])
    return 2 * steps * (prod(from_input) + prod(from_state))


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Count the processor's fused attention."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_FORMULAS: dict[str, Formula] = {
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::_trilinear": _trilinear,
    "aten::addbmm": _summed_products,
    "aten::addmv": _added_matrix_vector,
    "aten::dot": _matrix_vector,
    "aten::mkldnn_rnn_layer": _recurrent,
    "aten::mv": _matrix_vector,
    "aten::vdot": _matrix_vector,
    "torchvision::deform_conv2d": _deformed,
}
"""By operator."""


def more_formulas() -> dict[Any, Formula]:
    """Return the formulas of operators that PyTorch's counter lacks, for ``FlopCounterMode``."""
    found = {}
    for name, formula in _FORMULAS.items():
        space, _, operator = name.partition("::")
        packet = getattr(getattr(torch.ops, space), operator, None)
        if packet is not None and packet not in flop_registry:
            found[packet] = formula
    return found
