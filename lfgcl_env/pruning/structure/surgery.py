"""Surgery: a physically smaller network, cut by Torch-Pruning on a copy."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.structure.emptied import places_of, put, stand_in
from lfgcl_env.pruning.structure.groups import dependency_graph, pruning_group
from lfgcl_env.pruning.structure.slice_plan import SlicePlan


def cut(
    network: nn.Module,
    plan: SlicePlan,
    kept: Sequence[NDArray[np.int64]],
    parts: Mapping[str, tuple[Tensor, ...]],
) -> nn.Module:
    """Return a copy of ``network`` without the channels that are not in ``kept``.

    Args:
        network: the baseline in evaluation mode; not changed.
        plan: its slice plan.
        kept: for each group, the indices of the channels that stay.
        parts: for every traced part of the network, the inputs to trace it with; see
            :class:`~lfgcl_env.pruning.structure.groups.Tracing`.

    Returns:
        The smaller network, in evaluation mode, with parameters as trainable as the baseline's.
        Others stand in for layers without outputs or inputs, see
        :mod:`lfgcl_env.pruning.structure.emptied`.
    """
    smaller = copy.deepcopy(network).eval()
    for part, inputs in parts.items():
        mine = [
            (group.name, np.setdiff1d(np.arange(group.channels), stay).tolist())
            for group, stay in zip(plan.groups, kept, strict=True)
            if group.part == part and len(stay) < group.channels
        ]
        if not mine:
            continue
        graph = dependency_graph(smaller.get_submodule(part), inputs)
        for name, removed in mine:
            pruning_group(graph, smaller.get_submodule(name), removed).prune()
    for parameter, original in zip(smaller.parameters(), network.parameters(), strict=True):
        # One layout, the one that files have: a loaded network then computes bit by bit the same.
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        parameter.requires_grad_(original.requires_grad)
    _replace_emptied(smaller, plan, plan.mask(kept))
    return smaller


def _replace_emptied(network: nn.Module, plan: SlicePlan, mask: NDArray[np.bool_]) -> None:
    """Replace the layers of a cut network that have no outputs or no inputs left."""
    places = places_of(network)
    for name, slices in plan.layers.items():
        sizes = [len(d.kept(mask)) for d in (slices.out, slices.into) if d is not None]
        if all(sizes):
            continue
        layer = network.get_submodule(name)
        out = sizes[0] if slices.out is not None else len(layer.weight)  # type: ignore[arg-type]
        put(stand_in(layer, out), places[layer])
