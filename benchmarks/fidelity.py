"""How well label-free signals rank strategies: against top-1 after sequential repair.

For every network and budget, random strategies (half of them near good ones) are scored with every
similarity, repair and number of images, and each is repaired sequentially and tested on the first
5,000 test images. Reported are Spearman's and Kendall's correlation, over all strategies and inside
the better half by top-1. Resumable: finished strategies are kept in
results/fidelity_NETWORK.jsonl.

    python benchmarks/fidelity.py --network resnet20 --budgets 0.35 0.5 0.65
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from provenance import RESULTS, write
from rows import lines
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from lfgcl_env.images import load_images, load_test_set, top1
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.sequential import SequentialOptions
from lfgcl_env.pruning.score.similarities import OF_OUTPUTS, SIMILARITIES

REPAIRS = ("none", "batchnorm", "least_squares")
REPAIR_OPTIONS = SequentialOptions(rows=16384, relu_aware=1)


def main() -> None:
    """Score what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.35, 0.5, 0.65])
    parser.add_argument("--strategies", type=int, default=60)
    parser.add_argument("--images", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--repair-images", type=int, default=256)
    parser.add_argument("--test-images", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="only make the tables")
    options = parser.parse_args()
    path = RESULTS / f"fidelity_{options.network}.jsonl"
    RESULTS.mkdir(exist_ok=True)
    if not options.report:
        measure(options, path)
    report(options, path)


def measure(options: argparse.Namespace, path: Path) -> None:
    """Append a line for every strategy that has none yet."""
    baseline = load_baseline(options.network, "published")
    images = load_images(
        "CIFAR10",
        max(options.images) + options.repair_images,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
        seed=options.seed,
    )
    test = load_test_set("CIFAR10", normalization=baseline.normalization)
    count = options.test_images
    test = replace(test, images=test.images[:count], labels=test.labels[:count])
    problems = {
        (repair, count): PruningProblem(
            baseline, images[:count], criterion="obs", repair=repair, seed=options.seed
        )
        for repair in REPAIRS
        for count in (options.images if repair == "least_squares" else [256])
    }
    targets = {key: p.features(p.channels)[0] for key, p in problems.items()}
    classifier = baseline.network.linear
    finisher = problems["least_squares", 256]
    done = {(r["budget"], tuple(r["keep"])) for r in lines(path)}
    for budget in options.budgets:
        strategies = draw(finisher, budget, options.strategies, options.seed)
        for keep in tqdm(strategies, desc=f"{options.network} at {budget:.0%}"):
            if (budget, tuple(keep.tolist())) in done:
                continue
            signals = {}
            for (repair, count), problem in problems.items():
                features = problem.features(keep)[0]
                pair = (classifier(targets[repair, count]), classifier(features))
                for name, value in compare(targets[repair, count], features, *pair).items():
                    signals[f"{repair} {name} {count}"] = value
                signals[f"{repair} discounted_mse {count}"] = problem.evaluate(keep).similarity
            network, _ = finisher.finish(keep, images[-options.repair_images :], REPAIR_OPTIONS)
            features, target = finisher.features(keep, network)[0], targets["least_squares", 256]
            pair = (classifier(target), network.linear(features))
            for name, value in compare(target, features, *pair).items():
                signals[f"sequential {name} 256"] = value
            signals["sequential discounted_mse 256"] = finisher.score_network(network, keep)
            line = {
                "budget": budget,
                "keep": keep.tolist(),
                "signals": signals,
                "top1": top1(network, test),
            }
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def compare(
    target: Tensor, features: Tensor, target_logits: Tensor, logits: Tensor
) -> dict[str, float]:
    """Every similarity of two matrices: of penultimate features, or of outputs."""
    return {
        name: function(target_logits, logits) if name in OF_OUTPUTS else function(target, features)
        for name, function in SIMILARITIES.items()
        if name != "discounted_mse"
    }


def draw(problem: PruningProblem, budget: float, count: int, seed: int) -> list[NDArray[np.int64]]:
    """Half of the strategies from logits spread widely, half near a good one.

    The good one spends the budget where the error curves say that channels matter.
    """
    rng = np.random.default_rng([seed, round(1000 * budget)])
    good = _allocated(problem, budget)
    strategies: dict[tuple[int, ...], NDArray[np.int64]] = {}
    while len(strategies) < count:
        near = len(strategies) % 2 == 0
        centre, spread = (good, 0.35) if near else (np.zeros(len(problem.groups)), 1.2)
        logits = centre + spread * rng.standard_normal(len(problem.groups))
        keep = problem.project(1 / (1 + np.exp(logits)), budget)
        strategies[tuple(keep.tolist())] = keep
    return list(strategies.values())


def _allocated(problem: PruningProblem, budget: float) -> NDArray[np.float64]:
    """Logits of keep ratios after removing the channels with least error per MAC saved."""
    keep = problem.channels.copy()
    curves = [problem.eliminations[g.name].errors for g in problem.groups]
    macs = problem.baseline_cost.macs
    while problem.cost(keep).macs > budget * macs:
        prices = []
        for g, curve in enumerate(curves):
            if keep[g] <= 1:
                prices.append(np.inf)
                continue
            fewer = keep.copy()
            fewer[g] -= 1
            saved = problem.cost(keep).macs - problem.cost(fewer).macs
            prices.append((curve[keep[g] - 1] - curve[keep[g]]) / saved)
        keep[int(np.argmin(prices))] -= 1
    ratios = np.clip(keep / problem.channels, 0.02, 0.98)
    logits: NDArray[np.float64] = np.log(ratios / (1 - ratios))
    return logits


def report(options: argparse.Namespace, path: Path) -> None:
    """Write correlations of every signal to results/fidelity_NETWORK.json and print the table."""
    rows = [r for r in lines(path) if r["budget"] in options.budgets]
    table = []
    for signal in set.intersection(*(set(row["signals"]) for row in rows)):
        spearman, kendall, half = [], [], []
        for budget in options.budgets:
            mine = [r for r in rows if r["budget"] == budget]
            scores = np.array([r["signals"][signal] for r in mine])
            accuracy = np.array([r["top1"] for r in mine])
            better = accuracy >= np.median(accuracy)
            spearman.append(float(stats.spearmanr(scores, accuracy).statistic))
            kendall.append(float(stats.kendalltau(scores, accuracy).statistic))
            half.append(float(stats.spearmanr(scores[better], accuracy[better]).statistic))
        table.append({"signal": signal, "spearman": spearman, "kendall": kendall, "top_half": half})
    table.sort(key=lambda row: (-float(np.mean(row["spearman"])), row["signal"]))  # type: ignore[arg-type]
    result: dict[str, Any] = {
        "network": options.network,
        "budgets": options.budgets,
        "strategies": len(rows),
        "top1_range": [min(r["top1"] for r in rows), max(r["top1"] for r in rows)],
        "test_images": options.test_images,
        "table": table,
    }
    print(f"{'repair, similarity, images':<34} {'Spearman':>9} {'Kendall':>8} {'top half':>9}")
    for row in table:
        means = [float(np.mean(row[key])) for key in ("spearman", "kendall", "top_half")]
        print(f"{row['signal']!s:<34} {means[0]:9.3f} {means[1]:8.3f} {means[2]:9.3f}")
    print(write(f"fidelity_{options.network}", result))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
