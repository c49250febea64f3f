"""Which label-free signal ranks strategies as the delivered networks rank?

The truth is benchmarks/deliveries.py: strategies repaired as users get them and tested on all test
images. Here the same strategies are scored by every signal that an environment can offer: a repair,
a number of images that it sees, how outputs or features are compared, and on how many other images.
Reported are Spearman's correlations with bootstrap intervals, over all strategies, near the
allocation and among those that searches found. Runs are kept in results/fidelity_NETWORK.jsonl.

    python benchmarks/deliveries.py --network resnet20 --budgets 0.35
    python benchmarks/fidelity.py --network resnet20 --budgets 0.35
"""

import sys
import time
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from deliveries import DELIVERED, distances, shared
from numpy.typing import NDArray
from study import (
    Fields,
    Study,
    correlation,
    correlation_cell,
    markdown_table,
    newest,
    prepare,
    study_parser,
)

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.interface import repair
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.pruning.repair.sequential import SequentialRepair

SCORED = (256, 1024, 2048)
"""Numbers of other images that outputs are compared on."""


class OneStep(SequentialRepair):
    """Sequential repair as for scores, with a Gauss-Newton step."""

    options = SequentialOptions(rows=16384, gauss_newton=1, positions=65536)


class TwoSteps(SequentialRepair):
    """The same with two."""

    options = SequentialOptions(rows=16384, gauss_newton=2, positions=65536)


SIGNALS = (
    ("none", 256),
    ("least_squares", 256),
    ("least_squares", 1024),
    ("sequential", 256),
    ("one_step", 128),
    ("one_step", 256),
    ("two_steps", 256),
)
"""Repairs, and the numbers of images that they see."""

NAMES = tuple(f"{kind} {images}" for kind, images in SIGNALS)

REWARDS = ("discounted_mse", "mse", "cosine", "cka")
"""Similarities of features on the images that the repair saw."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Score what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.35])
    parser.add_argument(
        "--signals", nargs="+", default=list(NAMES), choices=NAMES, help="repairs, and their images"
    )
    options = parser.parse_args(arguments)
    repair("one_step")(OneStep)
    repair("two_steps")(TwoSteps)
    delivered = [
        record
        for record in newest(options.out / f"deliveries_{options.network}.jsonl")
        if record["budget"] in options.budgets
        and all(record[name] == value for name, value in DELIVERED.items())
    ]
    chosen = [name for name in NAMES if name in options.signals]  # in any order one run
    some = {} if len(chosen) == len(NAMES) else {"repairs": chosen}
    runs = [
        {"network": record["network"], "budget": record["budget"], "keep": record["keep"]} | some
        for record in delivered
    ]
    path = options.out / f"fidelity_{options.network}.jsonl"
    study = Study(path, [] if options.report else runs, measured, name=name)
    with torch.no_grad():
        code = study.run()
    report(study, delivered)
    return code


def name(run: Fields) -> str:
    """Name a run in messages."""
    return f"{run['network']} {run['budget']:.0%} strategy {' '.join(map(str, run['keep']))}"


@lru_cache(maxsize=len(SIGNALS))
def problem_of(network: str, kind: str, images: int) -> PruningProblem:
    """Return the problem that scores outputs on other images after a repair."""
    here = shared(network)
    return PruningProblem(
        here.baseline,
        here.repair_images(1, 1024)[:images],
        here.judges[: max(SCORED)],
        repair=kind,
        similarity="kl",
    )


@lru_cache(maxsize=len(REWARDS))
def reward_of(network: str, similarity: str) -> PruningProblem:
    """Return the problem that compares features on the images that its repair sees."""
    here = shared(network)
    images = here.repair_images(1, 1024)[:256]
    return PruningProblem(here.baseline, images, similarity=similarity)


@lru_cache(maxsize=len(SIGNALS))
def target_of(network: str, kind: str, images: int) -> torch.Tensor:
    """Return the baseline's outputs on the images that are scored."""
    problem = problem_of(network, kind, images)
    return problem.features(problem.channels)[0]


def measured(run: Fields) -> Fields:
    """Return every signal of a strategy, lower is better, and processor time by repair [s]."""
    signals: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for similarity in REWARDS:
        value = reward_of(run["network"], similarity).evaluate(run["keep"]).similarity
        signals[f"least_squares 256, {similarity} of features 256"] = 1 - value
    for kind, images in SIGNALS:
        if f"{kind} {images}" not in run.get("repairs", NAMES):
            continue
        problem = problem_of(run["network"], kind, images)
        target = target_of(run["network"], kind, images)
        started = time.process_time()
        found = problem.features(run["keep"])[0]
        seconds[f"{kind} {images}"] = round(time.process_time() - started, 3)
        for count in SCORED:
            for label, value in distances(target[:count], found[:count]).items():
                signals[f"{kind} {images}, {label} {count}"] = value
    return {"signals": signals, "seconds": seconds}


def report(study: Study, delivered: Sequence[Fields]) -> None:
    """Write correlations of every signal with delivered top-1, and print the table."""
    scored = {(r["budget"], tuple(r["keep"])): r for r in study.records()}
    table: list[Fields] = []
    for budget in sorted({record["budget"] for record in delivered}):
        pairs = [
            (record, scored[budget, tuple(record["keep"])])
            for record in delivered
            if (budget, tuple(record["keep"])) in scored
        ]
        if not pairs:
            continue
        top1 = np.array([record["top1"] for record, _ in pairs])
        kinds = np.array([record["kind"] for record, _ in pairs])
        for signal, values in _signals(pairs).items():
            line: Fields = {"budget": budget, "signal": signal}
            for label, chosen in _parts(kinds):
                if chosen.sum() > 5:
                    line[label] = correlation(-values[chosen], top1[chosen])
            table.append(line)
    table.sort(key=lambda line: (line["budget"], -_first(line)))
    columns = ("all", "near", "random", "searched")
    cells = [
        [f"{line['budget']:.0%}", line["signal"], *(correlation_cell(line.get(c)) for c in columns)]
        for line in table
    ]
    print(markdown_table(["budget", "signal", *columns], cells))
    print(study.write_report({"deliveries": len(delivered), "table": table}))


def _signals(pairs: Sequence[tuple[Fields, Fields]]) -> dict[str, NDArray[np.float64]]:
    """Return all signals' values, those of the delivered networks among them."""
    found = {
        name: np.array([record["signals"][name] for _, record in pairs])
        for name in pairs[0][1]["signals"]
        if all(name in record["signals"] for _, record in pairs)
    }
    for name in pairs[0][0]["judged"]:
        found[f"delivered, {name}"] = np.array([record["judged"][name] for record, _ in pairs])
    return found


def _parts(kinds: NDArray[np.str_]) -> list[tuple[str, NDArray[np.bool_]]]:
    near = np.isin(kinds, ["near", "allocation"])
    return [
        ("all", np.isin(kinds, ["near", "allocation", "random"])),
        ("near", near),
        ("random", kinds == "random"),
        ("searched", np.isin(kinds, ["searched", "searched lower"])),
    ]


def _first(line: Fields) -> float:
    found: Fields = line.get("near") or line["all"]
    return float(found["spearman"])


if __name__ == "__main__":
    prepare()
    sys.exit(main())
