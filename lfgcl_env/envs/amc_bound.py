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
        rounding: the counts that groups may keep, AMC's ``a_max`` among what decides them.
        spend_budget: whether to bound from both sides.
    """

    def __init__(self, problem: PruningProblem, rounding: Rounding, *, spend_budget: bool) -> None:
        self._problem = problem
        self._spend_budget = spend_budget
        self._counts = [rounding.counts(group) for group in range(len(problem.groups))]
        self._fewest = rounding.fewest
        self._whole = int(problem.costs(problem.channels))

    def __call__(
        self, keep: NDArray[np.int64], group: int, prune_ratio: float, budget: float
    ) -> int:
        """Return how many channels the group keeps.

        Args:
            keep: the counts decided so far; those of ``group`` and of later ones do not matter;
                (groups,).
            group: the one to be decided.
            prune_ratio: what is asked for, in [0, 1].
            budget: fraction of the baseline's cost, one that the fewest counts can meet.
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
