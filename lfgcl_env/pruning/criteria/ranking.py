"""Ranking: a network's channels in their orders, and the statistics that the orders come from."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.pruning.criteria.brain_surgeon import consumers_of, eliminate
from lfgcl_env.pruning.criteria.criterion import (
    Context,
    Elimination,
    Scores,
    order_channels,
    score_channels,
)
from lfgcl_env.pruning.moments.output_weights import output_weights
from lfgcl_env.pruning.moments.second_moments import Moments, collect_moments
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork


class Ranking:
    """Orders the channels of every group from most to least worth keeping.

    Args:
        network: what is pruned.
        batches: calibration images, on the device that they are run on.
        criterion: a name in :data:`~lfgcl_env.pruning.criteria.criterion.CRITERIA`.
        seed: of sampled positions and random orders.

    Raises:
        ValueError: for a criterion that a group gives nothing to score by.

    Attributes:
        orders: one permutation of its channels per group, int64.
    """

    def __init__(
        self, network: PrunableNetwork, batches: Sequence[Tensor], criterion: str, seed: int
    ) -> None:
        self._network, self._batches, self._seed = network, batches, seed
        self.orders = order_channels(criterion, self._context(), network.groups)

    @cached_property
    def moments(self) -> dict[str, Moments]:
        """Second moments of the inputs of every layer that a group feeds, by layer name."""
        network = self._network
        whole = network.candidate(self._batches[0].device).network
        return collect_moments(
            whole, network.plan, self._batches, network.followed_by, seed=self._seed
        )

    @cached_property
    def eliminations(self) -> dict[str, Elimination]:
        """Backward elimination of every group's channels, by group name: order and error curve."""
        moments, groups = self.moments, self._network.groups
        fed = {group.name: consumers_of(group, moments) for group in groups}
        several = sorted({name for names in fed.values() if len(names) > 1 for name in names})
        weights = self._output_weights(several) if several else None
        return {
            group.name: eliminate(group, moments, weights if len(fed[group.name]) > 1 else None)
            for group in groups
        }

    def kept(self, keep: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return the indices of the channels that stay in every group, ascending."""
        return [np.sort(order[:k]) for order, k in zip(self.orders, keep, strict=True)]

    def scores(self, criterion: str, *, relative: bool = True) -> tuple[Scores, ...]:
        """Score every group's channels under any criterion, see :func:`score_channels`."""
        return score_channels(criterion, self._context(relative), self._network.groups)

    @torch.inference_mode(False)
    def _output_weights(self, layers: list[str]) -> dict[str, Tensor]:
        whole = self._network.candidate(self._batches[0].device).network
        return output_weights(whole, layers, torch.cat(list(self._batches)), seed=self._seed)

    def _context(self, relative: bool = True) -> Context:
        return Context(
            self._network.baseline.network,
            torch.cat(list(self._batches)).cpu(),
            lambda: self.eliminations,
            lambda: self.moments,
            self._seed,
            relative,
        )
