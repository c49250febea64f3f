"""Torch-Pruning's search for all that follows a layer's channels, within limits."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning.dependency import graph as graphs
from torch_pruning.dependency import index_mapping

from lfgcl_env.edge.fork_lock import ForkLock

MOST_POSITIONS = 2**20
"""Positions of a layer that a group may be spread over, some hundred megabytes in Torch-Pruning."""

MOST_IN_A_GROUP = 2**22
"""The same over all of its layers, counted whenever one is met."""


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


_PATCHING = ForkLock()


@contextmanager
def _limited(met: list[set[int]]) -> Iterator[None]:
    """Let Torch-Pruning collect groups within limits, and note which channels meet.

    Its classes are those of the whole process, so that one thread searches at a time.
    """
    with _PATCHING:
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
