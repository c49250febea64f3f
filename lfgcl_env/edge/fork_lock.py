"""A lock that a forked process does not wait for."""

import os
from threading import RLock


class ForkLock:
    """A reentrant lock of the process, for the whole time that it runs.

    A process may be forked while another thread holds it. That thread is not there in the child,
    which would wait for ever; it gets a lock of its own.

    >>> lock = ForkLock()
    >>> with lock, lock:
    ...     pass
    """

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):  # not on Windows, which forks nothing
            os.register_at_fork(after_in_child=self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        self._lock = RLock()
