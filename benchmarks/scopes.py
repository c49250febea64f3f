"""Prune inner groups alone, residual streams too, whole blocks, and both.

The network is a CIFAR ResNet with projection shortcuts, converted exactly from the published one
with zero padding. For every problem the allocation by measured sensitivities and the winner of a
short search are delivered as users get them, and tested on all test images. Rewards are predictions
of sequentially repaired networks on images that the repair did not use; labels appear in the top-1
alone. Runs are kept in results/scopes_NETWORK.jsonl, and the table is written beside them as JSON.

    python benchmarks/scopes.py --budgets 0.25 0.35
    python benchmarks/scopes.py --report
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from study import Fields, Study, agent_version, markdown_table, prepare, study_parser
from torch import Tensor

from lfgcl_env.images import LabelledImages, load_images, load_test_set
from lfgcl_env.images import top1 as measure_top1
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import allocate
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.run_search import run_search

SHORTCUTS: Fields = {"shortcut": "B"}

PROBLEMS: dict[str, Fields] = {
    "inner": {"scope": "inner", "min_channels": 1},
    "inner, whole blocks": {"scope": "inner", "min_channels": 0},
    "all": {"scope": "all", "min_channels": 1},
    "all, whole blocks": {"scope": "all", "min_channels": 0},
}
"""What may be pruned, by a name for the table."""

SETTINGS = (
    "score_images", "repair", "similarity", "images", "rows", "gauss_newton", "positions",
)  # fmt: skip
"""Options that say how strategies are scored and delivered."""

CALIBRATION, JUDGED = 256, 2048
"""Images that orders and repairs of scored networks go by, and that finished ones are compared on.

No others are used for either, and the last repair uses none of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.25, 0.35])
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of images and searches")
    parser.add_argument("--agent", default="allocation", help="that searches")
    parser.add_argument("--evaluations", type=int, default=100, help="of the search; 0: no search")
    parser.add_argument("--score-images", type=int, default=1024)
    parser.add_argument("--repair", default="sequential", help="before a score")
    parser.add_argument("--similarity", default="kl", help="of a score")
    parser.add_argument("--images", type=int, default=2048, help="that the last repair sees")
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--gauss-newton", type=int, default=3)
    parser.add_argument("--positions", type=int, default=131072)
    options = parser.parse_args(arguments)
    path = options.out / f"scopes_{options.network}.jsonl"
    runs = [] if options.report else list(grid(options))
    study = Study(path, runs, measured, name=name, summary=lambda r: f"top-1 {r['top1']:.2f} %")
    code = study.run()
    report(study)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield the allocations of all problems, budgets and seeds first, then the searches."""
    shared = {"network": options.network} | {name: getattr(options, name) for name in SETTINGS}
    version = agent_version(allocate.__module__)
    methods: list[Fields] = [{"agent": None, "evaluations": 0, "agent_version": version}]
    if options.evaluations:
        version = agent_version(options.agent)
        searched = {"agent": options.agent, "evaluations": options.evaluations}
        methods.append(searched | {"agent_version": version})
    for method in methods:
        for seed in options.seeds:
            for budget in options.budgets:
                for problem in options.problems:
                    place = {"problem": problem, "budget": budget, "seed": seed}
                    yield shared | place | PROBLEMS[problem] | method


def name(run: Fields) -> str:
    """Name a run in messages."""
    place = f"{run['network']} {run['budget']:.0%} {run['problem']}, seed {run['seed']}"
    return f"{place}: {method(run)}"


def method(run: Fields) -> str:
    """Return how a strategy was found."""
    agent, count = run["agent"], run["evaluations"]
    return "allocation" if agent is None else f"search by {agent}, {count} evaluations"


@dataclass(frozen=True)
class Data:
    """What the runs on a network and a seed share.

    Attributes:
        judged: training images that finished networks are compared with the baseline on.
        others: those that are left, for the last repair.
        test: labelled test images.
    """

    judged: Tensor
    others: Tensor
    test: LabelledImages


@lru_cache(maxsize=1)
def data(network: str, seed: int, score_images: int, images: int) -> Data:
    """Load what the runs on a network and a seed share."""
    baseline = load_baseline(network, "published", **SHORTCUTS)
    scored = CALIBRATION + score_images  # which the environment draws
    drawn = load_images(
        "CIFAR10",
        scored + JUDGED + images,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
        seed=seed,
    )
    test = load_test_set("CIFAR10", normalization=baseline.normalization)
    return Data(drawn[scored : scored + JUDGED], drawn[scored + JUDGED :], test)


def measured(run: Fields) -> Fields:
    """Find a run's strategy, deliver it, and test the network."""
    shared = data(run["network"], run["seed"], run["score_images"], run["images"])
    env = gym.make(
        "LFGCL-v0",
        network=run["network"],
        network_arguments=SHORTCUTS,
        images="CIFAR10",
        num_images=CALIBRATION,
        num_score_images=run["score_images"],
        repair=run["repair"],
        similarity=run["similarity"],
        scope=run["scope"],
        min_channels=run["min_channels"],
        budget=run["budget"],
        seed=run["seed"],
    )
    problem = problem_of(env)
    began = time.process_time()
    if run["agent"] is None:
        keep = allocate(problem).tolist()
    else:
        found = run_search(env, run["agent"], run["evaluations"], agent_seed=run["seed"])
        keep = list(found.best.keep)
    searched = time.process_time()
    options = SequentialOptions(
        rows=run["rows"], gauss_newton=run["gauss_newton"], positions=run["positions"]
    )
    network, _ = problem.finish(keep, shared.others, options)
    finished = time.process_time()
    return {
        "keep": keep,
        "groups": [group.name for group in problem.groups],
        "macs_ratio": round(problem.evaluate(keep).macs_ratio, 4),
        "params_ratio": round(problem.evaluate(keep).params_ratio, 4),
        "reward": round(problem.evaluate(keep).similarity, 5),
        "judged": round(problem.judge(shared.judged)(network), 5),
        "top1": round(measure_top1(network, shared.test), 3),
        "search_seconds": round(searched - began, 1),
        "delivery_seconds": round(finished - searched, 1),
    }


def report(study: Study) -> None:
    """Write means over seeds as JSON, and print them as a table."""
    fields = ("budget", "problem", "agent", "evaluations", "agent_version", *SETTINGS)
    groups: dict[tuple[Any, ...], list[Fields]] = {}
    for record in study.records():
        order = list(PROBLEMS).index(record["problem"])
        settings = [str(record[field]) for field in ("agent_version", *SETTINGS)]
        key = (record["budget"], order, method(record), *settings)
        groups.setdefault(key, []).append(record)
    table, cells = [], []
    for _, mine in sorted(groups.items()):
        found = [record["top1"] for record in mine]
        line = {field: mine[0][field] for field in fields} | {
            "top1": found,
            "mean": round(float(np.mean(found)), 2),
            "judged": round(float(np.mean([record["judged"] for record in mine])), 4),
            "params_ratio": round(float(np.mean([record["params_ratio"] for record in mine])), 3),
            "search_seconds": float(np.median([record["search_seconds"] for record in mine])),
            "delivery_seconds": float(np.median([record["delivery_seconds"] for record in mine])),
        }
        table.append(line)
        cells.append(
            [
                f"{line['budget']:.0%}",
                line["problem"],
                method(mine[0]),
                f"{line['images']:,}",
                f"{line['mean']:.2f}",
                ", ".join(f"{top1:.2f}" for top1 in found),
                f"{line['judged']:.4f}",
                f"{line['params_ratio']:.1%}",
                f"{line['search_seconds']:.0f} + {line['delivery_seconds']:.0f}",
            ]
        )
    if table:
        heads = ["MACs kept", "pruned", "strategy", "images", "top-1 (mean)", "seeds"]
        heads += ["similarity of outputs", "parameters kept", "CPU seconds"]
        print(markdown_table(heads, cells))
        print(study.write_report({"table": table}))


if __name__ == "__main__":
    prepare()
    sys.exit(main())
