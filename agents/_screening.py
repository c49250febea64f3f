"""Screening: cheap scores choose which of several proposals is worth an evaluation.

Where an environment's step is costly it offers cheap scores besides (``env.unwrapped.screen``).
They may rank what is rewarded well, badly, or the other way round, so a search goes by them only as
long as they have ranked the strategies that it executed: a rank correlation above zero.

Multi-fidelity search by such pre-selection is known from surrogate-assisted evolution (Jin, A
comprehensive survey of fitness approximation in evolutionary computation, Soft Computing 2005).
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lfgcl_env.envs.choice import Choice, highest

PROPOSALS = 4
"""Proposals that are screened for every evaluation."""

_DEGREE = 3
"""Of the polynomial of budgets."""

_LEAST = 1e-9
"""Span of scores below which they are equal."""

_FEWEST = 8
"""Executed strategies before which cheap scores are trusted as they are."""

_LATEST = 64
"""Executed strategies that decide whether they are trusted."""


class Screening:
    """Cheap scores of an environment, and whether they have ranked its rewards so far.

    A wrapper may change actions: once what is executed is not what was screened, nothing is
    screened any more.

    Args:
        env: any environment; one that offers no cheap scores is never screened.
        wanted: whether the search screens at all.
    """

    def __init__(self, env: gym.Env[Any, Any], *, wanted: bool = True) -> None:
        offered = wanted and getattr(env.unwrapped, "screens", False)
        self._own: Any = env.unwrapped if offered else None
        self._executed: list[tuple[float, float, float]] = []

    @property
    def offered(self) -> bool:
        """Whether the environment has cheap scores."""
        return self._own is not None

    def trust(self) -> float:
        """Return how far cheap scores have ranked rewards: Spearman's correlation, at least 0.

        Where budgets differ, both are relative to what is usual on their budget, a polynomial.

        Returns:
            0 where nothing is screened, 1 before there are strategies enough to say.
        """
        if self._own is None or len(self._executed) < _FEWEST:
            return float(self.offered)
        budgets, cheap, rewards = np.array(self._executed[-_LATEST:]).T
        degree = min(_DEGREE, len(set(budgets.tolist())) - 1)
        cheap, rewards = (
            values - np.polyval(np.polyfit(budgets, values, degree), budgets)
            for values in (cheap, rewards)
        )
        if min(np.ptp(cheap), np.ptp(rewards)) < _LEAST:
            return 0.0
        return max(0.0, float(np.corrcoef(_ranks(cheap), _ranks(rewards))[0, 1]))

    def scores(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """Return the cheap scores of proposals on this episode's budget.

        Args:
            actions: prune ratios; (proposals, groups).
        """
        scores: NDArray[np.float64] = self._own.screen(actions)
        return scores

    def choice(
        self, proposals: NDArray[Any], best: Callable[[NDArray[np.float64]], int] = highest
    ) -> Choice:
        """Return what is to be executed of proposals, the first of which is the default.

        Args:
            proposals: prune ratios; (proposals, groups).
            best: see :class:`~lfgcl_env.envs.choice.Choice`.
        """
        return Choice(proposals, best) if self.trust() else Choice(proposals[:1])

    def ahead(self, choice: Choice) -> Choice | NDArray[Any]:
        """Return what workers are to begin: a choice, or its only action where none is screened."""
        return choice if self.offered else choice.actions[0]

    def decide(self, choice: Choice) -> tuple[int, NDArray[np.float64] | None]:
        """Wait for the cheap scores of a choice.

        Returns:
            The place of the action to execute, and the scores; the first and None where nothing is
            screened.
        """
        if self._own is None:
            return 0, None
        scores: NDArray[np.float64] = self._own.scores_of(choice)
        return choice.best(scores), scores

    def keep_ratios(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Return what would be kept of every group on this episode's budget.

        Args:
            actions: prune ratios; (proposals, groups).
        """
        ratios = [self._own.problem.prune_ratios(keep) for keep in self._project(actions)]
        return np.asarray(1.0 - np.array(ratios), np.float32)

    def learn(self, action: NDArray[Any], info: dict[str, Any], reward: float) -> float | None:
        """Note what a strategy was rewarded that was not executed before.

        Args:
            action: that was given to the environment; (groups,).
            info: of the step.
            reward: the strategy's return.

        Returns:
            Its cheap score, or None where nothing is screened.
        """
        if self._own is None:
            return None
        if not np.array_equal(self._project(action[None])[0], info["keep"]):
            self._own = None  # a wrapper changes actions
            return None
        cheap = float(self.scores(action[None])[0])
        self._executed.append((float(info["budget"]), cheap, reward))
        return cheap

    def _project(self, actions: NDArray[Any]) -> list[NDArray[np.int64]]:
        return [self._own.problem.project(one, self._own.budget) for one in actions]

    def state(self) -> NDArray[np.float64]:
        """Return what was executed: budgets, cheap scores and rewards; (strategies, 3)."""
        return np.array(self._executed, np.float64).reshape(-1, 3)

    def restore(self, state: NDArray[np.float64]) -> None:
        """Go on from what :meth:`state` returned."""
        self._executed = [(budget, cheap, reward) for budget, cheap, reward in state.tolist()]


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks, equal values sharing their mean rank.

    >>> _ranks(np.array([5.0, 1.0, 5.0]))
    array([1.5, 0. , 1.5])
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts + 1) / 2)[places]
    return ranks
