"""Tensors that a repair put into a network: to take out again, and to put back for a while."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Placed = tuple[nn.Module, str, Tensor]
"""A module, the name of one of its tensors, and the tensor."""

Named = tuple[str, str, Tensor]
"""The same with the module's name."""

_BYTES = 256 * 2**20


def put(tensors: Iterable[Placed]) -> None:
    """Put tensors into modules as they are: parameters stay the same objects."""
    for module, key, tensor in tensors:
        held: Any = module._buffers if key in module._buffers else module._parameters
        held[key] = tensor


class Recent:
    """The refitted tensors of the strategies scored last; the oldest go beyond 256 MiB.

    What a search ends with was mostly scored a while ago, and takes seconds to refit again. A
    worker's copy keeps the last strategy alone: what is handed over is not its business.
    """

    def __init__(self) -> None:
        self._most = _BYTES
        self._known: OrderedDict[tuple[bytes, ...], list[Named]] = OrderedDict()
        self._bytes = 0

    def add(self, kept: Sequence[NDArray[np.int64]], tensors: list[Named]) -> None:
        """Remember what a strategy's network was refitted to.

        Args:
            kept: for each group, the indices of the channels that stay.
            tensors: of its layers.
        """
        key = _key(kept)
        self._bytes -= _size(self._known.pop(key, []))
        self._known[key] = tensors
        self._bytes += _size(tensors)
        while self._bytes > self._most and len(self._known) > 1:
            self._bytes -= _size(self._known.popitem(last=False)[1])

    def find(self, kept: Sequence[NDArray[np.int64]]) -> list[Named] | None:
        """Return what a strategy's network was refitted to; None if that is not known."""
        return self._known.get(_key(kept))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the tensors, and room for more than one strategy's."""
        return vars(Recent()) | {"_most": 0}


def _key(kept: Sequence[NDArray[np.int64]]) -> tuple[bytes, ...]:
    return tuple(np.sort(channels).tobytes() for channels in kept)


def _size(tensors: Iterable[Named]) -> int:
    return sum(tensor.numel() * tensor.element_size() for _, _, tensor in tensors)
