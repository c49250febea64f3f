"""Watching a search: a progress bar, TensorBoard and Weights & Biases, by evaluation count.

A log never ends a search: one that fails, on a closed terminal or a full disk, is dropped with one
warning.
"""

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.runs.run_folder import Record, RunFolder

_logger = logging.getLogger(__name__)


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


class _Bar(tqdm):  # type: ignore[type-arg]
    monitor_interval = 0  # no thread, whose errors nobody could catch


class ProgressBar:
    """A bar on standard error with the best reward so far.

    Args:
        total: evaluations in all.
        bests: the values that hold the best reward, and what they are called, low to high.
    """

    def __init__(self, total: int, bests: Mapping[str, str]) -> None:
        quiet = not sys.stderr.isatty()  # a file gets a line now and then, not ten a second
        self._bar = _Bar(
            total=total, unit="evaluation", mininterval=10 if quiet else 0.2, miniters=1
        )
        self._bests = bests

    def write(self, evaluation: int, seconds: float, values: Mapping[str, float]) -> None:
        """Move on, and show the best reward, for a range at its lowest and highest budget."""
        bests = [f"{values[name]:.4f}{at}" for name, at in self._bests.items() if name in values]
        if bests:
            shown = ", ".join(dict.fromkeys((bests[0], bests[-1])))
            self._bar.set_postfix_str(f"best reward {shown}", refresh=False)
        try:
            self._bar.update(evaluation - self._bar.n)
        except Exception:
            self._bar.disable = True  # or it would write once more when it is deleted
            raise

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
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

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
        ImportError: if wandb is missing; names the extra to install.
        ValueError: if wandb cannot start, mostly because there is no account.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        check_wandb()
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


class Logs:
    """Several logs as one, which also keeps the best rewards.

    Args:
        logs: each receives everything.
        problem: names the groups.
        budgets: those to keep the best reward for; rewards on different budgets cannot be compared.
    """

    def __init__(
        self, logs: Sequence[Log], problem: PruningProblem, budgets: Sequence[float]
    ) -> None:
        self._logs = list(logs)
        self._problem = problem
        self._budgets = budgets
        self._bests: dict[str, float] = {}
        self._seconds = 0.0
        self._losses_at = 0

    def add(self, record: Record) -> None:
        """Log a distinct strategy."""
        evaluation = record.evaluation
        for budget in self._budgets:
            if evaluation.meets(budget, self._problem.budget_metric):
                name = _best_name(budget, self._budgets)
                self._bests[name] = max(self._bests.get(name, record.reward), record.reward)
        values = {
            "search/reward": record.reward,
            **self._bests,
            "search/similarity": evaluation.similarity,
            "search/macs_ratio": evaluation.macs_ratio,
            "search/params_ratio": evaluation.params_ratio,
            "search/seconds": record.seconds,
        }
        if len(self._budgets) > 1:
            values["search/budget"] = record.budget
        for group, kept in zip(self._problem.groups, evaluation.keep, strict=True):
            values[f"keep_ratio/{group.name}"] = kept / group.channels
        self._seconds = record.seconds
        self._write(record.index, values)

    def add_losses(self, losses: Mapping[str, float], evaluation: int) -> None:
        """Log an agent's losses after an evaluation, once for each evaluation."""
        if losses and evaluation > self._losses_at:
            self._losses_at = evaluation
            self._write(evaluation, {f"losses/{name}": value for name, value in losses.items()})

    def close(self) -> None:
        """Close every log."""
        for log in self._logs:
            _attempt(log.close, log)
        self._logs = []

    def _write(self, evaluation: int, values: Mapping[str, float]) -> None:
        for log in list(self._logs):
            if not _attempt(lambda log=log: log.write(evaluation, self._seconds, values), log):
                self._logs.remove(log)
                _attempt(log.close)


def _attempt(act: Callable[[], object], log: object = None) -> bool:
    """Return whether a log could be written; warn where it could not and ``log`` is given."""
    try:
        act()
    except Exception as error:  # of any log's package
        if log is not None:
            _warn(type(log).__name__, error)
        return False
    return True


def _warn(name: str, error: Exception) -> None:
    try:
        _logger.warning("the search goes on without %s (%s)", name, error)
    except Exception:  # nobody reads it: a handler that writes to a closed standard error
        return


def losses_of(agent: Any) -> dict[str, float]:
    """Return an agent's latest losses: its ``losses``, or what it logs as ``train/``.

    The latter is how Stable-Baselines3's agents record theirs. They learn after the callback that
    follows a step, so that these losses were recorded after the step before.
    """
    found = getattr(agent, "losses", None)
    if not isinstance(found, Mapping):
        recorded = getattr(getattr(agent, "logger", None), "name_to_value", {})
        found = {
            name.removeprefix("train/"): value
            for name, value in recorded.items()
            if name.startswith("train/")
        }
    return {str(name): float(value) for name, value in found.items() if isinstance(value, Real)}


def open_logs(
    run: RunFolder | None,
    problem: PruningProblem,
    budgets: Sequence[float],
    *,
    total: int,
    progress: bool,
    wandb: bool,
) -> Logs:
    """Open the logs that were asked for and are possible; see their classes for arguments.

    Args:
        run: the run folder; None for none, and then no files.
        problem: what is pruned.
        budgets: those to keep the best reward for.
        total: evaluations in all.
        progress: show a progress bar.
        wandb: log to Weights & Biases too.
    """
    logs: list[Log] = []
    if run and wandb:
        logs.append(WandB(run.path, run.asked()))
    if run and find_spec("tensorboard") is None:
        _logger.info("no TensorBoard log: run `pip install tensorboard` to get one")
    elif run:
        path, started = run.path / "tensorboard", run.started
        _open(logs, TensorBoard, lambda: TensorBoard(path, started))
    if progress and sys.stderr is not None:
        several = len(budgets) > 1
        bests = {
            _best_name(budget, budgets): f" at {label(budget)}" if several else ""
            for budget in budgets
        }
        _open(logs, ProgressBar, lambda: ProgressBar(total, bests))
    return Logs(logs, problem, budgets)


def _open(logs: list[Log], kind: type[Log], make: Callable[[], Log]) -> None:
    """Add a log that can be opened; warn of one that cannot."""
    try:
        logs.append(make())
    except Exception as error:
        _warn(kind.__name__, error)


def _best_name(budget: float, budgets: Sequence[float]) -> str:
    return f"sweep/best_{label(budget)}" if len(budgets) > 1 else "search/best_reward"


def check_wandb() -> None:
    """Make sure that wandb is there.

    Raises:
        ImportError: if it is missing; names the extra to install.
    """
    if find_spec("wandb") is None:
        raise ImportError("logging to wandb needs wandb: run `pip install lfgcl-env[wandb]`")
