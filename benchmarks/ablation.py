"""What each part of the LFGCL agent is worth: the agent without it, at equal evaluations.

Plain DDPG, Stable-Baselines3's and random search stand beside it. The reward is the environment's
own, the similarity on the calibration images; nothing is repaired or tested. Runs are kept in
results/ablation_NETWORK.jsonl.

    python benchmarks/ablation.py
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from lfgcl_env.agents.lfgcl import Arguments, LFGCLAgent
from study import Fields, Study, agent_version, interval, markdown_table, prepare, study_parser

import lfgcl_env  # noqa: F401 - registers the ids
from lfgcl_env.search.protocol import Agent, find_agent
from lfgcl_env.search.run_search import run_search

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lfgcl": ("lfgcl", {}),
    "no actor": ("lfgcl", {"actor": False}),
    "no choice by critics": ("lfgcl", {"choice": False}),
    "no elites": ("lfgcl", {"elites": 0}),
    "plain_ddpg": ("plain_ddpg", {}),
    "ddpg": ("ddpg", {}),
    "random": ("random", {}),
}
"""The agent of a method, and the settings in which it differs from its defaults."""

COUNTS = (50, 100, 200)
"""Evaluations after which the best reward is reported."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=128, help="for calibration, of CIFAR-10")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args(arguments)
    path = options.out / f"ablation_{options.network}.jsonl"
    runs = [] if options.report else list(grid(options))
    study = Study(path, runs, measured, name=name, summary=summary)
    code = study.run()
    report(options, study)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield the runs of all methods, seed by seed."""
    for seed in options.seeds:
        for method in options.methods:
            agent, changes = METHODS[method]
            yield {
                "method": method,
                "agent": agent,
                "agent_version": agent_version(agent),
                "changes": changes,
                "network": options.network,
                "budget": options.budget,
                "images": options.images,
                "evaluations": COUNTS[-1],
                "seed": seed,
            }


def name(run: Fields) -> str:
    """Name a run in messages."""
    return f"{run['network']} {run['budget']:.0%} {run['method']} seed {run['seed']}"


def summary(record: Fields) -> str:
    """Say what a run came to."""
    return f"best {record['best'][-1]:.4f}, agent {record['agent_seconds']:.0f} s"


class Timed(gym.Wrapper[Any, Any, Any, Any]):
    """Adds up the processor time in the environment."""

    seconds = 0.0

    def step(self, action: Any) -> Any:
        """Step, and take the time."""
        began = time.process_time()
        result = self.env.step(action)
        self.seconds += time.process_time() - began
        return result


@lru_cache(maxsize=1)
def environment(network: str, budget: float, images: int) -> Timed:
    """Return the environment that all runs share; what it remembers changes no score."""
    calibration: dict[str, Any] = {
        "weights": "published",
        "images": "CIFAR10",
        "num_images": images,
    }
    return Timed(gym.make("LFGCL-v0", network=network, budget=budget, **calibration))


def measured(run: Fields) -> Fields:
    """Let an agent search, and return the best reward after every evaluation."""
    env = environment(run["network"], run["budget"], run["images"])

    def factory(env: gym.Env[Any, Any], seed: int) -> Agent:
        if run["changes"]:
            return LFGCLAgent(env, seed, Arguments(**run["changes"]))
        return find_agent(run["agent"])(env, seed)

    env.seconds, began = 0.0, time.process_time()
    found = run_search(env, factory, run["evaluations"], agent_seed=run["seed"])
    seconds = time.process_time() - began - env.seconds
    best = np.maximum.accumulate([record.reward for record in found.records])
    best = np.pad(best, (0, run["evaluations"] - len(best)), mode="edge")
    return {
        "agent_seconds": round(seconds, 1),
        "steps": found.steps,
        "best": [round(float(reward), 5) for reward in best],
    }


def report(options: argparse.Namespace, study: Study) -> None:
    """Write statistics over seeds to results/ablation_NETWORK.json and print the table."""
    asked = {"network": options.network, "budget": options.budget, "images": options.images}
    records = [r for r in study.records() if asked.items() <= r.items()]
    table: list[Fields] = []
    for method in options.methods:
        own = [r for r in records if r["method"] == method and r["seed"] in options.seeds]
        if own:
            best = {str(c): interval([r["best"][c - 1] for r in own]) for c in COUNTS}
            seconds = round(float(np.median([r["agent_seconds"] for r in own])), 1)
            seeds = sorted(r["seed"] for r in own)
            table.append({"method": method, "seeds": seeds, "best": best, "agent_seconds": seconds})
    heads = ["method", *(f"best after {count}" for count in COUNTS), "agent [s]"]
    cells = [
        [line["method"], *(_cell(line["best"][str(c)]) for c in COUNTS), str(line["agent_seconds"])]
        for line in table
    ]
    print(markdown_table(heads, cells))
    print(study.write_report(asked | {"table": table}))


def _cell(found: Fields) -> str:
    spread = f" ({found['low']:.4f} to {found['high']:.4f})" if "low" in found else ""
    return f"{found['iqm']:.4f}{spread}"


if __name__ == "__main__":
    prepare()
    sys.exit(main())
