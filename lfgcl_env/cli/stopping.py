"""Ctrl-C that waits for the end of a step."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C end a long task between two steps; a second one ends it at once.

    Yields:
        A function to call between steps.

    Raises:
        KeyboardInterrupt: by this function, after Ctrl-C.
    """
    asked = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("lfgcl: stopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
