"""Surgery: a physically smaller network, cut by Torch-Pruning on a copy."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.structure.groups import Group, dependency_graph, pruning_group


def cut(
    network: nn.Module,
    groups: Sequence[Group],
    kept: Sequence[NDArray[np.int64]],
    parts: Mapping[str, tuple[Tensor, ...]],
) -> nn.Module:
    """Return a copy of ``network`` without the channels that are not in ``kept``.

    Args:
        network: the baseline in evaluation mode; not changed.
        groups: its groups.
        kept: for each group, the indices of the channels that stay.
        parts: for every traced part of the network, the inputs to trace it with; see
            :class:`~lfgcl_env.pruning.structure.groups.Tracing`.

    Returns:
        The smaller network, in evaluation mode, with parameters as trainable as the baseline's.
    """
    smaller = copy.deepcopy(network).eval()
    for part, inputs in parts.items():
        mine = [
            (group.name, np.setdiff1d(np.arange(group.channels), stay).tolist())
            for group, stay in zip(groups, kept, strict=True)
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
    return smaller
