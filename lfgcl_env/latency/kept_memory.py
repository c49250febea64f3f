"""Memory that a process keeps while calls are timed, so that none pays for new pages."""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's ``mallopt``."""

_DURING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
"""Nothing is mapped by itself, and nothing is given back."""

_AFTER = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}
"""glibc's own number of mappings, and the most that its thresholds adapt to on 64 bits."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let glibc keep freed memory inside the block, and give it back behind it.

    By default it returns large pieces to the system as they are freed, and gets new pages for them
    at the next call: how many depends on what the process did before. Other allocators, and those
    of other systems, are left as they are.

    It goes for the main thread's memory. The settings are those of the process: behind the block
    glibc no longer adapts them, and those that the user had chosen are lost.
    """
    library = _glibc()
    if library is None:
        yield
        return
    _set(library, _DURING)
    try:
        yield
    finally:
        _set(library, _AFTER)
        library.malloc_trim(ctypes.c_size_t(0))


def _set(library: Any, parameters: Mapping[int, int]) -> None:
    for parameter, value in parameters.items():
        library.mallopt(parameter, value)


def _glibc() -> Any:
    """Return the C library, or None if it is not glibc or cannot be had."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows wants a name
        return None
    needed = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return library if all(hasattr(library, name) for name in needed) else None
