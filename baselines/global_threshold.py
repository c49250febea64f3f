"""One threshold on a score for the channels of all groups: what scores below it goes.

The score decides *how many* channels every group keeps. *Which* ones they are is for the problem's
own criterion to say, as with every other strategy, so that under one criterion and one repair only
the ways to spend a budget are compared. With a problem made with the same criterion as the score,
exactly the channels below the threshold go: the published method.

Sums of weights mean something else in a layer with many inputs than in one with few. Scores other
than BatchNorm's are therefore divided by their mean over the group before they are compared, as
Torch-Pruning does for global pruning.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.budget.tolerance import allowed_cost

Strategy = NDArray[np.int64]
Scores = NDArray[np.float64]


def l1(problem: PruningProblem, budget: float | None = None) -> Strategy:
    """Threshold on the sum of absolute weights relative to the group's mean.

    Source: Li et al., ICLR 2017, who choose every layer's ratio by hand; the global form is common.

    Args:
        problem: what is to be pruned.
        budget: instead of the problem's own.

    Returns:
        A strategy on the budget; int64, (groups,).

    Raises:
        ValueError: if the budget cannot be reached.
    """
    return keep_highest(problem, _relative(problem, "l1"), budget)


def l2(problem: PruningProblem, budget: float | None = None) -> Strategy:
    """Threshold on the Euclidean norm of filters relative to the group's mean; see :func:`l1`.

    Source: the norm of soft filter pruning (He et al., IJCAI 2018), which has one rate for all
    layers.
    """
    return keep_highest(problem, _relative(problem, "l2"), budget)


def fpgm(problem: PruningProblem, budget: float | None = None) -> Strategy:
    """Threshold on a filter's distance to all others relative to the group's mean; see :func:`l1`.

    Source: FPGM (He et al., CVPR 2019), which has one rate for all layers.
    """
    return keep_highest(problem, _relative(problem, "fpgm"), budget)


def bn_scale(problem: PruningProblem, budget: float | None = None) -> Strategy:
    """Threshold on the absolute scale of the channel's BatchNorm, as it is; see :func:`l1`.

    Source: network slimming (Liu et al., ICCV 2017), section 3. Differs in that the network was not
    trained with a penalty on these scales, and that a group loses its last channel only where
    that is exact and the problem's ``min_channels`` is 0.

    Raises:
        ValueError: if a group passes no BatchNorm with a scale, or the budget cannot be reached.
    """
    return keep_highest(problem, problem.scores("bn_scale", relative=False), budget)


def hrank(problem: PruningProblem, budget: float | None = None) -> Strategy:
    """Threshold on the mean rank of feature maps relative to the group's mean; see :func:`l1`.

    Source: HRank (Lin et al., CVPR 2020), who choose every layer's ratio by hand. Ranks are those
    of the maps on the problem's first 64 images.

    Raises:
        ValueError: if no convolution consumes a group, or the budget cannot be reached.
    """
    return keep_highest(problem, _relative(problem, "hrank"), budget)


def keep_highest(
    problem: PruningProblem,
    scores: Sequence[Scores],
    budget: float | None = None,
    *,
    fewest: float = 0.0,
) -> Strategy:
    """Count what is left of every group when the lowest scores of all groups go first.

    Channels go in the order of their scores until the budget is met. The last to go may have saved
    more than was needed: those that went come back from the highest score down as far as they fit.

    Args:
        problem: what is to be pruned.
        scores: one array (channels,) per group, comparable between groups.
        budget: instead of the problem's own.
        fewest: fraction of every group's channels that stays whatever their scores, as far as the
            budget can be met so; one channel always stays, unless the group may go whole.

    Returns:
        A strategy on the budget; int64, (groups,). One more channel in any group would cost more
        than the budget. Where the problem rounds counts or has a ``min_channels``, it is the
        projection of what is described here.

    Raises:
        ValueError: if the budget cannot be reached.
    """
    budget = problem.budget if budget is None else problem.check_budget(budget)
    allowed = allowed_cost(budget, int(problem.costs(problem.channels)))
    stay = np.maximum(problem.lowest, np.ceil(fewest * problem.channels - 1e-9))
    groups, rank = _lowest_first(scores, stay)

    def left(gone: int) -> Strategy:
        return problem.channels - np.bincount(groups[rank[:gone]], minlength=len(problem.groups))

    def fits(keep: Strategy) -> bool:
        return bool(problem.costs(keep) <= allowed)

    gone = bisect_left(range(len(rank)), True, key=lambda count: fits(left(count)))
    keep = left(gone)
    for channel in reversed(rank[:gone]):
        more = keep.copy()
        more[groups[channel]] += 1
        if fits(more):
            keep = more
    return problem.project(1.0 - keep / problem.channels, budget)


def _lowest_first(
    scores: Sequence[Scores], fewest: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The group of every channel, and the channels that may go, the lowest score first."""
    groups = np.repeat(np.arange(len(scores)), [len(score) for score in scores])
    may_go = np.concatenate(
        [
            np.argsort(np.argsort(-score, kind="stable")) >= count
            for score, count in zip(scores, fewest, strict=True)
        ]
    )
    # Of equal scores the later channel goes first, as in an order.
    highest_first = np.argsort(-np.concatenate(scores), kind="stable")
    return groups, highest_first[may_go[highest_first]][::-1]


def _relative(problem: PruningProblem, criterion: str) -> list[Scores]:
    tiny = np.finfo(np.float64).tiny
    return [score / max(float(score.mean()), tiny) for score in problem.scores(criterion)]
