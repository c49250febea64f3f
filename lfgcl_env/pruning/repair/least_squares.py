"""Least squares: every layer that lost inputs is refitted in closed form, without a pass over data.

A layer's best weights for the inputs that stay follow from the second moments of its inputs in the
baseline, which are collected once.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.pruning.moments.norm_statistics import NormStatistics, collect_norm_statistics
from lfgcl_env.pruning.moments.second_moments import Moments, repaired_weights
from lfgcl_env.pruning.repair.interface import Repair, repair
from lfgcl_env.pruning.repair.tensor_cache import TensorCache
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.fixed_layers import find_refittable
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork


@repair("least_squares")
class LeastSquaresRepair(Repair):
    """Refits the weights of all layers that lost input channels."""

    def prepare(
        self,
        network: PrunableNetwork,
        candidate: Candidate,
        images: Sequence[Tensor],
        moments: Callable[[], Mapping[str, Moments]],
    ) -> None:
        """Let a candidate take its weights from a :class:`LeastSquaresSolver`."""
        dtype = next(candidate.network.parameters()).dtype
        refittable = find_refittable(network.baseline.network)
        known = {name: found for name, found in moments().items() if name in refittable}
        norms = collect_norm_statistics(candidate.network, network.plan, images)
        candidate.solver = LeastSquaresSolver(known, norms, dtype)


class LeastSquaresSolver:
    """Computes the weights of layers that lost input channels, and caches them.

    Args:
        moments: of every layer that can be refitted, by name.
        norms: what norms over channels see, by name.
        dtype: of the weights.
    """

    def __init__(
        self,
        moments: Mapping[str, Moments],
        norms: Mapping[str, NormStatistics],
        dtype: torch.dtype,
    ) -> None:
        self._moments, self._norms = moments, norms
        self._dtype = dtype
        self._cache: TensorCache[tuple[str, bytes], tuple[Tensor, Tensor]] = TensorCache()

    def __contains__(self, layer: str) -> bool:
        return layer in self._moments

    def __call__(self, layer: str, kept: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a layer whose inputs at ``kept`` stay.

        Args:
            layer: its name.
            kept: positions of its input dimension that stay, ascending.

        Returns:
            The weight (out, kept, ...) with all outputs, and a bias (out,), zero where it may not
            change; without inputs it always may.
        """
        key = (layer, kept.tobytes())
        if (known := self._cache.get(key)) is not None:
            return known
        moments = self._moments[layer]
        positions = torch.from_numpy(kept).to(moments.weights.device)
        matrix = repaired_weights(moments, positions).to(self._dtype)
        solved = moments.reader.weight(matrix)
        self._cache.add(key, solved, solved)
        return solved

    def rescale(self, norm: str, kept: NDArray[np.int64]) -> tuple[float, float]:
        """Return what gives a norm's kept channels their values in the baseline back, on average.

        Args:
            norm: its name.
            kept: positions of its channels that stay, ascending.

        Returns:
            A factor for what it gives before its weight and bias, and what is added behind it.
        """
        if norm not in self._norms:
            return 1.0, 0.0
        statistics = self._norms[norm]
        return statistics.rescale(torch.from_numpy(kept).to(statistics.mean.device))
