"""Checks that removing a group's channels does exactly what hiding them would do.

A group is right if the cut network computes what the whole network computes when all consumers
ignore the removed channels. Running is not enough: a network with shuffled channels runs with the
wrong ones removed, and one with zero-padded shortcuts adds the wrong ones together.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.groups import Exclusion, Group
from lfgcl_env.pruning.structure.slice_plan import SlicePlan

WRONG = "removing its channels changes more than hiding them from their consumers would"


def split_exact(
    network: nn.Module,
    groups: Sequence[Group],
    example: Tensor,
    layout: torch.memory_format = torch.channels_last,
) -> tuple[list[Group], list[Exclusion]]:
    """Separate the groups for which cutting and hiding differ from the others.

    All groups are tried together first, and one by one only if that fails.

    Args:
        network: the baseline in evaluation mode; not changed.
        groups: to be checked.
        example: inputs (images, channels, height, width).
        layout: that the network can be run in, see
            :func:`~lfgcl_env.pruning.structure.candidate.fastest_layout`.
    """
    double = copy.deepcopy(network).eval().double().cpu()
    inputs = example.double().cpu()
    if not groups or _find_fault(double, groups, inputs, layout) is None:
        return list(groups), []
    right: list[Group] = []
    excluded: list[Exclusion] = []
    for group in groups:
        trouble = _find_fault(double, [*right, group], inputs, layout)
        if trouble is None:
            right.append(group)
        else:
            excluded.append(Exclusion(group.name, group.channels, trouble))
    return right, excluded


@torch.inference_mode()
def _find_fault(
    network: nn.Module, groups: Sequence[Group], inputs: Tensor, layout: torch.memory_format
) -> str | None:
    """Return None if half of every group's channels can be cut as if hidden, else the reason."""
    generator = np.random.default_rng(0)
    kept = [
        np.sort(generator.permutation(group.channels)[: max(1, group.channels // 2)])
        for group in groups
    ]
    plan = SlicePlan(network, groups)
    candidate = Candidate(network, plan, layout=layout)
    try:
        candidate.install(kept)
        cut = candidate.network(inputs)
    except Exception as error:
        return f"the network fails without its channels ({with_kind(error)})"
    whole = network(inputs)
    hidden = _hide(network, plan, kept)(inputs)
    if cut.shape != hidden.shape:
        return WRONG
    # Deep networks with random weights can react to a whole group by a billionth of their output:
    # the error is held against that reaction, and against double precision where it drowns.
    scale = float(whole.abs().max())
    reaction = float((hidden - whole).abs().max())
    difference = float((cut - hidden).abs().max())
    return None if difference <= max(1e-4 * reaction, 1e-12 * scale) else WRONG


def _hide(network: nn.Module, plan: SlicePlan, kept: Sequence[NDArray[np.int64]]) -> nn.Module:
    """Return a copy of the whole network whose consumers ignore all channels not in ``kept``."""
    copied = copy.deepcopy(network)
    mask = plan.mask(kept)
    for name, slices in plan.layers.items():
        if slices.into is not None:
            hidden = np.setdiff1d(np.arange(slices.into.size), slices.into.kept(mask))
            weight = copied.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            weight.data[:, torch.from_numpy(hidden)] = 0
    return copied
