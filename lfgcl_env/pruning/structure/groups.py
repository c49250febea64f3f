"""Groups: sets of channels that can only be removed together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.pruning.structure.training_mode import TrainingOnly


@dataclass(frozen=True)
class Member:
    """The part of one layer's dimension that follows a group.

    Attributes:
        layer: module name.
        side: ``"out"`` (produces the channels), ``"in"`` (consumes them) or ``"through"``
            (computes every channel from itself or its own bundle: norms, grouped convolutions,
            PReLU).
        positions: indices into the layer's dimension, int64.
        channels: the group's channel at each of these positions, int64, same length.
    """

    layer: str
    side: str
    positions: NDArray[np.int64]
    channels: NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Channels in one or several layers that can only be removed together.

    Attributes:
        name: the layer that first produces the channels.
        channels: how many there are; where a grouped layer, or a pixel shuffle, allows whole
            bundles of them alone, as many as bundles, see
            :mod:`lfgcl_env.pruning.structure.bundles`.
        members: every layer's part in the group.
        coupled: whether an addition (a residual connection) ties several producers together.
        part: the module that was traced to find the group; ``""`` for the whole network.
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    coupled: bool
    part: str = ""

    @property
    def bundle(self) -> int:
        """How many channels of its first layer go together; 1 where no layer ties any."""
        return self.bundle_of(self._first)

    def bundle_of(self, member: Member) -> int:
        """Return how many positions of a member go together."""
        return len(member.positions) // self.channels

    def positions(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where kept channels, or bundles of them, are in the layer that names the group.

        Returns:
            Indices of the layer's channels, ascending; int64.
        """
        return np.sort(self._first.positions[np.isin(self._first.channels, kept)])

    @property
    def _first(self) -> Member:
        members = [member for member in self.members if member.layer == self.name]
        return next((member for member in members if member.side != "in"), members[0])

    def layers(self, side: str) -> tuple[str, ...]:
        """Return the names of the layers on one side: ``"out"``, ``"in"`` or ``"through"``."""
        return tuple(member.layer for member in self.members if member.side == side)


@dataclass(frozen=True)
class Exclusion:
    """A set of channels that is not pruned, and why.

    Attributes:
        name: the layer that first produces them, or a module that could not be traced.
        channels: how many there are (0 for a module that could not be traced).
        reason: one phrase.
    """

    name: str
    channels: int
    reason: str


@dataclass(frozen=True)
class Tracing:
    """The groups of a network.

    Attributes:
        groups: in the order of the network's modules.
        excluded: what cannot be pruned.
        parts: for every module that was traced on its own (``""``: the whole network), the inputs
            that it was traced with.
        followed_by: for layers whose output goes into a BatchNorm and nowhere else, that
            BatchNorm's name.
        training_only: what the network runs in training only.
        protected: groups that would be pruned if nothing protected them.
    """

    groups: tuple[Group, ...]
    excluded: tuple[Exclusion, ...]
    parts: dict[str, tuple[Tensor, ...]]
    followed_by: dict[str, str]
    training_only: TrainingOnly
    protected: tuple[Group, ...] = ()


class Unprunable(Exception):
    """Internal: a traced set of channels cannot become a group; the message says why."""
