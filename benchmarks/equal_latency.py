"""Compare budgets of MACs, parameters and latency at equal predicted milliseconds.

The network is ResNet-56 with embedded weights and images. For every fraction of the baseline's
latency, the allocation by measured sensitivities is taken on a budget of latency, and on those
budgets of MACs and of parameters whose allocations are predicted to take as long. Networks are
repaired by least squares, as they are scored; labels appear in the top-1 alone.

    python benchmarks/equal_latency.py
    python benchmarks/equal_latency.py --report
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from study import Fields, Study, markdown_table, prepare, study_parser

from lfgcl_env.images import LabelledImages, load_test_set, top1
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.sensitivities import sensitivities
from lfgcl_env.search.record_evaluations import problem_of

METRICS = ("latency", "macs", "params")
NAMES = {"latency": "latency", "macs": "MACs", "params": "parameters"}
_HALVINGS = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--runtime", default="pytorch")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.8, 0.7])
    parser.add_argument("--test-images", type=int, default=10_000)
    options = parser.parse_args(arguments)
    prepare()
    runs = [] if options.report else list(grid(options))
    study = Study(
        options.out / "equal_latency.jsonl",
        runs,
        measured,
        summary=lambda r: f"similarity {r['similarity']:.4f}, top-1 {r['top1']:.2f} %",
    )
    code = study.run()
    report(study)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield every metric at every fraction."""
    for fraction in options.fractions:
        for metric in METRICS:
            yield {
                "network": options.network,
                "runtime": options.runtime,
                "batch": options.batch,
                "fraction": fraction,
                "metric": metric,
                "test_images": options.test_images,
                "seed": 0,
            }


def measured(run: Fields) -> Fields:
    """Allocate a budget of one metric that is predicted to take the time asked for."""
    asked = (run["network"], run["runtime"], run["batch"])
    weights = measured_weights(*asked)
    problem = made(*asked, run["metric"])
    model = problem.network.latency
    whole = int(model(problem.channels))
    if run["metric"] == "latency":
        keep = allocate(problem, run["fraction"], weights)
    else:
        keep = _as_fast(problem, run["fraction"] * whole, weights)
    evaluation = problem.evaluate(keep)
    network = problem.compress(keep)
    return {
        "latency_ratio": round(int(model(keep)) / whole, 4),
        "macs_ratio": round(evaluation.macs_ratio, 4),
        "params_ratio": round(evaluation.params_ratio, 4),
        "similarity": round(evaluation.similarity, 5),
        "top1": round(top1(network, test_set(problem, run["test_images"])), 2),
        "table": model.table.checksum,
    }


def _as_fast(
    problem: PruningProblem, allowed: float, weights: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the allocation on the highest budget that is predicted to take no longer."""
    low, high = problem.lowest_budget, 1.0
    best = allocate(problem, low, weights)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        keep = allocate(problem, middle, weights)
        if int(problem.network.latency(keep)) <= allowed:
            low, best = middle, keep
        else:
            high = middle
    return best


@lru_cache(maxsize=3)
def made(network: str, runtime: str, batch: int, metric: str) -> PruningProblem:
    """Return the problem with a budget of a metric."""
    env = gym.make(
        "LFGCL-v0",
        network=network,
        weights="embedded",
        images="embedded",
        repair="least_squares",
        budget=0.99,
        budget_metric=metric,
        latency_runtime=runtime,
        latency_batch=batch,
    )
    return problem_of(env)


@lru_cache(maxsize=1)
def measured_weights(network: str, runtime: str, batch: int) -> NDArray[np.float64]:
    """Return sensitivities, which no budget changes."""
    return sensitivities(made(network, runtime, batch, "macs"))


def test_set(problem: PruningProblem, count: int) -> LabelledImages:
    """Return the first labelled test images of CIFAR-10."""
    whole = load_test_set("CIFAR10", normalization=problem.baseline.normalization)
    return LabelledImages(whole.images[:count], whole.labels[:count], whole.name)


def report(study: Study) -> None:
    """Print the table, and write it beside the records."""
    cells = [
        [
            f"{r['fraction']:.0%}",
            NAMES[r["metric"]],
            f"{r['latency_ratio']:.1%}",
            f"{r['macs_ratio']:.1%}",
            f"{r['params_ratio']:.1%}",
            f"{r['similarity']:.4f}",
            f"{r['top1']:.2f}",
        ]
        for r in study.records()
    ]
    heads = ["latency", "budget of", "predicted", "MACs", "parameters", "similarity", "top-1"]
    print(markdown_table(heads, cells))
    study.write_report({"rows": cells})


if __name__ == "__main__":
    sys.exit(main())
