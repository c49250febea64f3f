"""Top-1 of pruned networks before any training: the ablations, and the curve over budgets.

Searches and repairs see unlabelled training images alone; the 10,000 test images appear in the last
column. Every row is kept in results/accuracy_NETWORK.jsonl as soon as it is there, so that a run
can be stopped and started again; --report makes the tables from what is there.

    python benchmarks/accuracy.py --network resnet20
    python benchmarks/accuracy.py --network resnet56 --report
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import checkout  # noqa: F401 - baselines are found by it
import gymnasium as gym
import numpy as np
import torch
from lfgcl_env.baselines import uniform_ratios as uniform
from provenance import RESULTS, write
from rows import lines

from lfgcl_env.images import load_images, load_test_set, top1
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.repair.sequential import SequentialOptions
from lfgcl_env.search.run_search import run_search
from lfgcl_env.search.shortlist import THOROUGH, choose

REWARD = "discounted_mse"
SEARCH_IMAGES = 256
REPAIR_IMAGES = 1024
SHORTLISTED = (
    "lfgcl",
    "cross_entropy",
)  # by the agents' similarities; the repair of eight takes minutes
SEQUENTIAL = SequentialOptions(relu_aware=1)
CONTROLS = (
    ("uniform, L1, no repair", "l1", "none"),
    ("uniform, L1, BatchNorm re-estimated", "l1", "batchnorm"),
    ("uniform, least squares", "obs", "least_squares"),
)


def main() -> None:
    """Measure what is missing, or report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.3, 0.4, 0.6, 0.7, 0.8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--agents", nargs="+", default=["lfgcl", "cross_entropy", "random", "ddpg"])
    parser.add_argument("--similarity", default=REWARD, help="another is part of names")
    parser.add_argument("--report", action="store_true", help="only make the tables")
    options = parser.parse_args()
    path = RESULTS / f"accuracy_{options.network}.jsonl"
    if not options.report:
        Measurement(options, path).run()
    report(options, path)


class Measurement:
    """Appends a line for every method, budget and seed that has none yet."""

    def __init__(self, options: argparse.Namespace, path: Path) -> None:
        self._options, self._path = options, path
        self._done = {(r["method"], r["budget"], r["seed"]) for r in lines(path)}
        self._baseline = load_baseline(options.network, "published")
        self._test = load_test_set("CIFAR10", normalization=self._baseline.normalization)

    def run(self) -> None:
        """The first budget over all seeds, then the curve over budgets with the first seed."""
        first, *others = self._options.budgets
        for seed in range(self._options.seeds):
            self._seed(seed)
            self._unsearched(first, seed, controls=True)
            for agent in self._options.agents:
                self._searched(agent, first, seed)
        for budget in others:
            self._seed(0)
            self._unsearched(budget, 0, controls=False)

    def _seed(self, seed: int) -> None:
        """Other images for every seed, drawn from all 50,000 training images."""
        images = load_images(
            "CIFAR10",
            SEARCH_IMAGES + REPAIR_IMAGES,
            shape=self._baseline.input_shape,
            normalization=self._baseline.normalization,
            seed=seed,
        )
        self._search_images, self._repair_images = images[:SEARCH_IMAGES], images[SEARCH_IMAGES:]

    def _problem(self, criterion: str, repair: str, seed: int) -> PruningProblem:
        return PruningProblem(
            self._baseline,
            self._search_images,
            criterion=criterion,
            repair=repair,
            similarity=self._options.similarity,
            seed=seed,
        )

    def _unsearched(self, budget: float, seed: int, *, controls: bool) -> None:
        """Uniform ratios and the allocation by sensitivities, which takes an evaluation a group."""
        if controls:
            for name, criterion, repair in CONTROLS:
                if self._missing(name, budget, seed):
                    problem = self._problem(criterion, repair, seed)
                    keep = uniform.strategy(problem, budget)
                    self._add(name, budget, seed, problem.compress(keep), keep)
        problem = self._problem("obs", "least_squares", seed)
        halved = uniform.strategy(problem, budget)
        if controls:
            self._repaired("uniform", budget, seed, problem, halved)
        allocation = self._named("allocation")
        if self._missing(f"{allocation}, alternating", budget, seed):
            started = time.time()
            keep = allocate(problem, budget)
            facts = {"seconds": time.time() - started, "evaluations": len(problem.groups)}
            network = problem.compress(keep)
            self._add(f"{allocation}, least squares", budget, seed, network, keep, **facts)
            self._repaired(allocation, budget, seed, problem, keep)

    def _searched(self, agent: str, budget: float, seed: int) -> None:
        name = self._named(agent)
        shortlist = f"{name}, shortlist of 8, alternating"
        last = shortlist if agent in SHORTLISTED else f"{name}, alternating"
        if not self._missing(last, budget, seed):
            return
        env = gym.make(
            "LFGCL-v0",
            network=self._baseline,
            images="CIFAR10",
            num_images=SEARCH_IMAGES,
            seed=seed,
            budget=budget,
            similarity=self._options.similarity,
        )
        problem: PruningProblem = env.unwrapped.problem  # type: ignore[attr-defined]
        started = time.time()
        found = run_search(env, agent, self._options.evaluations, seed=seed)
        facts = {"seconds": time.time() - started, "evaluations": len(found.records)}
        keep = np.array(found.best.keep)
        network = problem.compress(keep)
        self._add(f"{name}, least squares", budget, seed, network, keep, **facts)
        self._repaired(name, budget, seed, problem, keep)
        if agent not in SHORTLISTED:
            return
        started = time.time()
        evaluations = [record.evaluation for record in found.records]
        network, listed = choose(problem, evaluations, self._repair_images, budget=budget)
        facts = {"seconds": time.time() - started, "evaluations": problem.evaluations}
        facts["origin"] = listed[0].origin
        self._add(shortlist, budget, seed, network, np.array(listed[0].searched.keep), **facts)

    def _repaired(
        self, name: str, budget: float, seed: int, problem: PruningProblem, keep: Any
    ) -> None:
        for label, options in (("sequential", SEQUENTIAL), ("alternating", THOROUGH)):
            method = f"{name}, {label}"
            if self._missing(method, budget, seed):
                started = time.time()
                network, evaluation = problem.finish(keep, self._repair_images, options)
                facts = {"seconds": time.time() - started, "similarity": evaluation.similarity}
                self._add(method, budget, seed, network, keep, **facts)

    def _named(self, method: str) -> str:
        """A method that the reward has a part in."""
        reward = self._options.similarity
        return method if reward == REWARD else f"{method} ({reward} reward)"

    def _missing(self, method: str, budget: float, seed: int) -> bool:
        return (method, budget, seed) not in self._done

    def _add(
        self, method: str, budget: float, seed: int, network: Any, keep: Any, **facts: Any
    ) -> None:
        if not self._missing(method, budget, seed):
            return
        line = {
            "method": method,
            "budget": budget,
            "seed": seed,
            "top1": round(top1(network, self._test), 2),
            "keep": np.asarray(keep).tolist(),
            **facts,
        }
        print(json.dumps({k: v for k, v in line.items() if k != "keep"}), flush=True)
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._done.add((method, budget, seed))


def report(options: argparse.Namespace, path: Path) -> None:
    """Write results/accuracy_NETWORK.json and print it as Markdown."""
    rows = list(lines(path))
    table = []
    for budget in sorted({r["budget"] for r in rows}):
        for method in dict.fromkeys(r["method"] for r in rows):
            mine = [r for r in rows if (r["method"], r["budget"]) == (method, budget)]
            if mine:
                scores = [r["top1"] for r in mine]
                seconds = [r["seconds"] for r in mine if "seconds" in r]
                table.append(
                    {
                        "budget": budget,
                        "method": method,
                        "top1": scores,
                        "mean": round(float(np.mean(scores)), 2),
                        "seconds": round(float(np.median(seconds)), 1) if seconds else None,
                    }
                )
    print("| MACs kept | method | top-1 (mean) | seeds |\n|---|---|---|---|")
    for row in table:
        scores = ", ".join(f"{s:.2f}" for s in row["top1"])  # type: ignore[union-attr]
        print(f"| {row['budget']:.0%} | {row['method']} | {row['mean']:.2f} | {scores} |")
    write(f"accuracy_{options.network}", {"network": options.network, "table": table})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
