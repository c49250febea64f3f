"""Budgets of latency: the time of a strategy's network on one machine, from a measured table."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lfgcl_env.config import LatencyConfig
from lfgcl_env.latency.machine import machine
from lfgcl_env.latency.operations import find_operations
from lfgcl_env.latency.prediction import LatencyModel, anchors, wanted
from lfgcl_env.latency.runtimes import on_threads, usable
from lfgcl_env.latency.table import Table, digest, key_of, measure_table
from lfgcl_env.latency.table_cache import cached, find_table
from lfgcl_env.latency.units import BENCHES
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.cost import Measured, metric


@metric("latency", timed=True)
def latency(measured: Measured) -> LatencyModel:
    """Count the nanoseconds of a forward pass, as a table predicts them.

    Raises:
        ValueError: if the table belongs to another network, runtime, batch or number of threads,
            or is damaged.
        FileNotFoundError: if there is no such table.
        ImportError: if the runtime is not installed.
    """
    asked = measured.latency
    # In the layout that a delivered network has, not in that in which candidates run fastest.
    candidate = Candidate(measured.network, measured.plan, layout=torch.contiguous_format)

    def build(keep: NDArray[np.int64]) -> nn.Module:
        candidate.install([np.arange(count) for count in keep])
        return candidate.network

    channels = np.array([group.channels for group in measured.plan.groups], dtype=np.int64)
    first = next(measured.network.parameters())
    noise = torch.Generator().manual_seed(0)
    example = torch.randn(asked["latency_batch"], *measured.input_shape, generator=noise)
    example = example.to(first.dtype)
    operations = find_operations(build, channels, example)
    if asked["latency_table"] is not None:
        table = _checked(find_table(str(asked["latency_table"])), asked)
    else:
        needed = wanted(operations, measured.allowed)
        whole = anchors(channels, measured.allowed)
        facts = _facts(asked, [key_of(o.signature, o.knots) for o in needed], whole.tolist())

        def measure() -> Table:
            runtime = usable(asked["latency_runtime"])
            threads = asked["latency_threads"]
            with on_threads(threads):
                networks = [runtime.prepare(build(keep), example, threads).call for keep in whole]
                return measure_table(
                    needed,
                    networks,
                    BENCHES[runtime.name],
                    facts,
                    threads=threads,
                    idle=runtime.idle,
                    clock=runtime.clock(threads),
                    progress=True,
                )

        table = cached(facts, measure)
    return LatencyModel(operations, table, channels, measured.allowed)


def _checked(table: Table, asked: LatencyConfig) -> Table:
    """Return a table that is given if it is of what is asked for, on whatever machine.

    Raises:
        ValueError: if it is of something else.
    """
    for name, value in _asked(asked).items():
        if (measured := table.belongs_to.get(name)) != value:
            raise ValueError(
                f"latency table {table.checksum} is of {name} {measured}, and latency_{name} is "
                f"{value}: give latency_{name} {measured}, or another latency_table"
            )
    return table


def _asked(asked: LatencyConfig) -> dict[str, str]:
    return {
        "runtime": asked["latency_runtime"],
        "batch": str(asked["latency_batch"]),
        "threads": str(asked["latency_threads"]),
    }


def _facts(
    asked: LatencyConfig, keys: Sequence[str], counts: Sequence[Sequence[int]]
) -> dict[str, str]:
    """Return what the times of a table hold for."""
    return {
        **_asked(asked),
        **machine(asked["latency_runtime"]),
        "network": digest(f"{sorted(keys)} {counts}"),
    }
