"""Sequential repair: every layer refitted in turn, on what the pruned network really gives it.

The network is walked from input to output. Every convolution and linear layer whose input has
changed is solved anew in closed form, with the pruned network's own input patches, towards what the
baseline has at the point where the layer's contribution ends: behind its BatchNorm, and behind the
addition to a residual stream if there is one, less what the pruned network adds there by itself. So
errors made earlier are undone later. Where a ReLU follows, a target below zero asks for anything
not above zero: such targets are replaced by the current output's negative part and solved again.

The idea of layer-wise reconstruction on the compressed network's own inputs is that of channel
pruning (He et al., ICCV 2017) and asymmetric reconstruction (Zhang et al., TPAMI 2016); the target
behind the addition, the one-sided targets in closed form, and refitting producers as well as
consumers go beyond them. Labels and backpropagation through the network are not used.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from lfgcl_env.pruning.repair.augmentation import augment
from lfgcl_env.pruning.repair.conv_bn import ConvBN
from lfgcl_env.pruning.repair.gauss_newton import Producer, alternate, can_alternate
from lfgcl_env.pruning.repair.graph_runner import (
    GraphRunner,
    addition_after,
    batchnorm_after,
    dense_module,
    is_capped,
    relu_after,
    trace,
)
from lfgcl_env.pruning.repair.layer_fit import Fit, sample
from lfgcl_env.pruning.structure.slice_plan import SlicePlan

_CHUNK = 64


@dataclass(frozen=True)
class SequentialOptions:
    """Settings of sequential repair.

    Attributes:
        rows: patches that a layer is fitted to, sampled evenly over the images.
        ridge: pull towards the current weights, relative to the mean second moment of a feature.
        relu_aware: how often one-sided targets are renewed.
        gauss_newton: Gauss-Newton steps between a producer and its consumer, see
            :mod:`lfgcl_env.pruning.repair.gauss_newton`; 0 for none. Three bring half a point to a
            point of top-1 and take three times as long.
        crops: pixels of border for random crops of the images, see
            :func:`~lfgcl_env.pruning.repair.augmentation.augment`; 0 for none.
        flips: whether images are mirrored left and right, half of them.
        copies: randomly cropped and flipped ones that stand for each image.
        seed: of the sampled positions, crops and flips.

    Raises:
        ValueError: if ``crops`` is negative, ``copies`` is below 1, or copies would all be alike.
    """

    rows: int = 65536
    ridge: float = 1e-3
    relu_aware: int = 3
    gauss_newton: int = 0
    crops: int = 0
    flips: bool = False
    copies: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.crops < 0 or self.copies < 1:
            raise ValueError(
                f"crops must be at least 0 and copies at least 1, got {self.crops}, {self.copies}"
            )
        if self.copies > 1 and not self.crops and not self.flips:
            raise ValueError(f"{self.copies} copies are all alike without crops=4 or flips=True")


@torch.no_grad()
def repair_sequentially(
    baseline: nn.Module,
    pruned: nn.Module,
    images: Tensor,
    plan: SlicePlan,
    mask: NDArray[np.bool_],
    options: SequentialOptions | None = None,
    layout: torch.memory_format = torch.contiguous_format,
    border: Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Refit all layers of ``pruned``, in place.

    Args:
        baseline: the network it was cut from, in evaluation mode; not changed.
        pruned: the smaller network, in evaluation mode, on the same device.
        images: unlabelled inputs; (images, channels, height, width). All their activations at a
            handful of layers are held at once: 0.5 GB for ResNet-56 and 1,024 images. Copies
            count as images.
        plan: the slice plan.
        mask: the channels that ``pruned`` kept, see :meth:`SlicePlan.mask`.
        options: see there.
        layout: of images in memory, see
            :func:`~lfgcl_env.pruning.structure.candidate.fastest_layout`.
        border: what crops see outside an image: black, as the network sees it; (channels,). None
            for zeros.
        progress: called with the nodes done and their number.

    Raises:
        ValueError: if ``torch.fx`` cannot trace the network, or inputs that are no images are to be
            cropped or flipped.
    """
    options = options or SequentialOptions()
    seen = augment(
        images,
        crops=options.crops,
        flips=options.flips,
        copies=options.copies,
        border=images.new_zeros(images.shape[1]) if border is None else border,
        seed=options.seed,
    )
    chunks = [c.contiguous(memory_format=layout) for c in torch.split(seen, _CHUNK)]
    walk = _Walk(baseline, pruned, chunks, plan, mask, options)
    walk.run(progress)


class _Walk:
    def __init__(
        self,
        baseline: nn.Module,
        pruned: nn.Module,
        chunks: list[Tensor],
        plan: SlicePlan,
        mask: NDArray[np.bool_],
        options: SequentialOptions,
    ) -> None:
        graph, pruned_graph = trace(baseline), trace(pruned)
        if [n.target for n in graph.nodes] != [n.target for n in pruned_graph.nodes]:
            raise ValueError("the pruned network's operations differ from the baseline's")
        self._pruned, self._whole = pruned, baseline
        self._plan, self._mask, self._options = plan, mask, options
        self._base = GraphRunner(baseline, graph, chunks)
        self._cut = GraphRunner(pruned, pruned_graph, chunks, before=self._solve)
        self._index = {node: i for i, node in enumerate(self._cut.nodes)}
        self._changed = self._find_changed()
        self._solving: set[fx.Node] = set()
        self._solved: set[fx.Node] = set()
        self._pairs = self._find_pairs() if options.gauss_newton else {}
        for node, path in self._pairs.items():
            source = self._index[path[0].all_input_nodes[0]]
            self._cut.keep(source, until=self._index[node])

    def run(self, progress: Callable[[int, int], None]) -> None:
        total = len(self._cut.nodes)
        for index in range(total):
            self._cut.value(index)
            self._base.value(index)
            self._cut.forget(index)
            self._base.forget(index)
            progress(index + 1, total)

    def _find_changed(self) -> set[fx.Node]:
        """Nodes whose values differ from the baseline's, in size or in numbers."""
        changed: set[fx.Node] = set()
        for node in self._cut.nodes:
            cut = node.op == "call_module" and str(node.target) in self._plan.layers
            if cut:
                slices = self._plan.layers[str(node.target)]
                dimensions = [d for d in (slices.out, slices.into) if d is not None]
                cut = any(len(d.kept(self._mask)) < d.size for d in dimensions)
            if cut or any(n in changed for n in node.all_input_nodes):
                changed.add(node)
        return changed

    def _solve(self, node: fx.Node) -> None:
        """Refit the layer that ``node`` calls before it is run, if its input has changed."""
        dense = self._dense(node) is not None
        if not dense or node in self._solved or node.all_input_nodes[0] not in self._changed:
            return
        self._solving.add(node)
        norm_node = batchnorm_after(self._pruned, node)
        layer = self._folded(node)
        point, other = norm_node or node, None
        addition = addition_after(point)
        if addition is not None and not self._needs_solving(addition[1]):
            point, other = addition
        fit = self._fit(node, layer, point, other)
        fit.solve(self._options.relu_aware)
        path = self._pairs.get(node)
        if path is not None:
            self._alternate(path, fit, seed=self._options.seed + self._index[node])
        self._solving.discard(node)
        self._solved.add(node)

    def _fit(self, node: fx.Node, layer: ConvBN, point: fx.Node, other: fx.Node | None) -> Fit:
        inputs = self._cut.value(self._index[node.all_input_nodes[0]])
        target = self._base.value(self._index[point])
        slices = self._plan.layers.get(str(node.target))
        if slices is not None and slices.out is not None:
            kept = torch.from_numpy(slices.out.kept(self._mask))
            axis = 1 if layer.reader.kernel else -1
            target = [t.index_select(axis, kept.to(t.device)) for t in target]
        seed = self._options.seed + self._index[node]
        return Fit(
            layer=layer,
            inputs=inputs,
            target=target,
            other=None if other is None else self._cut.value(self._index[other]),
            relu=relu_after(self._pruned, point) is not None,
            chosen=sample(inputs, layer, self._options.rows, seed),
            ridge=self._options.ridge,
        )

    def _alternate(self, path: list[fx.Node], fit: Fit, seed: int) -> None:
        """Improve the pair of layers at both ends of ``path`` and the node that it leads to."""
        inputs = self._cut.value(self._index[path[0].all_input_nodes[0]])
        producer = Producer(self._folded(path[0]), inputs)
        alternate(producer, fit, self._options.gauss_newton, self._options.rows, seed)
        for node in path:
            self._cut.drop(self._index[node])

    def _dense(self, node: fx.Node) -> nn.Module | None:
        """The baseline's dense layer that a node calls; cut to one channel, others look dense."""
        return dense_module(self._whole, node)

    def _folded(self, node: fx.Node) -> ConvBN:
        module = self._pruned.get_submodule(str(node.target))
        norm = batchnorm_after(self._pruned, node)
        return ConvBN(
            module, None if norm is None else self._pruned.get_submodule(str(norm.target))
        )

    def _find_pairs(self) -> dict[fx.Node, list[fx.Node]]:
        """Consumers with a producer that feeds them alone, through a ReLU: the nodes between."""
        pairs = {}
        for node in self._cut.nodes:
            module = self._dense(node)
            if module is None:
                continue
            path = [node]
            norm = batchnorm_after(self._pruned, node)
            path += [norm] if norm is not None else []
            relu = relu_after(self._pruned, path[-1])
            if relu is None or len(relu.users) != 1 or is_capped(self._pruned, relu):
                continue
            consumer = next(iter(relu.users))
            behind = self._dense(consumer)
            if behind is not None and can_alternate(module, behind):
                pairs[consumer] = [*path, relu]
        return pairs

    def _needs_solving(self, other: fx.Node) -> bool:
        """Whether an operand waits for a layer that is being solved itself."""
        pending, seen = [other], set()
        while pending:
            node = pending.pop()
            if node in self._solving:
                return True
            pending += [n for n in node.all_input_nodes if n not in seen]
            seen |= set(node.all_input_nodes)
        return False
