"""Scoring strategies ahead of the steps that lead to them, by workers, and cheap scores."""

from collections.abc import Iterable
from copy import copy, deepcopy
from typing import Any, Self

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfgcl_env.edge.executors import Submits
from lfgcl_env.envs.choice import Choice
from lfgcl_env.envs.reward import OnScored, StrategyReward
from lfgcl_env.envs.workers import Workers
from lfgcl_env.pruning.problem import PruningProblem

Observation = NDArray[np.float32]
Action = NDArray[np.floating[Any]]


class ScoringAhead(gym.Env[Observation, Action]):
    """An environment whose strategies workers score before steps lead to them.

    Attributes:
        problem: what is pruned.
    """

    problem: PruningProblem
    _workers: Workers
    _reward: StrategyReward

    @property
    def budget(self) -> float:
        """This episode's budget."""
        raise NotImplementedError

    @property
    def workers(self) -> int:
        """How many strategies are scored together, by what :meth:`begin` and others begin."""
        return self._workers.count

    @property
    def engine(self) -> Submits | None:
        """The executor of the workers; None for this process."""
        return self._workers.executor

    @property
    def busy_seconds(self) -> float | None:
        """Seconds that workers spent on tasks, summed; None where they are not this package's."""
        return self._workers.busy_seconds

    @property
    def on_scored(self) -> OnScored | None:
        """What is called with the evaluation and the score of every strategy that workers score.

        Their threads call it as soon as a score is there. Twins share it, copies have none.
        """
        return self._workers.on_scored

    @on_scored.setter
    def on_scored(self, call: OnScored | None) -> None:
        self._workers.on_scored = call

    @property
    def screens(self) -> bool:
        """Whether :meth:`screen` costs far less than a step."""
        return self.problem.screens

    def screen(self, actions: ArrayLike, budget: float | None = None) -> NDArray[np.float64]:
        """Score whole strategies cheaply, to choose which of them to execute.

        Args:
            actions: prune ratios in [0, 1]; (strategies, groups).
            budget: that they are projected onto; None for this episode's.

        Returns:
            The higher, the more is promised; see :meth:`PruningProblem.screen`. float64,
            (strategies,).

        Raises:
            ValueError: for a wrong shape, NaN, entries outside [0, 1], or an unreachable budget.
        """
        budget = self.budget if budget is None else budget
        ratios = np.atleast_2d(np.asarray(actions))
        strategies = [self.problem.project(one, budget) for one in ratios]
        return self.problem.screen(strategies, self._workers.executor)

    def upcoming(self, action: Action) -> NDArray[np.int64] | None:
        """Return the strategy that a step with an action would score, or None if it scores none.

        Args:
            action: as :meth:`step` takes it, which refuses what it does not take.
        """
        raise NotImplementedError

    def begin(self, strategies: Iterable[ArrayLike]) -> None:
        """Have the workers begin to score strategies; steps that lead to them wait for these.

        Without workers this does nothing. No step has another result after it, so what is begun and
        never executed costs time alone. :meth:`give_up` ends it.

        Args:
            strategies: channels kept in every group, each.

        Raises:
            ValueError: if one is no strategy of this problem.
        """
        self._workers.begin(strategies, self._reward)

    def begin_choice(self, choice: Choice) -> None:
        """Have a worker screen a choice's actions on this episode's budget, and score the best.

        Where :meth:`scores_of` is then asked for the choice it waits for the worker, as does the
        step with the best action. See :meth:`begin`.

        Args:
            choice: one that was begun before is not begun again.

        Raises:
            ValueError: for a wrong shape, NaN, or entries outside [0, 1].
        """
        keeps = [self.problem.project(one, self.budget) for one in choice.actions]
        self._workers.begin_choice(
            choice, [tuple(keep.tolist()) for keep in keeps], self.problem, self._reward
        )

    def scores_of(self, choice: Choice) -> NDArray[np.float64]:
        """Return the cheap scores of a choice's actions, see :meth:`screen`; float64, (actions,).

        Raises:
            ValueError: for a wrong shape, NaN, or entries outside [0, 1].
            WorkerDied: if it ended several workers.
        """
        found = self._workers.take(choice)
        if found is None or found.scores is None:
            return self.screen(choice.actions)
        self.problem.remember_screened(dict(zip(found.keeps, found.scores.tolist(), strict=True)))
        return found.scores

    def prefetch(self, strategies: Iterable[ArrayLike]) -> None:
        """Have the workers score strategies together; steps that lead to them look them up.

        See :meth:`begin`, which returns at once.

        Args:
            strategies: channels kept in every group, each.

        Raises:
            ValueError: if one is no strategy of this problem, or the reward fails.
            WorkerDied: if one ended several workers.
        """
        keeps = [self.problem.network.check_strategy(strategy) for strategy in strategies]
        self.begin(keeps)
        for keep in keeps:
            self._workers.wait(tuple(keep.tolist()))

    def give_up(self, *, at_once: bool = False) -> None:
        """Cancel what the workers were asked to score and no step has led to.

        Args:
            at_once: whether to end also what they are at; everything, where others share them.
        """
        self._workers.give_up(at_once=at_once)

    @property
    def shared(self) -> tuple[object, ...]:
        """What :meth:`twin` shares and wrappers may hold."""
        return self.problem, self._workers, self._workers.executor

    def twin(self) -> Self:
        """Return an environment before its first reset that shares problem, scores and workers."""
        other = copy(self)  # which shares all that is not set here
        other._np_random = other._np_random_seed = None
        other.action_space = deepcopy(self.action_space)
        other.observation_space = deepcopy(self.observation_space)
        return other
