"""Sequential repair: every layer refitted in turn, on the inputs it gets in the pruned network.

The network is walked from input to output. Every convolution and linear layer whose input has
changed is solved anew in closed form, with the pruned network's own input patches. Its target is
the baseline's value at the point where the layer's contribution ends: behind its BatchNorm, and
behind the addition to a residual stream if there is one, minus the pruned network's other operand.
So errors made earlier are corrected later. Where a ReLU follows, every value below zero meets a
target below zero: such targets are replaced by the negative part of the current output, and the
layer is solved again.

The idea of layer-wise reconstruction on the compressed network's own inputs is that of channel
pruning (He et al., ICCV 2017) and asymmetric reconstruction (Zhang et al., TPAMI 2016); the target
behind the addition, the ReLU-aware targets in closed form, and refitting producers as well as
consumers go beyond them. Labels and backpropagation through the network are not used.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from lfgcl_env.pruning.moments.patches import choose_positions
from lfgcl_env.pruning.repair.conv_bn import ConvBN, convolve, fold
from lfgcl_env.pruning.repair.gauss_newton import Pair, alternate
from lfgcl_env.pruning.repair.graph_runner import GraphRunner
from lfgcl_env.pruning.repair.layer_fit import Fit
from lfgcl_env.pruning.repair.schedule import Fused, Refit, Schedule
from lfgcl_env.pruning.structure.slice_plan import Dimension, SlicePlan

CHUNK = 64
"""Images that are run at a time."""


@dataclass(frozen=True)
class SequentialOptions:
    """Settings of sequential repair.

    Attributes:
        rows: patches that a layer is fitted to, sampled evenly over the images.
        ridge: pull towards the current weights, relative to the mean second moment of a feature.
        relu_aware: how often targets below zero are replaced where a ReLU follows.
        gauss_newton: Gauss-Newton steps between a producer and its consumer, see
            :mod:`lfgcl_env.pruning.repair.gauss_newton`; 0 for none.
        positions: output positions that such a step sees: the first images that have so many; None
            for all images.
        seed: of the sampled positions.
    """

    rows: int = 65536
    ridge: float = 1e-3
    relu_aware: int = 1
    gauss_newton: int = 3
    positions: int | None = None
    seed: int = 0


class Samples:
    """The output positions that every layer is fitted at, the same for all strategies.

    Args:
        chunks: sizes of the chunks of images.
        options: how many positions, and their seed.
    """

    def __init__(self, chunks: Sequence[int], options: SequentialOptions) -> None:
        self._chunks, self._options = chunks, options
        self._known: dict[str, list[Tensor]] = {}

    def __call__(self, layer: str, number: int, available: int, device: torch.device) -> list[Tensor]:
        """Return the positions of a layer, for every chunk; int64, (images, positions).

        Args:
            layer: its name.
            number: its place among the layers, which decides the random draw.
            available: output positions for one image.
            device: of the positions.
        """
        if layer not in self._known:
            generator = torch.Generator().manual_seed(self._options.seed + number)
            wanted = max(1, self._options.rows // sum(self._chunks))
            self._known[layer] = [
                choose_positions(count, available, wanted, generator).to(device)
                for count in self._chunks
            ]
        return self._known[layer]

    def whole_chunks(self, available: int) -> int:
        """Return how many chunks Gauss-Newton steps see of a layer with so many positions."""
        if self._options.positions is None:
            return len(self._chunks)
        seen = 0
        for index, count in enumerate(self._chunks, start=1):
            seen += count * available
            if seen >= self._options.positions:
                return index
        return len(self._chunks)


class Targets(Protocol):
    """The baseline's values at the points of layers."""

    def rows(self, refit: Refit, chosen: Sequence[Tensor]) -> Tensor:
        """Return them at sampled positions; (rows, channels)."""

    def whole(self, refit: Refit, chunks: int) -> list[Tensor]:
        """Return them in the first chunks of images."""


class Walk:
    """One pruned network, refitted on its way from input to output.

    Args:
        network: cut, in evaluation mode; its tensors are replaced.
        schedule: of the baseline that it was cut from.
        plan: how.
        kept: for each group, the indices of the channels that stay.
        chunks: images on the network's device.
        samples: where layers are fitted.
        options: see there.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        plan: SlicePlan,
        kept: Sequence[NDArray[np.int64]],
        chunks: list[Tensor],
        samples: Samples,
        options: SequentialOptions,
    ) -> None:
        self._network, self._schedule, self._plan = network, schedule, plan
        self._mask, self._samples, self._options = plan.mask(kept), samples, options
        self._values = GraphRunner(network, chunks)
        self._number = {refit.layer: i for i, refit in enumerate(schedule.refits)}
        self._changed = self._find_changed()
        self._producers = {r.path[0] for r in schedule.refits if r.path}
        self._fits: dict[fx.Node, Fit] = {}
        self._restore: list[Callable[[], None]] = []

    @property
    def changes(self) -> bool:
        """Whether any layer is refitted."""
        return any(self.concerns(refit) for refit in self._schedule.refits)

    def concerns(self, refit: Refit) -> bool:
        """Whether a layer's input has changed, so that it is refitted."""
        return refit.input in self._changed

    def step(self, index: int, targets: Targets) -> None:
        """Do what the schedule says."""
        step = self._schedule.steps[index]
        if isinstance(step, fx.Node):
            self._values.run(step)
        elif isinstance(step, Fused):
            self._values[step.node] = self._run_fused(step)
        elif self.concerns(step):
            self._refit(step, targets)
        self._values.forget(self._schedule.unused[index])

    def _run_fused(self, step: Fused) -> list[Tensor]:
        conv = self._network.get_submodule(str(step.conv.target))
        weight, bias = fold(conv, self._network.get_submodule(str(step.norm.target)))
        values = [convolve(conv, v, weight, bias) for v in self._values[step.input]]
        return values if step.relu is None else [value.relu_() for value in values]

    def restore(self) -> None:
        """Put the tensors back that the network had before."""
        for restore in reversed(self._restore):
            restore()
        self._restore = []

    def _find_changed(self) -> set[fx.Node]:
        """Return the nodes whose values differ from the baseline's, in size or in numbers."""
        changed: set[fx.Node] = set()
        for node in self._schedule.graph.nodes:
            slices = self._plan.layers.get(str(node.target)) if node.op == "call_module" else None
            dimensions = [d for d in (slices.out, slices.into) if d is not None] if slices else []
            cut = any(len(d.kept(self._mask)) < d.size for d in dimensions)
            if cut or any(n in changed for n in node.all_input_nodes):
                changed.add(node)
        return changed

    def _refit(self, refit: Refit, targets: Targets) -> None:
        inputs: list[Tensor] = self._values[refit.input]
        fit, chosen = self._fit(refit.node, refit, inputs, targets)
        fit.solve(self._options.relu_aware)
        if refit.path and self._options.gauss_newton:
            self._alternate(refit, fit, chosen, targets)
        elif refit.node in self._producers and self._options.gauss_newton:
            self._fits[refit.node] = fit

    def _fit(
        self, node: fx.Node, refit: Refit, inputs: list[Tensor], targets: Targets
    ) -> tuple[Fit, list[Tensor]]:
        layer = self._layer(refit)
        chosen = self._chosen(refit, layer, inputs)
        wanted = targets.rows(refit, chosen)
        out = self._out(refit)
        if out is not None:
            kept = torch.from_numpy(out.kept(self._mask)).to(wanted.device)
            wanted = wanted.index_select(1, kept)
        there = None
        if refit.other is not None:
            there = torch.cat(
                [
                    layer.rows_of_output(v, c)
                    for v, c in zip(self._values[refit.other], chosen, strict=True)
                ]
            )
        fit = Fit(layer, wanted, there, relu=refit.relu, ridge=self._options.ridge)
        fit.read(inputs, chosen)
        return fit, chosen

    def _alternate(
        self, refit: Refit, fit: Fit, chosen: list[Tensor], targets: Targets
    ) -> None:
        """Improve a layer and its producer together, and run the producer anew."""
        producer = next(r for r in self._schedule.refits if r.node is refit.path[0])
        sources: list[Tensor] = self._values[producer.input]
        first = self._fits.pop(producer.node, None)
        if first is None:  # its own input has not changed, so that it was not refitted
            first, _ = self._fit(producer.node, producer, sources, targets)
        else:
            first.layer = self._layer(producer)
        positions = self._chosen(producer, first.layer, sources)
        available = first.layer.reader.positions(sources[0][:1])
        count = self._samples.whole_chunks(available)
        target = targets.whole(refit, count)
        out = self._out(refit)
        if out is not None:
            kept = torch.from_numpy(out.kept(self._mask)).to(target[0].device)
            target = [t.index_select(1, kept) for t in target]
        other = None if refit.other is None else self._values[refit.other][:count]
        pair = Pair(
            first, fit, sources[:count], target, other, positions[:count], chosen[:count]
        )
        alternate(pair, self._options.gauss_newton)
        weight, bias = first.layer.folded(first.layer.matrix())
        inner = [convolve(first.layer.module, v, weight, bias).relu_() for v in sources]
        self._values[refit.input] = inner
        fit.read(inner, chosen)
        fit.solve(self._options.relu_aware)

    def _layer(self, refit: Refit) -> ConvBN:
        module = self._network.get_submodule(refit.layer)
        norm = None if refit.norm is None else self._network.get_submodule(str(refit.norm.target))
        layer = ConvBN(module, norm)
        self._restore.append(layer.remember())
        return layer

    def _chosen(self, refit: Refit, layer: ConvBN, inputs: list[Tensor]) -> list[Tensor]:
        available = layer.reader.positions(inputs[0][:1])
        return self._samples(
            refit.layer, self._number[refit.layer], available, inputs[0].device
        )

    def _out(self, refit: Refit) -> Dimension | None:
        slices = self._plan.layers.get(refit.layer)
        return None if slices is None else slices.out


class KeptTargets:
    """The baseline's values where layers are fitted, computed once for all strategies.

    Args:
        network: the baseline.
        schedule: of it.
        chunks: images on its device.
        samples: where layers are fitted.
        gauss_newton: whether consumers' values at all positions are wanted too.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        chunks: list[Tensor],
        samples: Samples,
        *,
        gauss_newton: bool,
    ) -> None:
        self._rows: dict[str, Tensor] = {}
        self._whole: dict[str, list[Tensor]] = {}
        live = LiveTargets(network, schedule, chunks)
        number = {refit.layer: i for i, refit in enumerate(schedule.refits)}
        for index, step in enumerate(schedule.steps):
            live.advance(index)
            if isinstance(step, Refit):
                available = live.positions(step)
                chosen = samples(step.layer, number[step.layer], available, chunks[0].device)
                self._rows[step.layer] = live.rows(step, chosen)
                if gauss_newton and step.path:
                    count = samples.whole_chunks(available)
                    self._whole[step.layer] = [v.clone() for v in live.whole(step, count)]
            live.forget(index)

    def rows(self, refit: Refit, chosen: Sequence[Tensor]) -> Tensor:
        """Return the values at sampled positions; (rows, channels)."""
        return self._rows[refit.layer]

    def whole(self, refit: Refit, chunks: int) -> list[Tensor]:
        """Return the values in the first chunks of images."""
        return self._whole[refit.layer][:chunks]


class LiveTargets:
    """The baseline's values, computed while pruned networks are walked.

    Args:
        network: the baseline.
        schedule: of it.
        chunks: images on its device.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, chunks: list[Tensor]) -> None:
        self._network, self._schedule = network, schedule
        self._values = GraphRunner(network, chunks)

    def advance(self, index: int) -> None:
        """Run what the baseline runs before a step."""
        for node in self._schedule.ahead[index]:
            self._values.run(node)

    def forget(self, index: int) -> None:
        """Drop what is not needed after a step."""
        self._values.forget(self._schedule.baseline_unused[index])

    def positions(self, refit: Refit) -> int:
        """Count the output positions of a layer for one image."""
        value: Tensor = self._values[refit.point][0]
        linear = isinstance(self._network.get_submodule(refit.layer), nn.Linear)
        return value[0].numel() // value.shape[-1 if linear else 1]

    def rows(self, refit: Refit, chosen: Sequence[Tensor]) -> Tensor:
        """Return the values at sampled positions; (rows, channels)."""
        layer = ConvBN(self._network.get_submodule(refit.layer), None)
        pairs = zip(self._values[refit.point], chosen, strict=True)
        return torch.cat([layer.rows_of_output(value, places) for value, places in pairs])

    def whole(self, refit: Refit, chunks: int) -> list[Tensor]:
        """Return the values in the first chunks of images."""
        return list(self._values[refit.point][:chunks])


@torch.no_grad()
def repair_sequentially(
    baseline: nn.Module,
    schedule: Schedule,
    walks: Sequence[Walk],
    chunks: list[Tensor],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Refit all layers of networks whose inputs have changed, in place; all in step.

    The baseline's values are computed once for all of them.

    Args:
        baseline: in evaluation mode, on the device of the images.
        schedule: of it.
        walks: through the pruned networks.
        chunks: images. All their activations at a handful of layers are held at once, for the
            baseline and for every pruned network.
        progress: called with the steps done and their number.
    """
    walks = [walk for walk in walks if walk.changes]
    targets = LiveTargets(baseline, schedule, chunks)
    for index in range(len(schedule.steps) if walks else 0):
        targets.advance(index)
        for walk in walks:
            walk.step(index, targets)
        targets.forget(index)
        progress(index + 1, len(schedule.steps))
