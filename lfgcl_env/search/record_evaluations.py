"""Recording the distinct strategies that a search visits, also when it is resumed."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym

from lfgcl_env.edge.executors import Submits
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.runs.record import Record

_logger = logging.getLogger(__name__)

_REWARDS_KEPT = (gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)
"""The wrappers of ``gym.make``, which leave rewards as they are."""


class Recorder:
    """The strategies that a search visits, in their order.

    Copies of an environment that records here record here too.

    Args:
        problem: what is pruned.
        recorded: see :class:`RecordEvaluations`.
        on_record: see :class:`RecordEvaluations`.
        most: see :class:`RecordEvaluations`.
    """

    def __init__(
        self,
        problem: PruningProblem,
        recorded: Sequence[Record],
        on_record: Callable[[Record, bool], None],
        most: int | None,
    ) -> None:
        self.records: dict[tuple[int, ...], Record] = {}
        self.steps = 0
        self.finished = False
        self._problem, self._recorded, self._most = problem, list(recorded), most
        self._on_record = on_record
        self._begun = time.monotonic()

    def __deepcopy__(self, memo: object) -> "Recorder":
        return self

    @property
    def records_left(self) -> int | None:
        """How many records may still be made; None for any number."""
        return None if self._most is None else self._most - len(self.records)

    def visit(self, keep: tuple[int, ...], reward: float, budget: float) -> None:
        """Record a strategy, unless it is known or there are as many as are wanted."""
        index = len(self.records)
        if keep in self.records or index == self._most:
            return
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
        evaluation = self._problem.evaluate(keep)
        self._add(Record(len(self.records) + 1, seconds, reward, budget, evaluation), new=True)

    def finish(self) -> list[Record]:
        """Return all records, including those that were not visited again, and record no more."""
        self._count_recorded()
        self.finished = True
        return list(self.records.values())

    def _count_recorded(self) -> None:
        for record in self._recorded[len(self.records) :]:
            self._problem.evaluate(record.evaluation.keep)  # looked up, so that it is counted
            self._add(record, new=False)
            self._begun = time.monotonic() - record.seconds

    def _add(self, record: Record, *, new: bool) -> None:
        self.records[record.evaluation.keep] = record
        self._on_record(record, new)


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
        most: records after which no more are made; None: any number.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        recorded: Sequence[Record],
        on_record: Callable[[Record, bool], None],
        most: int | None = None,
    ) -> None:
        super().__init__(env)
        self.problem = problem_of(env)
        self.steps_per_strategy = int(getattr(env.unwrapped, "steps_per_strategy", 1))
        self._recorder = Recorder(self.problem, recorded, on_record, most)
        self._return = 0.0
        remember = getattr(env.unwrapped, "remember", None) if _rewards_are_exact(env) else None
        for record in recorded:
            self.problem.remember(record.evaluation)
            if remember:
                remember(record.evaluation.keep, record.reward)

    @property
    def records(self) -> dict[tuple[int, ...], Record]:
        """The records so far, by strategy."""
        return self._recorder.records

    @property
    def records_left(self) -> int | None:
        """How many records may still be made; None for any number."""
        return self._recorder.records_left

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return self._recorder.steps

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._return = 0.0
        return self.env.reset(**arguments)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and record the strategy, if it is new to this search."""
        result = self.env.step(action)
        if self._recorder.finished:
            return result
        self._recorder.steps += 1
        self._return += float(result[1])
        keep = tuple(int(count) for count in result[4]["keep"])
        if self.steps_per_strategy == 1 or result[2]:
            self._recorder.visit(keep, self._return, float(result[4]["budget"]))
        return result

    def finish(self) -> list[Record]:
        """Return all records in their order, including those that the agent did not visit again.

        Later steps, in which an agent predicts a strategy for a budget, are not recorded.
        """
        return self._recorder.finish()


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


def engine_of(env: gym.Env[Any, Any]) -> Submits | None:
    """Return the executor of an environment's workers; None for this process."""
    engine: Submits | None = env.unwrapped.engine  # type: ignore[attr-defined]
    return engine


def budgets_of(env: gym.Env[Any, Any]) -> tuple[float, float]:
    """Return the lowest and the highest budget of an environment's episodes."""
    low, high = env.unwrapped.budgets  # type: ignore[attr-defined]
    return low, high
