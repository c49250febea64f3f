"""How long workers were busy."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Occupation:
    """Counts the seconds that workers spend on tasks; two that work at the same time count twice.

    >>> occupation = Occupation()
    >>> with occupation.task():
    ...     occupation.seconds >= 0
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy, self._since, self._seconds = 0, 0.0, 0.0

    @contextmanager
    def task(self) -> Iterator[None]:
        """Count the block as a task that keeps one worker busy."""
        self._change(+1)
        try:
            yield
        finally:
            self._change(-1)

    @property
    def seconds(self) -> float:
        """Seconds until now, also of tasks that have not ended."""
        with self._lock:
            return self._seconds + self._busy * (time.monotonic() - self._since)

    def _change(self, by: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._seconds += self._busy * (now - self._since)
            self._busy, self._since = self._busy + by, now
