"""How many images does a cheap score take, by which searches choose what to score in full?

Two things hang on it: how proposals rank, and the sensitivities that an allocation is made of. So
the strategies of benchmarks/deliveries.py are screened on fewer and fewer of the calibration
images and held against the delivered networks' top-1, and allocations by as many images are
delivered and tested themselves. Runs are kept in results/screening_NETWORK.jsonl.

    python benchmarks/screening.py --network resnet20 --budgets 0.35 0.5
    python benchmarks/screening.py --network resnet32 --budgets 0.5 --seeds
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from deliveries import DELIVERED, shared
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

from lfgcl_env.envs.pruning_env import PruningEnv
from lfgcl_env.images import LabelledImages, load_test_set, top1
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.score.screen import Screen
from lfgcl_env.pruning.sensitivities import sensitivities

IMAGES = (256, 128, 64, 32)
"""Numbers of calibration images that are screened on; orders and repairs go by all 256."""

REPAIRED = 2048
"""Images that allocations are delivered on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.35])
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0, 1, 2], help="of the images of allocations"
    )
    options = parser.parse_args(arguments)
    delivered = [
        record
        for record in newest(options.out / f"deliveries_{options.network}.jsonl")
        if all(record[name] == value for name, value in DELIVERED.items())
        and record["kind"] in ("allocation", "near", "random")
    ]
    runs = [] if options.report else list(grid(options, delivered))
    study = Study(options.out / f"screening_{options.network}.jsonl", runs, measured)
    with torch.no_grad():
        code = study.run()
    report(study, delivered)
    return code


def grid(options: argparse.Namespace, delivered: Sequence[Fields]) -> Iterator[Fields]:
    """Yield the strategies to be screened, and the seeds of allocations, of every budget."""
    for budget in options.budgets:
        given = {"network": options.network, "budget": budget}
        for record in delivered:
            if record["budget"] == budget:
                yield given | {"keep": record["keep"]}
        for seed in options.seeds:
            yield given | {"seed": seed, "repaired": REPAIRED}


def measured(run: Fields) -> Fields:
    """Screen a strategy, or deliver the allocations by so many images."""
    return screened(run) if "keep" in run else allocated(run)


def screened(run: Fields) -> Fields:
    """Return the scores of a strategy, and their processor time [s], by images."""
    keep = np.array(run["keep"])
    scores, seconds = {}, {}
    problem = problem_of(run["network"])
    for count in IMAGES:
        screen = screen_of(run["network"], count)
        started = time.process_time()
        scores[str(count)] = screen(keep, lambda: problem.kept_channels(keep))
        seconds[str(count)] = round(time.process_time() - started, 4)
    return {"scores": scores, "seconds": seconds}


def allocated(run: Fields) -> Fields:
    """Return the allocation by so many images, and its delivered top-1 [%]."""
    env = env_of(run["network"], run["seed"])
    problem, images = env.problem, env.repair_images(run["repaired"])
    top1s: dict[tuple[int, ...], float] = {}
    found: Fields = {}
    for count in IMAGES:
        problem.forget()
        problem._screen = screen_on(problem, count)
        weights = sensitivities(problem)
        keep = tuple(allocate(problem, run["budget"], weights).tolist())
        if keep not in top1s:
            (network,) = problem.repair_all([keep], images)
            top1s[keep] = round(top1(network, test_set(run["network"])), 2)
        found[str(count)] = {"keep": list(keep), "top1": top1s[keep]}
    return {"allocations": found}


def screen_on(problem: PruningProblem, count: int) -> Screen:
    """Return a screen on the first calibration images."""
    images = torch.cat(problem.batches)[:count]
    return Screen(problem.network, problem.device, [images], lambda: problem.moments)


@lru_cache(maxsize=1)
def problem_of(network: str) -> PruningProblem:
    """Return the problem whose strategies are screened."""
    here = shared(network)
    return PruningProblem(here.baseline, here.repair_images(1, 1024)[: max(IMAGES)])


@lru_cache(maxsize=len(IMAGES))
def screen_of(network: str, count: int) -> Screen:
    """Return its screen on so many images."""
    return screen_on(problem_of(network), count)


@lru_cache(maxsize=1)
def env_of(network: str, seed: int) -> PruningEnv:
    """Return the environment of published weights and real images."""
    env: Any = gym.make(
        "LFGCL-v0", network=network, weights="published", images="CIFAR10", seed=seed,
        repair="sequential",
    ).unwrapped  # fmt: skip
    assert isinstance(env, PruningEnv)
    return env


@lru_cache(maxsize=1)
def test_set(network: str) -> LabelledImages:
    """Return CIFAR-10's test images."""
    return load_test_set("CIFAR10", normalization=shared(network).baseline.normalization)


def report(study: Study, delivered: Sequence[Fields]) -> None:
    """Write and print correlations with delivered top-1, and the allocations' top-1."""
    records = study.records()
    scores = {(r["budget"], tuple(r["keep"])): r for r in records if "scores" in r}
    table: list[Fields] = []
    for budget in sorted({record["budget"] for record in records}):
        pairs = [
            (record, scores[budget, tuple(record["keep"])])
            for record in delivered
            if (budget, tuple(record["keep"])) in scores
        ]
        allocations = [r for r in records if r["budget"] == budget and "allocations" in r]
        for count in map(str, IMAGES):
            line: Fields = {"budget": budget, "images": int(count)}
            if pairs:
                line |= _ranks(pairs, count)
            if allocations:
                line["top1"] = [one["allocations"][count]["top1"] for one in allocations]
            table.append(line)
    heads = ["budget", "images", "near and random", "near", "random", "seconds", "allocations"]
    cells = [
        [
            f"{line['budget']:.0%}",
            str(line["images"]),
            *(correlation_cell(line.get(part)) for part in ("all", "near", "random")),
            f"{line['seconds']:.3f}" if "seconds" in line else "",
            f"{np.mean(line['top1']):.2f} ({', '.join(map(str, line['top1']))})"
            if "top1" in line
            else "",
        ]
        for line in table
    ]
    print(markdown_table(heads, cells))
    print(study.write_report({"table": table}))


def _ranks(pairs: Sequence[tuple[Fields, Fields]], count: str) -> Fields:
    """Return correlations of a screen with top-1, and its median time [s]."""
    top1s = np.array([record["top1"] for record, _ in pairs])
    values = np.array([record["scores"][count] for _, record in pairs])
    random = np.array([record["kind"] == "random" for record, _ in pairs])
    parts: dict[str, NDArray[np.bool_]] = {
        "all": np.ones_like(random), "near": ~random, "random": random,
    }  # fmt: skip
    found = {name: correlation(values[part], top1s[part]) for name, part in parts.items()}
    return found | {"seconds": float(np.median([r["seconds"][count] for _, r in pairs]))}


if __name__ == "__main__":
    prepare()
    sys.exit(main())
