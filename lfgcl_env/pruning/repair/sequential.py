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

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

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
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork
from lfgcl_env.pruning.structure.slice_plan import SlicePlan

_CHUNK = 64


@dataclass(frozen=True)
class SequentialOptions:
    """Settings of sequential repair.

    Attributes:
        rows: patches that a layer is fitted to, sampled evenly over the images.
        ridge: pull towards the current weights, relative to the mean second moment of a feature.
        relu_aware: how often targets below zero are replaced where a ReLU follows.
        gauss_newton: Gauss-Newton steps between a producer and its consumer, see
            :mod:`lfgcl_env.pruning.repair.gauss_newton`; 0 for none. Three bring half a point to a
            point of top-1 and take three times as long.
        seed: of the sampled positions.
    """

    rows: int = 65536
    ridge: float = 1e-3
    relu_aware: int = 3
    gauss_newton: int = 0
    seed: int = 0


@torch.no_grad()
def repair_sequentially(
    network: PrunableNetwork,
    pruned: nn.Module,
    kept: list[NDArray[np.int64]],
    images: Tensor,
    options: SequentialOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Refit all layers of ``pruned`` whose inputs have changed, in place.

    Args:
        network: what it was cut from.
        pruned: the smaller network, in evaluation mode.
        kept: for each group, the indices of the channels that ``pruned`` kept.
        images: unlabelled inputs on the device of ``pruned``; (images, channels, height, width).
            All their activations at a handful of layers are held at once: 0.5 GB for ResNet-56 and
            1,024 images.
        options: see there.
        progress: called with the operations done and their number.

    Raises:
        ValueError: if ``torch.fx`` cannot trace the network.
    """
    options = options or SequentialOptions()
    whole = network.candidate(images.device).network
    chunks = [c.contiguous(memory_format=network.layout) for c in torch.split(images, _CHUNK)]
    walk = _Walk(whole, pruned, chunks, network.plan, network.plan.mask(kept), options)
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
        """Return the nodes whose values differ from the baseline's, in size or in numbers."""
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
        layer = self._conv_bn(node)
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
        producer = Producer(self._conv_bn(path[0]), inputs)
        alternate(producer, fit, self._options.gauss_newton, self._options.rows, seed)
        for node in path:
            self._cut.drop(self._index[node])

    def _dense(self, node: fx.Node) -> nn.Module | None:
        """Return the baseline's dense layer of a node: cut to one channel, others look dense."""
        return dense_module(self._whole, node)

    def _conv_bn(self, node: fx.Node) -> ConvBN:
        module = self._pruned.get_submodule(str(node.target))
        norm = batchnorm_after(self._pruned, node)
        return ConvBN(
            module, None if norm is None else self._pruned.get_submodule(str(norm.target))
        )

    def _find_pairs(self) -> dict[fx.Node, list[fx.Node]]:
        """Map consumers whose producer feeds them alone, through a ReLU, to the nodes between."""
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
        """Whether an operand depends on a layer that is being solved."""
        pending, seen = [other], set()
        while pending:
            node = pending.pop()
            if node in self._solving:
                return True
            pending += [n for n in node.all_input_nodes if n not in seen]
            seen |= set(node.all_input_nodes)
        return False
