"""Deliver many strategies: the truth that rewards, judges and searches are held against.

Every strategy is repaired as users get it, on unlabelled training images, and tested on all test
images. Beside its top-1 stand label-free values of the delivered network, on training images that
the repair did not use: the divergence of its outputs from the baseline's at two temperatures, the
relative squared error of logits, and how often the largest output is the same. The test images
appear in the top-1 alone. Runs are kept in results/deliveries_NETWORK.jsonl.

    python benchmarks/deliveries.py --network resnet20 --budgets 0.35
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from study import Fields, Study, markdown_table, newest, prepare, study_parser
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.images import load_images, load_test_set, top1
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.repair.profiles import SequentialOptions

CALIBRATION = 256
"""Images of the problem."""

JUDGED = (512, 1024, 2048, 4096)
"""Numbers of other images that delivered networks are compared with the baseline on."""

NOISE = 0.6
"""Standard deviation of the noise in logits of keep ratios, of strategies near the allocation."""

WIDE = 1.2
"""The same around uniform ratios, of random strategies."""

DELIVERED = {"images": 2048, "rows": 65536, "gauss_newton": 3, "positions": 131072, "seed": 0}
"""The deliveries that other studies go by: the defaults of the options."""

RANKS = (0, 3, 9)
"""Places of the strategies of a search that are delivered to study what signals are worth."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Deliver what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.35])
    parser.add_argument("--near", type=int, default=40, help="strategies near the allocation")
    parser.add_argument("--random", type=int, default=16, help="random strategies")
    parser.add_argument(
        "--searched", action="store_true", help="what benchmarks/gains.py found, and nothing else"
    )
    parser.add_argument("--lower", action="store_true", help="those at lower places of seed 0, too")
    parser.add_argument("--min-channels", type=int, default=1, help="0: whole blocks may go")
    parser.add_argument("--images", type=int, default=2048, help="that repair sees")
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--gauss-newton", type=int, default=3)
    parser.add_argument("--positions", type=int, default=131072)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the repair's images")
    options = parser.parse_args(arguments)
    if options.lower and not (options.searched and DELIVERED["seed"] in options.seeds):
        parser.error("--lower goes with --searched and seed 0")
    path = options.out / f"deliveries_{options.network}.jsonl"
    runs = [] if options.report else list(grid(options))
    study = Study(path, runs, measured, name=name, summary=lambda r: f"top-1 {r['top1']:.2f} %")
    with torch.no_grad():
        code = study.run()
    report(study)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield the deliveries of every budget: allocation, near and random strategies, or searched."""
    for budget in options.budgets:
        chosen = searched if options.searched else drawn
        known: set[tuple[tuple[int, ...], int]] = set()
        for kind, keep, seed in chosen(options, budget):
            if (keep, seed) in known:
                continue
            known.add((keep, seed))
            yield {
                "network": options.network,
                "budget": budget,
                **({} if options.min_channels else {"min_channels": 0}),
                "kind": kind,
                "keep": list(keep),
                "seed": seed,
                "images": options.images,
                "rows": options.rows,
                "gauss_newton": options.gauss_newton,
                "positions": options.positions,
            }


def drawn(options: argparse.Namespace, budget: float) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Yield kind, strategy and seed of the allocation, of strategies near it, and random ones."""
    problem = shared(options.network).problem(budget, options.min_channels)
    for kind, keep in strategies(problem, options.near, options.random):
        for seed in options.seeds:
            yield kind, tuple(keep.tolist()), seed


def searched(
    options: argparse.Namespace, budget: float
) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Yield the same of what searches found.

    Of each seed's search the best is delivered on images of that seed, and so are what it started
    from, the allocation by its own images, and what benchmarks/shortlists.py chooses. With --lower
    those of seed 0 are also delivered at lower places, to study signals.
    """
    for record in newest(options.out / f"gains_{options.network}.jsonl"):
        asked = (record["budget"], record["min_channels"]) == (budget, options.min_channels)
        if asked and record["seed"] in options.seeds:
            yield "start", tuple(record["course"][0]["keep"]), record["seed"]
            kinds = ("searched", "searched lower")
            lower = options.lower and record["seed"] == DELIVERED["seed"]
            places = RANKS if lower else RANKS[:1]
            for place in places:
                keep = tuple(record["best"][place]["keep"])
                yield kinds[place > 0], keep, record["seed"]
    for record in newest(options.out / f"shortlists_{options.network}.jsonl"):
        asked = (record["budget"], record["min_channels"]) == (budget, options.min_channels)
        if asked and record["seed"] in options.seeds:
            yield "chosen", tuple(record["chosen"]), record["seed"]


def name(run: Fields) -> str:
    """Name a run in messages."""
    keep = " ".join(map(str, run["keep"]))
    return f"{run['network']} {run['budget']:.0%} {run['kind']} {keep}, seed {run['seed']}"


class Shared:
    """What all deliveries of a network share.

    Args:
        network: its name.

    Attributes:
        judges: training images that neither problems nor repairs see.
        search_images: training images for searches; a repair may draw some of them, too.
    """

    def __init__(self, network: str) -> None:
        self.baseline = load_baseline(network, "published")
        drawn = load_images(
            "CIFAR10",
            50000,
            shape=self.baseline.input_shape,
            normalization=self.baseline.normalization,
            seed=0,
        )
        self._calibration = drawn[:CALIBRATION]
        self.judges = drawn[CALIBRATION : CALIBRATION + max(JUDGED)]
        self._others = drawn[CALIBRATION + max(JUDGED) :]
        self._outputs = outputs(self.baseline.network, self.judges)
        self.search_images = self._others[-1280:]
        self._test = load_test_set("CIFAR10", normalization=self.baseline.normalization)
        self._problems: dict[tuple[float, int], PruningProblem] = {}

    def problem(self, budget: float, min_channels: int = 1) -> PruningProblem:
        """Return the problem of a budget; with ``min_channels=0`` whole blocks may go."""
        key = budget, min_channels
        if key not in self._problems:
            self._problems[key] = PruningProblem(
                self.baseline, self._calibration, budget=budget, min_channels=min_channels
            )
        return self._problems[key]

    def repair_images(self, seed: int, count: int) -> Tensor:
        """Draw images for repair, of all that are left."""
        generator = torch.Generator().manual_seed(seed)
        return self._others[torch.randperm(len(self._others), generator=generator)[:count]]

    @property
    def every_other(self) -> Tensor:
        """All training images that neither problems nor judges see."""
        return self._others

    def judge(self, network: nn.Module) -> dict[str, float]:
        """Return the label-free values of a network, by name and number of images."""
        found = outputs(network, self.judges)
        return {
            f"{name} {count}": value
            for count in JUDGED
            for name, value in distances(self._outputs[:count], found[:count]).items()
        }

    def top1(self, network: nn.Module) -> float:
        """Return the top-1 accuracy on all test images, in percent."""
        return top1(network, self._test)


shared = lru_cache(maxsize=1)(Shared)


def measured(run: Fields) -> Fields:
    """Deliver a strategy; return its top-1 [%], label-free values and processor time [s]."""
    here = shared(run["network"])
    options = SequentialOptions(
        rows=run["rows"], gauss_newton=run["gauss_newton"], positions=run["positions"]
    )
    images = here.repair_images(run["seed"], run["images"])
    started = time.process_time()
    problem = here.problem(run["budget"], run.get("min_channels", 1))
    network, _ = problem.finish(run["keep"], images, options)
    seconds = time.process_time() - started
    return {
        "top1": round(here.top1(network), 3),
        "judged": here.judge(network),
        "seconds": round(seconds, 2),
    }


def outputs(network: nn.Module, images: Tensor, batch: int = 256) -> Tensor:
    """Run a network on images, so many at a time."""
    with torch.inference_mode():
        return torch.cat([network(some) for some in torch.split(images, batch)])


def distances(baseline: Tensor, pruned: Tensor) -> dict[str, float]:
    """Return how far outputs are from the baseline's, by name; lower is nearer, 0 for equal."""
    baseline, pruned = baseline.double(), pruned.double()
    found = {}
    for temperature in (1, 2, 4):
        divergence = F.kl_div(
            F.log_softmax(pruned / temperature, 1),
            F.log_softmax(baseline / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        found[f"kl{temperature}"] = float(divergence)
    error = (pruned - baseline).square().sum()
    found["logits"] = float(error / (baseline - baseline.mean(0)).square().sum())
    same = baseline.argmax(1) == pruned.argmax(1)
    found["disagreement"] = 1 - float(same.double().mean())
    return {key: round(value, 6) for key, value in found.items()}


def strategies(
    problem: PruningProblem, near: int, random: int
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield distinct strategies with their kind: allocation, near it, and random."""
    allocated = allocate(problem)
    yield "allocation", allocated
    ratios = np.clip(allocated / problem.channels, 0.02, 0.98)
    centre = np.log(ratios / (1 - ratios))
    known = {tuple(allocated.tolist())}
    rng = np.random.default_rng(round(1000 * problem.budget))
    for kind, count, middle, spread in (
        ("near", near, centre, NOISE),
        ("random", random, np.zeros(len(centre)), WIDE),
    ):
        found = 0
        while found < count:
            logits = middle + spread * rng.standard_normal(len(centre))
            keep = problem.project(1 / (1 + np.exp(logits)))
            if tuple(keep.tolist()) not in known:
                known.add(tuple(keep.tolist()))
                found += 1
                yield kind, keep


def report(study: Study) -> None:
    """Print means over strategies and seeds, and how far seeds spread for the allocation."""
    fields = ("budget", "min_channels", "kind", "images", "rows", "gauss_newton", "positions")
    groups: dict[tuple[Any, ...], list[Fields]] = {}
    for record in study.records():
        key = tuple({"min_channels": 1, **record}[name] for name in fields)
        groups.setdefault(key, []).append(record)
    table, cells = [], []
    for key, mine in sorted(groups.items()):
        found = [record["top1"] for record in mine]
        line = dict(zip(fields, key, strict=True)) | {
            "deliveries": len(mine),
            "mean": round(float(np.mean(found)), 3),
            "lowest": min(found),
            "highest": max(found),
            "seconds": round(float(np.median([record["seconds"] for record in mine])), 1),
        }
        table.append(line)
        cells.append([str(value) for value in line.values()])
    if table:
        print(markdown_table(list(table[0]), cells))
        print(study.write_report({"table": table}))


if __name__ == "__main__":
    prepare()
    sys.exit(main())
