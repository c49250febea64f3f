"""Channels on their way through pixel shuffles and GLUs, which Torch-Pruning does not know."""

from collections.abc import Callable, Sequence
from typing import Any

import torch_pruning as tp
from torch import nn

from lfgcl_env.pruning.structure.layers import layer_kind


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


def follow_shuffles(graph: tp.DependencyGraph) -> None:
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
    """Whether a node is a GLU over channels: the last axis behind a linear layer, or the second."""
    step = node.grad_fn
    if type(step).__name__ != "GluBackward0":
        return False
    dimensions = step._saved_self.dim()
    axis = (step._saved_dim + 2**63) % 2**64 - 2**63  # autograd keeps it without a sign
    return bool(axis % dimensions == (dimensions - 1 if _is_last(node) else min(1, dimensions - 1)))


def _is_last(node: Any) -> bool:
    """Whether channels are the last axis of what comes to a node: that of the layer before it."""
    while node.inputs:
        node = node.inputs[0]
        if layer_kind(node.module):
            return isinstance(node.module, nn.Linear)
    return False


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
