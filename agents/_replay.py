"""What the LFGCL agent remembers of strategies, and the values that its critics learn."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._groups import BUDGET, Groups, logits_of
from ._lfgcl_arguments import Arguments

Action = NDArray[np.float32]
Observation = NDArray[np.float32]


class Replay:
    """All distinct strategies so far: observation, executed keep ratios, return."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._items: dict[tuple[bytes, float], tuple[Observation, Action, float]] = {}
        self._tensors: tuple[Groups, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def many_budgets(self) -> bool:
        """Whether its budgets differ."""
        return len({budget for _, budget in self._items}) > 1

    def add(self, observation: Observation, keep: Action, episode_return: float) -> bool:
        """Add a strategy, and return whether it is new; of a known one the first return stays."""
        key = _key(observation, keep)
        new = key not in self._items
        if new:
            self._items[key] = (np.asarray(observation), keep, float(episode_return))
            self._tensors = None
        return new

    def with_others(
        self, observation: Observation, keep: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], list[int]]:
        """Return what is known of all strategies, once others are added.

        Args:
            observation: of the episode that has the others.
            keep: of these; (others, groups).

        Returns:
            Logits of the budgets of all (strategies,), the returns that are known, of as many of
            them, and the place of each of the others.
        """
        places = {key: place for place, key in enumerate(self._items)}
        others = [places.setdefault(_key(observation, one), len(places)) for one in keep]
        budgets = (torch.tensor([budget for _, budget in places]) + 1) / 2
        returns = np.array([known for _, _, known in self._items.values()], np.float64)
        return logits_of(budgets.double(), self._arguments).numpy(), returns, others

    def arrays(self) -> list[NDArray[Any]]:
        """Return observations, keep ratios and returns, in their order; nothing if it is empty."""
        return [np.stack(part) for part in zip(*self._items.values(), strict=True)]

    def tensors(self) -> tuple[Groups, Tensor, Tensor]:
        """Return groups, keep ratios (strategies, groups), and values (strategies,).

        On a single budget one observation stands for all. Values are the ranks of returns relative
        to what is usual on their budget, a polynomial fitted to all of them; as normal scores.
        """
        if self._tensors is not None:
            return self._tensors
        a = self._arguments
        observations, keep, returns = self.arrays()
        groups = Groups.of(observations if self.many_budgets else observations[:1], a)
        budgets = logits_of(groups.budget.double(), a).expand(len(returns)).numpy()
        value = relative_values(budgets, returns, a.trend_degree)
        self._tensors = groups, torch.from_numpy(keep), value
        return self._tensors


def _key(observation: Observation, keep: Action) -> tuple[bytes, float]:
    """Return what a strategy is known by: what it keeps, and on which budget."""
    return keep.tobytes(), float(observation[0, BUDGET])


def relative_values(
    budgets: NDArray[np.float64], returns: NDArray[np.float64], degree: int
) -> Tensor:
    """Return the ranks of returns relative to what is usual on their budget, as normal scores.

    Args:
        budgets: logits; (strategies,).
        returns: (strategies,).
        degree: of the polynomial that says what is usual, where there are budgets enough.
    """
    value = values_of(returns)
    degree = min(degree, len(set(budgets.tolist())) - 1)
    trend = np.polyval(np.polyfit(budgets, value, degree), budgets)
    return torch.from_numpy(normal_scores(value - trend)).float()


def values_of(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map returns to values whose differences count alike everywhere, in the same order.

    The trend over budgets is fitted to them; critics learn ranks of what is left.

    Returns in [0, 1], as similarities and accuracies are, crowd below 1 and become
    ``-log(1 - return)``. Those on any other scale (or a tiny one) become :func:`normal_scores`.

    >>> values_of(np.array([0.0, 0.5, 0.75])).round(2).tolist()
    [-0.0, 0.69, 1.39]
    """
    if returns.min() >= 0 and returns.max() <= 1:
        values: NDArray[np.float64] = -np.log(np.maximum(1.0 - returns, 1e-6))
        if np.ptp(values) > 1e-4:
            return values
    return normal_scores(returns)


def normal_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map values to the normal distribution's quantiles at their ranks, equal ones to the same.

    The order alone counts, so that penalties of any size are no outliers.

    >>> normal_scores(np.array([-1e9, 3.0, 8.0])).round(2).tolist()
    [-0.97, 0.0, 0.97]
    """
    _, rank, count = np.unique(values, return_inverse=True, return_counts=True)
    quantiles = (np.cumsum(count) - count / 2) / len(values)
    scores: NDArray[np.float64] = torch.special.ndtri(torch.from_numpy(quantiles[rank])).numpy()
    return scores
