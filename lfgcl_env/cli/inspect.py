"""``lfgcl inspect``: a network's groups and costs, and what cannot be pruned."""

from typing import Any

import torch

from lfgcl_env.cli.targets import load_network
from lfgcl_env.cli.text import columns, described
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.moments.second_moments import LARGEST


def show_network(arguments: dict[str, Any]) -> None:
    """Print groups, cost, lowest budget, and what is left alone."""
    baseline = load_network(arguments)
    images = torch.randn(2, *baseline.input_shape, generator=torch.Generator().manual_seed(0))
    problem = PruningProblem(
        baseline, images, budget=1.0, criterion="l1", repair="none", scope=arguments["scope"]
    )
    lines = [["group", "channels", "layers that change"]]
    for group in problem.groups:
        layers = [name for side in ("out", "through", "in") for name in group.layers(side)]
        lines.append([group.name, str(group.channels), ", ".join(dict.fromkeys(layers))])
    for line in columns(lines):
        print(line)
    cost = problem.baseline_cost
    print(f"\n{len(problem.groups)} groups, {described(baseline)}")
    print(f"MACs {cost.macs:,} for one input of {baseline.input_shape}, params {cost.params:,}")
    print(f"lowest budget {problem.lowest_budget:.4f} of the MACs")
    if problem.large_layers:
        print(f"\nrepaired by their means alone before scoring: over {LARGEST:,} patch features")
        for line in columns([[name, f"{n:,}"] for name, n in problem.large_layers.items()]):
            print(f"  {line}")
    if problem.excluded:
        print("\nnot pruned")
        for line in columns([[e.name, str(e.channels), e.reason] for e in problem.excluded]):
            print(f"  {line}")
