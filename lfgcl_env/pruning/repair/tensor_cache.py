"""A cache of results made of tensors, bounded by their bytes."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from torch import Tensor

CACHE_BYTES = 256 * 2**20
"""Bytes that a cache holds, unless it is told otherwise."""

_Key = TypeVar("_Key", bound=Hashable)
_Found = TypeVar("_Found")


class TensorCache(Generic[_Key, _Found]):
    """Results by their keys: those used longest ago are dropped, but never the last one added.

    Args:
        most: bytes of tensors that are held; None: :data:`CACHE_BYTES`.

    Attributes:
        size: of all tensors held [bytes].

    >>> import torch
    >>> cache: TensorCache[str, Tensor] = TensorCache(most=16)
    >>> for name in "ab", "ac":
    ...     for one in name:
    ...         if cache.get(one) is None:
    ...             cache.add(one, torch.zeros(2), [torch.zeros(2)])
    >>> cache.get("a"), cache.get("b"), cache.size
    (tensor([0., 0.]), None, 16)
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = CACHE_BYTES if most is None else most
        self._known: OrderedDict[_Key, tuple[_Found, int]] = OrderedDict()
        self.size = 0

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
        added = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.size += added - self._known.pop(key, (None, 0))[1]
        self._known[key] = found, added
        while self.size > self._most and len(self._known) > 1:
            self.size -= self._known.popitem(last=False)[1][1]
