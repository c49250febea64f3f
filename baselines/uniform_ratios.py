"""One prune ratio for all groups: the control for every other way to spend a budget.

Source: the "uniform" policy that AMC compares with (He et al., ECCV 2018, section 4.1). It is the
largest keep ratio on the budget; what rounding to whole channels leaves over goes to the groups
that lost most by it.
"""

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.pruning import PruningProblem


def strategy(problem: PruningProblem, budget: float | None = None) -> NDArray[np.int64]:
    """Keep the same fraction of every group.

    Args:
        problem: what is to be pruned.
        budget: instead of the problem's own.

    Returns:
        A strategy on the budget; int64, (groups,).

    Raises:
        ValueError: if the budget cannot be reached.
    """
    return problem.project(np.full(len(problem.groups), 0.5), budget)
