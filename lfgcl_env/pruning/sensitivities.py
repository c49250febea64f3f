"""Allocation: a strategy from measured sensitivities, without a search.

Backward elimination gives every group an error curve: what its consumers' outputs lose with k
channels kept. One score per group, with that group alone halved, says how much such an error
costs in similarity. Channels are then removed where a unit of cost saved loses least, until the
budget is met. For ResNet-56 these are 27 evaluations, or cheap scores (``problem.screen``) where an
evaluation is costly.

The idea of spending a budget by marginal cost is the greedy solution of a knapsack, as in
sensitivity-based pruning since Li et al. (ICLR 2017, section 3.1); the curves are the errors of
refitted layers, and the weights come from scores.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.edge.executors import Submits
from lfgcl_env.pruning.budget.tolerance import allowed_cost
from lfgcl_env.pruning.problem import PruningProblem

_LONGEST_STEP = 4  # channels removed at once, so that a costly one does not hide cheap ones


def sensitivities(
    problem: PruningProblem,
    progress: Callable[[int, int], None] = lambda done, total: None,
    engine: Submits | None = None,
) -> NDArray[np.float64]:
    """Measure the similarity lost per unit of error in every group, by halving each alone.

    A group that may not be halved is pruned as far as it may.

    Takes one evaluation per group, which :meth:`PruningProblem.count` counts; where evaluations are
    costly, a score of :meth:`PruningProblem.screen` instead, unless additions couple some groups: a
    closed-form score misjudges residual streams against inner groups.

    Args:
        problem: what is to be pruned.
        progress: called with the groups done and their number.
        engine: as in :meth:`PruningProblem.evaluate_many`; with as many threads the result is the
            same, bit for bit.

    Returns:
        At least a small positive number per group; float64, (groups,).
    """
    groups = np.arange(len(problem.groups))
    half = np.maximum(np.maximum(1, problem.channels // 2), problem.lowest)
    strategies = np.where(groups[:, None] == groups, half, problem.channels)
    cheap = problem.screens and not any(group.coupled for group in problem.groups)
    if engine is not None:  # all together; looked up below
        (problem.screen if cheap else problem.prefetch)(list(strategies), engine)
    weights = np.empty(len(problem.groups))
    for index, group in enumerate(problem.groups):
        halved = strategies[index]
        lost = 1.0 - _similarity(problem, halved, cheap=cheap)
        error = problem.eliminations[group.name].errors[halved[index]]
        weights[index] = lost / max(error, 1e-12)
        progress(index + 1, len(problem.groups))
    return np.maximum(weights, 1e-3 * max(float(weights.max()), 1e-12))


def _similarity(problem: PruningProblem, strategy: NDArray[np.int64], *, cheap: bool) -> float:
    if cheap:
        return float(problem.screen([strategy])[0])
    return problem.evaluate(strategy).similarity


def allocate(
    problem: PruningProblem,
    budget: float | None = None,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Spend a budget where it saves most similarity.

    Args:
        problem: what is to be pruned.
        budget: instead of the problem's own.
        weights: of the groups' error curves; None measures them, see :func:`sensitivities`.

    Returns:
        A strategy on the budget; int64, (groups,).

    Raises:
        ValueError: if the budget cannot be reached.
    """
    budget = problem.budget if budget is None else problem.check_budget(budget)
    weights = sensitivities(problem) if weights is None else weights
    curves = [
        weight * problem.eliminations[group.name].errors
        for weight, group in zip(weights, problem.groups, strict=True)
    ]
    allowed = allowed_cost(budget, int(problem.costs(problem.channels)))
    keep, lowest = problem.channels.copy(), problem.lowest
    groups = np.arange(len(keep))
    while (now := problem.costs(keep)) > allowed:
        best = (np.inf, 0, 0)
        for step in range(1, _LONGEST_STEP + 1):
            fewer = np.where(np.eye(len(keep), dtype=bool), keep - step, keep)
            saved = now - problem.costs(np.maximum(fewer, lowest))
            enough = keep - step >= lowest
            lost = np.array(
                [
                    curves[g][keep[g] - step] - curves[g][keep[g]] if enough[g] else np.inf
                    for g in groups
                ]
            )
            prices = np.where(enough, lost / np.maximum(saved, 1), np.inf)
            index = int(np.argmin(prices))
            if prices[index] < best[0]:
                best = (float(prices[index]), index, step)
        if not np.isfinite(best[0]):
            break
        keep[best[1]] -= best[2]
    return problem.project(1.0 - keep / problem.channels, budget)
