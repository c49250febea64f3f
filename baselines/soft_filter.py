"""Soft filter pruning's strategy: the same rate for every layer, the smallest L2 norms first.

Source: Soft Filter Pruning (He et al., IJCAI 2018), section 3. It differs from the source in that
nothing is trained: there, filters are zeroed after every epoch of training and may grow again; here
the trained network's norms decide once. The rate follows from the budget.
"""

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.pruning import PruningProblem

from . import uniform_ratios

CRITERION = "l2"
"""The criterion that the problem must have been made with."""


def strategy(problem: PruningProblem, budget: float | None = None) -> NDArray[np.int64]:
    """Keep the same fraction of every group.

    Args:
        problem: what is to be pruned.
        budget: instead of the problem's own.

    Returns:
        A strategy on the budget; int64, (groups,).

    Raises:
        ValueError: if the problem has another criterion, or the budget cannot be reached.
    """
    if problem.criterion != CRITERION:
        raise ValueError(
            f"soft filter pruning orders channels by criterion {CRITERION!r} and this problem by "
            f"{problem.criterion!r}: make it with criterion={CRITERION!r}, or take uniform_ratios"
        )
    return uniform_ratios.strategy(problem, budget)
