"""What recovery brings, and whether rewards still rank after it.

Strategies are delivered as by benchmarks/deliveries.py, then recovered: without labels, with labels
instead, on images that need no data set, or from random weights of the same widths with labels.
Networks are compared by top-1 on all test images, which nothing else sees. The strategy of a budget
is the allocation; with --ranked, several of those in deliveries_NETWORK.jsonl are recovered
shortly, and correlations of delivered and recovered accuracy are reported. An interrupted recovery
goes on where it was. Runs are kept in results/recovery_NETWORK.jsonl.

    python benchmarks/recovery.py --network resnet20 --budgets 0.5 0.35
    python benchmarks/recovery.py --network resnet20 --budgets 0.35 --ranked 14 --epochs 2
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deliveries import CALIBRATION, DELIVERED, shared
from lfgcl_env.baselines import global_threshold, uniform_ratios
from study import Fields, Study, correlation, markdown_table, newest, prepare, study_parser
from torch import Tensor, nn

from lfgcl_env.images import LabelledImages, load_held_out, load_test_set, top1
from lfgcl_env.images.calibration import load_calibration
from lfgcl_env.networks import Baseline, Normalization, load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.recovery import RecoveryOptions, recover, with_labels
from lfgcl_env.recovery.watching import WATCHED, views_of, watch_some

KINDS = ("no labels", "labels", "from scratch")

MADE = 256
"""Images that are made from a network, where the package has none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Recover what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    usual = RecoveryOptions()
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.35])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS[:1]))
    parser.add_argument("--images", default="CIFAR10", help="to train on: or embedded, synthetic")
    parser.add_argument("--ranked", type=int, default=0, help="strategies of each budget to rank")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of recoveries")
    parser.add_argument("--epochs", type=int, default=usual.epochs)
    parser.add_argument("--learning-rate", type=float, help="the highest; default: the recipe's")
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/recovery"))
    options = parser.parse_args(arguments)
    options.checkpoints.mkdir(parents=True, exist_ok=True)
    path = options.out / f"recovery_{options.network}.jsonl"
    runs = [] if options.report else list(grid(options))

    def measure(run: Fields) -> Fields:
        return measured(run, options.checkpoints)

    study = Study(path, runs, measure, name=name, summary=lambda r: f"top-1 {r['top1']:.2f} %")
    code = study.run()
    report(study, options)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield the recoveries that were asked for."""
    for budget in options.budgets:
        for kind, seed in product(options.kinds, options.seeds):
            rate = options.learning_rate
            if rate is None:
                rate = (RecoveryOptions() if kind == KINDS[0] else with_labels()).learning_rate
            problem = setting(options.network, options.images, budget, seed).problem
            keeps = ranked(options, budget) if options.ranked else [allocate(problem).tolist()]
            for keep in keeps:
                yield {
                    "network": options.network,
                    "budget": budget,
                    "keep": keep,
                    "kind": kind,
                    "images": options.images,
                    "seed": seed,
                    "epochs": options.epochs,
                    "learning_rate": rate,
                }


def deliveries(options: argparse.Namespace, budget: float) -> list[Fields]:
    """Return the deliveries of a budget that other studies go by."""
    return [
        record
        for record in newest(options.out / f"deliveries_{options.network}.jsonl")
        if record["budget"] == budget
        and "min_channels" not in record
        and all(record[name] == value for name, value in DELIVERED.items())
    ]


def ranked(options: argparse.Namespace, budget: float) -> list[list[int]]:
    """Choose strategies of all kinds.

    One each of uniform ratios, the lowest L1 norms of all layers and the allocation; the others
    are drawn ones near the allocation, random ones and searched ones, in equal numbers, each kind's
    spread over its delivered accuracies.
    """
    problem = shared(options.network).problem(budget)
    plain = (uniform_ratios.strategy, global_threshold.l1, allocate)
    chosen = [tuple(strategy(problem).tolist()) for strategy in plain]
    kinds: dict[str, list[Fields]] = {"near": [], "random": [], "searched": []}
    for record in sorted(deliveries(options, budget), key=lambda record: record["top1"]):
        kind = record["kind"].removesuffix(" lower")
        kind = "searched" if kind == "chosen" else kind
        if kind in kinds and tuple(record["keep"]) not in chosen:
            kinds[kind].append(record)
    share = max(1, -(-(options.ranked - len(chosen)) // len(kinds)))
    for records in kinds.values():
        places = np.linspace(0, len(records) - 1, min(share, len(records))).round().astype(int)
        chosen += [tuple(records[place]["keep"]) for place in places]
    return [list(keep) for keep in dict.fromkeys(chosen)][: options.ranked]


def name(run: Fields) -> str:
    """Name a run in messages."""
    return (
        f"{run['network']} {run['budget']:.0%} {run['kind']}, {run['images']}, "
        f"{run['epochs']} epochs at {run['learning_rate']:g}, seed {run['seed']}"
    )


@dataclass(frozen=True)
class Setting:
    """What is delivered and trained on.

    Attributes:
        problem: of a budget.
        images: that repair sees.
        train: that recovery sees, without labels.
        judge: what networks are compared by, on others.
    """

    problem: PruningProblem
    images: Tensor
    train: Tensor
    judge: Callable[[nn.Module], Any]


@lru_cache(maxsize=1)
def setting(network: str, source: str, budget: float, seed: int) -> Setting:
    """Return what a recovery works on: training images, or images made from the network alone."""
    if source == "CIFAR10":
        here = shared(network)
        problem = here.problem(budget)
        images = here.repair_images(DELIVERED["seed"], DELIVERED["images"])
        return Setting(problem, images, here.every_other, problem.judge(here.judges[:WATCHED]))
    baseline = load_baseline(network, "embedded" if source == "embedded" else "published")
    count = None if source == "embedded" else MADE
    images = load_calibration(baseline, source, count, seed=seed, root=None, download=False)
    problem = PruningProblem(baseline, images[:CALIBRATION], budget=budget)
    train, watched = watch_some(images, seed)
    watched = views_of(watched, RecoveryOptions(), seed)
    return Setting(problem, images, train, problem.judge(watched))


@lru_cache(maxsize=1)
def rewarding(network: str, budget: float) -> dict[str, PruningProblem]:
    """Return problems with the rewards of environments, on images that searches see."""
    here = shared(network)
    images, others = here.search_images[:CALIBRATION], here.search_images[CALIBRATION:]
    return {
        "sequential": PruningProblem(
            here.baseline, images, others, budget=budget, repair="sequential", similarity="kl"
        ),
        "least_squares": PruningProblem(here.baseline, images, budget=budget),
    }


def measured(run: Fields, checkpoints: Path) -> Fields:
    """Deliver a strategy and recover it; return top-1 [%] and seconds before and after."""
    here = setting(run["network"], run["images"], run["budget"], run["seed"])
    whole = here.problem.baseline
    test = test_images(whole.normalization)
    repair = SequentialOptions(
        rows=DELIVERED["rows"],
        gauss_newton=DELIVERED["gauss_newton"],
        positions=DELIVERED["positions"],
    )
    with torch.no_grad():
        network, evaluation = here.problem.finish(run["keep"], here.images, repair)
    delivered = top1(network, test)
    if run["kind"] == "from scratch":
        network = anew(network, run["seed"])
    train, labels, score = here.train, None, here.judge
    if run["kind"] != "no labels":
        train, labels, score = labelled(whole)
    options = options_of(run)
    key = "_".join(str(run[field]) for field in run if field != "keep")
    key += "_" + "-".join(map(str, run["keep"]))
    checkpoint = checkpoints / f"{key.replace(' ', '_')}.checkpoint"
    wall, processor = time.perf_counter(), time.process_time()
    last = network

    def judged(candidate: nn.Module) -> float:
        nonlocal last
        last = candidate
        return float(score(candidate))

    done = recover(
        whole.network, network, train, judged, options,
        labels=labels, checkpoint=checkpoint,
    )  # fmt: skip
    result = {
        "macs": evaluation.macs,
        "params": evaluation.params,
        "baseline": round(top1(whole.network, test), 3),
        "delivered": round(delivered, 3),
        "top1": round(top1(done.network, test), 3),
        "top1_trained": round(top1(last, test), 3),  # also where the delivered one was kept
        "scores": [round(epoch["score"], 5) for epoch in done.epochs],
        "score": [round(done.before, 5), round(done.after, 5)],
        "num_images": len(train),
        "repair_images": len(here.images),
        "seconds": round(time.perf_counter() - wall, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
    }
    if run["images"] == "CIFAR10" and run["kind"] == "no labels":
        with torch.no_grad():
            result["rewards"] = {
                reward: round(problem.evaluate(run["keep"]).similarity, 6)
                for reward, problem in rewarding(run["network"], run["budget"]).items()
            }
    checkpoint.unlink()
    return result


@lru_cache(maxsize=1)
def test_images(normalization: Normalization | None) -> LabelledImages:
    """Return the test images, as a network takes them."""
    return load_test_set("CIFAR10", normalization=normalization)


def options_of(run: Fields) -> RecoveryOptions:
    """Return the options of a recovery: with labels those of the published recipe."""
    given = {name: run[name] for name in ("epochs", "learning_rate", "seed")}
    return RecoveryOptions(**given) if run["kind"] == "no labels" else with_labels(**given)


@lru_cache(maxsize=1)
def labelled(baseline: Baseline) -> tuple[Tensor, Tensor, Callable[[nn.Module], float]]:
    """Return training images, their labels, and top-1 on others."""
    every = load_held_out(
        "CIFAR10", 50000, used=0, shape=baseline.input_shape, normalization=baseline.normalization
    )
    held = LabelledImages(every.images[:WATCHED], every.labels[:WATCHED], every.name)
    return every.images[WATCHED:], every.labels[WATCHED:], lambda network: top1(network, held)


def anew(network: nn.Module, seed: int) -> nn.Module:
    """Give every layer random weights of the usual distribution."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)  # as the published training began
    return network


def report(study: Study, options: argparse.Namespace) -> None:
    """Print and write what recoveries brought, and correlations where several were ranked."""
    records = study.records()
    groups: dict[tuple[Any, ...], list[Fields]] = {}
    for record in records:
        fields = ("budget", "keep", "kind", "images", "epochs", "learning_rate")
        key = tuple(str(record[field]) for field in fields)
        groups.setdefault(key, []).append(record)
    table = [
        {
            "budget": mine[0]["budget"],
            "kind": mine[0]["kind"],
            "images": mine[0]["images"],
            "epochs": mine[0]["epochs"],
            "learning_rate": mine[0]["learning_rate"],
            "keep": mine[0]["keep"],
            "seeds": len(mine),
            "delivered": mine[0]["delivered"],
            "top1": round(float(np.mean([record["top1"] for record in mine])), 3),
            "minutes": round(float(np.median([r["processor_seconds"] for r in mine])) / 60, 1),
        }
        for mine in groups.values()
    ]
    if not table:
        return
    cells = [[str(value) for value in line.values()] for line in table]
    print(markdown_table(list(table[0]), cells))
    ranks = list(correlations(records))
    if ranks:
        print(markdown_table(list(ranks[0]), [[str(v) for v in line.values()] for line in ranks]))
    print(study.write_report({"table": table, "ranks": ranks}))


def correlations(records: Sequence[Fields]) -> Iterator[Fields]:
    """Yield Spearman's correlations with recovered accuracy, where enough were recovered alike."""
    alike: dict[tuple[Any, ...], list[Fields]] = {}
    for record in records:
        if "rewards" in record:
            key = record["budget"], record["epochs"], record["learning_rate"], record["seed"]
            alike.setdefault(key, []).append(record)
    for (budget, epochs, rate, seed), mine in alike.items():
        if len(mine) < 6:
            continue
        found = np.array([record["top1"] for record in mine])
        signals = {"delivered top-1": np.array([record["delivered"] for record in mine])}
        for reward in mine[0]["rewards"]:
            signals[reward] = np.array([record["rewards"][reward] for record in mine])
        for signal, values in signals.items():
            yield {
                "budget": budget, "epochs": epochs, "learning_rate": rate, "seed": seed,
                "signal": signal, **correlation(values, found),
            }  # fmt: skip


if __name__ == "__main__":
    prepare()
    sys.exit(main())
