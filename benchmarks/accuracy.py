"""Top-1 of pruned networks before any training: the ablations, and the curve over budgets.

Searches and repairs see unlabelled training images alone; the 10,000 test images appear in the last
column. A run is one strategy, by a method, on a budget and a seed, and all networks made of it.
Runs are kept in results/accuracy_NETWORK.jsonl; --report makes the tables from them.

    python benchmarks/accuracy.py --network resnet20
    python benchmarks/accuracy.py --network resnet56 --report
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
from comparison.methods import STRATEGIES, version
from study import Fields, Study, agent_version, markdown_table, prepare, study_parser
from torch import Tensor, nn

from lfgcl_env.images import LabelledImages, load_images, load_test_set, top1
from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.run_search import run_search

REWARD = "discounted_mse"
SEARCH_IMAGES = 256
REPAIR_IMAGES = 1024
SHORTLIST = 8
SHORTLISTED = ("lfgcl", "cross_entropy")  # those with the highest similarity: it takes minutes
REPAIRS = {
    "sequential": SequentialOptions(rows=65536, gauss_newton=0),
    "alternating": SequentialOptions(rows=65536, positions=2**20),
}
UNSEARCHED = ("uniform, L1", "uniform", "allocation")
"""Methods that are no agents."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.3, 0.4, 0.6, 0.7, 0.8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--agents", nargs="+", default=["lfgcl", "cross_entropy", "random", "ddpg"])
    parser.add_argument("--similarity", default=REWARD, help="another is part of names")
    options = parser.parse_args(arguments)
    path = options.out / f"accuracy_{options.network}.jsonl"
    study = Study(path, list(grid(options)), measured, name=name)
    code = 0 if options.report else study.run()
    report(options.network, study)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield the first budget over all seeds, then the curve over budgets with the first seed."""
    first, *others = options.budgets
    places = [(first, seed, list(UNSEARCHED), options.agents) for seed in range(options.seeds)]
    places += [(budget, 0, ["allocation"], []) for budget in others]
    for budget, seed, unsearched, agents in places:
        for method in (*unsearched, *agents):
            yield {
                "network": options.network,
                "method": method,
                "agent_version": version_of(method),
                "similarity": None if method.startswith("uniform") else options.similarity,
                "budget": budget,
                "seed": seed,
                "evaluations": options.evaluations if method in agents else None,
                "search_images": SEARCH_IMAGES,
                "repair_images": REPAIR_IMAGES,
            }


def version_of(method: str) -> str:
    """Return the version of a method's code."""
    if method == "allocation":
        return agent_version(allocate.__module__)
    return version("uniform" if method in UNSEARCHED else method)


def name(run: Fields) -> str:
    """Name a run in messages."""
    return f"{run['network']} {run['budget']:.0%} {run['method']} seed {run['seed']}"


@dataclass(frozen=True)
class Data:
    """What the runs on a network and a seed share.

    Attributes:
        baseline: the network.
        search_images: of the searches and the problems.
        repair_images: others, for the repair; both drawn from all training images.
        test: labelled test images.
    """

    baseline: Baseline
    search_images: Tensor
    repair_images: Tensor
    test: LabelledImages

    def problem(self, similarity: str | None = None, **config: Any) -> PruningProblem:
        """Return the problem of pruning the network."""
        return PruningProblem(
            self.baseline, self.search_images, similarity=similarity or REWARD, **config
        )

    def top1(self, network: nn.Module) -> float:
        """Return the top-1 of a network on the test images [%]."""
        return round(top1(network, self.test), 2)


@lru_cache(maxsize=1)
def data(network: str, seed: int) -> Data:
    """Load what the runs on a network and a seed share."""
    baseline = load_baseline(network, "published")
    images = load_images(
        "CIFAR10",
        SEARCH_IMAGES + REPAIR_IMAGES,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
        seed=seed,
    )
    test = load_test_set("CIFAR10", normalization=baseline.normalization)
    return Data(baseline, images[:SEARCH_IMAGES], images[SEARCH_IMAGES:], test)


def measured(run: Fields) -> Fields:
    """Find a run's strategy, and test the networks made of it."""
    shared, budget, seed = data(run["network"], run["seed"]), run["budget"], run["seed"]
    if run["method"] == "uniform, L1":
        return controls(shared, budget, seed)
    if run["method"] in UNSEARCHED:
        problem = shared.problem(run["similarity"], seed=seed)
        strategy = allocate if run["method"] == "allocation" else STRATEGIES["uniform"]
        with problem.count() as counted:
            began = time.time()
            keep = strategy(problem, budget)
            seconds = time.time() - began
        return {
            "keep": np.asarray(keep).tolist(),
            "search_seconds": seconds,
            "scored": len(counted),
            "networks": networks(shared, problem, keep),
        }
    return searched(shared, run)


def controls(shared: Data, budget: float, seed: int) -> Fields:
    """Test uniform ratios without this package's order and repair."""
    found, keep = {}, None
    for label, repair in (("no repair", "none"), ("BatchNorm re-estimated", "batchnorm")):
        problem = shared.problem(criterion="l1", repair=repair, seed=seed)
        keep = STRATEGIES["uniform"](problem, budget)
        found[label] = {"top1": shared.top1(problem.compress(keep))}
    return {"keep": np.asarray(keep).tolist(), "networks": found}


def searched(shared: Data, run: Fields) -> Fields:
    """Search with an agent, and test its best strategy's networks, and its shortlist's winner."""
    env = gym.make(
        "LFGCL-v0",
        network=shared.baseline,
        images="CIFAR10",
        num_images=run["search_images"],
        seed=run["seed"],
        budget=run["budget"],
        similarity=run["similarity"],
    )
    problem = problem_of(env)
    has_shortlist = run["method"] in SHORTLISTED
    with problem.count() as counted:
        began = time.time()
        found = run_search(
            env,
            run["method"],
            run["evaluations"],
            agent_seed=run["seed"],
            shortlist=SHORTLIST if has_shortlist else 0,
            repair_images=shared.repair_images,
        )
        seconds = time.time() - began
    search_seconds = found.records[-1].seconds if has_shortlist else seconds
    keep = max(found.records, key=lambda record: record.reward).evaluation.keep
    made = networks(shared, problem, keep)
    if found.network is not None:
        made[f"shortlist of {SHORTLIST}, alternating"] = {
            "top1": shared.top1(found.network),
            "seconds": seconds - search_seconds,
            "keep": list(found.shortlist[0].searched.keep),
            "origin": found.shortlist[0].origin,
            "scored": len(counted),
        }
    return {
        "keep": list(keep),
        "search_seconds": search_seconds,
        "scored": len(found.records),
        "networks": made,
    }


def networks(shared: Data, problem: PruningProblem, keep: Any) -> Fields:
    """Test a strategy as it was scored, and after every thorough repair."""
    made: Fields = {"least squares": {"top1": shared.top1(problem.compress(keep))}}
    for label, options in REPAIRS.items():
        began = time.time()
        network, evaluation = problem.finish(keep, shared.repair_images, options)
        made[label] = {
            "seconds": time.time() - began,
            "similarity": evaluation.similarity,
            "top1": shared.top1(network),
        }
    return made


def report(network: str, study: Study) -> None:
    """Write results/accuracy_NETWORK.json and print it as Markdown."""
    found: dict[tuple[float, str], list[Fields]] = {}
    for record in study.records():
        for label, made in record["networks"].items():
            seconds = record["search_seconds"] if label == "least squares" else made.get("seconds")
            key = (record["budget"], f"{method(record)}, {label}")
            found.setdefault(key, []).append({"top1": made["top1"], "seconds": seconds})
    table: list[Fields] = []
    for budget in sorted({budget for budget, _ in found}):
        for title in dict.fromkeys(title for _, title in found):
            mine = found.get((budget, title), [])
            if mine:
                scores = [one["top1"] for one in mine]
                seconds = [one["seconds"] for one in mine if one["seconds"]]
                table.append(
                    {
                        "budget": budget,
                        "method": title,
                        "top1": scores,
                        "mean": round(float(np.mean(scores)), 2),
                        "seconds": round(float(np.median(seconds)), 1) if seconds else None,
                    }
                )
    cells = [
        [
            f"{line['budget']:.0%}",
            line["method"],
            f"{line['mean']:.2f}",
            ", ".join(f"{score:.2f}" for score in line["top1"]),
        ]
        for line in table
    ]
    print(markdown_table(["MACs kept", "method", "top-1 (mean)", "seeds"], cells))
    study.write_report({"network": network, "table": table})


def method(record: Fields) -> str:
    """Return a method's name, with the reward where it is not the usual one."""
    reward = record["similarity"] or REWARD
    title = str(record["method"])
    return title if reward == REWARD else f"{title} ({reward} reward)"


if __name__ == "__main__":
    prepare()
    sys.exit(main())
