"""Counting the distinct strategies that a search visits, anew or again after an interruption."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.runs.run_folder import Record


class RecordEvaluations(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps a record of every distinct strategy that the steps of this search visit.

    A strategy that the problem's memory knows, from a search before or from the recorded part of
    this one, costs no time and counts the same: what counts is what this search visits.

    Args:
        env: an environment of this package.
        recorded: what an interrupted run visited, in its order. An agent that starts again with
            the same seed visits them again, each looked up. Should it take another path, because
            versions or threads changed, then they all count as visited from there on.
        tell: is called with every record, and whether it is new.
        say: is told of another path.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        recorded: Sequence[Record],
        tell: Callable[[Record, bool], None],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(env)
        self.problem = problem_of(env)
        self.records: dict[tuple[int, ...], Record] = {}
        self.steps = 0
        self.steps_per_strategy = int(getattr(env.unwrapped, "steps_per_strategy", 1))
        self._recorded = list(recorded)
        self._tell = tell
        self._say = say
        self._finished = False
        self._begun = time.monotonic()
        remember = getattr(env.unwrapped, "remember", None)
        for record in recorded:
            self.problem.remember(record.evaluation)
            if remember:
                remember(record.evaluation.keep, record.reward)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and keep a record of the strategy, if it is new to this search."""
        result = self.env.step(action)
        if self._finished:
            return result
        self.steps += 1
        keep = tuple(int(count) for count in result[4]["keep"])
        whole = self.steps_per_strategy == 1 or result[2]  # what is half decided was not scored
        if whole and keep not in self.records and keep in self.problem.memory:
            self._visit(keep, float(result[1]), float(result[4]["budget"]))
        return result

    def finish(self) -> list[Record]:
        """Return all records in their order, those included that the agent did not visit again.

        Steps after it, by which an agent answers for a budget, are not counted any more.
        """
        self._count_recorded()
        self._finished = True
        return list(self.records.values())

    def _visit(self, keep: tuple[int, ...], reward: float, budget: float) -> None:
        index = len(self.records)
        if index < len(self._recorded):
            record = self._recorded[index]
            if record.evaluation.keep == keep:
                self._begun = time.monotonic() - record.seconds
                self._add(record, new=False)
                return
            self._say(
                f"from evaluation {index + 1} on the agent takes another path than it did before "
                "the interruption (other versions, threads or device?): what was scored is kept"
            )
            self._count_recorded()
            if keep in self.records:
                return
        seconds = round(time.monotonic() - self._begun, 3)
        evaluation = self.problem.memory[keep]
        record = Record(len(self.records) + 1, seconds, reward, budget, evaluation)
        self._add(record, new=True)

    def _count_recorded(self) -> None:
        for record in self._recorded[len(self.records) :]:
            self._add(record, new=False)
            self._begun = time.monotonic() - record.seconds

    def _add(self, record: Record, *, new: bool) -> None:
        self.records[record.evaluation.keep] = record
        self._tell(record, new)


def problem_of(env: gym.Env[Any, Any]) -> PruningProblem:
    """Return the pruning problem of an environment.

    Raises:
        ValueError: if it is not an environment of this package.
    """
    problem = getattr(env.unwrapped, "problem", None)
    if not isinstance(problem, PruningProblem):
        name = env.spec.id if env.spec else type(env.unwrapped).__name__
        raise ValueError(f"{name} is not an environment of lfgcl_env: see `lfgcl list`")
    return problem


def budgets_of(env: gym.Env[Any, Any]) -> tuple[float, float]:
    """Return the lowest and the highest budget of an environment's episodes."""
    low, high = env.unwrapped.budgets  # type: ignore[attr-defined]
    return low, high
