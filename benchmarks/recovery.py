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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deliveries import DELIVERED, Shared, shared
from scipy import stats
from study import Fields, Study, markdown_table, newest, prepare, study_parser
from torch import Tensor, nn

from lfgcl_env.images import load_held_out, top1
from lfgcl_env.images.calibration import load_calibration
from lfgcl_env.images.labelled import LabelledImages
from lfgcl_env.pruning import allocate
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.recovery import RecoveryOptions, recover
from lfgcl_env.recovery.watching import watch_some

KINDS = ("no labels", "labels", "from scratch")

REWARDS = ("sequential 256, kl1 1024", "least_squares 256, discounted_mse of features 256")
"""Signals of benchmarks/fidelity.py that environments offer as rewards."""


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
    parser.add_argument("--learning-rate", type=float, default=usual.learning_rate)
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
        problem = shared(options.network).problem(budget)
        keeps = [allocate(problem).tolist()]
        if options.ranked:
            keeps = ranked(options, budget)
        for keep in keeps:
            for kind in options.kinds:
                for seed in options.seeds:
                    yield {
                        "network": options.network,
                        "budget": budget,
                        "keep": keep,
                        "kind": kind,
                        "images": options.images,
                        "seed": seed,
                        "epochs": options.epochs,
                        "learning_rate": options.learning_rate,
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
    """Choose strategies of all kinds, each kind's spread over its delivered accuracies."""
    kinds: dict[str, list[Fields]] = {}
    for record in deliveries(options, budget):
        kinds.setdefault(record["kind"].removesuffix(" lower"), []).append(record)
    chosen: list[list[int]] = []
    share = max(1, options.ranked // len(kinds))
    for records in kinds.values():
        records.sort(key=lambda record: record["top1"])
        places = np.linspace(0, len(records) - 1, min(share, len(records))).round().astype(int)
        chosen += [records[place]["keep"] for place in places]
    return [list(keep) for keep in dict.fromkeys(map(tuple, chosen))]


def name(run: Fields) -> str:
    """Name a run in messages."""
    return (
        f"{run['network']} {run['budget']:.0%} {run['kind']}, {run['images']}, "
        f"{run['epochs']} epochs at {run['learning_rate']:g}, seed {run['seed']}"
    )


def measured(run: Fields, checkpoints: Path) -> Fields:
    """Deliver a strategy and recover it; return top-1 [%] and seconds before and after."""
    here = shared(run["network"])
    problem = here.problem(run["budget"])
    repair = SequentialOptions(
        rows=DELIVERED["rows"],
        gauss_newton=DELIVERED["gauss_newton"],
        positions=DELIVERED["positions"],
    )
    images = here.repair_images(DELIVERED["seed"], DELIVERED["images"])
    with torch.no_grad():
        network, evaluation = problem.finish(run["keep"], images, repair)
    before = here.top1(network)
    if run["kind"] == "from scratch":
        network = anew(network, run["seed"])
    train, labels, score = training(here, problem, run)
    options = RecoveryOptions(
        epochs=run["epochs"], learning_rate=run["learning_rate"], seed=run["seed"]
    )
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
        here.baseline.network, network, train, judged, options,
        labels=labels, checkpoint=checkpoint,
    )  # fmt: skip
    result = {
        "macs": evaluation.macs,
        "params": evaluation.params,
        "baseline": round(here.top1(here.baseline.network), 3),
        "delivered": round(before, 3),
        "top1": round(here.top1(done.network), 3),
        "top1_trained": round(here.top1(last), 3),  # also where the delivered one was kept
        "scores": [round(epoch["score"], 5) for epoch in done.epochs],
        "score": [round(done.before, 5), round(done.after, 5)],
        "num_images": len(train),
        "seconds": round(time.perf_counter() - wall, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
    }
    checkpoint.unlink()
    return result


def training(here: Shared, problem: Any, run: Fields) -> tuple[Tensor, Tensor | None, Any]:
    """Return images to train on, their labels or None, and what networks are compared by."""
    if run["kind"] == "no labels":
        if run["images"] == "CIFAR10":
            train = here.every_other
            return train, None, problem.judge(here.judges[:2048])
        drawn = load_calibration(
            here.baseline, run["images"], None, seed=run["seed"], root=None, download=False
        )
        train, watched = watch_some(drawn, run["seed"])
        return train, None, problem.judge(watched)
    labelled = load_held_out(
        "CIFAR10", 50000, used=0, shape=here.baseline.input_shape,
        normalization=here.baseline.normalization,
    )  # fmt: skip
    held = LabelledImages(labelled.images[:2048], labelled.labels[:2048], labelled.name)
    return labelled.images[2048:], labelled.labels[2048:], lambda network: top1(network, held)


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
    ranks = list(correlations(options, table))
    if ranks:
        print(markdown_table(list(ranks[0]), [[str(v) for v in line.values()] for line in ranks]))
    print(study.write_report({"table": table, "ranks": ranks}))


def correlations(options: argparse.Namespace, table: Sequence[Fields]) -> Iterator[Fields]:
    """Yield Spearman's correlations with recovered accuracy, where enough were recovered alike."""
    scored = {
        (record["budget"], tuple(record["keep"])): record
        for record in newest(options.out / f"fidelity_{options.network}.jsonl")
    }
    alike: dict[tuple[Any, ...], list[Fields]] = {}
    for line in table:
        if line["kind"] == "no labels" and line["images"] == "CIFAR10":
            key = line["budget"], line["epochs"], line["learning_rate"]
            alike.setdefault(key, []).append(line)
    for (budget, epochs, rate), lines in alike.items():
        if len(lines) < 6:
            continue
        found = [line["top1"] for line in lines]
        signals = {"delivered top-1": [line["delivered"] for line in lines]}
        known = [scored.get((budget, tuple(line["keep"]))) for line in lines]
        for signal in REWARDS:
            values = [record["signals"][signal] if record else np.nan for record in known]
            signals[signal] = [-value for value in values]
        for signal, values in signals.items():
            there = np.isfinite(values)
            yield {
                "budget": budget, "epochs": epochs, "learning_rate": rate, "signal": signal,
                "strategies": int(there.sum()),
                "spearman": round(float(
                    stats.spearmanr(np.array(values)[there], np.array(found)[there]).statistic
                ), 3),
            }  # fmt: skip


if __name__ == "__main__":
    prepare()
    sys.exit(main())
