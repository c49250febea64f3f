"""Objects whose methods one thread runs at a time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import update_wrapper
from threading import RLock
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

_Own = TypeVar("_Own", bound="OneAtATime")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class OneAtATime:
    """Holds a lock for the methods under :func:`alone`; copies and pickles get one of their own.

    >>> class Counter(OneAtATime):
    ...     count = 0
    ...
    ...     @alone
    ...     def add(self):
    ...         self.count += 1
    ...         return self.count
    >>> Counter().add()
    1
    """

    _lock: AbstractContextManager[Any]

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Give every object a lock, also where it is a copy or unpickled."""
        own = super().__new__(cls)
        own._lock = RLock()
        return own

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}


def alone(
    method: Callable[Concatenate[_Own, _Arguments], _Result],
) -> Callable[Concatenate[_Own, _Arguments], _Result]:
    """Let a method of :class:`OneAtATime` wait for other threads' calls of such methods."""

    def waiting(self: _Own, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with self._lock:
            return method(self, *args, **kwargs)

    update_wrapper(waiting, method)
    return waiting
