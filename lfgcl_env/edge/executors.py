"""What an executor is here."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Submits(Protocol):
    """What strategies are given to: an executor, or what has its ``submit``."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Begin a call, and return what has its ``result()`` and can ``cancel()`` it."""
