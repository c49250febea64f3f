"""Criteria: which channels of a group are most worth keeping.

A criterion scores every channel of every group; the order of a group is its channels from the
highest score to the lowest. Keeping k channels keeps the first k. A new criterion is a function
from :class:`Context` and a group to scores, added to :data:`CRITERIA`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.pruning.criteria.brain_surgeon import Elimination
from lfgcl_env.pruning.criteria.by_activations import hrank_scores, thinet_scores
from lfgcl_env.pruning.moments.second_moments import Moments
from lfgcl_env.pruning.structure.groups import Group, Member
from lfgcl_env.pruning.structure.layers import BATCH_NORMS

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Context:
    """What a criterion may look at.

    Attributes:
        network: the baseline.
        images: the calibration images, normalised.
        eliminations: returns every group's backward elimination, by the group's name.
        moments: returns the second moments of every layer whose inputs follow groups.
        seed: for criteria that draw at random.
        relative: whether every producer's scores are scaled to a mean of 1, so that none drowns the
            others of its group; otherwise they stay comparable between groups.
    """

    network: nn.Module
    images: Tensor
    eliminations: Callable[[], dict[str, Elimination]]
    moments: Callable[[], dict[str, Moments]]
    seed: int
    relative: bool = True


Criterion = Callable[[Context, Group], Scores]


def orders(
    criterion: str, context: Context, groups: Sequence[Group]
) -> tuple[NDArray[np.int64], ...]:
    """Order every group's channels from most to least worth keeping; ties keep channel order.

    Args:
        criterion: a name in :data:`CRITERIA`.
        context: the baseline and a seed.
        groups: the groups to order.

    Returns:
        One permutation of its channels per group, int64.

    Raises:
        ValueError: for an unknown criterion, or one that a group gives nothing to go by.
    """
    scores = scores_of(criterion, context, groups)
    return tuple(np.argsort(-score, kind="stable") for score in scores)


def scores_of(criterion: str, context: Context, groups: Sequence[Group]) -> tuple[Scores, ...]:
    """Score every group's channels, the higher the more worth keeping.

    Args:
        criterion: a name in :data:`CRITERIA`.
        context: what the criterion may look at.
        groups: the groups to score.

    Returns:
        One array (channels,) per group, float64.

    Raises:
        ValueError: for an unknown criterion, or one that a group gives nothing to go by.
    """
    score = CRITERIA[check_choice(criterion, CRITERIA, "criterion")]
    return tuple(score(context, group) for group in groups)


def _filters(context: Context, group: Group) -> list[Tensor]:
    """The producers' filters, one row per channel: (channels, numbers per channel), float64."""
    rows = []
    for member in group.members:
        if member.side == "out":
            weight = context.network.get_submodule(member.layer).weight
            rows.append(_by_channel(weight, member, group))  # type: ignore[arg-type]
    return rows


def _by_channel(tensor: Tensor, member: Member, group: Group) -> Tensor:
    positions = torch.from_numpy(member.positions[np.argsort(member.channels, kind="stable")])
    rows = tensor.detach().double().cpu()[positions]
    return rows.reshape(group.channels, -1)


def _mean_of_producers(context: Context, scores: list[Tensor]) -> Scores:
    """Scores averaged over producers, each scaled first if the context says so."""
    if context.relative:
        scores = [score / score.mean().clamp(min=torch.finfo(score.dtype).tiny) for score in scores]
    return torch.stack(scores).mean(dim=0).numpy()


def l1(context: Context, group: Group) -> Scores:
    """Sum of absolute weights of a channel's filters (Li et al., ICLR 2017)."""
    return _mean_of_producers(context, [rows.abs().sum(1) for rows in _filters(context, group)])


def l2(context: Context, group: Group) -> Scores:
    """Euclidean norm of a channel's filters, the criterion of soft filter pruning (He 2018)."""
    return _mean_of_producers(context, [rows.norm(dim=1) for rows in _filters(context, group)])


def fpgm(context: Context, group: Group) -> Scores:
    """Distance to all other filters: those near the geometric median go first (He, CVPR 2019)."""
    return _mean_of_producers(
        context, [torch.cdist(rows, rows).sum(1) for rows in _filters(context, group)]
    )


def bn_scale(context: Context, group: Group) -> Scores:
    """Absolute scale of the BatchNorms a channel passes (network slimming; Liu, ICCV 2017).

    Differs from the source in that the network was not trained with a penalty on these scales.
    """
    scales = []
    for member in group.members:
        module = context.network.get_submodule(member.layer)
        whole = len(member.positions) == group.channels
        if isinstance(module, BATCH_NORMS) and module.affine and whole:
            scales.append(_by_channel(module.weight, member, group).abs().sum(1))
    if not scales:
        raise ValueError(
            f"criterion 'bn_scale' needs a BatchNorm with a scale in every group, and {group.name} "
            "has none: choose another criterion, such as 'l1'"
        )
    return _mean_of_producers(context, scales)


def obs(context: Context, group: Group) -> Scores:
    """Optimal Brain Surgeon: how late backward elimination removes a channel, see :mod:`.obs`."""
    order = context.eliminations()[group.name].order
    scores = np.empty(group.channels)
    scores[order] = -np.arange(group.channels)
    return scores


def thinet(context: Context, group: Group) -> Scores:
    """Greedy selection by the next layer's output error without refitting (Luo, ICCV 2017)."""
    return thinet_scores(group, context.moments())


def hrank(context: Context, group: Group) -> Scores:
    """Mean rank of a channel's feature maps (Lin et al., CVPR 2020)."""
    return hrank_scores(context.network, group, context.images)


def random(context: Context, group: Group) -> Scores:
    """A random order, the same for the same seed and group."""
    name = np.frombuffer(group.name.encode(), dtype=np.uint8)
    return np.random.default_rng([context.seed, *name.tolist()]).random(group.channels)


CRITERIA: dict[str, Criterion] = {
    "obs": obs,
    "l1": l1,
    "l2": l2,
    "fpgm": fpgm,
    "bn_scale": bn_scale,
    "thinet": thinet,
    "hrank": hrank,
    "random": random,
}
