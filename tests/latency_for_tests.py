"""Latency tables without noise: a clock that only what is measured moves."""

import numpy as np

from lfgcl_env.latency.table import measure_table
from lfgcl_env.pruning.budget import latency_metric


def measure_exactly(monkeypatch) -> list[object]:
    """Have an operation take a millisecond for every product of its sizes; return its tables.

    Delivered networks are measured as they are, but in the fewest rounds.
    """
    monkeypatch.setattr("lfgcl_env.runs.delivered_times.SECONDS", 0.0)
    now = [0.0]
    tables = []

    def tick(seconds):
        now[0] += seconds

    def bench(signature, values, threads):
        return [(lambda: tick(1e-3 * np.prod([float(v) for v in values])), 1.0)]

    def measured(wanted, networks, _, belongs_to, **options):
        whole = [lambda share=share: tick(share) for share in (1.0, 0.7, 0.45, 0.25)]
        clock = {"clock": lambda: now[0], "until": lambda: now[0]}
        tables.append(measure_table(wanted, whole, bench, belongs_to, seconds=0.0, **clock))
        return tables[-1]

    monkeypatch.setattr(latency_metric, "measure_table", measured)
    return tables
