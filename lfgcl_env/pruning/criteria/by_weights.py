"""Criteria that look at weights alone: filters' norms and distances, and BatchNorms' scales."""

import numpy as np
import torch
from torch import Tensor

from lfgcl_env.pruning.criteria.criterion import Context, Scores, criterion
from lfgcl_env.pruning.structure.groups import Group, Member
from lfgcl_env.pruning.structure.layers import BATCH_NORMS, weight_axes


@criterion("l1")
def l1(context: Context, group: Group) -> Scores:
    """Sum up the absolute weights of a channel's filters (Li et al., ICLR 2017)."""
    return _average(context, [rows.abs().sum(1) for rows in _filters(context, group)])


@criterion("l2")
def l2(context: Context, group: Group) -> Scores:
    """Take the Euclidean norm of a channel's filters (soft filter pruning; He, IJCAI 2018)."""
    return _average(context, [rows.norm(dim=1) for rows in _filters(context, group)])


@criterion("fpgm")
def fpgm(context: Context, group: Group) -> Scores:
    """Sum up distances to all other filters: the most central go first (He, CVPR 2019)."""
    return _average(context, [torch.cdist(rows, rows).sum(1) for rows in _filters(context, group)])


@criterion("bn_scale")
def bn_scale(context: Context, group: Group) -> Scores:
    """Take the absolute scale of a channel's BatchNorms (network slimming; Liu, ICCV 2017).

    Differs from the source in that the network was not trained with a penalty on these scales.
    """
    scales = []
    for member in group.members:
        module = context.network.get_submodule(member.layer)
        if isinstance(module, BATCH_NORMS) and module.affine:
            scales.append(_by_channel(module.weight, member, group).abs().mean(1))
    if not scales:
        raise ValueError(
            f"criterion 'bn_scale' needs a BatchNorm with a scale in every group, and {group.name} "
            "has none: choose another criterion, such as 'l1'"
        )
    return _average(context, scales)


def _filters(context: Context, group: Group) -> list[Tensor]:
    """Return the producers' filters, (channels, numbers per channel) each; float64."""
    rows = []
    for member in group.members:
        if member.side == "out":
            module = context.network.get_submodule(member.layer)
            weight = module.weight.movedim(weight_axes(module)[0], 0)  # type: ignore[union-attr,operator]
            rows.append(_by_channel(weight, member, group))
    return rows


def _by_channel(tensor: Tensor, member: Member, group: Group) -> Tensor:
    """Return a tensor's numbers in the order of the group's channels, one row each; float64."""
    positions = torch.from_numpy(member.positions[np.argsort(member.channels, kind="stable")])
    rows = tensor.detach().double().cpu()[positions]
    return rows.reshape(group.channels, -1)


def _average(context: Context, scores: list[Tensor]) -> Scores:
    """Average scores over producers, each scaled first if the context says so."""
    if context.relative:
        scores = [score / score.mean().clamp(min=torch.finfo(score.dtype).tiny) for score in scores]
    return torch.stack(scores).mean(dim=0).numpy()
