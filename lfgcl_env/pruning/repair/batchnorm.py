"""BatchNorm statistics estimated anew on the calibration images, in the cut network.

Source: adaptive BatchNorm as in EagleEye (Li et al., ECCV 2020), which takes batches of labelled
training images in the order of an epoch; here they are the calibration images. Variances are
biased.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lfgcl_env.pruning.repair.interface import Features, Reader, Repair, repair, run_plain
from lfgcl_env.pruning.structure.candidate import Candidate, Statistics
from lfgcl_env.pruning.structure.layers import BATCH_NORMS


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

    @torch.inference_mode()
    def run(self, candidate: Candidate, reader: Reader, batches: Sequence[Tensor]) -> Features:
        """Return the features under statistics of all images.

        With one batch, which holds all images then, one pass does both: every BatchNorm normalises
        by the statistics of the very images whose features are read. With several, a first pass
        collects every batch's statistics, which are pooled, and a second one reads the features.
        """
        if len(batches) == 1:
            with candidate.reestimating(), reader.reading(candidate.network) as features:
                candidate.network(batches[0])
            return features
        with candidate.with_statistics(_estimate(candidate, batches)):
            return run_plain(candidate.network, reader, batches)

    def carry(self, candidate: Candidate, batches: Sequence[Tensor], smaller: nn.Module) -> None:
        """Copy the candidate's tensors, with the statistics of all images."""
        with candidate.with_statistics(_estimate(candidate, batches)):
            super().carry(candidate, batches, smaller)


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
