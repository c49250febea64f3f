"""Tracing: the groups of a network, found by Torch-Pruning.

Source: DepGraph (Fang et al., CVPR 2023). The dependency graph is traced once; what is kept of it
is, for every group, which positions of which layers' dimensions belong to which of its channels.
"""

from collections.abc import Container, Iterable, Sequence

import torch
import torch_pruning as tp
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.networks.recording import recorded_copy
from lfgcl_env.pruning.structure.attention_heads import Attention, find_attention
from lfgcl_env.pruning.structure.bundles import bundle_channels
from lfgcl_env.pruning.structure.dependencies import dependency_graph
from lfgcl_env.pruning.structure.fixed_layers import find_fixed
from lfgcl_env.pruning.structure.group_search import pruning_group
from lfgcl_env.pruning.structure.groups import Exclusion, Group, Tracing, Unprunable
from lfgcl_env.pruning.structure.layers import BATCH_NORMS, layer_kind, layer_sizes
from lfgcl_env.pruning.structure.traced_group import OUTPUT, read_group, side_of
from lfgcl_env.pruning.structure.training_heads import add_training_heads
from lfgcl_env.pruning.structure.training_mode import find_training_only


def find_groups(
    network: nn.Module, example: Tensor, layout: torch.memory_format = torch.channels_last
) -> Tracing:
    """Trace ``network`` and return its groups and what cannot be pruned.

    Where Torch-Pruning cannot trace the whole network, its parts are traced one by one (with the
    inputs they get inside the whole), so that at least the groups inside these parts are found.

    Args:
        network: in evaluation mode; not changed.
        example: inputs (images, channels, height, width).
        layout: that the network can be run in.
    """
    network = recorded_copy(network)  # it may keep what it computes
    names = {module: name for name, module in network.named_modules()}
    fixed = find_fixed(network)
    attention = find_attention(network, example, fixed, layout)
    groups = [found.group for found in attention if found.group]
    excluded = [found.exclusion for found in attention if found.exclusion]
    heads = {layer for found in attention if found.group for layer in found.layers}
    explained = {exclusion.name for exclusion in excluded}
    parts: dict[str, tuple[Tensor, ...]] = {}
    followed_by: dict[str, str] = {}
    pending: list[tuple[nn.Module, tuple[Tensor, ...]]] = [(network, (example,))]
    while pending:
        part, inputs = pending.pop(0)
        try:
            graph = dependency_graph(part, inputs)
        except Exception as error:
            reason = f"Torch-Pruning cannot trace it ({with_kind(error)})"
            excluded.append(Exclusion(names[part] or type(part).__name__, 0, reason))
            pending += _children_with_inputs(part, inputs)
            continue
        parts[names[part]] = inputs
        found, left_out = _groups_of_graph(graph, part, names, fixed, heads, whole=part is network)
        groups += [group for group in found if not _cuts_heads(group, attention)]
        excluded += [one for one in left_out if one.name not in explained]
        followed_by |= _batchnorms_behind(graph, names)
    excluded += _outside(network, parts)
    order = {name: index for index, name in enumerate(names.values())}
    groups.sort(key=lambda group: order[group.name])
    only = find_training_only(network, example)
    groups, left_out = add_training_heads(network, example, only, groups, fixed)
    excluded += left_out
    kept, overlapping = _without_overlaps(groups)
    excluded += overlapping
    kept, apart = bundle_channels(network, kept, excluded)
    return Tracing(tuple(kept), (*excluded, *apart), parts, followed_by, only)


def _cuts_heads(group: Group, attention: Sequence[Attention]) -> bool:
    """Whether a group has channels of heads, which go whole or not at all."""
    return any(a.owns(m.layer, m.side) for a in attention for m in group.members)


def _outside(network: nn.Module, parts: Iterable[str]) -> list[Exclusion]:
    """Return the layers that are in none of the parts that could be traced."""
    inside = {module for part in parts for module in network.get_submodule(part).modules()}
    reason = "it is in no part of the network that could be traced"
    return [
        Exclusion(name, layer_sizes(module)[0], reason)
        for name, module in network.named_modules()
        if layer_kind(module) and module not in inside
    ]


def _batchnorms_behind(graph: tp.DependencyGraph, names: dict[nn.Module, str]) -> dict[str, str]:
    """Find BatchNorms that are the only user of a layer's output, by the layer's name."""
    found = {}
    for module, node in graph.module2node.items():
        if isinstance(module, nn.Module) and layer_kind(module) and len(node.outputs) == 1:
            behind = node.outputs[0]
            if isinstance(behind.module, BATCH_NORMS) and behind.inputs == [node]:
                found[names[module]] = names[behind.module]
    return found


def _children_with_inputs(
    part: nn.Module, inputs: tuple[Tensor, ...]
) -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return the children of ``part`` that hold layers, with the inputs of their first call."""
    seen: dict[nn.Module, tuple[Tensor, ...]] = {}

    def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if module not in seen and all(isinstance(a, Tensor) for a in arguments):
            seen[module] = tuple(a.detach() for a in arguments)

    with_layers = [
        child
        for child in part.children()
        if sum(layer_kind(module) is not None for module in child.modules()) > 1
    ]
    handles = [child.register_forward_pre_hook(record) for child in with_layers]
    try:
        with torch.no_grad():
            part(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(seen.items())


def _groups_of_graph(
    graph: tp.DependencyGraph,
    part: nn.Module,
    names: dict[nn.Module, str],
    fixed: dict[str, str],
    heads: Container[str],
    *,
    whole: bool,
) -> tuple[list[Group], list[Exclusion]]:
    groups: list[Group] = []
    excluded: list[Exclusion] = []
    produced: set[str] = set()
    for module in part.modules():
        if layer_kind(module) not in ("conv", "linear", "grouped", "transposed"):
            continue
        name = names[module]
        if name in heads or name in produced or module not in graph.module2node:
            continue
        channels = int(getattr(module, "out_channels", 0) or getattr(module, "out_features", 0))
        try:
            traced = pruning_group(graph, module, list(range(channels)))
        except Exception as error:
            reason = f"Torch-Pruning cannot follow its channels ({with_kind(error)})"
            excluded.append(Exclusion(name, channels, reason))
            continue
        produced |= {
            names[item.dep.target.module]
            for item in traced.items
            if side_of(item) == "out" and item.dep.target.module in names
        }
        try:
            groups.append(read_group(name, channels, traced, names, names[part], fixed))
        except Unprunable as error:
            reason = str(error)
            if reason == OUTPUT and module in graph.unread:
                reason = "no gradient of the outputs comes to its channels"
            elif reason == OUTPUT and not whole:
                reason = f"its channels leave {names[part] or 'the part'}, which was traced alone"
            excluded.append(Exclusion(name, channels, reason))
    return groups, excluded


def _without_overlaps(groups: list[Group]) -> tuple[list[Group], list[Exclusion]]:
    """Leave out groups that claim a position that an earlier group owns already."""
    owned: dict[tuple[str, str], set[int]] = {}
    kept: list[Group] = []
    excluded: list[Exclusion] = []
    for group in groups:
        claims = [((m.layer, m.side), set(m.positions.tolist())) for m in group.members]
        clash = next((key for key, place in claims if owned.get(key, set()) & place), None)
        if clash is not None:
            reason = f"it shares channels of {clash[0]} with another group"
            excluded.append(Exclusion(group.name, group.channels, reason))
            continue
        for key, place in claims:
            owned.setdefault(key, set()).update(place)
        kept.append(group)
    return kept, excluded
