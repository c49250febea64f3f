"""Several logs as one, none of which can end what it logs."""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from lfgcl_env.runs.log_writers import Log

_logger = logging.getLogger(__name__)


class LogGroup:
    """Logs that each receive everything.

    One that fails, on a closed terminal or a full disk, is dropped with one warning.

    Args:
        what: what is logged, in warnings: "search".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._logs: list[Log] = []

    def add(self, log: Log) -> None:
        """Add a log."""
        self._logs.append(log)

    def open(self, kind: type[Log], make: Callable[[], Log]) -> None:
        """Add a log that can be opened; warn of one that cannot."""
        try:
            self.add(make())
        except Exception as error:
            self._warn(kind.__name__, error)

    def write(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """Log values; see :class:`~lfgcl_env.runs.log_writers.Log`."""
        for log in list(self._logs):
            if not self._attempt(partial(log.write, step, seconds, values), log):
                self._logs.remove(log)
                self._attempt(log.close)

    def close(self) -> None:
        """Close every log."""
        for log in self._logs:
            self._attempt(log.close, log)
        self._logs = []

    def _attempt(self, act: Callable[[], object], log: Log | None = None) -> bool:
        """Return whether a log could be written; warn where it could not and ``log`` is given."""
        try:
            act()
        except Exception as error:  # of any log's package
            if log is not None:
                self._warn(type(log).__name__, error)
            return False
        return True

    def _warn(self, name: str, error: Exception) -> None:
        try:
            _logger.warning("the %s goes on without %s (%s)", self._what, name, error)
        except Exception:  # nobody reads it: a handler that writes to a closed standard error
            return
