"""Groups of attention heads: a head is a bundle of its channels, which only go together.

It has channels of the layers that give queries, keys and values, found by a probe of what reaches
what, and the same channels of what the output projection reads. Whether cutting them and counting
one head less is exact is checked here too: where it is not, channels are left to other groups.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.structure.groups import Exclusion, Group, Member, Unprunable
from lfgcl_env.pruning.structure.head_counts import head_count, heads_of
from lfgcl_env.pruning.structure.head_probe import HeadProbe, first_calls
from lfgcl_env.pruning.structure.layers import is_channelwise, layer_sizes
from lfgcl_env.pruning.structure.verification import split_exact

_PARTS = (1, 3, 2)
"""Blocks of heads one behind the other in a layer's outputs: queries, keys and values are three."""


@dataclass(frozen=True)
class Attention:
    """An attention module whose heads were looked for.

    Attributes:
        group: its heads; None if they cannot go one by one.
        exclusion: why not, or None.
        layers: the layers inside it that give what the output projection reads.
        projection: the layer behind the heads.
    """

    group: Group | None
    exclusion: Exclusion | None
    layers: tuple[str, ...]
    projection: str

    def owns(self, layer: str, side: str) -> bool:
        """Whether channels on a side of a layer are those of heads that can go."""
        return self.group is not None and (
            (layer == self.projection and side == "in") or (layer in self.layers and side != "in")
        )


def find_attention(
    network: nn.Module,
    example: Tensor,
    fixed: dict[str, str],
    layout: torch.memory_format = torch.channels_last,
) -> list[Attention]:
    """Find the attention modules of a network, and those of their heads that can be cut exactly.

    Args:
        network: in evaluation mode; not changed.
        example: inputs (images, channels, height, width).
        fixed: layers that cannot be cut, and why.
        layout: that the network can be run in.
    """
    counting = {name: m for name, m in network.named_modules() if head_count(m)}
    called = first_calls(network, counting.values(), example)
    found: dict[str, Attention] = {}
    # From the inside: a block may count the heads of the attention in it.
    for name in reversed(counting):
        module = counting[name]
        if module in called and not any(_is_inside(inner, name) for inner in found):
            probe = HeadProbe(name, module, *called[module])
            if probe.projection is not None:
                found[name] = _read(probe, fixed)
    groups = [one.group for one in reversed(found.values()) if one.group]
    wrong = {e.name: e for e in split_exact(network, groups, example, layout)[1]}
    return [
        replace(one, group=None, exclusion=wrong[one.group.name])
        if one.group and one.group.name in wrong
        else one
        for one in reversed(found.values())
    ]


def _is_inside(inner: str, outer: str) -> bool:
    return not outer or inner.startswith(f"{outer}.")


def _read(probe: HeadProbe, fixed: dict[str, str]) -> Attention:
    """Make a group of a module's heads, or say why that is not possible."""
    assert probe.projection is not None
    members: list[Member] = []
    columns: NDArray[np.int64] | None = None
    try:
        if probe.heads == 1:
            raise Unprunable(f"{probe.name or 'it'} has one attention head")
        for name in probe.before:
            member, behind = _follow(probe, name)
            if member is None:
                continue
            if columns is None:
                columns = behind
            elif not np.array_equal(columns, behind):
                raise Unprunable(f"the heads of {probe.name} are in another order in {name}")
            members.append(member)
        if columns is None:
            raise Unprunable(f"no layer alone gives the heads of {probe.name}")
        members.append(_member(probe.projection, "in", columns))
        for name in (member.layer for member in members):
            if name in fixed:
                raise Unprunable(fixed[name])
    except Unprunable as error:
        first = probe.before[0]
        size = layer_sizes(probe.layers[first])[0]
        exclusion = Exclusion(first, size, str(error))
        return Attention(None, exclusion, tuple(probe.before), probe.projection)
    every = np.arange(probe.heads, dtype=np.int64)
    counting = [
        f"{probe.name}.{inner}".strip(".")
        for inner, module in probe.module.named_modules()
        if heads_of(module) == probe.heads
    ]
    members += [Member(name, "through", every, every) for name in counting]
    producer = next(member.layer for member in members if member.side == "out")
    group = Group(producer, probe.heads, tuple(members), False)
    return Attention(group, None, tuple(probe.before), probe.projection)


def _follow(probe: HeadProbe, name: str) -> tuple[Member | None, NDArray[np.int64]]:
    """Find the channels of every head in a layer's outputs, and in what the projection reads.

    Returns:
        The layer's part, None if it only acts through another layer; and the projection's input
        channels, (heads, channels of a head).

    Raises:
        Unprunable: if its channels do not belong to heads.
    """
    module = probe.layers[name]
    size = layer_sizes(module)[0]
    for parts in _PARTS if size % probe.heads == 0 else ():
        if size % (parts * probe.heads):
            continue
        apart = np.arange(size).reshape(parts, probe.heads, -1)
        rows = apart.swapaxes(0, 1).reshape(probe.heads, -1)
        hits = []
        for own in rows:
            hits.append(probe.hit(name, own))
            if len(hits[-1]) * probe.heads != layer_sizes(probe.layers[str(probe.projection)])[1]:
                break
        else:
            columns = np.stack(hits)
            if len(np.unique(columns)) == columns.size:
                through = is_channelwise(module) or size == probe.heads
                return _member(name, "through" if through else "out", rows), columns
    if probe.is_on_the_way(name):
        return None, np.empty(0, dtype=np.int64)
    raise Unprunable(f"{probe.name} mixes its heads: channels of {name} reach more than one")


def _member(layer: str, side: str, rows: NDArray[np.int64]) -> Member:
    """Return a layer's part from the positions of every head, (heads, channels of a head)."""
    owners = np.repeat(np.arange(len(rows), dtype=np.int64), rows.shape[1])
    order = np.argsort(rows.reshape(-1), kind="stable")
    return Member(layer, side, rows.reshape(-1)[order].astype(np.int64), owners[order])
