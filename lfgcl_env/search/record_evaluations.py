"""Recording the distinct strategies that a search visits, also when it is resumed."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.runs.record import Record

_logger = logging.getLogger(__name__)

_REWARDS_KEPT = (gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)
"""The wrappers of ``gym.make``, which leave rewards as they are."""


class RecordEvaluations(gym.Wrapper[Any, Any, Any, Any]):
    """Record every distinct strategy that the steps of this search visit, with its reward.

    A strategy's reward is the return of the episode up to the step that scored it. A strategy that
    the problem remembers, from an earlier search or from the recorded part of this one, takes no
    time and counts the same: what counts is what this search visits.

    Args:
        env: an environment of this package, wrapped or not.
        recorded: the records of an interrupted run, in their order. An agent that starts again
            with the same seed visits the same strategies, each of which is looked up. If it takes
            another path, because versions or threads changed, all of them count as visited.
        on_record: called with every record, and whether it is new.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        recorded: Sequence[Record],
        on_record: Callable[[Record, bool], None],
    ) -> None:
        super().__init__(env)
        self.problem = problem_of(env)
        self.records: dict[tuple[int, ...], Record] = {}
        self.steps = 0
        self.steps_per_strategy = int(getattr(env.unwrapped, "steps_per_strategy", 1))
        self._return = 0.0
        self._recorded = list(recorded)
        self._on_record = on_record
        self._finished = False
        self._begun = time.monotonic()
        remember = getattr(env.unwrapped, "remember", None) if _rewards_are_exact(env) else None
        for record in recorded:
            self.problem.remember(record.evaluation)
            if remember:
                remember(record.evaluation.keep, record.reward)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._return = 0.0
        return self.env.reset(**arguments)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and record the strategy, if it is new to this search."""
        result = self.env.step(action)
        if self._finished:
            return result
        self.steps += 1
        self._return += float(result[1])
        keep = tuple(int(count) for count in result[4]["keep"])
        complete = self.steps_per_strategy == 1 or result[2]
        if complete and keep not in self.records:
            self._visit(keep, float(result[4]["budget"]))
        return result

    def finish(self) -> list[Record]:
        """Return all records in their order, including those that the agent did not visit again.

        Later steps, in which an agent predicts a strategy for a budget, are not recorded.
        """
        self._count_recorded()
        self._finished = True
        return list(self.records.values())

    def _visit(self, keep: tuple[int, ...], budget: float) -> None:
        index = len(self.records)
        if index < len(self._recorded):
            record = self._recorded[index]
            if record.evaluation.keep == keep:
                self._begun = time.monotonic() - record.seconds
                self._add(record, new=False)
                return
            _logger.warning(
                "from evaluation %d on the agent takes another path than before the interruption "
                "(other versions, threads or device?); all recorded evaluations are kept",
                index + 1,
            )
            self._count_recorded()
            if keep in self.records:
                return
        seconds = round(time.monotonic() - self._begun, 3)
        evaluation = self.problem.evaluate(keep)
        record = Record(len(self.records) + 1, seconds, self._return, budget, evaluation)
        self._add(record, new=True)

    def _count_recorded(self) -> None:
        for record in self._recorded[len(self.records) :]:
            self.problem.evaluate(record.evaluation.keep)  # looked up, so that it is counted
            self._add(record, new=False)
            self._begun = time.monotonic() - record.seconds

    def _add(self, record: Record, *, new: bool) -> None:
        self.records[record.evaluation.keep] = record
        self._on_record(record, new)


def _rewards_are_exact(env: gym.Env[Any, Any]) -> bool:
    """Return whether recorded rewards are what the unwrapped environment would return again.

    A wrapper may have changed them, and sums of several gains are rounded.
    """
    while isinstance(env, gym.Wrapper):
        if not isinstance(env, _REWARDS_KEPT):
            return False
        env = env.env
    return int(getattr(env, "horizon", 1)) == 1


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
