"""``lfgcl measure``: how fast, small and frugal pruned networks are beside their baseline."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from lfgcl_env.cli.evaluate import budgets_of_run, load_unpruned, own_builder, pruned_networks
from lfgcl_env.cli.text import described
from lfgcl_env.latency.measuring import measure_beside
from lfgcl_env.latency.runtimes import available
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.structure.layers import count_macs
from lfgcl_env.runs.best import add_measured
from lfgcl_env.runs.measured import (
    BASELINE,
    as_text,
    collect,
    describe,
    format_measured,
)
from lfgcl_env.runs.provenance import provenance
from lfgcl_env.runs.run_folder import RunFolder


def measure(arguments: dict[str, Any]) -> None:
    """Measure the networks of a run or a file, print a table, and write it into the run folder.

    Args:
        arguments: all of the command's.

    Raises:
        ValueError: if a file names code that is not trusted, or a runtime cannot run a network.
        FileNotFoundError: if a network is missing, or the run has not ended.
        ImportError: if a runtime that is asked for is missing.
    """
    runtimes = available(arguments["runtime"])
    path = Path(arguments["run"])
    run = RunFolder(path) if path.is_dir() else None
    budgets = budgets_of_run(run) if run else []
    builder = own_builder(arguments)
    pruned = pruned_networks(path, budgets, builder)
    structures: list[Any] = [network.pruned_structure for network in pruned]
    seed = run.asked().get("seed", 0) if run and run.begun else 0
    baseline = load_unpruned(structures[0], builder, seed)
    names = [f"{label(budget)} pruned" for budget in budgets] or ["pruned"]
    tensors = {name: one["tensors"] for name, one in zip(names, structures, strict=True)}
    networks: dict[str, nn.Module] = {
        BASELINE: baseline.network,
        **dict(zip(names, pruned, strict=True)),
    }
    turns = [
        (runtime, batch) for runtime in runtimes for batch in dict.fromkeys(arguments["batch"])
    ]
    measurements = [
        one
        for runtime, batch in tqdm(turns, unit="table", disable=None, file=sys.stderr)
        for one in measure_beside(
            networks,
            baseline.input_shape,
            runtime,
            batch,
            arguments["threads"],
            arguments["seconds"] * len(networks),
        )
    ]
    example = torch.zeros(1, *baseline.input_shape)
    measured = collect(
        f"{described(baseline)}, inputs {baseline.input_shape}",
        tensors,
        {
            name: {
                "macs": count_macs(network, example),
                "params": sum(p.numel() for p in network.parameters()),
            }
            for name, network in networks.items()
        },
        measurements,
        {runtime.name: runtime.memory for runtime in runtimes},
        provenance(),
    )
    if run:
        with run.lock():
            add_measured(path, measured)
    if arguments["json"]:
        print(as_text(measured))
    else:
        print(f"{describe(measured)}\n\n{format_measured(measured)}", end="")
