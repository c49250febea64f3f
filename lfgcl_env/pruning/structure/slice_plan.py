"""The slice plan: which positions of every layer's dimensions follow which group."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.structure.groups import Group, Member
from lfgcl_env.pruning.structure.layers import channel_groups, layer_sizes, weight_rows


@dataclass(frozen=True)
class Dimension:
    """One dimension of a layer, such as the input channels of a convolution.

    Attributes:
        size: its length in the baseline.
        slots: for each position, the index of its channel in the concatenation of all groups'
            channels, or the concatenation's length where no group owns it; int64, (size,).
        shares: positions per kept channel of each group, int64, (groups,).
        fixed: positions that no group owns.
    """

    size: int
    slots: NDArray[np.int64]
    shares: NDArray[np.int64]
    fixed: int

    @property
    def groups(self) -> tuple[int, ...]:
        """Indices of the groups that own positions here."""
        return tuple(int(g) for g in np.flatnonzero(self.shares))

    def kept(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the positions that stay under ``mask``, see :meth:`SlicePlan.mask`; ascending."""
        return np.flatnonzero(mask[self.slots])


@dataclass(frozen=True)
class LayerSlices:
    """Which dimensions of one layer follow groups; None for one that never changes.

    A layer with one parameter per channel (BatchNorm, depthwise convolution, PReLU) has ``out``
    alone, and ``through`` set. ``rows`` is the dimension of its weight that follows ``out``, which
    is another one in transposed convolutions with groups alone.
    """

    name: str
    out: Dimension | None
    into: Dimension | None
    through: bool
    rows: Dimension | None

    @property
    def groups(self) -> tuple[int, ...]:
        """Indices of all groups that change this layer."""
        return tuple(sorted({g for d in (self.out, self.into) if d for g in d.groups}))


class SlicePlan:
    """How a strategy cuts every layer, computed once from the groups.

    Args:
        network: the baseline.
        groups: its groups; positions must not overlap.
    """

    def __init__(self, network: nn.Module, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        self._offsets = np.cumsum([0] + [group.channels for group in groups])
        modules = dict(network.named_modules())
        by_layer: dict[str, list[tuple[int, Member]]] = {}
        for index, group in enumerate(groups):
            for member in group.members:
                by_layer.setdefault(member.layer, []).append((index, member))
        self.layers: dict[str, LayerSlices] = {}
        for name in (n for n in modules if n in by_layer):
            members = by_layer[name]
            through = any(m.side == "through" for _, m in members)
            out = [(g, m) for g, m in members if m.side in ("out", "through")]
            into = [(g, m) for g, m in members if m.side == "in"]
            module = modules[name]
            outputs = self._dimension(layer_sizes(module)[0], out) if out else None
            self.layers[name] = LayerSlices(
                name,
                outputs,
                self._dimension(layer_sizes(module)[1], into) if into else None,
                through,
                outputs and _rows(module, outputs),
            )

    def _dimension(self, size: int, members: list[tuple[int, Member]]) -> Dimension:
        slots = np.full(size, self._offsets[-1], dtype=np.int64)
        shares = np.zeros(len(self.groups), dtype=np.int64)
        for index, member in members:
            slots[member.positions] = self._offsets[index] + member.channels
            shares[index] = len(member.positions) // self.groups[index].channels
        return Dimension(size, slots, shares, int((slots == self._offsets[-1]).sum()))

    def mask(self, kept: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Return a flag for every channel of every group in turn, and a last one, always set.

        Args:
            kept: for each group, the indices of the channels that stay.
        """
        mask = np.zeros(int(self._offsets[-1]) + 1, dtype=np.bool_)
        mask[-1] = True
        for offset, channels in zip(self._offsets, kept, strict=False):
            mask[offset + channels] = True
        return mask

    def cut_outputs(
        self, layer: str, mask: NDArray[np.bool_], values: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return a layer's values, (..., channels, ...), at the output channels that stay."""
        slices = self.layers.get(layer)
        if slices is None or slices.out is None:
            return list(values)
        kept = torch.from_numpy(slices.out.kept(mask))
        return [value.index_select(1, kept.to(value.device)) for value in values]


def _rows(module: nn.Module, outputs: Dimension) -> Dimension:
    """Return the dimension of a layer's weight that follows its outputs."""
    count, size = channel_groups(module), weight_rows(module)
    if size == outputs.size:
        return outputs
    # All outputs of a group go together, and its rows with them.
    firsts = np.arange(count).repeat(size // count) * (outputs.size // count)
    shares, fixed = outputs.shares * size // outputs.size, outputs.fixed * size // outputs.size
    return Dimension(size, outputs.slots[firsts], shares, fixed)
