"""Tensors that a repair put into a network: to take out again, and to put back for a while."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.repair.tensor_cache import TensorCache

Placed = tuple[nn.Module, str, Tensor]
"""A module, the name of one of its tensors, and the tensor."""

Named = tuple[str, str, Tensor]
"""The same with the module's name."""


def put(tensors: Iterable[Placed]) -> None:
    """Put tensors into modules as they are: parameters stay the same objects."""
    for module, key, tensor in tensors:
        held: Any = module._buffers if key in module._buffers else module._parameters
        held[key] = tensor


class Recent:
    """The refitted tensors of the strategies used last.

    What a search ends with was mostly scored a while ago, and takes seconds to refit again. A
    worker's copy keeps the last strategy alone: what is handed over is not its business.

    Args:
        most: bytes that are kept; None: as many as a :class:`TensorCache` holds.
    """

    def __init__(self, most: int | None = None) -> None:
        self._cache: TensorCache[tuple[bytes, ...], list[Named]] = TensorCache(most)

    @property
    def size(self) -> int:
        """Size of the tensors [bytes]."""
        return self._cache.size

    def add(self, kept: Sequence[NDArray[np.int64]], tensors: list[Named]) -> None:
        """Remember what a strategy's network was refitted to.

        Args:
            kept: for each group, the indices of the channels that stay.
            tensors: of its layers.
        """
        self._cache.add(_key(kept), tensors, (tensor for _, _, tensor in tensors))

    def find(self, kept: Sequence[NDArray[np.int64]]) -> list[Named] | None:
        """Return what a strategy's network was refitted to; None if that is not known."""
        return self._cache.get(_key(kept))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the tensors, and room for more than one strategy's."""
        return vars(Recent(most=0))


def _key(kept: Sequence[NDArray[np.int64]]) -> tuple[bytes, ...]:
    return tuple(np.sort(channels).tobytes() for channels in kept)
