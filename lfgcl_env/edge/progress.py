"""Progress of long steps: one line on standard error with the time that is left.

The command shows it unless it is asked to be quiet; in programs nothing is shown until
:func:`show_progress` asks for it.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol

from tqdm import tqdm


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None:
        """Show the steps done and their number, and what there is to say of the last."""


_wanted: ContextVar[bool | None] = ContextVar("wanted", default=None)

_DELAY = 1.0
"""Seconds before a step counts as a long one, which has a bar."""


class Bar(tqdm):  # type: ignore[type-arg]
    """A bar on standard error; a file gets a line now and then instead of ten a second."""

    monitor_interval = 0  # no thread, whose errors nobody could catch

    def __init__(self, total: int | None, unit: str, **settings: Any) -> None:
        lively = sys.stderr is not None and sys.stderr.isatty()
        self.begun = time.monotonic()
        super().__init__(
            total=total, unit=unit, mininterval=0.2 if lively else 10, miniters=1, **settings
        )


@contextmanager
def show_progress(wanted: bool) -> Iterator[None]:
    """Show the progress of long steps inside the block, or hide it."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def is_shown(default: bool = False) -> bool:
    """Whether progress is shown.

    Args:
        default: where nobody asked for it and nobody forbade it.
    """
    wanted = _wanted.get()
    return (default if wanted is None else wanted) and sys.stderr is not None


@contextmanager
def progress(what: str, unit: str = "step", *, default: bool = False) -> Iterator[Advance]:
    """Show how far a step is, if it takes more than a second and progress is wanted.

    Args:
        what: is done; stands before the bar.
        unit: of its parts.
        default: whether it is shown where nobody asked for it.

    Yields:
        A function to call with the parts done and their number.

    >>> with progress("counting") as advance:
    ...     for done in range(3):
    ...         advance(done + 1, 3)
    """
    if not is_shown(default):
        yield lambda done, total, note="": None
        return
    bar: Bar | None = None
    with suppress(Exception):  # made now, so that the first part's time counts
        bar = Bar(None, unit, desc=what, delay=_DELAY)

    def advance(done: int, total: int, note: str = "", /) -> None:
        if bar is not None:
            bar.total = total
            bar.set_postfix_str(note, refresh=False)
            bar.update(done - bar.n)

    try:
        yield _harmless(advance)
    finally:
        if bar is not None:
            _harmless(_end)(bar)
            bar.disable = True  # or it would write once more when it is deleted


def _end(bar: Bar) -> None:
    """Close a bar, and show it where it took long but no part ended at the time to write it."""
    if bar.n and time.monotonic() - bar.begun >= _DELAY:
        bar.last_print_t = max(bar.last_print_t, bar.start_t + _DELAY)
    bar.close()


def _harmless(act: Callable[..., object]) -> Callable[..., None]:
    """Return a function whose failures end nothing: a stream may be closed or full."""

    def attempt(*arguments: Any) -> None:
        with suppress(Exception):
            act(*arguments)

    return attempt
