"""MACs of matrix products outside of layers: the products of attention, head by head."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.head_counts import head_count
from lfgcl_env.pruning.structure.layers import Layer, count_macs, counting_flops
from lfgcl_env.pruning.structure.slice_plan import SlicePlan


def count_products(
    network: nn.Module,
    plan: SlicePlan,
    layers: Sequence[Layer],
    example: Tensor,
    layout: torch.memory_format = torch.channels_last,
) -> tuple[int, dict[str, int]]:
    """Count the MACs of products outside of layers, for one input.

    The network with one head in every attention is counted too: what it saves is what heads cost.

    Args:
        network: the baseline in evaluation mode; not changed.
        plan: its slice plan.
        layers: its convolutions and linear layers.
        example: one input.
        layout: that the network can be run in.

    Returns:
        MACs that stay, and for every attention that can lose heads those of each head.
    """
    outside = max(count_macs(network, example) - sum(layer.macs for layer in layers), 0)
    modules = {name: network.get_submodule(name) for name in plan.layers}
    counting = [name for name, module in modules.items() if head_count(module)]
    heads = {
        name: plan.layers[name].groups[0]
        for name in counting
        if not any(_is_inside(name, outer) for outer in counting)  # it would count twice
    }
    if not heads:
        return outside, {}
    candidate = Candidate(network, plan, layout=layout)
    whole = [np.arange(group.channels) for group in plan.groups]
    fewest = [kept[:1] if g in heads.values() else kept for g, kept in enumerate(whole)]
    most = _inside(candidate, list(heads), layers, whole, example)
    least = _inside(candidate, list(heads), layers, fewest, example)
    each = {n: (most[n] - least[n]) // max(len(whole[g]) - 1, 1) for n, g in heads.items()}
    inner = sum(macs * len(whole[heads[name]]) for name, macs in each.items())
    return outside - inner, each


def _is_inside(name: str, outer: str) -> bool:
    return name != outer and (not outer or name.startswith(f"{outer}."))


def _inside(
    candidate: Candidate,
    names: Sequence[str],
    layers: Sequence[Layer],
    kept: Sequence[NDArray[np.int64]],
    example: Tensor,
) -> dict[str, int]:
    """Count the MACs of products inside of modules of a network cut to the channels in ``kept``."""
    candidate.install(kept)
    flops = dict.fromkeys(names, 0)
    handles = []
    with counting_flops() as counter:
        for name in names:

            def before(*_: object, name: str = name) -> None:
                flops[name] -= counter.get_total_flops()

            def after(*_: object, name: str = name) -> None:
                flops[name] += counter.get_total_flops()

            module = candidate.network.get_submodule(name)
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
        candidate.network(example)
    for handle in handles:
        handle.remove()
    mask = candidate.plan.mask(kept)
    found = {name: count // (2 * len(example)) for name, count in flops.items()}
    for layer in layers:
        for name in names:
            if _is_inside(layer.name, name):
                found[name] -= _macs(layer, candidate.plan, mask)
    return found


def _macs(layer: Layer, plan: SlicePlan, mask: NDArray[np.bool_]) -> int:
    slices = plan.layers.get(layer.name)
    out, into = (slices and slices.out), (slices and slices.into)
    outputs = len(out.kept(mask)) if out else layer.out_channels
    inputs = len(into.kept(mask)) if into else layer.fan
    return layer.kernel * layer.positions * outputs * inputs
