"""What a criterion is, the registry of criteria, and the orders that follow from one.

A criterion scores every channel of a group. The group's order is its channels from the highest
score to the lowest; keeping k channels keeps the first k. A new criterion is a function from a
:class:`Context` and a group to scores under the decorator :func:`criterion`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.pruning.moments.second_moments import Moments
from lfgcl_env.pruning.structure.groups import Group

Scores = NDArray[np.float64]
"""One number per channel, the higher the more worth keeping; float64, (channels,)."""


@dataclass(frozen=True)
class Elimination:
    """The result of removing a group's channels one after the other.

    Attributes:
        order: channels from the last to the first removed; int64, (channels,).
        errors: entry k is the consumers' summed squared output error with the first k channels of
            ``order`` kept and all weights refitted, relative to the outputs' energy; float64,
            (channels + 1,), down to 0. At k = 0 consumers without other inputs are constants, with
            an error of 1; where several layers read a group, 1 is their mean, and their shares are
            what they matter to predictions (:mod:`lfgcl_env.pruning.moments.output_weights`).
    """

    order: NDArray[np.int64]
    errors: NDArray[np.float64]


@dataclass(frozen=True)
class Context:
    """What a criterion may look at.

    Attributes:
        network: the baseline.
        images: the calibration images, normalised.
        eliminations: returns every group's backward elimination, by the group's name.
        moments: returns the second moments of every layer whose inputs follow groups.
        seed: for criteria that draw at random.
        relative: whether every producer's scores are scaled to a mean of 1, so that none outweighs
            the others of its group; otherwise they stay comparable between groups.
    """

    network: nn.Module
    images: Tensor
    eliminations: Callable[[], dict[str, Elimination]]
    moments: Callable[[], dict[str, Moments]]
    seed: int
    relative: bool = True


Criterion = Callable[[Context, Group], Scores]

CRITERIA: dict[str, Criterion] = {}
"""Criteria by name; see :func:`criterion`."""


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Register a criterion under a name in :data:`CRITERIA`."""

    def register(function: Criterion) -> Criterion:
        CRITERIA[name] = function
        return function

    return register


def score_channels(name: str, context: Context, groups: Sequence[Group]) -> tuple[Scores, ...]:
    """Score every group's channels, the higher the more worth keeping.

    Args:
        name: of a criterion in :data:`CRITERIA`.
        context: what the criterion may look at.
        groups: the groups to score.

    Returns:
        One array (channels,) per group, float64.

    Raises:
        ValueError: for an unknown criterion, or one that a group gives nothing to score by.
    """
    score = CRITERIA[check_choice(name, CRITERIA, "criterion")]
    return tuple(score(context, group) for group in groups)


def order_channels(
    name: str, context: Context, groups: Sequence[Group]
) -> tuple[NDArray[np.int64], ...]:
    """Order every group's channels from most to least worth keeping; ties keep channel order.

    Args:
        name: of a criterion in :data:`CRITERIA`.
        context: what the criterion may look at.
        groups: the groups to order.

    Returns:
        One permutation of its channels per group, int64.

    Raises:
        ValueError: for an unknown criterion, or one that a group gives nothing to score by.
    """
    scores = score_channels(name, context, groups)
    return tuple(np.argsort(-score, kind="stable") for score in scores)
