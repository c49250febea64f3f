"""``lfgcl inspect``: a network's groups and costs, and what cannot be pruned."""

from typing import Any

from lfgcl_env.cli.targets import load_network
from lfgcl_env.cli.text import columns, described
from lfgcl_env.pruning import PrunableNetwork
from lfgcl_env.pruning.moments.second_moments import LARGEST, large_layers


def show_network(arguments: dict[str, Any]) -> None:
    """Print groups, cost, lowest budget, and what is not pruned."""
    network = PrunableNetwork(load_network(arguments), scope=arguments["scope"])
    baseline, cost = network.baseline, network.baseline_cost
    lines = [["group", "channels", "layers that change"]]
    for group in network.groups:
        layers = [name for side in ("out", "through", "in") for name in group.layers(side)]
        lines.append([group.name, str(group.channels), ", ".join(dict.fromkeys(layers))])
    for line in columns(lines):
        print(line)
    lowest = network.projection("macs").lowest
    print(f"\n{len(network.groups)} groups, {described(baseline)}")
    print(f"MACs {cost.macs:,} for one input of {baseline.input_shape}, params {cost.params:,}")
    print(f"lowest budget {lowest:.4f} of the MACs")
    large = large_layers(baseline.network, network.plan)
    if large:
        print(f"\nrepaired by their means alone before scoring: over {LARGEST:,} patch features")
        for line in columns([[name, f"{n:,}"] for name, n in large.items()]):
            print(f"  {line}")
    if network.excluded:
        print("\nnot pruned")
        for line in columns([[e.name, str(e.channels), e.reason] for e in network.excluded]):
            print(f"  {line}")
