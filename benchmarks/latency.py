"""Compare predicted with measured latency, and what budgets of MACs and of latency gain.

For every network, runtime, batch and number of threads, a table of the network's operations is
measured, or taken from the cache. Random strategies, uniform prune ratios at half of the MACs, and
the same at half of the latency (or at the least that can be reached, where half cannot) are then
measured whole, in turn with the baseline. A time is the lower quartile over rounds; on one thread
it is the thread's own processor time, which others on a busy machine do not add to. All are
compared as fractions of the baseline's. Weights are random: they do not change times.

    python benchmarks/latency.py
    python benchmarks/latency.py --networks resnet56 --threads 2
    python benchmarks/latency.py --report
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from study import Fields, Study, markdown_table, study_parser

from lfgcl_env.config import LatencyConfig
from lfgcl_env.latency.runtimes import RUNTIMES, on_threads
from lfgcl_env.latency.timing import take_turns
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork

NETWORKS: dict[str, Fields] = {
    "resnet56": {"network": "resnet56"},
    "mobilenet_v2": {"network": "mobilenet_v2"},
    "vit_tiny": {
        "network": "timm:create_model",
        "input_shape": [3, 224, 224],
        "arguments": {"model_name": "vit_tiny_patch16_224"},
    },
}
"""How networks are built, by a name for the table."""

STRATEGIES = 30
QUANTILE = 0.25
HALF = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--runtimes", nargs="+", default=["pytorch", "onnxruntime"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--round-to", type=int, default=1, help="multiples that counts are")
    parser.add_argument("--seconds", type=float, default=40.0, help="for whole networks [s]")
    parser.add_argument("--seed", type=int, default=0, help="of the strategies")
    options = parser.parse_args(arguments)
    runs = [] if options.report else list(grid(options))
    study = Study(options.out / "latency.jsonl", runs, measured, name=name, summary=summary)
    code = study.run()
    report(study)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield the runs, one thread first."""
    for threads in options.threads:
        for network in options.networks:
            for runtime in options.runtimes:
                for batch in options.batches:
                    yield {
                        "title": network,
                        **NETWORKS[network],
                        "runtime": runtime,
                        "batch": batch,
                        "threads": threads,
                        "strategies": STRATEGIES,
                        "seconds": options.seconds,
                        "seed": options.seed,
                        **({"round_to": options.round_to} if options.round_to > 1 else {}),
                    }


def name(run: Fields) -> str:
    """Name a run in messages."""
    return (
        f"{run['title']} in {run['runtime']}, batch {run['batch']}, {run['threads']} threads, "
        f"multiples of {run.get('round_to', 1)}"
    )


def summary(record: Fields) -> str:
    """Say how well times were predicted."""
    return f"median error {record['median_error']:.1%}, at most {record['largest_error']:.1%}"


def measured(run: Fields) -> Fields:
    """Predict and measure the strategies of a run."""
    latency: LatencyConfig = {
        "latency_runtime": run["runtime"],
        "latency_batch": run["batch"],
        "latency_threads": run["threads"],
    }
    network = prunable(run["title"], latency, round_to=run.get("round_to", 1))
    begun = time.perf_counter()
    model = network.latency
    seconds_of_table = time.perf_counter() - begun
    strategies = random_strategies(network, run["strategies"], run["seed"])
    lowest = network.projection("latency").lowest
    budget = max(HALF, lowest)
    evenly = np.full(len(network.groups), HALF)
    halves = [
        network.projection("macs")(evenly, HALF),
        network.projection("latency")(evenly, budget),
    ]
    everything = [network.channels, *halves, *strategies]
    times = whole_times(network, everything, run)
    ratios = times / times[0]
    predicted = np.array([int(model(keep)) for keep in everything]) / int(model(network.channels))
    errors = predicted / ratios - 1
    unfitted = errors[3:]  # the baseline fitted the prediction
    macs = [network.cost(keep).macs / network.baseline_cost.macs for keep in everything]
    return {
        "baseline_ms": round(float(times[0]) * 1e3, 4),
        "predicted_baseline_ms": round(int(model(network.channels)) / 1e6, 4),
        "predicted": [round(float(p), 4) for p in predicted],
        "measured": [round(float(r), 4) for r in ratios],
        "macs_ratios": [round(m, 4) for m in macs],
        "median_error": round(float(np.median(np.abs(unfitted))), 4),
        "largest_error": round(float(np.abs(unfitted).max()), 4),
        "median_error_of_macs": round(float(np.median(np.abs(np.array(macs) / ratios - 1)[3:])), 4),
        "lowest_budget": round(lowest, 4),
        "latency_budget": round(budget, 4),
        "factor": round(model.factor, 4),
        "overhead_ms": round(model.overhead / 1e6, 4),
        "table": model.table.checksum,
        "table_seconds": round(seconds_of_table, 1),
    }


def prunable(title: str, latency: LatencyConfig, **limits: Any) -> PrunableNetwork:
    """Return a network whose latency is that asked for."""
    built = NETWORKS[title]
    baseline = load_baseline(
        built["network"],
        "random",
        input_shape=built.get("input_shape"),
        **built.get("arguments", {}),
    )
    return PrunableNetwork(baseline, latency, **limits)


def random_strategies(network: PrunableNetwork, count: int, seed: int) -> list[NDArray[np.int64]]:
    """Draw prune ratios evenly in every group, and a budget of MACs for all of them."""
    generator = np.random.default_rng(seed)
    projection = network.projection("macs")
    low = projection.lowest
    return [
        projection(
            generator.uniform(size=len(network.groups)), float(generator.uniform(max(low, 0.1), 1))
        )
        for _ in range(count)
    ]


def whole_times(
    network: PrunableNetwork, strategies: Sequence[NDArray[np.int64]], run: Fields
) -> NDArray[np.float64]:
    """Measure the networks of strategies in turn [s]."""
    runtime = RUNTIMES[run["runtime"]]
    generator = torch.Generator().manual_seed(0)
    shape = network.baseline.input_shape
    example = torch.randn(run["batch"], *shape, generator=generator)
    with on_threads(run["threads"]):
        calls = [
            runtime.prepare(
                network.cut([np.arange(count) for count in keep]), example, run["threads"]
            ).call
            for keep in strategies
        ]
        took = take_turns(
            calls,
            run["seconds"],
            rounds=(5, 300),
            idle=runtime.idle,
            clock=time.thread_time if run["threads"] == 1 else time.perf_counter,
            until=time.perf_counter,
        )
    return np.array([np.quantile(times, QUANTILE) for times in took])


def report(study: Study) -> None:
    """Print the tables, and write them beside the records."""
    records = study.records()
    errors = [
        [
            *_setting(record),
            f"{record['median_error']:.1%}",
            f"{record['largest_error']:.1%}",
            f"{record['median_error_of_macs']:.1%}",
        ]
        for record in records
    ]
    heads = ["network", "runtime", "batch", "threads", "multiples of"]
    print(markdown_table([*heads, "median error", "largest", "if MACs predicted"], errors))
    gains = [_gains(record) for record in records]
    print()
    columns = ["lowest budget", "speed-up at half the MACs", "at half the latency", "its MACs"]
    print(markdown_table([*heads, *columns], gains))
    study.write_report({"errors": errors, "gains": gains})


def _setting(record: Fields) -> list[str]:
    names = ("title", "runtime", "batch", "threads")
    return [*(str(record[name]) for name in names), str(record.get("round_to", 1))]


def _gains(record: dict[str, Any]) -> list[str]:
    half = f"{1 / record['measured'][2]:.2f}x"
    if record["latency_budget"] > HALF:
        half += f" (at {record['latency_budget']:.0%})"
    return [
        *_setting(record),
        f"{record['lowest_budget']:.0%}",
        f"{1 / record['measured'][1]:.2f}x",
        half,
        f"{record['macs_ratios'][2]:.0%}",
    ]


if __name__ == "__main__":
    sys.exit(main())
