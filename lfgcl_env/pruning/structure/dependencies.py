"""Torch-Pruning's dependency graph, with the layers that it does not know."""

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.dependency import graph as graphs
from torch_pruning.dependency import index_mapping

from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.networks.recording import Recorded
from lfgcl_env.pruning.structure.channel_norms import is_channel_norm
from lfgcl_env.pruning.structure.layers import (
    is_frozen_norm,
    layer_kind,
    layer_sizes,
    passes_channels,
)
from lfgcl_env.pruning.structure.training_mode import set_training

_KNOWN_NORMS = (nn.LayerNorm, nn.GroupNorm)


class _Gather:
    """Maps the channels in front of a pixel shuffle or GLU to those behind it, several to one.

    Torch-Pruning keeps one owner of every position: those whose channels meet are noted.

    Args:
        place: from a channel in front to the one behind.
        met: where the sets of owners are added.
    """

    def __init__(self, place: Callable[[int], int], met: list[set[int]]) -> None:
        self._place, self._met = place, met

    def __call__(self, indices: Sequence[Any]) -> list[Any]:
        owners: dict[int, list[Any]] = {}
        for index in indices:
            owners.setdefault(self._place(index.idx), []).append(index)
        self._met += [{index.root_idx for index in found} for found in owners.values()]
        return [found[0]._replace(idx=position) for position, found in owners.items()]


class _Spread:
    """Maps the channels behind a pixel shuffle or GLU to those in front of it, one to several.

    Args:
        places: from a channel behind to those in front.
    """

    def __init__(self, places: Callable[[int], Sequence[int]]) -> None:
        self._places = places

    def __call__(self, indices: Sequence[Any]) -> list[Any]:
        return [index._replace(idx=place) for index in indices for place in self._places(index.idx)]


class _Shuffle(tp.ops._ElementWiseOp):  # type: ignore[misc]
    """A pixel shuffle or its opposite, or a GLU, whose halves become one.

    Attributes:
        sizes: its input and output channels.
    """

    sizes: tuple[int, int]


class _KnownSizes(tp.BasePruningFunc):  # type: ignore[misc]
    """Tells Torch-Pruning how many channels a :class:`_Shuffle` has on either side."""

    def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: _Shuffle) -> int:
        return layer.sizes[1]

    def get_in_channels(self, layer: _Shuffle) -> int:
        return layer.sizes[0]


def _follow_shuffles(graph: tp.DependencyGraph) -> None:
    """Let the graph follow channels through pixel shuffles and GLUs, and back through opposites.

    Torch-Pruning takes all of them for operations that leave channels where they are.
    """
    graph.met = []
    operations = [n for n in graph.module2node.values() if type(n.module) is tp.ops._ElementWiseOp]
    shuffles = [node for node in operations if _factor(node) != 1]
    graph.CUSTOMIZED_PRUNERS = graph.CUSTOMIZED_PRUNERS | {_Shuffle: _KnownSizes()}
    for node in reversed(shuffles):  # the graph was traced from its outputs
        before = _channels(graph, node.inputs[0])
        if before is not None:
            node.module.__class__ = _Shuffle
            node.module.sizes = (before, round(before / _factor(node)))
    for node in graph.module2node.values() if shuffles else ():
        if node.type == tp.ops.OPTYPE.CONCAT:
            node.module.concat_sizes = None  # were measured without knowing of them
    for node in shuffles:
        factor = _factor(node)
        gather, spread = _ways_through(node, graph.met)
        forward, backward = (gather, spread) if factor > 1 else (spread, gather)
        for before in node.inputs:
            for dependency in before.dependencies:
                if dependency.target is node:
                    dependency.index_mapping[0] = forward
            for dependency in node.dependencies:
                if dependency.target is before:
                    dependency.index_mapping[0] = backward


def _ways_through(node: Any, met: list[set[int]]) -> tuple[_Gather, _Spread]:
    """Return how the channels on the side of a shuffle that has more go to the other, and back."""
    if _is_glu(node):
        half = getattr(node.module, "sizes", (2, 1))[1]
        return _Gather(lambda channel: channel % half, met), _Spread(lambda c: (c, half + c))
    several = round(max(_factor(node), 1 / _factor(node)))
    return (
        _Gather(lambda channel: channel // several, met),
        _Spread(lambda channel: range(several * channel, several * (channel + 1))),
    )


def _is_glu(node: Any) -> bool:
    return type(node.grad_fn).__name__ == "GluBackward0"


def _channels(graph: tp.DependencyGraph, node: Any) -> int | None:
    """Return the channels of a node's output; None where they cannot be told."""
    known: int | None = graph.get_out_channels(node)
    if known is not None or node.type == tp.ops.OPTYPE.SPLIT:
        return known
    found = [_channels(graph, before) for before in node.inputs]
    if node.type == tp.ops.OPTYPE.CONCAT:
        return None if None in found else sum(filter(None, found))
    return next((channels for channels in found if channels is not None), None)


def _factor(node: Any) -> float:
    """Return how many channels in front of a pixel shuffle or GLU make one behind; 1 for others."""
    if _is_glu(node):
        return 2.0
    up = getattr(node.grad_fn, "_saved_upscale_factor", 1)
    return float((up / getattr(node.grad_fn, "_saved_downscale_factor", 1)) ** 2)


class _Norm(tp.BasePruningFunc):  # type: ignore[misc]
    """Tells Torch-Pruning that channels go through a norm that it does not know."""

    def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        return layer_sizes(layer)[0]

    get_in_channels = get_out_channels


_Calls = list[tuple[nn.Module, Any, Tensor]]
"""Layers, the steps of autograd's graph that their outputs came out of, and these outputs."""


@contextmanager
def _own_outputs(network: nn.Module) -> Iterator[_Calls]:
    """Let no layer return a view, as linear layers of sequences and InstanceNorms do.

    An operation in place, such as a ReLU, would write another history into a view, and
    Torch-Pruning knows a layer by the history of its output.

    Returns:
        All outputs of layers inside the block, in the order of their calls.
    """
    calls: _Calls = []

    def keep(layer: nn.Module, _: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return None
        own = output.clone() if output._is_view() else output
        calls.append((layer, own.grad_fn, own))
        return own

    layers = [m for m in network.modules() if layer_kind(m) or passes_channels(m)]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _find_unread(outputs: Sequence[Tensor], calls: _Calls) -> dict[nn.Module, Tensor]:
    """Return outputs of layers from which no output of the network can be reached, by layer.

    Such a layer runs all the same, and reads channels, as the last block of a WaveNet does.
    """
    seen: set[Any] = set()
    _reach(seen, [output.grad_fn for output in outputs])
    unread = {}
    for layer, step, output in reversed(calls):
        if step is not None and step not in seen:
            unread[layer] = output
            _reach(seen, [output.grad_fn, step])
    return unread


def _reach(seen: set[Any], left: list[Any]) -> None:
    """Add all steps of autograd's graph that lead to some of them."""
    while left:
        step = left.pop()
        if step is not None and step not in seen:
            seen.add(step)
            left += [before for before, _ in step.next_functions]


def dependency_graph(
    network: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, training: bool = False
) -> tp.DependencyGraph:
    """Build Torch-Pruning's dependency graph of ``network``.

    Args:
        network: a copy in evaluation mode. It may keep what it computed, and hooks if this fails.
        inputs: of the network.
        training: trace what it does in training, but for BatchNorms and dropout.

    Returns:
        The graph. Its attribute ``unread`` has the layers whose outputs nothing reads.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
    frozen = [p for p in network.parameters() if not p.requires_grad]
    with torch.enable_grad(), warnings.catch_warnings(), _own_outputs(network) as calls:
        warnings.simplefilter("ignore")
        for parameter in frozen:
            parameter.requires_grad_(True)
        try:
            graph = _trace(network, inputs, training, Recorded(), calls)
        except Exception:  # it may write into what it computes by itself
            graph = _trace(network, inputs, training, nullcontext(), calls)
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
    _follow_shuffles(graph)
    return graph


def _trace(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    training: bool,
    running: AbstractContextManager[object],
    calls: _Calls,
) -> tp.DependencyGraph:
    def run(module: nn.Module, arguments: tuple[Tensor, ...]) -> list[Tensor]:
        if training:
            set_training(module)  # tracing has set it to evaluation
        calls.clear()
        with running:
            returned = named_outputs(module(*arguments)).values()
        outputs = [output for output in returned if output.grad_fn is not None]
        unread.update(_find_unread(outputs, calls))
        return [*outputs, *unread.values()]

    unread: dict[nn.Module, Tensor] = {}
    graph = tp.DependencyGraph()
    graph.build_dependency(
        network,
        example_inputs=inputs,
        forward_fn=run,
        customized_pruners={
            type(module): _Norm()
            for module in network.modules()
            if is_frozen_norm(module)
            or (is_channel_norm(module) and not isinstance(module, _KNOWN_NORMS))
        },
        verbose=False,
    )
    graph.unread = frozenset(unread)
    return graph


MOST_POSITIONS = 2**20
"""Positions of a layer that a group may be spread over, some hundred megabytes in Torch-Pruning."""

MOST_IN_A_GROUP = 2**22
"""The same over all of its layers, whenever one is met: in ViT-L/16's stream 1.1 million."""


class _Flatten(index_mapping._FlattenIndexMapping):  # type: ignore[misc]
    """Maps channels to what a reshape makes of them, within limits and in order.

    In attention Torch-Pruning takes reshape after reshape for flattening, and every one multiplies
    the positions. It goes round for ever where the same channels come back in another order, as
    the anchors of a YOLO head may.
    """

    def __call__(self, indices: Sequence[Any]) -> Any:
        if not self.reverse and len(indices) * self._stride > MOST_POSITIONS:
            raise ValueError(f"reshapes spread them over more than {MOST_POSITIONS:,} positions")
        found = super().__call__(indices)
        return sorted(found) if self.reverse else found


class _Group(tp.Group):  # type: ignore[misc]
    """Collects a group, within limits, and notes which of its channels meet at one position.

    Where attention is reshaped back and forth Torch-Pruning meets the same layers with ever other
    positions, and does not end before the memory does. Of channels that meet, such as the halves
    of a gated convolution, it keeps one.

    Args:
        met: where the sets of channels that meet are added.
    """

    def __init__(self, met: list[set[int]]) -> None:
        super().__init__()
        self._met = met
        self._positions = 0

    def add_dep(self, dep: Any, idxs: Sequence[Any]) -> None:
        """Add what depends on the channels."""
        self._positions += len(idxs)
        if self._positions > MOST_IN_A_GROUP:
            raise ValueError(f"reshapes spread them over more than {MOST_IN_A_GROUP:,} positions")
        super().add_dep(dep, idxs)

    def add_and_merge(self, dep: Any, idxs: Sequence[Any]) -> None:
        """Add what depends on the channels, or to the positions that are known to."""
        same = (i for d, i in self if d.target == dep.target and d.handler == dep.handler)
        owners = {index.idx: index for index in itertools.chain(*same)}
        for index in idxs:
            first = owners.setdefault(index.idx, index)
            if first.root_idx != index.root_idx:
                self._met.append({first.root_idx, index.root_idx})
        super().add_and_merge(dep, [index for index in idxs if owners[index.idx] is index])


@contextmanager
def _limited(met: list[set[int]]) -> Iterator[None]:
    """Let Torch-Pruning collect groups within limits, and note which channels meet."""
    usual = index_mapping._FlattenIndexMapping, graphs.Group
    index_mapping._FlattenIndexMapping = _Flatten
    graphs.Group = partial(_Group, met)
    try:
        yield
    finally:
        index_mapping._FlattenIndexMapping, graphs.Group = usual


def pruning_group(graph: tp.DependencyGraph, root: nn.Module, channels: list[int]) -> tp.Group:
    """Return Torch-Pruning's group for removing ``channels`` of the output of ``root``.

    Its attribute ``met`` has the sets of these that go together, as a pixel shuffle makes them.

    Raises:
        ValueError: if they are spread over more than :data:`MOST_POSITIONS`, or the whole group is
            over more than :data:`MOST_IN_A_GROUP`.
    """
    graph.met.clear()
    pruner = graph.get_pruner_of_module(root)
    with _limited(graph.met):
        group = graph.get_pruning_group(root, pruner.prune_out_channels, channels)
    group.met = list(graph.met)
    return group
