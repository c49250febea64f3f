"""BatchNorm statistics estimated anew on the calibration images, in the cut network.

Source: adaptive BatchNorm as in EagleEye (Li et al., ECCV 2020), which takes batches of labelled
training images in the order of an epoch; here they are the calibration images. Variances are
biased.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.moments.second_moments import Moments
from lfgcl_env.pruning.repair.interface import Features, Reader, Repair, repair, run_plain
from lfgcl_env.pruning.structure.candidate import Candidate, Statistics
from lfgcl_env.pruning.structure.layers import BATCH_NORMS
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork


@repair("batchnorm")
class BatchNormRepair(Repair):
    """Estimates the statistics of all BatchNorms in the cut network."""

    large_batches = True

    def check(self, network: nn.Module) -> None:
        """Refuse a network without BatchNorm.

        Raises:
            ValueError: if it has none.
        """
        if not any(isinstance(module, BATCH_NORMS) for module in network.modules()):
            raise ValueError(
                "repair 'batchnorm' needs BatchNorm layers and this network has none: use 'none'"
            )

    def prepare(
        self,
        network: PrunableNetwork,
        candidate: Candidate,
        images: Sequence[Tensor],
        moments: Callable[[], Mapping[str, Moments]],
    ) -> None:
        """Take the images whose statistics count."""
        self._images = images

    @torch.inference_mode()
    def run(
        self,
        candidate: Candidate,
        kept: Sequence[NDArray[np.int64]],
        reader: Reader,
        batches: Sequence[Tensor],
    ) -> Features:
        """Return the features under the statistics of all calibration images.

        With one batch, which holds all these images then, one pass does both: every BatchNorm
        normalises by the statistics of the very images whose features are read. Otherwise a first
        pass collects every batch's statistics, which are pooled, and a second one reads features.
        """
        if batches is self._images and len(batches) == 1:
            with candidate.reestimating(), reader.reading(candidate.network) as features:
                candidate.network(batches[0])
            return features
        with candidate.with_statistics(_estimate(candidate, self._images)):
            return run_plain(candidate.network, reader, batches)

    def carry(
        self, candidate: Candidate, kept: Sequence[NDArray[np.int64]], smaller: nn.Module
    ) -> None:
        """Copy the candidate's tensors, with the statistics of all calibration images."""
        with candidate.with_statistics(_estimate(candidate, self._images)):
            super().carry(candidate, kept, smaller)


@torch.inference_mode()
def _estimate(candidate: Candidate, batches: Sequence[Tensor]) -> Statistics:
    """Return every BatchNorm's statistics over all batches."""
    collected: list[tuple[int, Statistics]] = []
    for batch in batches:
        with candidate.reestimating() as statistics:
            candidate.network(batch)
        collected.append((len(batch), statistics))
    return collected[0][1] if len(collected) == 1 else _pool(collected)


def _pool(collected: list[tuple[int, Statistics]]) -> Statistics:
    """Pool statistics of batches, each weighted by its number of images."""
    total = sum(count for count, _ in collected)
    pooled: Statistics = {}
    for name in collected[0][1]:
        mean = sum(s[name][0] * (count / total) for count, s in collected)
        square = sum((s[name][1] + s[name][0] ** 2) * (count / total) for count, s in collected)
        assert isinstance(mean, Tensor)
        assert isinstance(square, Tensor)
        pooled[name] = (mean, (square - mean**2).clamp(min=0))
    return pooled
