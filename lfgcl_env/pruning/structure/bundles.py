"""Channels that only go together because a layer mixes them: bundles of a grouped layer.

A grouped convolution and a GroupNorm compute every output from the inputs of its own group. Whole
groups of their channels can therefore be removed exactly: one bundle is what such a group reads,
what it gives, and all that is tied to either. A strategy counts bundles then.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lfgcl_env.pruning.structure.groups import Exclusion, Group, Member, Unprunable
from lfgcl_env.pruning.structure.layers import channel_groups, layer_sizes

_Part = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions in a layer's dimension, and the channels there."""

_SIDES = {"in": 1, "out": 0, "through": 0}


def bundle_channels(
    network: nn.Module, groups: Sequence[Group], excluded: Sequence[Exclusion]
) -> tuple[list[Group], list[Exclusion]]:
    """Join the groups in front of and behind grouped layers, and their channels to bundles.

    Args:
        network: whose groups they are.
        groups: as traced: a grouped convolution ends one, and begins another.
        excluded: what cannot be pruned; names the reasons.

    Returns:
        The groups, in their order, and those that turned out not to be removable in bundles.
    """
    mixing = {name: m for name, m in network.named_modules() if channel_groups(m)}
    why = {exclusion.name: exclusion.reason for exclusion in excluded}
    joined: list[Group] = []
    left_out: list[Exclusion] = []
    for cluster in _clusters(groups, mixing):
        try:
            tied = any(member.layer in mixing for group in cluster for member in group.members)
            joined.append(_join(cluster, mixing, why) if tied else cluster[0])
        except Unprunable as error:
            left_out += [Exclusion(group.name, group.channels, str(error)) for group in cluster]
    return joined, left_out


def _clusters(groups: Sequence[Group], mixing: Mapping[str, nn.Module]) -> list[list[Group]]:
    """Put groups together that meet at a mixing layer."""
    clusters: list[tuple[set[str], list[Group]]] = []
    for group in groups:
        layers = {member.layer for member in group.members} & mixing.keys()
        mine = [cluster for cluster in clusters if cluster[0] & layers]
        together = [other for cluster in mine for other in cluster[1]]
        merged = (layers.union(*(cluster[0] for cluster in mine)), [*together, group])
        place = clusters.index(mine[0]) if mine else len(clusters)
        clusters = [cluster for cluster in clusters if cluster not in mine]
        clusters.insert(place, merged)
    return [cluster for _, cluster in clusters]


def _join(
    cluster: Sequence[Group], mixing: Mapping[str, nn.Module], why: Mapping[str, str]
) -> Group:
    """Make one group of several, whose channels are bundles.

    Raises:
        Unprunable: if that is not possible.
    """
    offsets = np.cumsum([0] + [group.channels for group in cluster])
    members: dict[tuple[str, str], list[_Part]] = {}
    for offset, group in zip(offsets, cluster, strict=False):
        for member in group.members:
            part = (member.positions, offset + member.channels)
            members.setdefault((member.layer, member.side), []).append(part)
    parts = {key: _in_order(found) for key, found in members.items()}
    labels = np.arange(offsets[-1])
    for layer, module in mixing.items():
        sides = [side for name, side in parts if name == layer]
        if sides:
            _join_mixed(labels, layer, module, {side: parts[layer, side] for side in sides}, why)
    bundles, numbered = np.unique(labels, return_inverse=True)
    if len(bundles) == 1:
        raise Unprunable(_mixes_all(parts, mixing))
    merged = []
    for (layer, side), (positions, channels) in parts.items():
        if layer in mixing and side == "in":
            continue  # it goes with the group's outputs, and has no dimension of its own
        numbers = numbered[channels].astype(np.int64)
        counts = np.bincount(numbers, minlength=len(bundles))
        if not (counts == counts[0]).all():
            raise Unprunable(f"its channels take unequal shares of {layer}")
        merged.append(Member(layer, "through" if layer in mixing else side, positions, numbers))
    coupled = any(group.coupled for group in cluster)
    # Named by a layer that produces the channels rather than one that they go through.
    first = next((group for group in cluster if group.name not in mixing), cluster[0])
    return Group(first.name, len(bundles), tuple(merged), coupled, first.part)


def _in_order(parts: Sequence[_Part]) -> _Part:
    positions = np.concatenate([part[0] for part in parts])
    channels = np.concatenate([part[1] for part in parts])
    order = np.argsort(positions, kind="stable")
    return positions[order], channels[order]


def _join_mixed(
    labels: NDArray[np.int64],
    layer: str,
    module: nn.Module,
    sides: Mapping[str, _Part],
    why: Mapping[str, str],
) -> None:
    """Give all channels that a group of a mixing layer reads and gives the same label."""
    complete = all(
        len(positions) == layer_sizes(module)[_SIDES[side]]
        for side, (positions, _) in sides.items()
    )
    if not complete or sides.keys() not in ({"through"}, {"in", "out"}):
        tied = f"{type(module).__name__} {layer} ties it to channels that stay"
        raise Unprunable(f"{tied}: {why[layer]}" if layer in why else tied)
    count = channel_groups(module)
    for together in np.hstack([channels.reshape(count, -1) for _, channels in sides.values()]):
        wanted = np.unique(labels[together])
        labels[np.isin(labels, wanted)] = wanted[0]


def _mixes_all(parts: Mapping[tuple[str, str], object], mixing: Mapping[str, nn.Module]) -> str:
    layer = next(layer for layer, _ in parts if layer in mixing)
    kind = type(mixing[layer]).__name__
    return f"{kind} {layer} computes each of its channels from all of them"
