"""Results made of tensors, of which memory holds so many bytes."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from torch import Tensor

CACHE_BYTES = 256 * 2**20
"""Bytes that a cache holds, unless it is told otherwise."""

_Key = TypeVar("_Key", bound=Hashable)
_Found = TypeVar("_Found")


class TensorCache(Generic[_Key, _Found]):
    """Results by their keys; those used longest ago go, and the last one always stays.

    Args:
        most: bytes of tensors that are held; None: :data:`CACHE_BYTES`.

    Attributes:
        bytes: of all tensors held.

    >>> import torch
    >>> cache: TensorCache[str, Tensor] = TensorCache(most=8)
    >>> for name in "ab":
    ...     one = torch.zeros(2)
    ...     cache.add(name, one, [one])
    >>> cache.get("a"), cache.get("b"), cache.bytes
    (None, tensor([0., 0.]), 8)
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = CACHE_BYTES if most is None else most
        self._known: OrderedDict[_Key, tuple[_Found, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: _Key) -> _Found | None:
        """Return a result, which is then the last one used; None if it is not known."""
        if key not in self._known:
            return None
        self._known.move_to_end(key)
        return self._known[key][0]

    def add(self, key: _Key, found: _Found, tensors: Iterable[Tensor]) -> None:
        """Remember a result in place of an earlier one.

        Args:
            key: that it is asked for by.
            found: the result.
            tensors: that it holds.
        """
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.bytes += size - self._known.pop(key, (None, 0))[1]
        self._known[key] = found, size
        while self.bytes > self._most and len(self._known) > 1:
            self.bytes -= self._known.popitem(last=False)[1][1]
