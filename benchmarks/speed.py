"""Time of construction and of one evaluation, with its parts; medians over random strategies.

The parts are measured through the public interface: an evaluation cuts, repairs, runs and compares;
``score_network`` of the finished network runs and compares; ``features`` runs. A repeated
evaluation finds the cut and repaired weights still in place. Results are in
results/speed_NETWORK.jsonl.

    python benchmarks/speed.py --network resnet56 --images 256
"""

import sys
import time
from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np
import torch
from study import Fields, Study, markdown_table, prepare, study_parser

import lfgcl_env
from lfgcl_env.images import load_images
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem

CONSTRUCTIONS = 3
"""The first also imports torchvision; the median of the others is what a further one takes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, unless measured before, and print; return 1 if it failed."""
    assert lfgcl_env  # registers the environments
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--strategies", type=int, default=10)
    options = parser.parse_args(arguments)
    names = ("network", "images", "strategies")
    run = {name: getattr(options, name) for name in names}
    study = Study(options.out / f"speed_{options.network}.jsonl", [run], measured)
    with torch.no_grad():
        code = 0 if options.report else study.run()
    cells = [
        [name, f"{1000 * value:.1f}"]
        for record in study.records()
        for name, value in record.items()
        if name not in names
    ]
    print(markdown_table(["", "milliseconds"], cells))
    return code


def measured(run: Fields) -> Fields:
    """Return all times [s]."""
    constructions = [
        seconds(
            lambda: gym.make(
                "LFGCL-v0",
                network=run["network"],
                weights="published",
                images="CIFAR10",
                num_images=run["images"],
            )
        )
        for _ in range(CONSTRUCTIONS)
    ]
    baseline = load_baseline(run["network"], "published")
    images = load_images(
        "CIFAR10", run["images"], shape=baseline.input_shape, normalization=baseline.normalization
    )
    problem = PruningProblem(baseline, images)
    rng = np.random.default_rng(0)
    parts: dict[str, list[float]] = {}
    for _ in range(run["strategies"]):
        ratios = rng.random(len(problem.groups))
        for name, value in parts_of(problem, ratios).items():
            parts.setdefault(name, []).append(value)
    return {
        "first construction": constructions[0],
        "construction": float(np.median(constructions[1:])),
        **{name: float(np.median(values)) for name, values in parts.items()},
    }


def parts_of(
    problem: PruningProblem, ratios: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> Fields:
    """Return the times of all parts of a strategy's evaluation [s]."""
    projection = seconds(lambda: problem.project(ratios))
    keep = problem.project(ratios)
    evaluation = seconds(lambda: problem.evaluate(keep))
    problem.forget()
    again = seconds(lambda: problem.evaluate(keep))
    compression = seconds(lambda: problem.compress(keep))
    network = problem.compress(keep)
    scoring = seconds(lambda: problem.score_network(network, keep))
    forward = seconds(lambda: problem.features(keep, network))
    return {
        "projection": projection,
        "evaluation": evaluation,
        "repeated evaluation": again,
        "cut and repair": max(0.0, evaluation - scoring),
        "forward pass": forward,
        "comparison": max(0.0, scoring - forward),
        "compression": compression,
    }


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes [s]."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    prepare()
    sys.exit(main())
