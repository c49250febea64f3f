"""One pruned network, refitted layer by layer on its way from input to output."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from lfgcl_env.pruning.repair.baseline_values import Targets
from lfgcl_env.pruning.repair.conv_bn import ConvBN, convolve, fold
from lfgcl_env.pruning.repair.gauss_newton import Pair, alternate
from lfgcl_env.pruning.repair.graph_runner import GraphRunner
from lfgcl_env.pruning.repair.layer_fit import Fit
from lfgcl_env.pruning.repair.profiles import Samples, SequentialOptions
from lfgcl_env.pruning.repair.refitted import Named, Placed, put
from lfgcl_env.pruning.repair.schedule import Fused, Refit, Schedule
from lfgcl_env.pruning.structure.emptied import NoChannels
from lfgcl_env.pruning.structure.slice_plan import SlicePlan


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
        self._changed = self._find_changed()
        self._producers = {r.path[0] for r in schedule.refits if r.path}
        self._fits: dict[fx.Node, Fit] = {}
        self._layers: list[ConvBN] = []
        self._before: list[Placed] = []

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
        norm = self._network.get_submodule(str(step.norm.target))
        if isinstance(conv, nn.Conv2d):
            weight, bias = fold(conv, norm)
            values = [convolve(conv, v, weight, bias) for v in self._values[step.input]]
        else:  # something that stands in for it
            values = [norm(conv(v)) for v in self._values[step.input]]
        return values if step.relu is None else [value.relu_() for value in values]

    def restore(self) -> None:
        """Put the tensors back that the network had before."""
        put(reversed(self._before))
        self._layers, self._before = [], []

    def refitted(self) -> list[Named]:
        """Return the tensors that the network has now in place of those that it had before."""
        names = {module: name for name, module in self._network.named_modules()}
        found = (placed for layer in self._layers for placed in layer.tensors())
        return [(names[module], key, tensor) for module, key, tensor in found]

    def replay(self, tensors: Sequence[Named]) -> None:
        """Put in what :meth:`refitted` returned of a network that was cut alike."""
        found = [(self._network.get_submodule(name), key, new) for name, key, new in tensors]
        self._before += [(module, key, getattr(module, key)) for module, key, _ in found]
        put(found)

    def _find_changed(self) -> set[fx.Node]:
        """Return the nodes whose values differ from the baseline's, in size or in numbers."""
        cut_layers = [
            f"{name}."
            for name, slices in self._plan.layers.items()
            if any(d and len(d.kept(self._mask)) < d.size for d in (slices.out, slices.into))
        ]
        changed: set[fx.Node] = set()
        for node in self._schedule.graph.nodes:
            # A module of torch.nn is one operation, with layers inside such as a Transformer's.
            cut = node.op == "call_module" and any(
                layer.startswith(f"{node.target}.") for layer in cut_layers
            )
            if cut or any(n in changed for n in node.all_input_nodes):
                changed.add(node)
        return changed

    def _refit(self, refit: Refit, targets: Targets) -> None:
        if isinstance(self._network.get_submodule(refit.layer), NoChannels):
            return
        inputs: list[Tensor] = self._values[refit.input]
        fit, chosen = self._fit(refit, inputs, targets)
        fit.solve(self._options.relu_aware)
        if self._options.gauss_newton and self._is_pair(refit):
            self._alternate(refit, fit, chosen, targets)
        elif refit.node in self._producers and self._options.gauss_newton:
            self._fits[refit.node] = fit

    def _is_pair(self, refit: Refit) -> bool:
        """Return whether a layer has a producer of its own, and both have channels left."""
        names = [refit.layer, *(str(node.target) for node in refit.path[:1])]
        modules = [self._network.get_submodule(name) for name in names]
        return bool(refit.path) and all(isinstance(m, nn.Conv2d) for m in modules)

    def _fit(
        self, refit: Refit, inputs: list[Tensor], targets: Targets
    ) -> tuple[Fit, list[Tensor]]:
        """Return a layer's problem on its inputs, and where it was sampled."""
        layer = self._layer(refit)
        chosen = self._chosen(refit, layer, inputs)
        (wanted,) = self._plan.cut_outputs(refit.layer, self._mask, [targets.rows(refit, chosen)])
        there = None
        if refit.other is not None:
            pairs = zip(self._values[refit.other], chosen, strict=True)
            there = torch.cat([layer.rows_of_output(value, places) for value, places in pairs])
        last = all(user.op == "output" for user in refit.point.users)
        ridge = self._options.ridge
        fit = Fit(layer, wanted, there, relu=refit.relu, ridge=ridge, last=last)
        fit.read(inputs, chosen)
        return fit, chosen

    def _alternate(self, refit: Refit, fit: Fit, chosen: list[Tensor], targets: Targets) -> None:
        """Improve a layer and its producer together, and run the producer anew."""
        producer = next(r for r in self._schedule.refits if r.node is refit.path[0])
        sources: list[Tensor] = self._values[producer.input]
        first = self._fits.pop(producer.node, None)
        if first is None:  # its own input has not changed, so that it was not refitted
            first, _ = self._fit(producer, sources, targets)
        else:
            first.layer = self._layer(producer)
        positions = self._chosen(producer, first.layer, sources)
        available = first.layer.reader.positions(sources[0][:1])
        if not (fit.is_sure and first.is_sure):
            return
        count = self._samples.whole_chunks(available)
        target = self._plan.cut_outputs(refit.layer, self._mask, targets.whole(refit, count))
        other = None if refit.other is None else self._values[refit.other][:count]
        assert refit.between is not None
        pair = Pair(
            *(first, fit, refit.between, sources[:count], target, other),
            *(positions[:count], chosen[:count]),
        )
        alternate(pair, self._options.gauss_newton)
        weight, bias = first.layer.folded(first.layer.matrix())
        made = (convolve(first.layer.module, v, weight, bias) for v in sources)
        inner = [refit.between.replace(value) for value in made]
        self._values[refit.input] = inner
        fit.read(inner, chosen)
        fit.solve(self._options.relu_aware)

    def _layer(self, refit: Refit) -> ConvBN:
        module = self._network.get_submodule(refit.layer)
        norm = None if refit.norm is None else self._network.get_submodule(str(refit.norm.target))
        layer = ConvBN(module, norm)
        self._layers.append(layer)
        self._before += layer.tensors()
        return layer

    def _chosen(self, refit: Refit, layer: ConvBN, inputs: list[Tensor]) -> list[Tensor]:
        shapes = [(len(x), layer.reader.positions(x[:1])) for x in inputs]
        return self._samples(refit.number, shapes, inputs[0].device)
