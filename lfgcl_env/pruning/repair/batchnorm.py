"""Repair: changing a cut network, without labels or gradients, to make up for what was removed."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lfgcl_env.pruning.score.features import FeatureReader
from lfgcl_env.pruning.structure.candidate import Candidate, Statistics

REPAIRS = ("least_squares", "batchnorm", "none")

Found = list[list[Tensor]]
"""Features per place and batch, see :class:`FeatureReader`."""


@torch.inference_mode()
def run_plain(network: nn.Module, reader: FeatureReader, batches: Sequence[Tensor]) -> Found:
    """Run a network as it is and return its features."""
    with reader.reading(network) as found:
        for batch in batches:
            network(batch)
    return found


@torch.inference_mode()
def run_with_batchnorm(
    candidate: Candidate, reader: FeatureReader, batches: Sequence[Tensor]
) -> tuple[Found, Statistics]:
    """Re-estimate BatchNorm statistics and return the features under them, and the statistics.

    With one batch, which holds all images then, one pass does both: every BatchNorm normalises by
    the statistics of the very images whose features are read. With several, a first pass collects
    every batch's statistics, which are pooled over batches, and a second one reads the features.

    Source: adaptive BatchNorm as in EagleEye (Li et al., ECCV 2020), which uses labelled-training
    batches in the order of an epoch; here they are the calibration images. Variances are biased.
    """
    if len(batches) == 1:
        with candidate.reestimating() as statistics, reader.reading(candidate.network) as found:
            candidate.network(batches[0])
        return found, statistics
    collected: list[tuple[int, Statistics]] = []
    for batch in batches:
        with candidate.reestimating() as statistics:
            candidate.network(batch)
        collected.append((len(batch), statistics))
    pooled = _pooled(collected)
    with candidate.with_statistics(pooled):
        return run_plain(candidate.network, reader, batches), pooled


def _pooled(collected: list[tuple[int, Statistics]]) -> Statistics:
    """Statistics of all batches together, each weighted by its number of images."""
    total = sum(count for count, _ in collected)
    pooled: Statistics = {}
    for name in collected[0][1]:
        mean = sum(s[name][0] * (count / total) for count, s in collected)
        square = sum((s[name][1] + s[name][0] ** 2) * (count / total) for count, s in collected)
        assert isinstance(mean, Tensor)
        assert isinstance(square, Tensor)
        pooled[name] = (mean, (square - mean**2).clamp(min=0))
    return pooled
