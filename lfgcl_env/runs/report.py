"""What a strategy does to every layer, as text and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from lfgcl_env.edge.files import write_png
from lfgcl_env.networks.feeding import fed
from lfgcl_env.pruning import Evaluation, PrunableNetwork, PruningProblem
from lfgcl_env.pruning.delivered_network import DELIVERIES, Delivery
from lfgcl_env.pruning.moments.second_moments import LARGEST, large_layers
from lfgcl_env.pruning.structure.emptied import Constant, NoChannels
from lfgcl_env.pruning.structure.layers import layer_sizes, measure_layers
from lfgcl_env.runs.delivered_times import DeliveredTimes


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after pruning; every pair is (before, after).

    Attributes:
        name: of the layer, ``"(others)"`` for all that are no convolution or linear layer, or
            ``"total"``.
        kind: ``"conv"``, ``"depthwise"``, ``"grouped"``, ``"linear"``, or ``""``.
        inputs: input channels; None where there is no such number.
        outputs: output channels; None where there is no such number.
        macs: multiply-accumulates for one input.
        params: number of parameters, bias included. A parameter that several layers share counts
            for the first of them.
    """

    name: str
    kind: str
    inputs: tuple[int, int] | None
    outputs: tuple[int, int] | None
    macs: tuple[int, int]
    params: tuple[int, int]


def compare_layers(
    network: PrunableNetwork, strategy: ArrayLike, pruned: nn.Module
) -> list[LayerChange]:
    """Compare a pruned network with its baseline, layer by layer.

    Args:
        network: what was pruned.
        strategy: channels kept in every group.
        pruned: a network with these channels.

    Returns:
        Convolutions and linear layers in order of use, then all others together (BatchNorm's
        parameters, mostly), then the total, which is that of :meth:`PrunableNetwork.cost`.
    """
    whole = network.baseline.network
    example = torch.zeros(1, *network.baseline.input_shape)
    with fed(pruned, network.baseline.feeding):
        after = {layer.name: layer for layer in measure_layers(pruned, example)}
    names = [layer.name for layer in network.layers]
    params_before, params_after = _count_params(whole, names), _count_params(pruned, names)
    table = [
        LayerChange(
            layer.name,
            layer.kind,
            (layer.in_channels, after[layer.name].in_channels if layer.name in after else 0),
            (layer.out_channels, _count_outputs(pruned, layer.name)),
            (layer.macs, after[layer.name].macs if layer.name in after else 0),
            (params_before[layer.name], params_after[layer.name]),
        )
        for layer in network.layers
    ]
    costs = network.baseline_cost, network.cost(strategy)
    macs, params = (costs[0].macs, costs[1].macs), (costs[0].params, costs[1].params)
    others = [
        (total[0] - sum(pair[0] for pair in pairs), total[1] - sum(pair[1] for pair in pairs))
        for total, pairs in (
            (macs, [layer.macs for layer in table]),
            (params, [layer.params for layer in table]),
        )
    ]
    return [
        *table,
        LayerChange("(others)", "", None, None, *others),
        LayerChange("total", "", None, None, macs, params),
    ]


def format_table(table: list[LayerChange]) -> str:
    """Write the table as text; MACs and parameters also as the share [%] that is left."""
    cells = [
        ["layer", "kind", "inputs", "outputs", "MACs", "left", "params", "left"],
        *(
            [
                layer.name,
                layer.kind,
                _change(layer.inputs),
                _change(layer.outputs),
                _change(layer.macs),
                _left(layer.macs),
                _change(layer.params),
                _left(layer.params),
            ]
            for layer in table
        ),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    rule = "-" * max(len(line) for line in lines)
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]]) + "\n"


def list_removed_layers(table: list[LayerChange]) -> str:
    """Name the layers that are gone, and those that became a constant for want of inputs.

    Returns:
        A line for each kind, or nothing where all layers are left.
    """
    emptied = [layer for layer in table if layer.inputs and layer.inputs[1] == 0]
    gone = [layer.name for layer in emptied if layer.outputs and layer.outputs[1] == 0]
    constant = [layer.name for layer in emptied if layer.name not in gone]
    lines = [("removed", gone), ("constant, for want of inputs", constant)]
    return "".join(f"{what}: {', '.join(names)}\n" for what, names in lines if names)


def list_large_layers(problem: PruningProblem) -> str:
    """Name the layers that are too large for a full repair before scoring.

    Returns:
        A line, or nothing where all layers are repaired alike.
    """
    large = large_layers(problem.baseline.network, problem.network.plan)
    if problem.repair != "least_squares" or not large:
        return ""
    layers = ", ".join(f"{name} ({n:,})" for name, n in large.items())
    return (
        f"repaired by their means alone before scoring, for more than {LARGEST:,} patch features: "
        f"{layers}\n"
    )


def list_bundles(problem: PruningProblem) -> str:
    """Name the groups whose channels go in bundles, which strategies count instead of channels.

    Returns:
        A line, or nothing where every group is counted in channels.
    """
    bundled = [f"{g.name} (of {g.bundle})" for g in problem.groups if g.bundle > 1]
    if not bundled:
        return ""
    return f"counted in bundles of channels in best.json and evaluations: {', '.join(bundled)}\n"


def format_headline(
    problem: PruningProblem,
    kept: Evaluation,
    repaired: Evaluation | None,
    times: DeliveredTimes | None = None,
) -> str:
    """Write one line: similarity before and after a sequential repair, costs, measured times."""
    after = f" ({repaired.similarity:.4f} delivered)" if repaired else ""
    time = predict_latency(problem, kept)
    predicted = f", predicted latency {time[1]:.3g} ms ({time[1] / time[0]:.1%})" if time else ""
    if times:
        predicted += f", measured {times.delivered.median:.3g} ms ({times.share:.1%})"
    return (
        f"{problem.similarity} similarity {kept.similarity:.4f}{after}, "
        f"MACs {kept.macs_ratio:.1%}, params {kept.params_ratio:.1%} of the baseline's{predicted}"
    )


def predict_latency(problem: PruningProblem, kept: Evaluation) -> tuple[float, float] | None:
    """Predict the times of the baseline and of a strategy [ms]; None without a budget of latency.

    They are of a batch, in the runtime and on the machine that the budget's table is of.
    """
    if problem.budget_metric != "latency":
        return None
    both = np.array([problem.channels, kept.keep], dtype=np.int64)
    whole, pruned = (float(n) / 1e6 for n in problem.costs(both))
    return whole, pruned


def format_page(
    problem: PruningProblem, table: list[LayerChange], above: str, delivery: Delivery
) -> str:
    """Write two lines above, the table, and the layers that are gone or repaired otherwise."""
    below = list_removed_layers(table) + list_bundles(problem) + list_large_layers(problem)
    above = f"{above}\n{say_delivery(delivery)}"
    return f"{above}\n\n{format_table(table)}" + (f"\n{below}" if below else "")


def say_delivery(delivery: Delivery) -> str:
    """Say which network of a strategy is handed over.

    >>> say_delivery("scored")
    'handed over: the network as it was scored in the search'
    """
    return f"handed over: the network {DELIVERIES[delivery]}"


def draw_layers(table: list[LayerChange], path: Path, title: str) -> Path | None:
    """Draw output channels and MACs of every layer before and after as a PNG.

    Args:
        table: from :func:`compare_layers`.
        path: the file to write.
        title: above the picture.

    Returns:
        The path, or None if matplotlib is missing.

    Raises:
        OSError: if the file cannot be written.
    """
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    layers = [layer for layer in table if layer.kind]
    positions = range(len(layers))
    figure = Figure(figsize=(max(8.0, 0.22 * len(layers)), 7.5), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    panels: list[tuple[Any, str, list[tuple[float, float]]]] = [
        (above, "output channels", [layer.outputs or (0, 0) for layer in layers]),
        (below, "MACs [M]", [(layer.macs[0] / 1e6, layer.macs[1] / 1e6) for layer in layers]),
    ]
    for axes, label, pairs in panels:
        axes.bar(positions, [pair[0] for pair in pairs], color="#d9dde3", label="baseline")
        axes.bar(positions, [pair[1] for pair in pairs], color="#2a6fbb", label="pruned")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    above.legend(loc="upper left", frameon=False)
    above.set_title(title, fontsize=10)
    below.set_xticks(positions, [layer.name for layer in layers], rotation=90, fontsize=7)
    below.set_xlim(-0.7, len(layers) - 0.3)
    return write_png(path, figure)


def _count_outputs(network: nn.Module, name: str) -> int:
    layer = network.get_submodule(name)
    if isinstance(layer, Constant):
        return len(layer.bias)
    return 0 if isinstance(layer, NoChannels) else layer_sizes(layer)[0]


def _count_params(network: nn.Module, names: Sequence[str]) -> dict[str, int]:
    """Count the parameters of every layer; one that several share counts for the first."""
    seen: set[nn.Parameter] = set()
    counts = {}
    for name in names:
        new = set(network.get_submodule(name).parameters(recurse=False)) - seen
        counts[name] = sum(parameter.numel() for parameter in new)
        seen |= new
    return counts


def _change(pair: tuple[int, int] | None) -> str:
    if pair is None:
        return ""
    return f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,} -> {pair[1]:,}"


def _left(pair: tuple[int, int]) -> str:
    return f"{100 * pair[1] / pair[0]:.1f} %" if pair[0] else ""
