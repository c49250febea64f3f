"""What a score costs: the closed form on 256 images against sequential repair, side by side.

All scores are taken of the same strategies in turn, in one process on one thread; the ratios are
medians over strategies. Results are in results/score_cost.jsonl.

    python benchmarks/score_cost.py
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from study import Fields, Study, markdown_table, prepare, study_parser

from lfgcl_env.images import load_images
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem, allocate

IMAGES = 256
SCORED = 1024
SCORES = {
    "closed form": ("least_squares", "discounted_mse", 0),
    "closed form, outputs on others": ("least_squares", "kl", SCORED),
    "sequential": ("sequential", "discounted_mse", 0),
    "sequential, outputs on others": ("sequential", "kl", SCORED),
}
NOISE = 0.6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--strategies", type=int, default=8)
    options = parser.parse_args(arguments)
    runs = [
        {"network": network, "budget": budget, "strategies": options.strategies}
        for network, budget in (("resnet20", 0.35), ("resnet56", 0.5))
    ]
    study = Study(options.out / "score_cost.jsonl", runs, measured)
    with torch.no_grad():
        code = 0 if options.report else study.run()
    cells = [
        [
            record["network"],
            f"{record['budget']:.0%}",
            score,
            f"{record['seconds'][score]:.2f}",
            f"{record['ratios'][score]:.1f}",
        ]
        for record in study.records()
        for score in SCORES
    ]
    print(markdown_table(["network", "budget", "score", "seconds", "ratio"], cells))
    return code


def measured(run: Fields) -> Fields:
    """Return the median processor time of every score [s], and of its ratio to the first."""
    baseline = load_baseline(run["network"], "published")
    drawn = load_images(
        "CIFAR10",
        IMAGES + SCORED,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
    )
    problems = {
        name: PruningProblem(
            baseline,
            drawn[:IMAGES],
            drawn[IMAGES : IMAGES + others] if others else None,
            budget=run["budget"],
            repair=repair,
            similarity=similarity,
        )
        for name, (repair, similarity, others) in SCORES.items()
    }
    first = next(iter(problems.values()))
    ratios = np.clip(allocate(first) / first.channels, 0.02, 0.98)
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in problems}
    for _ in range(run["strategies"]):
        logits = np.log(ratios / (1 - ratios)) + NOISE * rng.standard_normal(len(ratios))
        keep = first.project(1 / (1 + np.exp(logits)))
        for name, problem in problems.items():
            started = time.process_time()
            problem.evaluate(keep)
            times[name].append(time.process_time() - started)
    base = np.array(times[next(iter(SCORES))])
    return {
        "seconds": {name: round(float(np.median(t)), 3) for name, t in times.items()},
        "ratios": {name: round(float(np.median(t / base)), 2) for name, t in times.items()},
    }


if __name__ == "__main__":
    prepare()
    sys.exit(main())
