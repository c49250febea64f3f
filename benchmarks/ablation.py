"""What each part of the LFGCL agent is worth: the agent without it, at equal evaluations.

Every run is kept in results/ablation_resnet20.jsonl as soon as it has ended, so that the script can
be stopped and started again; a run whose agent's settings have changed is run again. The reward is
the environment's own, the similarity on the calibration images; nothing is repaired or tested.

    python benchmarks/ablation.py
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from lfgcl_env.agents import lfgcl, plain_ddpg
from numpy.typing import NDArray
from provenance import RESULTS, write
from scipy import stats

import lfgcl_env  # noqa: F401 - registers the ids
from lfgcl_env.search.protocol import Agent, AgentFactory, find_agent
from lfgcl_env.search.run_search import run_search

Row = dict[str, Any]

SETTINGS: dict[str, Any] = {
    "lfgcl": lfgcl.Arguments(),
    "lfgcl, no actor": lfgcl.Arguments(actor=False),
    "lfgcl, no choice by critics": lfgcl.Arguments(choice=False),
    "lfgcl, no elites": lfgcl.Arguments(elites=0),
    "plain_ddpg": plain_ddpg.Arguments(),
    "ddpg": None,
    "random": None,
}
"""Contestants; those without settings are found by name."""

COUNTS = (50, 100, 200)
"""Evaluations after which the best reward is reported."""

RESULT = "ablation_resnet20"


def main() -> None:
    """Run what is missing, write the summary and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--contestants", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--images", type=int, default=128, help="for calibration, of CIFAR-10")
    parser.add_argument("--budget", type=float, default=0.5)
    options = parser.parse_args()
    torch.set_num_threads(1)  # more threads slow networks this small
    problem = {"weights": "published", "images": "CIFAR10", "num_images": options.images}
    env = Timed(gym.make("LFGCL-ResNet20-v0", budget=options.budget, **problem))
    path = RESULTS / f"{RESULT}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for seed in options.seeds:
        for name in options.contestants:
            run = identity(name, seed, options)
            if any(run.items() <= row.items() for row in rows):
                continue
            rows.append(run | one_run(env, name, seed))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"{name}, seed {seed}: {rows[-1]['best'][-1]:.4f}", flush=True)
    table = summary(rows, options)
    write(RESULT, {"budget": options.budget, "images": options.images, "table": table})
    print(markdown(table))


def identity(name: str, seed: int, options: argparse.Namespace) -> Row:
    """Return what makes a run another run."""
    settings = SETTINGS[name] and json.loads(json.dumps(asdict(SETTINGS[name])))
    shared = {"images": options.images, "budget": options.budget}
    return {"contestant": name, "seed": seed, **shared, "settings": settings}


class Timed(gym.Wrapper[Any, Any, Any, Any]):
    """Adds up the processor time in the environment."""

    seconds = 0.0

    def step(self, action: Any) -> Any:
        """Step, and take the time."""
        began = time.process_time()
        result = self.env.step(action)
        self.seconds += time.process_time() - began
        return result


def one_run(env: Timed, name: str, seed: int) -> Row:
    """Let a contestant search, and return the best reward after every evaluation."""
    env.seconds, began = 0.0, time.process_time()
    found = run_search(env, factory(name), COUNTS[-1], seed=seed)
    seconds = time.process_time() - began - env.seconds
    best = np.maximum.accumulate([record.reward for record in found.records])
    best = np.pad(best, (0, COUNTS[-1] - len(best)), mode="edge")
    return {
        "agent_seconds": round(seconds, 1),
        "steps": found.steps,
        "best": [round(float(reward), 5) for reward in best],
    }


def factory(name: str) -> AgentFactory:
    """Return what makes a contestant."""
    kinds: dict[type, Callable[..., Agent]] = {
        lfgcl.Arguments: lfgcl.LFGCLAgent,
        plain_ddpg.Arguments: plain_ddpg.PlainDDPG,
    }
    settings = SETTINGS[name]
    if settings is None:
        return find_agent(name)
    made: AgentFactory = partial(_with_settings, kinds[type(settings)], settings)
    return made


def _with_settings(kind: Callable[..., Agent], settings: Any, env: Any, seed: int) -> Agent:
    return kind(env, seed, settings)


def summary(rows: list[Row], options: argparse.Namespace) -> list[Row]:
    """Return statistics over seeds of every contestant."""
    table = []
    for name in options.contestants:
        wanted = [identity(name, seed, options) for seed in options.seeds]
        own = [next(row for row in rows if run.items() <= row.items()) for run in wanted]
        best = np.array([row["best"] for row in own])
        table.append(
            {
                "contestant": name,
                "seeds": options.seeds,
                "best": {str(count): interval(best[:, count - 1]) for count in COUNTS},
                "agent_seconds": round(float(np.median([r["agent_seconds"] for r in own])), 1),
            }
        )
    return table


def interval(values: NDArray[np.float64]) -> list[float]:
    """Return the interquartile mean and its 95 % percentile-bootstrap interval."""
    mean = partial(stats.trim_mean, proportiontocut=0.25, axis=-1)
    if len(values) == 1 or np.ptp(values) == 0:
        return [round(float(mean(values)), 4)] * 3
    drawn = stats.bootstrap(
        (values,), mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    ).confidence_interval
    return [round(float(value), 4) for value in (mean(values), drawn.low, drawn.high)]


def markdown(table: list[Row]) -> str:
    """Return the table in Markdown."""
    head = [f"best after {count}" for count in COUNTS]
    lines = [f"| agent | {' | '.join(head)} | agent [s] |", "|---|---|---|---|---|"]
    for row in table:
        cells = ["{:.4f} ({:.4f} to {:.4f})".format(*row["best"][str(count)]) for count in COUNTS]
        lines.append(f"| {row['contestant']} | {' | '.join(cells)} | {row['agent_seconds']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
