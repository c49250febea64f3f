"""Layers that run in training only, such as auxiliary heads, cut along with what they read."""

from collections.abc import Sequence
from dataclasses import replace

import torch_pruning as tp
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.networks.recording import recorded_copy
from lfgcl_env.pruning.structure.dependencies import dependency_graph
from lfgcl_env.pruning.structure.group_search import pruning_group
from lfgcl_env.pruning.structure.groups import Exclusion, Group, Member, Unprunable
from lfgcl_env.pruning.structure.traced_group import read_group
from lfgcl_env.pruning.structure.training_mode import TrainingOnly


def add_training_heads(
    network: nn.Module,
    example: Tensor,
    only: TrainingOnly,
    groups: Sequence[Group],
    fixed: dict[str, str],
) -> tuple[list[Group], list[Exclusion]]:
    """Add the layers that read groups in training only, found by a second trace in training.

    Where that trace fails, nothing is added, and the check of every group tells which of them
    training needs whole; see :mod:`lfgcl_env.pruning.structure.verification`.

    Args:
        network: in evaluation mode; not changed.
        example: inputs (images, channels, height, width).
        only: what the network runs in training only.
        groups: found in evaluation mode.
        fixed: layers that cannot be cut, and why.

    Returns:
        The groups with these layers, and those that cannot be pruned because of them.
    """
    if not only.heads:
        return list(groups), []
    copied = recorded_copy(network)
    if only.failure is not None:
        for head in only.heads:
            copied.get_submodule(head).forward = _pass_on  # type: ignore[method-assign]
    try:
        graph = dependency_graph(copied, example, training=True)
    except Exception as error:
        if only.failure is None:
            return list(groups), []
        reason = f"it runs in training only, which fails ({with_kind(error)}), and is not cut along"
        return list(groups), [Exclusion(head, 0, reason) for head in only.heads]
    names = {module: name for name, module in copied.named_modules()}
    found: list[Group] = []
    excluded: list[Exclusion] = []
    for group in groups:
        try:
            added = _read_heads(group, graph, copied, names, fixed)
        except Exception as error:
            reason = _explain(error, only)
            excluded.append(Exclusion(group.name, group.channels, reason))
            continue
        found.append(replace(group, members=(*group.members, *added)))
    return found, excluded


def _pass_on(x: Tensor, *_: object, **__: object) -> Tensor:
    """Stand in for a head that fails: what it reads becomes an output."""
    return x * 1.0


def _explain(error: Exception, only: TrainingOnly) -> str:
    """Say why a group cannot be pruned that evaluation would let go."""
    heads = ", ".join(only.heads)
    if only.failure is not None:
        return f"{heads} reads its channels in training, where it fails ({only.failure})"
    known = isinstance(error, Unprunable)
    reason = str(error) if known else "Torch-Pruning cannot follow its channels"
    return f"{reason} in training, where {heads} runs too"


def _read_heads(
    group: Group,
    graph: tp.DependencyGraph,
    copied: nn.Module,
    names: dict[nn.Module, str],
    fixed: dict[str, str],
) -> list[Member]:
    """Return the parts of a group in layers that run in training only."""
    channels = group.channels * group.bundle
    traced = pruning_group(graph, copied.get_submodule(group.name), list(range(channels)))
    whole = read_group(group.name, channels, traced, names, group.part, fixed)
    before = {(member.layer, member.side) for member in group.members}
    added = [member for member in whole.members if (member.layer, member.side) not in before]
    if added and whole.channels != group.channels:
        raise Unprunable(f"its channels are tied otherwise on the way to {added[0].layer}")
    return added
