"""``lfgcl measure``: how fast, small and frugal pruned networks are beside their baseline."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lfgcl_env.cli.outcome import Outcome
from lfgcl_env.cli.pruned_files import (
    budgets_of_run,
    keep_in_run,
    load_unpruned,
    own_builder,
    pruned_networks,
)
from lfgcl_env.cli.text import described
from lfgcl_env.edge.progress import progress
from lfgcl_env.edge.value_checks import first_line
from lfgcl_env.latency.measuring import Measurement, measure_beside
from lfgcl_env.latency.runtimes import RUNTIMES, Runtime, available
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.structure.layers import count_macs, layer_kind, layer_sizes
from lfgcl_env.runs.findings import add_measured
from lfgcl_env.runs.measured import (
    BASELINE,
    collect,
    describe,
    format_measured,
)
from lfgcl_env.runs.provenance import provenance
from lfgcl_env.runs.run_folder import RunFolder

_log = logging.getLogger(__name__)

LANES = 8
"""Numbers that processors compute at once, at least: counts are best multiples of it."""


def measure(arguments: dict[str, Any]) -> Outcome:
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
    if structures[0].get("inputs"):
        raise ValueError(
            f"the network in {path} takes several inputs, and `lfgcl measure` gives one: time it "
            "with inputs of your own, see lfgcl_env.load_pruned"
        )
    seed = run.asked().get("seed", 0) if run and run.begun else 0
    baseline = load_unpruned(structures[0], builder, seed)
    names = [f"{label(budget)} pruned" for budget in budgets] or ["pruned"]
    tensors = {name: one["tensors"] for name, one in zip(names, structures, strict=True)}
    networks: dict[str, nn.Module] = {
        BASELINE: baseline.network,
        **dict(zip(names, pruned, strict=True)),
    }
    measurements = _measurements(networks, baseline.input_shape, runtimes, arguments)
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
        {name: RUNTIMES[name].memory for name in dict.fromkeys(m.runtime for m in measurements)},
        provenance(),
    )
    keep_in_run(run, partial(add_measured, measured=measured))
    uneven = sorted({name for one in pruned for name in _uneven(one, baseline.network)})
    if uneven:
        _log.warning(
            "%d layers have counts of channels that are no multiples of %d any more, such as %s: "
            "kernels may take as long for the next multiple, and ONNX Runtime longer; "
            "`lfgcl prune ... --round-to %d` keeps multiples",
            len(uneven),
            LANES,
            uneven[0],
            LANES,
        )
    print(f"{describe(measured)}\n\n{format_measured(measured)}", end="")
    return measured.model_dump(mode="json", exclude={"checksum"})


def _uneven(network: nn.Module, baseline: nn.Module) -> list[str]:
    """Return the layers that have an even number of lanes in the baseline alone."""
    kept = {name: layer_sizes(m)[0] for name, m in network.named_modules() if layer_kind(m)}
    return [
        name
        for name, count in kept.items()
        if count % LANES and not layer_sizes(baseline.get_submodule(name))[0] % LANES
    ]


def _measurements(
    networks: Mapping[str, nn.Module],
    shape: Sequence[int],
    runtimes: Sequence[Runtime],
    arguments: Mapping[str, Any],
) -> list[Measurement]:
    """Measure in one runtime after the other.

    One that fails and was not asked for by its name is left out with a warning, so that what the
    others found is not lost.

    Raises:
        ValueError: if one that was asked for cannot run a network, or none can.
    """
    found: list[Measurement] = []
    failure: Exception | None = None
    sizes = list(dict.fromkeys(arguments["batch"]))
    done, total = 0, len(runtimes) * len(sizes)
    with progress("measuring", "table") as advance:
        for runtime in runtimes:
            for place, batch in enumerate(sizes):
                seconds = arguments["seconds"] * len(networks)
                try:
                    found += measure_beside(
                        networks, shape, runtime, batch, arguments["threads"], seconds
                    )
                except (ValueError, RuntimeError) as error:
                    if arguments["runtime"]:
                        raise
                    failure = error
                    _log.warning("%s is left out: %s", runtime.name, first_line(error))
                    total -= len(sizes) - place
                    advance(done, total)
                    break
                done += 1
                advance(done, total)
    if failure and not found:
        raise failure
    return found
