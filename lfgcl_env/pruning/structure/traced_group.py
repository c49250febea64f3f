"""One group as the dependency graph has it: the positions in layers that follow its channels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch_pruning as tp
from numpy.typing import NDArray
from torch import nn
from torchvision.ops import DeformConv2d

from lfgcl_env.pruning.structure.groups import Group, Member, Unprunable
from lfgcl_env.pruning.structure.layers import layer_kind, layer_sizes, passes_channels

OUTPUT = "its channels are the network's output"
_FREE = "a free parameter of the network follows its channels"

_UNKNOWN = (nn.RNNBase, nn.Bilinear, DeformConv2d)
"""Kinds of layers that Torch-Pruning does not know, of which it sees parameters alone."""


def side_of(item: tp.dependency.Group) -> str:
    """Return the side of its module that a traced item prunes, or "" where it is no module's."""
    module = item.dep.target.module
    kind = layer_kind(module) if isinstance(module, nn.Module) else None
    if isinstance(module, nn.Module) and kind != "grouped" and passes_channels(module):
        return "through"
    if kind is not None:
        return "in" if item.dep.handler.__name__ == "prune_in_channels" else "out"
    return ""


def read_group(
    name: str,
    channels: int,
    traced: tp.Group,
    names: dict[nn.Module, str],
    part: str,
    fixed: dict[str, str],
) -> Group:
    """Read a group out of what Torch-Pruning traced.

    Args:
        name: of the layer that was asked for.
        channels: of its output.
        traced: what follows these channels.
        names: of the network's modules.
        part: the module that was traced.
        fixed: layers that cannot be cut, and why.

    Raises:
        Unprunable: if something that follows the channels cannot lose any.
    """
    for item in traced.items:
        if _is_parameter(item) and (reason := _whose(item.dep.target.module, names)) != _FREE:
            raise Unprunable(reason)  # it says more than what is found on the way there
    bundles = _bundles(channels, traced.met)
    members = []
    coupled = False
    for item in traced.items:
        node = item.dep.target
        if isinstance(node.module, nn.PReLU) and node.module.num_parameters == 1:
            continue  # one slope for all channels
        side = side_of(item)
        if side:
            layer = names[node.module]
            if layer in fixed:
                raise Unprunable(fixed[layer])
            if (
                layer_kind(node.module) == "grouped"
                and node.module.groups == layer_sizes(node.module)[0]
            ):
                raise Unprunable(f"{layer} gives one channel for several, which is not followed")
            size = layer_sizes(node.module)[1 if side == "in" else 0]
            members.append(_member(layer, side, item, bundles, size))
        elif _is_parameter(item):
            raise Unprunable(_FREE)
        elif isinstance(node.module, tp.ops._OutputOp):
            raise Unprunable(OUTPUT)
        elif isinstance(node.module, nn.Module) and node.module in names:
            raise Unprunable(_why_not(node.module, names[node.module]))
        elif "AddBackward" in str(node.module) and len(node.inputs) > 1:
            coupled = True
    if not any(member.side == "in" for member in members):
        raise Unprunable(OUTPUT)
    count = int(bundles.max()) + 1
    if count == 1 < channels:
        raise Unprunable("all of its channels become one")
    return Group(name, count, tuple(_merge(members)), coupled, part)


def _is_parameter(item: Any) -> bool:
    return bool(item.dep.target.type == tp.ops.OPTYPE.PARAMETER)


def _bundles(channels: int, met: Sequence[set[int]]) -> NDArray[np.int64]:
    """Number what goes together: every channel, or bundles of those that meet; (channels,)."""
    labels = np.arange(channels)
    for together in met:
        if not 0 <= min(together) <= max(together) < channels:
            raise Unprunable("its channels are rearranged on the way to a pixel shuffle")
        meeting = np.unique(labels[list(together)])
        labels[np.isin(labels, meeting)] = meeting[0]
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _whose(parameter: object, names: dict[nn.Module, str]) -> str:
    """Say what a parameter that channels meet outside of known layers belongs to."""
    for module, name in names.items():
        if isinstance(module, _UNKNOWN) and any(p is parameter for p in module.parameters()):
            return _why_not(module, name)
    return _FREE


def _why_not(module: nn.Module, name: str) -> str:
    """Say why a layer that channels go through cannot lose any."""
    kind = type(module).__name__
    if isinstance(module, nn.LayerNorm):
        return f"{kind} {name} normalises over channels and positions together"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return f"{kind} {name} is a recurrent layer, which is not cut"
    return f"{kind} {name} is of a kind that is not cut"


def _member(layer: str, side: str, item: tp.Group, bundles: NDArray[np.int64], size: int) -> Member:
    positions = np.asarray(item.idxs, dtype=np.int64)
    if len(positions) and not 0 <= positions.min() <= positions.max() < size:
        raise Unprunable(f"its channels are rearranged on the way to {layer}")
    owners = np.asarray(item.root_idxs, dtype=np.int64)
    order = np.argsort(positions, kind="stable")
    if len(owners) and not 0 <= owners.min() <= owners.max() < len(bundles):
        raise Unprunable(f"its channels take unequal shares of {layer}")
    owners = bundles[owners]
    counts = np.bincount(owners, minlength=int(bundles.max()) + 1)
    if not (counts == counts[0]).all():
        raise Unprunable(f"its channels take unequal shares of {layer}")
    return Member(layer, side, positions[order], owners[order])


def _merge(members: list[Member]) -> list[Member]:
    """Drop repeated members; two sides of one depthwise layer are the same member."""
    unique: dict[tuple[str, str], Member] = {}
    for member in members:
        unique.setdefault((member.layer, member.side), member)
    return list(unique.values())
