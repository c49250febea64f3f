"""Log a search by evaluation count: what is logged, and to which logs."""

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from numbers import Real
from typing import Any

from lfgcl_env.edge.progress import is_shown
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.runs.log_group import LogGroup
from lfgcl_env.runs.log_writers import ProgressBar, TensorBoard, WandB
from lfgcl_env.runs.record import Record
from lfgcl_env.runs.run_folder import RunFolder

_logger = logging.getLogger(__name__)


class Logs:
    """Several logs as one, which also keeps the best rewards.

    Args:
        logs: each receives everything.
        problem: names the groups.
        budgets: those to keep the best reward for; rewards on different budgets cannot be compared.
    """

    def __init__(self, logs: LogGroup, problem: PruningProblem, budgets: Sequence[float]) -> None:
        self._logs = logs
        self._problem = problem
        self._budgets = budgets
        self._bests: dict[str, float] = {}
        self._seconds = 0.0
        self._losses_at = 0

    def add(self, record: Record) -> None:
        """Log a distinct strategy."""
        evaluation = record.evaluation
        for budget in self._budgets:
            if self._problem.meets(evaluation.keep, budget):
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
        self._logs.close()

    def _write(self, evaluation: int, values: Mapping[str, float]) -> None:
        self._logs.write(evaluation, self._seconds, values)


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
    workers: int = 1,
    busy: Callable[[], float | None] = lambda: None,
) -> Logs:
    """Open the logs that were asked for and are possible; see their classes for arguments.

    Args:
        run: the run folder; None for none, and then no files.
        problem: what is pruned.
        budgets: those to keep the best reward for.
        total: evaluations in all.
        progress: show a progress bar, unless it was hidden.
        wandb: log to Weights & Biases too.
        workers: that score strategies, for the progress bar.
        busy: returns the seconds that these have worked, summed, or None if nobody knows.
    """
    logs = LogGroup("search")
    if run and wandb:
        logs.add(WandB(run.path, run.described()["arguments"]))
    if run and find_spec("tensorboard") is None:
        _logger.info("no TensorBoard log: run `pip install tensorboard` to get one")
    elif run:
        path, started = run.path / "tensorboard", run.started
        logs.open(TensorBoard, lambda: TensorBoard(path, started))
    if is_shown(progress):
        several = len(budgets) > 1
        bests = {
            _best_name(budget, budgets): f" at {label(budget)}" if several else ""
            for budget in budgets
        }
        logs.open(ProgressBar, lambda: ProgressBar(total, bests, workers, busy))
    return Logs(logs, problem, budgets)


def _best_name(budget: float, budgets: Sequence[float]) -> str:
    return f"sweep/best_{label(budget)}" if len(budgets) > 1 else "search/best_reward"


def check_wandb() -> None:
    """Make sure that wandb is there.

    Raises:
        ImportError: if it is missing; names the extra to install.
    """
    if find_spec("wandb") is None:
        raise ImportError("logging to wandb needs wandb: run `pip install lfgcl-env[wandb]`")
