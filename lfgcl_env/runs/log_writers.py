"""The logs of a search: a progress bar, TensorBoard and Weights & Biases."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from lfgcl_env.edge.progress import Bar


class Log(Protocol):
    """Receives the values of every distinct strategy, and the agent's losses after it."""

    def write(self, evaluation: int, seconds: float, values: Mapping[str, float]) -> None:
        """Log values.

        Args:
            evaluation: how many distinct strategies were scored; never less than before.
            seconds: of search until then.
            values: by name.
        """

    def close(self) -> None:
        """Write out all there is."""


_FORM = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


class ProgressBar:
    """A bar on standard error with the best reward so far, and how busy workers are.

    Args:
        total: evaluations in all.
        bests: the values that hold the best reward, and what they are called, low to high.
        workers: that score strategies.
        busy: returns the seconds that these have worked, summed, or None if nobody knows.
    """

    def __init__(
        self,
        total: int,
        bests: Mapping[str, str],
        workers: int = 1,
        busy: Callable[[], float | None] = lambda: None,
    ) -> None:
        what = f"search, {workers} workers" if workers > 1 else "search"
        self._bar = Bar(total, " evaluations", desc=what, bar_format=_FORM)
        self._bests = bests
        self._workers, self._busy = workers, busy
        self._begun, self._before = time.monotonic(), busy()

    def write(self, evaluation: int, seconds: float, values: Mapping[str, float]) -> None:
        """Move on, and show the best reward, for a range at its lowest and highest budget."""
        bests = [f"{values[name]:.4f}{at}" for name, at in self._bests.items() if name in values]
        shown = [f"best reward {', '.join(dict.fromkeys((bests[0], bests[-1])))}"] if bests else []
        self._bar.set_postfix_str(", ".join(shown + self._occupation()), refresh=False)
        try:
            self._bar.update(evaluation - self._bar.n)
        except Exception:
            self._bar.disable = True  # or it would write once more when it is deleted
            raise

    def _occupation(self) -> list[str]:
        """Say which part of the search's time all workers were busy, if that is known."""
        now = self._busy()
        if now is None or self._before is None:
            return []
        passed = self._workers * (time.monotonic() - self._begun)
        return [f"workers {min((now - self._before) / passed, 1.0):.0%} busy"] if passed else []

    def close(self) -> None:
        """End the bar's line."""
        try:
            self._bar.close()
        finally:
            self._bar.disable = True


class TensorBoard:
    """An event file, written anew by a resumed run so that it shows the whole run.

    TensorBoard's own writer writes from a thread, which prints a traceback when the disk is full;
    this one writes at once and raises.

    Args:
        folder: of the event file.
        started: when the run was first begun; points lie at this time plus their seconds.

    Raises:
        OSError: if the folder cannot be written, or is a link.
    """

    def __init__(self, folder: Path, started: datetime) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import (  # type: ignore[import-untyped]
            RecordWriter,
        )

        if folder.is_symlink():
            raise OSError(f"{folder} is a link, which is not followed")
        folder.mkdir(exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._started = started.timestamp()
        self._event, self._summary = Event, Summary
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._add(Event(wall_time=self._started, file_version="brain.Event:2"))

    def write(self, evaluation: int, seconds: float, values: Mapping[str, float]) -> None:
        """Write every value as a scalar."""
        scalars = [self._summary.Value(tag=n, simple_value=float(v)) for n, v in values.items()]
        summary = self._summary(value=scalars)
        time_of_it = self._started + seconds
        self._add(self._event(wall_time=time_of_it, step=evaluation, summary=summary))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


class WandB:
    """A run of Weights & Biases; a resumed search is logged there as a whole new run.

    Args:
        folder: the run folder; names the run and holds wandb's files.
        arguments: of the search.

    Raises:
        ValueError: if wandb cannot start, mostly because there is no account.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project="lfgcl", name=folder.name, dir=str(folder), config=dict(arguments)
            )
        except wandb.Error as error:
            raise ValueError(
                f"wandb cannot start ({error}): run `wandb login`, or set WANDB_MODE=offline"
            ) from error

    def write(self, evaluation: int, seconds: float, values: Mapping[str, float]) -> None:
        """Log the values; wandb's step is the evaluation count."""
        self._run.log(dict(values), step=evaluation)

    def close(self) -> None:
        """End wandb's run."""
        self._run.finish()
