"""AMC's bound on an action, so that the groups that follow can still meet the budget.

Source: He et al., AMC, ECCV 2018, algorithm 1. What differs:

- It counts whole channels. AMC bounds the ratio and rounds it afterwards, to the nearest count and
  then up to a multiple of 8, which can take the network over its budget.
- What a count costs, and what the later groups can still save, is the exact cost of the network
  with these counts. Algorithm 1 adds up costs of layers as if every layer had a ratio of its own.
- ``spend_budget`` also bounds the action from the other side, so that the groups to come can still
  spend what is allowed. NNI's implementation of AMC has such a bound, the paper has not.
"""

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.pruning.budget.rounding import Rounding
from lfgcl_env.pruning.budget.tolerance import allowed_cost
from lfgcl_env.pruning.problem import PruningProblem


class ActionBound:
    """Turns the prune ratio asked for in one group into a count that leads to the budget.

    Args:
        problem: what is pruned.
        round_to: kept counts are multiples of it, or the whole group.
        min_channels: fewest channels that stay in a group; one number, or (groups,).
        max_prune_ratio: most that is pruned of any group, AMC's ``a_max``; above 0 and at most 1.
        spend_budget: whether to bound from both sides.

    Raises:
        ValueError: if ``max_prune_ratio`` is no such number.
    """

    def __init__(
        self,
        problem: PruningProblem,
        *,
        round_to: int,
        min_channels: int | NDArray[np.int64],
        max_prune_ratio: float,
        spend_budget: bool,
    ) -> None:
        if not isinstance(max_prune_ratio, (int, float)) or not 0 < max_prune_ratio <= 1:
            raise ValueError(
                "max_prune_ratio is the most that is pruned of a group: a number above 0 and at "
                f"most 1, got {max_prune_ratio!r}"
            )
        self._problem = problem
        self._max_prune_ratio = max_prune_ratio
        self._spend_budget = spend_budget
        rounding = Rounding(problem.channels.tolist(), round_to, min_channels)
        self._counts = []
        for group, channels in enumerate(problem.channels.tolist()):
            # Rounding errors of the product must not cost a channel: 0.2 of 15 is 3, not 4.
            kept = (1 - max_prune_ratio) * channels - 1e-9
            counts = rounding.counts(group)
            self._counts.append(counts[counts >= kept])
        self._fewest = np.array([counts[0] for counts in self._counts], dtype=np.int64)

    @property
    def lowest_budget(self) -> float:
        """The smallest budget that can be met, as a fraction of the baseline's cost."""
        return float(self._problem.costs(self._fewest)) / self._whole

    @property
    def _whole(self) -> int:
        return int(self._problem.costs(self._problem.channels))

    def check_budget(self, budget: float) -> float:
        """Return ``budget`` as a float.

        Raises:
            ValueError: if it is not in (0, 1] or cannot be reached; the message names the range.
        """
        value = self._problem.check_budget(budget)
        if value < self.lowest_budget:
            raise ValueError(
                f"a budget of {value:g} of the {self._problem.budget_metric} cannot be reached "
                f"while at most {self._max_prune_ratio:.0%} of a group are pruned: "
                f"{self.lowest_budget:.4f} to 1 can, or less with a higher max_prune_ratio"
            )
        return value

    def __call__(
        self, keep: NDArray[np.int64], group: int, prune_ratio: float, budget: float
    ) -> int:
        """Return how many channels the group keeps.

        Args:
            keep: the counts decided so far; those of ``group`` and of later ones do not matter;
                (groups,).
            group: the one to be decided.
            prune_ratio: what is asked for, in [0, 1].
            budget: fraction of the baseline's cost, checked by :meth:`check_budget`.
        """
        counts = self._counts[group]
        allowed = allowed_cost(budget, self._whole)
        fits = self._costs(keep, group, self._fewest) <= allowed
        highest = counts[fits][-1]
        kept = counts[np.abs(counts - (1 - prune_ratio) * self._problem.channels[group]).argmin()]
        if self._spend_budget:
            spends = self._costs(keep, group, self._problem.channels) >= allowed
            kept = max(kept, counts[spends][0] if spends.any() else counts[-1])
        return int(min(kept, highest))

    def _costs(
        self, keep: NDArray[np.int64], group: int, rest: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Cost of every count of a group, if the groups after it keep ``rest``."""
        counts = self._counts[group]
        trials = np.tile(np.concatenate([keep[:group], rest[group:]]), (len(counts), 1))
        trials[:, group] = counts
        return self._problem.costs(trials)
