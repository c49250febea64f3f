"""Watching a search: a progress bar, TensorBoard and Weights & Biases, by evaluation count."""

import sys
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


class Log(Protocol):
    """What is told of every distinct strategy, and of the agent's losses after it."""

    def write(self, evaluation: int, seconds: float, values: Mapping[str, float]) -> None:
        """Take values in.

        Args:
            evaluation: how many distinct strategies were scored; never less than before.
            seconds: of search until then.
            values: by name.
        """

    def close(self) -> None:
        """Write out all there is."""


class ProgressBar:
    """A bar on standard error with the best similarity so far.

    Args:
        total: evaluations in all.
        bests: the values that hold the best similarity, and what they are called, low to high.
    """

    def __init__(self, total: int, bests: Mapping[str, str]) -> None:
        quiet = not sys.stderr.isatty()  # a file gets a line now and then, not ten a second
        self._bar = tqdm(total=total, unit="evaluation", mininterval=10 if quiet else 0.2)
        self._bests = bests

    def write(self, evaluation: int, seconds: float, values: Mapping[str, float]) -> None:
        """Move on, and show the best similarity, for a range at its lowest and highest budget."""
        bests = [f"{values[name]:.4f}{at}" for name, at in self._bests.items() if name in values]
        if bests:
            shown = ", ".join(dict.fromkeys((bests[0], bests[-1])))
            self._bar.set_postfix_str(f"best similarity {shown}", refresh=False)
        self._bar.update(evaluation - self._bar.n)

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()


class TensorBoard:
    """Event files, written anew by a resumed run so that they show it whole.

    Args:
        folder: of the event files.
        started: when the run was first begun; points lie at this time plus their seconds.

    Raises:
        OSError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, started: datetime) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._started = started.timestamp()
        self._writer = SummaryWriter(log_dir=str(folder), flush_secs=20)  # type: ignore[no-untyped-call]

    def write(self, evaluation: int, seconds: float, values: Mapping[str, float]) -> None:
        """Write every value as a scalar."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, evaluation, self._started + seconds)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()  # type: ignore[no-untyped-call]


class WandB:
    """A run of Weights & Biases; a resumed search is a whole run of its own there.

    Args:
        folder: the run folder; names the run and holds wandb's files.
        arguments: of the search.

    Raises:
        ImportError: if wandb is missing; names the extra to install.
        ValueError: if wandb cannot start, mostly for want of an account.
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
    """Several logs as one, which also knows the best similarities.

    Args:
        logs: to tell everything.
        problem: names the groups.
        budgets: those to know the best similarity for; similarities on different budgets cannot be
            compared.
    """

    def __init__(self, logs: Sequence[Log], problem: PruningProblem, budgets: Sequence[float]):
        self._logs = list(logs)
        self._problem = problem
        self._budgets = budgets
        self._bests: dict[str, float] = {}
        self._seconds = 0.0
        self._losses_at = 0

    def add(self, record: Record) -> None:
        """Tell every log of a distinct strategy."""
        evaluation = record.evaluation
        for budget in self._budgets:
            if evaluation.meets(budget, self._problem.budget_metric):
                name = _best_name(budget, self._budgets)
                best = self._bests.get(name, evaluation.similarity)
                self._bests[name] = max(best, evaluation.similarity)
        values = {
            "search/reward": record.reward,
            "search/similarity": evaluation.similarity,
            **self._bests,
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
        """Tell every log what an agent's losses are after an evaluation, once for each."""
        if losses and evaluation > self._losses_at:
            self._losses_at = evaluation
            self._write(evaluation, {f"losses/{name}": value for name, value in losses.items()})

    def close(self) -> None:
        """Close every log."""
        for log in self._logs:
            log.close()

    def _write(self, evaluation: int, values: Mapping[str, float]) -> None:
        for log in self._logs:
            log.write(evaluation, self._seconds, values)


def losses_of(agent: Any) -> dict[str, float]:
    """What an agent says of its learning: its ``losses``, or what it logs as ``train/``.

    The latter is how Stable-Baselines3's agents record theirs. They learn after the callback that
    follows a step, so that what is found there was recorded after the step before.
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
    arguments: Mapping[str, Any],
    progress: bool,
    wandb: bool,
    say: Callable[[str], None],
) -> Logs:
    """Open the logs that were asked for and are possible; see their classes for arguments.

    Args:
        run: the run folder; None for none, and then no files.
        problem: what is pruned.
        budgets: those to know the best similarity for.
        total: evaluations in all.
        arguments: of the search.
        progress: show a progress bar.
        wandb: log to Weights & Biases too.
        say: is told how to get what is not installed.
    """
    logs: list[Log] = []
    if run and wandb:
        logs.append(WandB(run.path, arguments))
    if run and find_spec("tensorboard") is not None:
        logs.append(TensorBoard(run.path / "tensorboard", run.started))
    elif run:
        say("no TensorBoard log: run `pip install tensorboard` to get one")
    if progress:
        several = len(budgets) > 1
        bests = {
            _best_name(budget, budgets): f" at {label(budget)}" if several else ""
            for budget in budgets
        }
        logs.append(ProgressBar(total, bests))
    return Logs(logs, problem, budgets)


def _best_name(budget: float, budgets: Sequence[float]) -> str:
    return f"sweep/best_{label(budget)}" if len(budgets) > 1 else "search/best_similarity"


def check_wandb() -> None:
    """Make sure that wandb is there.

    Raises:
        ImportError: if it is missing; names the extra to install.
    """
    if find_spec("wandb") is None:
        raise ImportError("logging to wandb needs wandb: run `pip install lfgcl-env[wandb]`")
