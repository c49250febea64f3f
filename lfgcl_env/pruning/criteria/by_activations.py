"""Criteria that look at activations on unlabelled images: their second moments or ranks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.criteria.criterion import Context, Scores, criterion
from lfgcl_env.pruning.moments.second_moments import Moments
from lfgcl_env.pruning.structure.groups import Group, Member

_RANK_IMAGES = 64
_OF_MAPS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@criterion("thinet")
def thinet(context: Context, group: Group) -> Scores:
    """Remove greedily the channels whose joint contribution to the next layer is smallest.

    Source: ThiNet (Luo et al., ICCV 2017), algorithm 1. Differs in that the error comes from
    second moments instead of sampled positions, and is summed over all consumers, each relative to
    its output's energy.

    Returns:
        The step at which a channel is removed; (channels,).
    """
    moments = context.moments()
    overlap = np.zeros((group.channels, group.channels))
    for member in group.members:
        if member.side == "in" and member.layer in moments:
            overlap += _contributions(member, group, moments[member.layer])
    scores = np.zeros(group.channels)
    removed = np.zeros(group.channels, dtype=bool)
    increase = overlap.diagonal().copy()
    for step in range(group.channels):
        channel = int(np.argmin(np.where(removed, np.inf, increase)))
        removed[channel] = True
        scores[channel] = step
        increase += 2 * overlap[channel]
    return scores


def _contributions(member: Member, group: Group, moments: Moments) -> NDArray[np.float64]:
    """Return E[<w_i a_i, w_j a_j>] for all channels i and j, relative to the output's energy."""
    reader = moments.reader
    columns = reader.columns(torch.from_numpy(member.positions).to(moments.weights.device))
    owners = torch.from_numpy(member.channels).to(columns.device).repeat(reader.taps)
    weights = moments.weights[:, columns]
    products = weights.T @ weights
    if moments.gram is not None:
        products *= moments.gram[columns][:, columns]
    else:
        second = moments.variance + moments.mean.square()
        products = torch.diag(products.diagonal() * second[columns])
    total = products.new_zeros(group.channels, group.channels)
    rows = total.new_zeros(group.channels, len(columns)).index_add_(0, owners, products)
    total.index_add_(1, owners, rows)
    result: NDArray[np.float64] = (total / max(moments.energy, 1e-300)).cpu().numpy()
    return result


@criterion("hrank")
def hrank(context: Context, group: Group) -> Scores:
    """Average the rank of a channel's feature maps over the convolutions that consume them.

    Source: HRank (Lin et al., CVPR 2020). Of the images the first 64 are used, as the rank hardly
    depends on their number (ibid., figure 2). A residual stream has other feature maps in every
    block.

    Returns:
        Ranks; (channels,).

    Raises:
        ValueError: if no convolution consumes the group, so that there are no feature maps.
    """
    network, images = context.network, context.images
    consumers = [
        member
        for member in group.members
        if member.side == "in" and isinstance(network.get_submodule(member.layer), _OF_MAPS)
    ]
    if not consumers:
        raise ValueError(
            "criterion 'hrank' needs feature maps of two dimensions, and no convolution consumes "
            f"{group.name} in such: choose another criterion, such as 'obs'"
        )
    scores = np.zeros(group.channels)

    def record(member: Member, inputs: tuple[Tensor, ...]) -> None:
        maps = inputs[0][:, torch.from_numpy(member.positions).to(inputs[0].device)]
        maps = maps.flatten(3) if maps.dim() > 4 else maps
        ranks = torch.linalg.matrix_rank(maps.float()).double().sum(dim=0)
        np.add.at(scores, member.channels, ranks.cpu().numpy())

    handles = [
        network.get_submodule(member.layer).register_forward_pre_hook(
            lambda _, inputs, member=member: record(member, inputs)
        )
        for member in consumers
    ]
    try:
        with torch.inference_mode():
            for batch in torch.split(images[:_RANK_IMAGES], 16):
                network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return scores / (len(images[:_RANK_IMAGES]) * len(consumers))
