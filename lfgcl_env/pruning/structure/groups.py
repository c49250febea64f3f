"""Groups: sets of channels that can only be removed together, found by Torch-Pruning.

Source: DepGraph (Fang et al., CVPR 2023). The dependency graph is traced once; what is kept of it
is, for every group, which positions of which layers' dimensions belong to which of its channels.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch_pruning as tp
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.pruning.structure.layers import BATCH_NORMS, layer_kind, layer_sizes


@dataclass(frozen=True)
class Member:
    """The part of one layer's dimension that follows a group.

    Attributes:
        layer: module name.
        side: ``"out"`` (produces the channels), ``"in"`` (consumes them) or ``"through"``
            (one parameter per channel: BatchNorm, depthwise convolution, PReLU).
        positions: indices into the layer's dimension, int64.
        channels: the group's channel at each of these positions, int64, same length.
    """

    layer: str
    side: str
    positions: NDArray[np.int64]
    channels: NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Channels in one or several layers that can only be removed together.

    Attributes:
        name: the layer that first produces the channels.
        channels: how many there are.
        members: every layer's part in the group.
        coupled: whether an addition (a residual connection) ties several producers together.
        part: the module that was traced to find the group; ``""`` for the whole network.
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    coupled: bool
    part: str = ""

    def layers(self, side: str) -> tuple[str, ...]:
        """Return the names of the layers on one side: ``"out"``, ``"in"`` or ``"through"``."""
        return tuple(member.layer for member in self.members if member.side == side)


@dataclass(frozen=True)
class Exclusion:
    """A set of channels that is not pruned, and why.

    Attributes:
        name: the layer that first produces them, or a module that could not be traced.
        channels: how many there are (0 for a module that could not be traced).
        reason: one phrase.
    """

    name: str
    channels: int
    reason: str


@dataclass(frozen=True)
class Tracing:
    """The groups of a network.

    Attributes:
        groups: in the order of the network's modules.
        excluded: what cannot be pruned.
        parts: for every module that was traced on its own (``""``: the whole network), the inputs
            that it was traced with.
        followed_by: for layers whose output goes into a BatchNorm and nowhere else, that
            BatchNorm's name.
    """

    groups: tuple[Group, ...]
    excluded: tuple[Exclusion, ...]
    parts: dict[str, tuple[Tensor, ...]]
    followed_by: dict[str, str]


class Unprunable(Exception):
    """Internal: a traced set of channels cannot become a group; the message says why."""


def find_groups(network: nn.Module, example: Tensor) -> Tracing:
    """Trace ``network`` and return its groups and what cannot be pruned.

    Where Torch-Pruning cannot trace the whole network, its parts are traced one by one (with the
    inputs they get inside the whole), so that at least the groups inside these parts are found.

    Args:
        network: in evaluation mode; not changed.
        example: inputs (images, channels, height, width).
    """
    names = {module: name for name, module in network.named_modules()}
    groups: list[Group] = []
    excluded: list[Exclusion] = []
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
        found, left_out = _groups_of_graph(graph, part, names, whole=part is network)
        groups += found
        excluded += left_out
        followed_by |= _batchnorms_behind(graph, names)
    excluded += _outside(network, parts)
    order = {name: index for index, name in enumerate(names.values())}
    groups.sort(key=lambda group: order[group.name])
    kept, overlapping = _without_overlaps(groups)
    return Tracing(tuple(kept), (*excluded, *overlapping), parts, followed_by)


def _outside(network: nn.Module, parts: Iterable[str]) -> list[Exclusion]:
    """Return the layers that are in none of the parts that could be traced."""
    inside = {module for part in parts for module in network.get_submodule(part).modules()}
    reason = "it is in no part of the network that could be traced"
    return [
        Exclusion(name, layer_sizes(module)[0], reason)
        for name, module in network.named_modules()
        if layer_kind(module) and module not in inside
    ]


def dependency_graph(network: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> tp.DependencyGraph:
    """Build Torch-Pruning's dependency graph of ``network``."""
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = [p for p in network.parameters() if not p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(True)
        try:
            inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
            graph = tp.DependencyGraph()
            graph.build_dependency(
                network,
                example_inputs=inputs,
                forward_fn=lambda module, arguments: module(*arguments),
                verbose=False,
            )
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
    return graph


def pruning_group(graph: tp.DependencyGraph, root: nn.Module, channels: list[int]) -> tp.Group:
    """Return Torch-Pruning's group for removing ``channels`` of the output of ``root``."""
    return graph.get_pruning_group(
        root, graph.get_pruner_of_module(root).prune_out_channels, channels
    )


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
    graph: tp.DependencyGraph, part: nn.Module, names: dict[nn.Module, str], *, whole: bool
) -> tuple[list[Group], list[Exclusion]]:
    groups: list[Group] = []
    excluded: list[Exclusion] = []
    produced: set[str] = set()
    for module in part.modules():
        if layer_kind(module) not in ("conv", "linear", "grouped"):
            continue
        name = names[module]
        if name in produced or module not in graph.module2node:
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
            if _side(item) == "out" and item.dep.target.module in names
        }
        try:
            groups.append(_group(name, channels, traced, names, names[part]))
        except Unprunable as error:
            reason = str(error)
            if reason == OUTPUT and not whole:
                reason = f"its channels leave {names[part] or 'the part'}, which was traced alone"
            excluded.append(Exclusion(name, channels, reason))
    return groups, excluded


OUTPUT = "its channels are the network's output"


def _side(item: tp.dependency.Group) -> str:
    """Return the side of its module that a traced item prunes, or "" where it is no module's."""
    module = item.dep.target.module
    kind = layer_kind(module) if isinstance(module, nn.Module) else None
    if kind == "depthwise" or isinstance(module, (*BATCH_NORMS, nn.PReLU)):
        return "through"
    if kind is not None:
        return "in" if item.dep.handler.__name__ == "prune_in_channels" else "out"
    return ""


def _group(
    name: str, channels: int, traced: tp.Group, names: dict[nn.Module, str], part: str
) -> Group:
    members = []
    coupled = False
    for item in traced.items:
        node = item.dep.target
        if isinstance(node.module, nn.PReLU) and node.module.num_parameters == 1:
            continue  # one slope for all channels
        side = _side(item)
        if side:
            layer = names[node.module]
            if layer_kind(node.module) == "grouped":
                raise Unprunable(f"{layer} is a grouped convolution that is not depthwise")
            size = layer_sizes(node.module)[1 if side == "in" else 0]
            members.append(_member(layer, side, item, channels, size))
        elif node.type == tp.ops.OPTYPE.PARAMETER:
            raise Unprunable("a free parameter of the network follows its channels")
        elif isinstance(node.module, tp.ops._OutputOp):
            raise Unprunable(OUTPUT)
        elif isinstance(node.module, nn.Module) and any(True for _ in node.module.parameters()):
            kind = type(node.module).__name__
            raise Unprunable(f"{kind} {names.get(node.module, '')} cannot lose channels exactly")
        elif "AddBackward" in str(node.module) and len(node.inputs) > 1:
            coupled = True
    if not any(member.side == "in" for member in members):
        raise Unprunable(OUTPUT)
    return Group(name, channels, tuple(_merge(members)), coupled, part)


def _member(layer: str, side: str, item: tp.Group, channels: int, size: int) -> Member:
    positions = np.asarray(item.idxs, dtype=np.int64)
    if len(positions) and not 0 <= positions.min() <= positions.max() < size:
        raise Unprunable(f"its channels are rearranged on the way to {layer}")
    owners = np.asarray(item.root_idxs, dtype=np.int64)
    order = np.argsort(positions, kind="stable")
    counts = np.bincount(owners, minlength=channels)
    if len(counts) != channels or not (counts == counts[0]).all():
        raise Unprunable(f"its channels take unequal shares of {layer}")
    return Member(layer, side, positions[order], owners[order])


def _merge(members: list[Member]) -> list[Member]:
    """Drop repeated members; two sides of one depthwise layer are the same member."""
    unique: dict[tuple[str, str], Member] = {}
    for member in members:
        unique.setdefault((member.layer, member.side), member)
    return list(unique.values())


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
