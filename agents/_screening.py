"""Screening: cheap scores choose which of several proposals is worth an evaluation.

Where an environment's step is costly it offers cheap scores besides (``env.unwrapped.screen``).
They may rank what is rewarded well, badly, or the other way round, so a search goes by them only as
long as they have ranked the strategies that it executed: a rank correlation above zero.

Multi-fidelity search by such pre-selection is known from surrogate-assisted evolution (Jin, A
comprehensive survey of fitness approximation in evolutionary computation, Soft Computing 2005).
"""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

PROPOSALS = 4
"""Proposals that are screened for every evaluation."""

_FEWEST = 8
"""Executed strategies before which cheap scores are trusted as they are."""

_LATEST = 64
"""Executed strategies that decide whether they are trusted."""


class Screening:
    """Cheap scores of an environment, and whether they have ranked its rewards so far.

    Args:
        env: any environment; one that offers no cheap scores is never screened.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._own: Any = env.unwrapped if getattr(env.unwrapped, "screens", False) else None
        self._executed: dict[float, list[tuple[float, float]]] = {}

    @property
    def offered(self) -> bool:
        """Whether the environment has cheap scores."""
        return self._own is not None

    def trust(self, budget: float) -> float:
        """Return how far cheap scores rank rewards: Spearman's correlation, at least 0.

        Args:
            budget: on which strategies are compared.

        Returns:
            0 where nothing is offered, 1 before there are strategies enough to say.
        """
        pairs = self._executed.get(budget, [])[-_LATEST:]
        if self._own is None or len(pairs) < _FEWEST:
            return float(self.offered)
        cheap, rewards = np.array(pairs).T
        if np.ptp(cheap) == 0 or np.ptp(rewards) == 0:
            return 0.0
        return max(0.0, float(np.corrcoef(_ranks(cheap), _ranks(rewards))[0, 1]))

    def scores(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """Return the cheap scores of proposals on this episode's budget.

        Args:
            actions: prune ratios; (proposals, groups).
        """
        scores: NDArray[np.float64] = self._own.screen(actions)
        return scores

    def keep_ratios(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Return what would be kept of every group on this episode's budget.

        Args:
            actions: prune ratios; (proposals, groups).
        """
        problem, budget = self._own.problem, self._own.budget
        kept = [1.0 - problem.prune_ratios(problem.project(one, budget)) for one in actions]
        return np.array(kept, np.float32)

    def learn(self, action: NDArray[Any], budget: float, reward: float) -> float | None:
        """Note what a strategy was rewarded that was not executed before.

        Args:
            action: prune ratios; (groups,).
            budget: on which it was executed, in this episode.
            reward: its return.

        Returns:
            Its cheap score, or None where nothing is offered.
        """
        if self._own is None:
            return None
        cheap = float(self.scores(action[None])[0])
        self._executed.setdefault(budget, []).append((cheap, reward))
        return cheap

    def state(self) -> NDArray[np.float64]:
        """Return what was executed: budgets, cheap scores and rewards; (strategies, 3)."""
        rows = [(budget, *pair) for budget, pairs in self._executed.items() for pair in pairs]
        return np.array(rows, np.float64).reshape(-1, 3)

    def restore(self, state: NDArray[np.float64]) -> None:
        """Go on from what :meth:`state` returned."""
        for budget, cheap, reward in state.tolist():
            self._executed.setdefault(budget, []).append((cheap, reward))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks, equal values sharing their mean rank.

    >>> _ranks(np.array([5.0, 1.0, 5.0]))
    array([1.5, 0. , 1.5])
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts + 1) / 2)[places]
    return ranks
