"""Features of baseline and candidates at named places, comparable although channels are gone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from lfgcl_env.edge.choices import closest
from lfgcl_env.pruning.score.heads import find_heads
from lfgcl_env.pruning.score.output_values import read_output
from lfgcl_env.pruning.structure.emptied import Constant, NoChannels
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork
from lfgcl_env.pruning.structure.slice_plan import Dimension, SlicePlan

OUTPUT = "output"
"""The place that stands for the network's output."""


@dataclass(frozen=True)
class _Place:
    """Where features are read.

    Attributes:
        module: a name; ``""`` for the network.
        what: ``"output"``, ``"input"``, ``"pooled"``: the input, averaged over positions, or
            ``"gridded"``: averaged over the cells of a grid.
        dimension: how groups cut the channels; None where they stay.
        returned: the place of an output of the network; None for modules.
    """

    module: str
    what: str
    dimension: Dimension | None
    returned: str | None = None


class FeatureReader:
    """Reads features at the heads' inputs, at named modules' outputs, or at the network's outputs.

    The features of a removed channel count as zero: a candidate's features are put back into the
    baseline's shape, so that any two can be compared entry by entry.

    Args:
        network: what is pruned.
        places: module names, ``"output"`` for all outputs, or None for the inputs of the layers
            that feed the outputs (of a classifier: the penultimate features).
        upstream: a layer whose input is read too, as the first of all places, if it is used before
            all heads; None for no such.

    Attributes:
        upstream: the same, or None if it is not read.

    Raises:
        ValueError: for an unknown module name, or no names.
    """

    def __init__(
        self,
        network: PrunableNetwork,
        places: str | Sequence[str] | None,
        upstream: str | None = None,
    ) -> None:
        plan, baseline = network.plan, network.baseline
        places = [places] if isinstance(places, str) else places
        names = [name for name, _ in baseline.network.named_modules() if name]
        if places is not None and not places:
            raise ValueError("features names no module: give at least one, or None")
        heads = find_heads(baseline, network.layers) if places is None else ()
        used = [layer.name for layer in network.layers]
        if upstream is not None and any(
            used.index(head.layer) < used.index(upstream) for head in heads
        ):
            upstream = None  # what it gets says nothing of what a head before it lost
        self.upstream = upstream
        self._places = []
        if upstream is not None:
            self._places.append(_into(plan, upstream, "input"))
        for head in heads:
            self._places.append(_into(plan, head.layer, "gridded" if head.maps else "pooled"))
        for place in places or ():
            if place != OUTPUT and place not in names:
                raise ValueError(f"no module {place!r} to take features at.{closest(place, names)}")
            if place == OUTPUT:
                self._places += [_Place("", "output", None, name) for name in baseline.outputs]
                continue
            slices = plan.layers.get(place)
            self._places.append(_Place(place, "output", slices.out if slices else None))

    @contextmanager
    def reading(self, network: nn.Module) -> Iterator[list[list[Tensor]]]:
        """Collect features of every forward pass of ``network`` (baseline or a copy) inside.

        Yields:
            One list per place, which every pass appends its batch's features to, in this order.
        """
        found: list[list[Tensor]] = [[] for _ in self._places]
        with ExitStack() as stack:
            for place, into in zip(self._places, found, strict=True):
                module = network.get_submodule(place.module)
                stack.callback(_hook(module, place, into.append).remove)
            yield found

    def join(self, found: list[list[Tensor]], mask: NDArray[np.bool_] | None) -> list[Tensor]:
        """Join batches to one tensor (images, ...) per place, in the baseline's shape.

        Args:
            found: what :meth:`reading` collected.
            mask: see :meth:`SlicePlan.mask`; None for the baseline itself.

        Raises:
            ValueError: if a module was not used, or gave more or fewer channels than were kept.
        """
        result = []
        for batches, place in zip(found, self._places, strict=True):
            if not batches:
                raise ValueError(f"module {place.module!r} is not used: it has no features")
            if len({batch.shape[2:] for batch in batches}) > 1:  # called on maps of several sizes
                batches = [_average_cells(batch) for batch in batches]
            features = torch.cat(batches)
            if place.dimension is not None and mask is not None:
                size = (features.shape[0], place.dimension.size, *features.shape[2:])
                kept = torch.from_numpy(place.dimension.kept(mask)).to(features.device)
                if features.shape[1] != len(kept):
                    raise ValueError(
                        f"the network has {features.shape[1]} channels at {place.module!r}, and "
                        f"the strategy keeps {len(kept)}"
                    )
                features = features.new_zeros(size).index_copy_(1, kept, features)
            result.append(features)
        return result


def entrance_of_last_third(plan: SlicePlan) -> str | None:
    """Return the first layer in the last third of the groups whose own inputs are not pruned.

    In a residual network it is the first layer of a block. None if there is no such layer, as in
    plain networks.

    Args:
        plan: of a network; its groups are in the network's order.
    """
    for group in plan.groups[-(len(plan.groups) // 3) :] if len(plan.groups) > 2 else ():
        if group.name in plan.layers and plan.layers[group.name].into is None:
            return group.name
    return None


def _into(plan: SlicePlan, layer: str, what: str) -> _Place:
    slices = plan.layers.get(layer)
    return _Place(layer, what, slices.into if slices else None)


def _hook(module: nn.Module, place: _Place, keep: Callable[[Tensor], None]) -> RemovableHandle:
    # Copied, because what follows may work in place, as ReLUs and additions often do.
    returned = place.returned
    if returned is not None:
        return module.register_forward_hook(
            lambda _, __, output: keep(read_output(output, returned).clone())
        )
    if place.what == "output":
        return module.register_forward_hook(
            lambda module, _, output: keep(_channels_first(module, output).clone())
        )
    if place.what == "input":
        return module.register_forward_pre_hook(
            lambda module, inputs: keep(_channels_first(module, inputs[0]).clone())
        )
    reduce = _average if place.what == "pooled" else _average_cells
    return module.register_forward_pre_hook(
        lambda module, inputs: keep(reduce(_channels_first(module, inputs[0])))
    )


def _channels_first(module: nn.Module, features: object) -> Tensor:
    """Return features as (images, channels, ...); a linear layer has its channels last."""
    if not isinstance(features, Tensor):
        raise ValueError(
            f"a {type(module).__name__} gives a {type(features).__name__}, not one tensor, and so "
            "has no features to compare: name another module"
        )
    emptied = isinstance(module, Constant | NoChannels) and module.window.linear
    return features.movedim(-1, 1) if emptied or isinstance(module, nn.Linear) else features


def _average(inputs: Tensor) -> Tensor:
    """Average a layer's input over positions, if it has any; (images, channels)."""
    return inputs.flatten(2).mean(dim=2) if inputs.dim() > 2 else inputs.clone()


def _average_cells(inputs: Tensor) -> Tensor:
    """Average a layer's input over each of 64 cells, if it has positions; (images, channels, ...).

    There are always so many, because a layer may be called on maps of several sizes.
    """
    if not inputs.shape[1]:
        cells = {3: (64,), 4: (8, 8), 5: (4, 4, 4)}
        return inputs.new_empty(len(inputs), 0, *cells.get(inputs.dim(), ()))
    match inputs.dim():
        case 3:
            return functional.adaptive_avg_pool1d(inputs, 64)
        case 4:
            return functional.adaptive_avg_pool2d(inputs, 8)
        case 5:
            return functional.adaptive_avg_pool3d(inputs, 4)
    return _average(inputs)
