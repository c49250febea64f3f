"""Layers that run in training only, such as auxiliary heads, cut along with what they read."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch_pruning as tp
from torch import Tensor, nn

from lfgcl_env.pruning.structure.dependencies import dependency_graph, pruning_group
from lfgcl_env.pruning.structure.groups import Exclusion, Group, Member, Unprunable
from lfgcl_env.pruning.structure.traced_group import read_group
from lfgcl_env.pruning.structure.training_mode import find_training_only


def add_training_heads(
    network: nn.Module, example: Tensor, groups: Sequence[Group], fixed: dict[str, str]
) -> tuple[list[Group], list[Exclusion]]:
    """Add the layers that read groups in training only, found by a second trace in training.

    Where that trace fails, nothing is added, and the check of every group tells which of them
    training needs whole; see :mod:`lfgcl_env.pruning.structure.verification`.

    Args:
        network: in evaluation mode; not changed.
        example: inputs (images, channels, height, width).
        groups: found in evaluation mode.
        fixed: layers that cannot be cut, and why.

    Returns:
        The groups with these layers, and those that cannot be pruned because of them.
    """
    heads, failure = find_training_only(network, example)
    if not heads:
        return list(groups), []
    if failure:
        reason = f"it runs in training only, where the network fails on its inputs ({failure})"
        return list(groups), [Exclusion(heads[0], 0, f"{reason}, so that it is not cut along")]
    copied = copy.deepcopy(network)
    try:
        graph = dependency_graph(copied, example, training=True)
    except Exception:
        return list(groups), []
    names = {module: name for name, module in copied.named_modules()}
    found: list[Group] = []
    excluded: list[Exclusion] = []
    for group in groups:
        try:
            added = _read_heads(group, graph, copied, names, fixed)
        except Exception as error:
            reason = (
                str(error) if isinstance(error, Unprunable) else "its channels are not followed"
            )
            reason = f"{reason} in training, where {heads[0]} runs too"
            excluded.append(Exclusion(group.name, group.channels, reason))
            continue
        found.append(replace(group, members=(*group.members, *added)))
    return found, excluded


def _read_heads(
    group: Group,
    graph: tp.DependencyGraph,
    copied: nn.Module,
    names: dict[nn.Module, str],
    fixed: dict[str, str],
) -> list[Member]:
    """Return the parts of a group in layers that run in training only."""
    traced = pruning_group(graph, copied.get_submodule(group.name), list(range(group.channels)))
    whole = read_group(group.name, group.channels, traced, names, group.part, fixed)
    before = {(member.layer, member.side) for member in group.members}
    return [member for member in whole.members if (member.layer, member.side) not in before]
