"""Sequential repair: every layer refitted in turn, on the inputs it gets in the pruned network.

The network is walked from input to output. Every convolution and linear layer whose input has
changed is solved anew in closed form, with the pruned network's own input patches. Its target is
the baseline's value at the point where the layer's contribution ends: behind its BatchNorm, and
behind the addition to a residual stream if there is one, minus the pruned network's other operand.
So errors made earlier are corrected later. Where a ReLU follows, every value below zero meets a
target below zero: such targets are replaced by the negative part of the current output, and the
layer is solved again; targets above the cap of a ReLU6 likewise. A layer with few rows for its
features, such as the gate of a squeeze-and-excitation block, which sees one position an image, is
fitted with as much of a ridge as images that are held out ask for, or left as it is.

The idea of layer-wise reconstruction on the compressed network's own inputs is that of channel
pruning (He et al., ICCV 2017) and asymmetric reconstruction (Zhang et al., TPAMI 2016); the target
behind the addition, the ReLU-aware targets in closed form, and refitting producers as well as
consumers go beyond them. Labels and backpropagation through the network are not used.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.images.chunks import chunks_of
from lfgcl_env.pruning.moments.second_moments import Moments
from lfgcl_env.pruning.repair.baseline_values import KeptTargets, LiveTargets
from lfgcl_env.pruning.repair.by_calls import refit_by_calls
from lfgcl_env.pruning.repair.cut_graph import check_graph, find_obstacle
from lfgcl_env.pruning.repair.fused_forward import FusedForward
from lfgcl_env.pruning.repair.graph_runner import trace
from lfgcl_env.pruning.repair.interface import Cut, Features, Reader, repair, run_plain
from lfgcl_env.pruning.repair.least_squares import LeastSquaresRepair
from lfgcl_env.pruning.repair.profiles import CHUNK, SCORING, Samples, SequentialOptions
from lfgcl_env.pruning.repair.refitted import Recent
from lfgcl_env.pruning.repair.schedule import Schedule
from lfgcl_env.pruning.repair.walk import Walk
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork


@torch.no_grad()
def repair_sequentially(
    network: PrunableNetwork,
    cuts: Sequence[Cut],
    images: Tensor,
    options: SequentialOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Refit all layers of pruned networks whose inputs have changed, in place; all in step.

    The baseline's values are computed once for all of them. Where there is no graph, layers are
    refitted from module calls, see :mod:`lfgcl_env.pruning.repair.by_calls`.

    Args:
        network: what they were cut from.
        cuts: the pruned networks.
        images: unlabelled inputs, on the networks' device; (images, channels, height, width). All
            their activations at a handful of layers are held at once, for the baseline and for
            every pruned network: 2 GB each for ResNet-56 and 4,096 images.
        options: see there.
        progress: called with the steps done and their number.
    """
    whole = network.candidate(images.device).network
    chunks = split(images, network.layout)
    if find_obstacle(network) is not None:
        plan, norms = network.plan, network.followed_by
        refit_by_calls(whole, plan, norms, cuts, chunks, options, progress)
        return
    schedule = Schedule(whole, chunks[0][:1], network.plan.layers)
    samples = Samples([len(chunk) for chunk in chunks], options)
    walks = [
        Walk(cut.network, schedule, network.plan, cut.kept, chunks, samples, options)
        for cut in cuts
    ]
    walks = [walk for walk in walks if walk.changes]
    targets = LiveTargets(whole, schedule, chunks)
    for index in range(len(schedule.steps) if walks else 0):
        targets.advance(index)
        for walk in walks:
            walk.step(index, targets)
        targets.forget(index)
        progress(index + 1, len(schedule.steps))


def split(images: Tensor, layout: torch.memory_format) -> list[Tensor]:
    """Split images into chunks that are run at a time."""
    return [chunk.contiguous(memory_format=layout) for chunk in chunks_of(images, CHUNK)]


@repair("sequential")
class SequentialRepair(LeastSquaresRepair):
    """Refits every layer in turn before a strategy is scored, under :data:`SCORING`.

    The baseline's values at the positions that layers are fitted at are computed once, and the
    positions are the same for all strategies, so that strategies do not differ by what was sampled.
    The candidate is refitted in place and put back after it was read. What it was refitted to is
    kept for a while, for networks that are handed over as they were scored.
    """

    options = SCORING
    costly = True
    similarity = "kl"
    score_images = 4

    def check(self, network: nn.Module) -> None:
        """Refuse a network that ``torch.fx`` cannot trace.

        Raises:
            ValueError: if it cannot; the message names a repair that can.
        """
        trace(network)

    def check_cut(self, network: PrunableNetwork) -> None:
        """Refuse a network whose graph changes with its sizes.

        Raises:
            ValueError: if it does; the message names a repair that can.
        """
        check_graph(network)

    @torch.inference_mode()
    def prepare(
        self,
        network: PrunableNetwork,
        candidate: Candidate,
        images: Sequence[Tensor],
        moments: Callable[[], Mapping[str, Moments]],
    ) -> None:
        """Compute the baseline's values where layers are fitted."""
        self.check_cut(network)
        super().prepare(network, candidate, images, moments)
        self._plan = network.plan
        self._chunks = split(torch.cat(list(images)), network.layout)
        self._schedule = Schedule(candidate.network, self._chunks[0][:1], network.plan.layers)
        self._samples = Samples([len(chunk) for chunk in self._chunks], self.options)
        self._targets = KeptTargets(
            candidate.network,
            self._schedule,
            self._chunks,
            self._samples,
            gauss_newton=self.options.gauss_newton > 0,
        )
        self._forward = FusedForward(candidate.network, network.plan.layers)
        self._recent = Recent()

    @torch.inference_mode()
    def run(
        self,
        candidate: Candidate,
        kept: Sequence[NDArray[np.int64]],
        reader: Reader,
        batches: Sequence[Tensor],
    ) -> Features:
        """Refit a candidate, return its features, and put it back."""
        walk = self._refit(candidate, kept)
        try:
            self._recent.add(kept, walk.refitted())
            with self._forward.running():
                return run_plain(candidate.network, reader, batches)
        finally:
            walk.restore()

    def carry(
        self, candidate: Candidate, kept: Sequence[NDArray[np.int64]], smaller: nn.Module
    ) -> None:
        """Copy the refitted weights and statistics of a candidate into a network of its shape."""
        known = self._recent.find(kept)
        with torch.inference_mode():
            walk = self._walk(candidate, kept) if known else self._refit(candidate, kept)
        try:
            walk.replay(known or [])
            super().carry(candidate, kept, smaller)
        finally:
            walk.restore()

    def carry_prior(
        self, candidate: Candidate, kept: Sequence[NDArray[np.int64]], smaller: nn.Module
    ) -> None:
        """Copy the closed form alone: what follows refits every layer again."""
        super().carry(candidate, kept, smaller)

    def _refit(self, candidate: Candidate, kept: Sequence[NDArray[np.int64]]) -> Walk:
        walk = self._walk(candidate, kept)
        try:
            for index in range(len(self._schedule.steps) if walk.changes else 0):
                walk.step(index, self._targets)
        except BaseException:
            walk.restore()
            raise
        return walk

    def _walk(self, candidate: Candidate, kept: Sequence[NDArray[np.int64]]) -> Walk:
        return Walk(
            candidate.network,
            self._schedule,
            self._plan,
            kept,
            self._chunks,
            self._samples,
            self.options,
        )
