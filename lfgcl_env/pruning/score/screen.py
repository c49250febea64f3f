"""Cheap scores of strategies, by which searches choose what to score in full."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.pruning.moments.second_moments import Moments
from lfgcl_env.pruning.repair.cut_graph import check_graph
from lfgcl_env.pruning.repair.fused_forward import FusedForward
from lfgcl_env.pruning.repair.least_squares import LeastSquaresRepair
from lfgcl_env.pruning.score.scorer import Scorer
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork

SCREENED = 64
"""Calibration images that strategies are screened on: more rank no better, see docs/fidelity.md."""


class Screen:
    """Scores strategies by a closed-form repair and some images, one forward pass each.

    The network is repaired by least squares, and the features that feed its outputs are compared by
    :func:`~lfgcl_env.pruning.score.similarities.discounted_mse`, whatever the problem's own score
    is: of the signals that cost one forward pass it is the one that ranks (docs/fidelity.md).

    Args:
        network: what is pruned.
        device: of the images.
        batches: some of the calibration images.
        moments: returns the second moments of every layer whose inputs follow groups.
        features: modules to compare at instead, for networks whose outputs cannot be compared.
    """

    def __init__(
        self,
        network: PrunableNetwork,
        device: torch.device,
        batches: Sequence[Tensor],
        moments: Callable[[], Mapping[str, Moments]],
        features: str | Sequence[str] | None = None,
    ) -> None:
        self._candidate = network.candidate(device)
        self._batches = batches
        self._repair = LeastSquaresRepair()
        self._scorer = Scorer(network, self._candidate, batches, self._repair.similarity, features)
        self._repair.prepare(network, self._candidate, batches, moments)
        self._forward: FusedForward | None = None
        with suppress(ValueError):  # there is no graph, or none that holds for cut networks
            check_graph(network)
            self._forward = FusedForward(self._candidate.network, network.plan.layers)
        self._known: dict[tuple[int, ...], float] = {}

    def __len__(self) -> int:
        """How many distinct strategies were scored."""
        return len(self._known)

    def __contains__(self, keep: NDArray[np.int64]) -> bool:
        """Whether a strategy was scored."""
        return tuple(keep.tolist()) in self._known

    def known(self, keep: tuple[int, ...]) -> float | None:
        """Return the score of a strategy, or None if it was not scored."""
        return self._known.get(keep)

    def remember(self, keep: tuple[int, ...], score: float) -> None:
        """Store a score that a worker computed."""
        self._known[keep] = score

    def __call__(
        self, keep: NDArray[np.int64], kept: Callable[[], list[NDArray[np.int64]]]
    ) -> float:
        """Return the cheap score of a strategy; one scored before is looked up.

        Args:
            keep: channels kept in every group.
            kept: returns their indices.
        """
        key = tuple(keep.tolist())
        if key not in self._known:
            indices = kept()
            self._candidate.install(indices)
            with self._forward.running() if self._forward else nullcontext():
                found = self._repair.run(
                    self._candidate, indices, self._scorer.reader, self._batches
                )
            self._known[key] = self._scorer.compare(self._scorer.join(found, indices))
        return self._known[key]
