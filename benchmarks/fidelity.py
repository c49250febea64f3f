"""How well label-free signals rank strategies: against top-1 after sequential repair.

For every network and budget, random strategies (half of them near good ones) are scored with every
similarity, repair and number of images, and each is repaired sequentially and tested on the first
5,000 test images. Reported are Spearman's and Kendall's correlation, over all strategies and inside
the better half by top-1. Runs are kept in results/fidelity_NETWORK.jsonl.

    python benchmarks/fidelity.py --network resnet20 --budgets 0.35 0.5 0.65
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from study import Fields, Study, markdown_table, prepare, study_parser
from torch import Tensor, nn

from lfgcl_env.images import LabelledImages, load_images, load_test_set, top1
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.pruning.score.similarities import SIMILARITIES

REPAIRS = ("none", "batchnorm", "least_squares")
REPAIR_OPTIONS = SequentialOptions(rows=16384, relu_aware=1)
USUAL = 256
"""Calibration images of all signals but those of least squares, which have several numbers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Score what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.35, 0.5, 0.65])
    parser.add_argument("--strategies", type=int, default=60)
    parser.add_argument("--images", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--repair-images", type=int, default=256)
    parser.add_argument("--test-images", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    path = options.out / f"fidelity_{options.network}.jsonl"
    runs = [] if options.report else list(grid(options))
    study = Study(path, runs, measured, name=name)
    with torch.no_grad():
        code = study.run()
    report(options, study)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield the strategies of every budget."""
    shared = {
        "network": options.network,
        "seed": options.seed,
        "images": options.images,
        "repair_images": options.repair_images,
        "test_images": options.test_images,
    }
    signals = signals_of(*_key(shared))
    for budget in options.budgets:
        for keep in draw(signals.finisher, budget, options.strategies, options.seed):
            yield shared | {"budget": budget, "keep": keep.tolist()}


def name(run: Fields) -> str:
    """Name a run in messages."""
    return f"{run['network']} {run['budget']:.0%} strategy {' '.join(map(str, run['keep']))}"


class Signals:
    """All problems that score the strategies of a network, and the test of finished networks.

    Args:
        network: its name.
        seed: of the images.
        images: numbers of calibration images of the problems that repair by least squares.
        repair_images: others, for sequential repair.
        test_images: labelled.

    Attributes:
        finisher: the problem that repairs strategies sequentially.
    """

    def __init__(
        self, network: str, seed: int, images: tuple[int, ...], repair_images: int, test_images: int
    ) -> None:
        baseline = load_baseline(network, "published")
        drawn = load_images(
            "CIFAR10",
            max(images) + repair_images,
            shape=baseline.input_shape,
            normalization=baseline.normalization,
            seed=seed,
        )
        self._problems = {
            (repair, count): PruningProblem(
                baseline, drawn[:count], criterion="obs", repair=repair, seed=seed
            )
            for repair in REPAIRS
            for count in (images if repair == "least_squares" else [USUAL])
        }
        self._targets = {key: p.features(p.channels)[0] for key, p in self._problems.items()}
        self._classifier: nn.Module = baseline.network.get_submodule("linear")
        self.finisher = self._problems["least_squares", USUAL]
        self._repair_images = drawn[-repair_images:]
        test = load_test_set("CIFAR10", normalization=baseline.normalization)
        self._test: LabelledImages = replace(
            test, images=test.images[:test_images], labels=test.labels[:test_images]
        )

    def searched(self, keep: Sequence[int]) -> dict[str, float]:
        """Return the signals of a strategy as a search has them, by name."""
        found: dict[str, float] = {}
        for (repair, count), problem in self._problems.items():
            target, features = self._targets[repair, count], problem.features(keep)[0]
            values = compare(target, features, self._classifier(target), self._classifier(features))
            found |= {f"{repair} {name} {count}": value for name, value in values.items()}
            found[f"{repair} discounted_mse {count}"] = problem.evaluate(keep).similarity
        return found

    def finished(self, keep: Sequence[int]) -> tuple[dict[str, float], float]:
        """Return the signals of a strategy after sequential repair by name, and its top-1 [%]."""
        network, _ = self.finisher.finish(keep, self._repair_images, REPAIR_OPTIONS)
        target = self._targets["least_squares", USUAL]
        features = self.finisher.features(keep, network)[0]
        classifier = network.get_submodule("linear")
        values = compare(target, features, self._classifier(target), classifier(features))
        found = {f"sequential {name} {USUAL}": value for name, value in values.items()}
        found[f"sequential discounted_mse {USUAL}"] = self.finisher.score_network(network, keep)
        return found, top1(network, self._test)


signals_of = lru_cache(maxsize=1)(Signals)
"""The last network's signals, which all runs share."""


def measured(run: Fields) -> Fields:
    """Return every signal of a strategy, and its top-1 after sequential repair."""
    signals = signals_of(*_key(run))
    searched = signals.searched(run["keep"])
    finished, accuracy = signals.finished(run["keep"])
    return {"signals": searched | finished, "top1": accuracy}


def _key(run: Fields) -> tuple[str, int, tuple[int, ...], int, int]:
    images = tuple(run["images"])
    return run["network"], run["seed"], images, run["repair_images"], run["test_images"]


def compare(
    target: Tensor, features: Tensor, target_logits: Tensor, logits: Tensor
) -> dict[str, float]:
    """Return every similarity of two matrices: of penultimate features, or of outputs."""
    return {
        name: kind(target_logits, logits) if kind.of_outputs else kind(target, features)
        for name, kind in SIMILARITIES.items()
        if kind.upstream is None
    }


def draw(problem: PruningProblem, budget: float, count: int, seed: int) -> list[NDArray[np.int64]]:
    """Draw half of the strategies from logits spread widely, half near a good one.

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
    """Return logits of keep ratios after removing the channels with least error per MAC saved."""
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


def report(options: argparse.Namespace, study: Study) -> None:
    """Write correlations of every signal to results/fidelity_NETWORK.json and print the table."""
    records = [record for record in study.records() if record["budget"] in options.budgets]
    table: list[Fields] = []
    for signal in set.intersection(*(set(record["signals"]) for record in records)):
        spearman, kendall, half = [], [], []
        for budget in options.budgets:
            mine = [record for record in records if record["budget"] == budget]
            scores = np.array([record["signals"][signal] for record in mine])
            accuracy = np.array([record["top1"] for record in mine])
            better = accuracy >= np.median(accuracy)
            spearman.append(float(stats.spearmanr(scores, accuracy).statistic))
            kendall.append(float(stats.kendalltau(scores, accuracy).statistic))
            half.append(float(stats.spearmanr(scores[better], accuracy[better]).statistic))
        table.append({"signal": signal, "spearman": spearman, "kendall": kendall, "top_half": half})
    table.sort(key=lambda line: (-float(np.mean(line["spearman"])), line["signal"]))
    accuracies = [record["top1"] for record in records]
    columns = ("spearman", "kendall", "top_half")
    cells = [
        [line["signal"], *(f"{np.mean(line[column]):.3f}" for column in columns)] for line in table
    ]
    print(markdown_table(["repair, similarity, images", "Spearman", "Kendall", "top half"], cells))
    result = {
        "network": options.network,
        "budgets": options.budgets,
        "strategies": len(records),
        "top1_range": [min(accuracies), max(accuracies)],
        "test_images": options.test_images,
        "table": table,
    }
    print(study.write_report(result))


if __name__ == "__main__":
    prepare()
    sys.exit(main())
