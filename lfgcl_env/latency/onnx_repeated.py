"""Any operation, repeated in an ONNX model that PyTorch's exporter writes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from lfgcl_env.latency.onnx_session import export
from lfgcl_env.latency.operations import Signature

_OF_ACTIVATIONS = {
    *("add", "baddbmm", "bmm", "cat", "concat", "div", "einsum", "hstack", "matmul", "maximum"),
    *("minimum", "mm", "mul", "scaled_dot_product_attention", "stack", "sub", "where"),
}
"""Operations whose tensors all are computed; of others, those after the first are weights."""


class Repeated(nn.Module):
    """Applies an operation several times, each to the output before it where the shapes allow.

    Args:
        signature: of the operation.
        values: of its axes.
        copies: how often it is applied.

    Attributes:
        examples: inputs of ``forward``, at least one.
    """

    def __init__(self, signature: Signature, values: Sequence[int], copies: int) -> None:
        super().__init__()
        self._function = signature.function
        self._spec = signature.spec
        self._leaves = [signature.made(values) for _ in range(copies)]
        places = [p for p, leaf in enumerate(self._leaves[0]) if isinstance(leaf, Tensor)]
        self._places = places if signature.operation in _OF_ACTIVATIONS else places[:1]
        first, made = self._leaves[0][places[0]], self._computed(self._leaves[0])
        self._chained = isinstance(made, Tensor) and made.shape == first.shape
        self.examples = tuple(
            leaves[place] for copy, leaves in enumerate(self._leaves) for place in self._given(copy)
        )

    def forward(self, *inputs: Tensor) -> list[Any]:
        """Return the outputs that no later copy takes."""
        given = iter(inputs)
        made: list[Any] = []
        for copy, leaves in enumerate(self._leaves):
            own = list(leaves)
            for place in self._given(copy):
                own[place] = next(given)
            if self._chained and made:
                own[self._places[0]] = made.pop()
            made.append(self._computed(own))
        return made

    def _given(self, copy: int) -> list[int]:
        """Return the places of the leaves that are inputs of a copy."""
        return self._places[1:] if self._chained and copy else self._places

    def _computed(self, leaves: Sequence[Any]) -> Any:
        args, kwargs = tree_unflatten(leaves, self._spec)
        return self._function(*args, **kwargs)


def repeat(
    signature: Signature, values: Sequence[int], copies: int
) -> tuple[bytes, tuple[Tensor, ...]]:
    """Return a model of copies of an operation, and its inputs.

    Raises:
        ValueError: if the operation cannot be exported.
    """
    with torch.inference_mode(False), torch.no_grad():
        module = Repeated(signature, values, copies).eval()
        return export(module, *module.examples), module.examples
