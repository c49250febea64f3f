"""Watching a search: a progress bar, TensorBoard and Weights & Biases, by evaluation count."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.runs import Record, RunFolder


class Log(Protocol):
    """What is told of every distinct strategy."""

    def add(self, record: Record, best: float) -> None:
        """Take a record in.

        Args:
            record: of the strategy.
            best: the highest similarity so far, this one included.
        """

    def close(self) -> None:
        """Write out all there is."""


class ProgressBar:
    """A bar on standard error with the best similarity so far.

    Args:
        total: evaluations in all.
    """

    def __init__(self, total: int) -> None:
        quiet = not sys.stderr.isatty()  # a file gets a line now and then, not ten a second
        self._bar = tqdm(total=total, unit="evaluation", mininterval=10 if quiet else 0.2)

    def add(self, record: Record, best: float) -> None:
        """Move on by one."""
        self._bar.set_postfix_str(f"best similarity {best:.4f}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()


class TensorBoard:
    """Event files, written anew by a resumed run so that they show it whole.

    Args:
        folder: of the event files.
        problem: names the groups.
        started: when the run was first begun; points lie at this time plus their seconds.

    Raises:
        OSError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, problem: PruningProblem, started: datetime) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._problem = problem
        self._started = started.timestamp()
        self._writer = SummaryWriter(log_dir=str(folder), flush_secs=20)  # type: ignore[no-untyped-call]

    def add(self, record: Record, best: float) -> None:
        """Write the values of :func:`_scalars`."""
        walltime = self._started + record.seconds
        for name, value in _scalars(record, best, self._problem).items():
            self._writer.add_scalar(name, value, record.index, walltime)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()  # type: ignore[no-untyped-call]


class WandB:
    """A run of Weights & Biases.

    Args:
        folder: the run folder; names the run and holds wandb's files.
        problem: names the groups.
        arguments: of the search.

    Raises:
        ImportError: if wandb is missing; names the extra to install.
        ValueError: if wandb cannot start, mostly for want of an account.
    """

    def __init__(self, folder: Path, problem: PruningProblem, arguments: Mapping[str, Any]) -> None:
        check_wandb()
        import wandb

        self._problem = problem
        try:
            self._run = wandb.init(
                project="lfgcl", name=folder.name, dir=str(folder), config=dict(arguments)
            )
        except wandb.Error as error:
            raise ValueError(
                f"wandb cannot start ({error}): run `wandb login`, or set WANDB_MODE=offline"
            ) from error

    def add(self, record: Record, best: float) -> None:
        """Log the values of :func:`_scalars`; a resumed search is a whole run of its own there."""
        self._run.log(_scalars(record, best, self._problem), step=record.index)

    def close(self) -> None:
        """End wandb's run."""
        self._run.finish()


class Logs:
    """Several logs as one, which also knows the best similarity.

    Args:
        logs: to tell everything.
    """

    def __init__(self, logs: Sequence[Log]) -> None:
        self._logs = list(logs)
        self._best = float("-inf")

    def add(self, record: Record) -> None:
        """Tell every log."""
        self._best = max(self._best, record.evaluation.similarity)
        for log in self._logs:
            log.add(record, self._best)

    def close(self) -> None:
        """Close every log."""
        for log in self._logs:
            log.close()


def open_logs(
    run: RunFolder | None,
    problem: PruningProblem,
    *,
    total: int,
    arguments: Mapping[str, Any],
    progress: bool,
    wandb: bool,
    say: Callable[[str], None],
) -> Logs:
    """Open the logs that were asked for and are possible; see their classes for arguments.

    Args:
        run: the run folder; None for none, and then no files.
        problem: what is pruned.
        total: evaluations in all.
        arguments: of the search.
        progress: show a progress bar.
        wandb: log to Weights & Biases too.
        say: is told how to get what is not installed.
    """
    logs: list[Log] = []
    if run and wandb:
        logs.append(WandB(run.path, problem, arguments))
    if run and find_spec("tensorboard") is not None:
        logs.append(TensorBoard(run.path / "tensorboard", problem, run.started))
    elif run:
        say("no TensorBoard log: run `pip install tensorboard` to get one")
    if progress:
        logs.append(ProgressBar(total))
    return Logs(logs)


def check_wandb() -> None:
    """Make sure that wandb is there.

    Raises:
        ImportError: if it is missing; names the extra to install.
    """
    if find_spec("wandb") is None:
        raise ImportError("logging to wandb needs wandb: run `pip install lfgcl-env[wandb]`")


def _scalars(record: Record, best: float, problem: PruningProblem) -> dict[str, float]:
    """All that is logged: similarity, cost and every group's share of kept channels."""
    evaluation = record.evaluation
    keep_ratios = zip(problem.groups, evaluation.keep, strict=True)
    return {
        "search/reward": record.reward,
        "search/similarity": evaluation.similarity,
        "search/best_similarity": best,
        "search/macs_ratio": evaluation.macs_ratio,
        "search/params_ratio": evaluation.params_ratio,
        "search/seconds": record.seconds,
        **{f"keep_ratio/{group.name}": kept / group.channels for group, kept in keep_ratios},
    }
