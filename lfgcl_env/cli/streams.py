"""Standard output and error that may be closed, full, or unable to show a character."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class LenientStream:
    """A text stream whose failures end nothing: what cannot be written is dropped.

    After a failure the stream's file descriptor leads to the null device, so that text that still
    waits in a buffer, and what libraries write by themselves, does not fail at exit either.

    Args:
        stream: to write to.

    Attributes:
        failure: the first one.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        """Write text, with escapes for characters that the stream's encoding lacks."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError) as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Write out what waits in the buffer."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._fail(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextmanager
def lenient_streams() -> Iterator[tuple[LenientStream, LenientStream]]:
    """Make standard output and error lenient inside the block; yield them."""
    _occupy_descriptors()
    before = sys.stdout, sys.stderr
    ours = tuple(LenientStream(stream or io.StringIO()) for stream in before)
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in ours)
    try:
        yield ours[0], ours[1]
    finally:
        for stream in ours:
            stream.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def descriptor_aside() -> Iterator[None]:
    """Lead the descriptor of standard output to standard error inside the block.

    What workers and libraries print by themselves then stays apart from a result in JSON.
    """
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _occupy_descriptors() -> None:
    """Open the null device where a standard stream is closed.

    The next file that is opened would get its number, and whatever a library writes to its idea of
    standard error would end up in that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
