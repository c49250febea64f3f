"""What does a search bring, against the allocation by sensitivities delivered the same way?

Searches start from the allocation. ``strong`` ones are rewarded by outputs on 1,024 images after
sequential repair, with cheap scores to screen by where the agent can; ``cheap`` ones by the
closed-form score alone, with so many more evaluations that they take about as long. What they found
is delivered by benchmarks/deliveries.py --searched, and tested there, and so is what a shortlist
(benchmarks/shortlists.py) chooses of it. Runs are kept in results/gains_NETWORK.jsonl.

    python benchmarks/gains.py --network resnet20 --budgets 0.35
    python benchmarks/shortlists.py --network resnet20 --budgets 0.35
    python benchmarks/deliveries.py --network resnet20 --searched --seeds 0 1 2
    python benchmarks/gains.py --network resnet20 --report
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from deliveries import DELIVERED, shared
from lfgcl_env.agents._ask_tell import AskTell, AskTellAgent
from study import Fields, Study, markdown_table, newest, prepare, study_parser

from lfgcl_env.search.protocol import AgentFactory, find_agent
from lfgcl_env.search.run_search import run_search

REWARDS: dict[str, Fields] = {
    "strong": {"repair": "sequential", "similarity": "kl", "num_score_images": 1024},
    "cheap": {"repair": "least_squares", "similarity": "discounted_mse", "num_score_images": 0},
}
"""What strategies are rewarded by."""

CHEAPER = 10
"""Cheap evaluations in place of a strong one."""

NOISE = 0.6
"""Standard deviation of random strategies around the allocation, in logits."""

KEPT = 10
"""Best strategies of a search that are recorded."""

SEARCH = ("network", "budget", "min_channels", "agent", "reward", "evaluations", "seed")
"""What a search is known by."""


class RandomNear(AskTell):  # type: ignore[misc]
    """Draws around the start, the control: nothing is learned from rewards."""

    def ask(self) -> Any:
        """Return the most promising of several draws by the cheap scores."""
        return self.promote(self._draw)

    def tell(self, logits: Any, reward: float, known: bool) -> None:
        """Learn nothing."""

    def _draw(self) -> Any:
        return self.start + NOISE * self.draws.standard_normal(self.start.shape)


def random_near(env: gym.Env[Any, Any], seed: int) -> AskTellAgent:
    """Make the control."""
    groups = env.action_space.shape[0]  # type: ignore[index]
    return AskTellAgent(env, seed, RandomNear, lambda _budget: np.zeros(groups))


AGENTS: dict[str, Callable[[], AgentFactory]] = {
    "random": lambda: random_near,
    **{name: partial(find_agent, name) for name in ("one_plus_one", "cma_es", "lfgcl")},
}
"""Agents that are compared."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Search what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.35])
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--rewards", nargs="+", choices=REWARDS, default=["strong"])
    parser.add_argument("--evaluations", type=int, default=200, help="strong ones")
    parser.add_argument("--min-channels", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(arguments)
    runs = [] if options.report else list(grid(options))
    path = options.out / f"gains_{options.network}.jsonl"
    study = Study(path, runs, measured, name=name, summary=lambda r: f"reward {r['reward_found']}")
    code = study.run()
    report(study, options)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield the searches, seed by seed."""
    for seed in options.seeds:
        for budget in options.budgets:
            for reward in options.rewards:
                for agent in options.agents:
                    yield {
                        "network": options.network,
                        "budget": budget,
                        "min_channels": options.min_channels,
                        "agent": agent,
                        "reward": reward,
                        "evaluations": options.evaluations * (CHEAPER if reward == "cheap" else 1),
                        "seed": seed,
                    }


def name(run: Fields) -> str:
    """Name a run in messages."""
    blocks = "" if run["min_channels"] else " whole blocks"
    return (
        f"{run['network']} {run['budget']:.0%}{blocks} {run['agent']}, {run['evaluations']} "
        f"{run['reward']} evaluations, seed {run['seed']}"
    )


class Clock(gym.Wrapper[Any, Any, Any, Any]):
    """Notes processor time and strategy of every step that is better than all before."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.found: list[Fields] = []
        self.steps = 0
        self._begun = time.process_time()

    def step(self, action: Any) -> Any:
        """Step the environment."""
        result = self.env.step(action)
        self.steps += 1
        reward = float(result[1])
        if not self.found or reward > self.found[-1]["reward"]:
            seconds = round(time.process_time() - self._begun, 1)
            keep = result[4]["keep"].tolist()
            line = {"step": self.steps, "seconds": seconds, "reward": reward, "keep": keep}
            self.found.append(line)
        return result


@lru_cache(maxsize=2)
def environment(network: str, budget: float, min_channels: int, reward: str) -> gym.Env[Any, Any]:
    """Make the environment of a reward; its images are not those that deliveries are judged on."""
    here = shared(network)
    return gym.make(
        "LFGCL-v0",
        network=here.baseline,
        images=here.search_images,
        budget=budget,
        min_channels=min_channels,
        **REWARDS[reward],
    )


def measured(run: Fields) -> Fields:
    """Search; return the best strategies, how they were come by, and processor time [s]."""
    env = environment(run["network"], run["budget"], run["min_channels"], run["reward"])
    own: Any = env.unwrapped
    own.forget()
    clock = Clock(env)
    started = time.process_time()
    result = run_search(
        clock,
        AGENTS[run["agent"]](),
        run["evaluations"],
        agent_seed=run["seed"],
        start="allocation",
    )
    best = sorted(result.records, key=lambda record: -record.reward)[:KEPT]
    return {
        "reward_found": round(best[0].reward, 6),
        "best": [{"reward": r.reward, "keep": list(r.evaluation.keep)} for r in best],
        "course": clock.found,
        "scored": len(result.records),
        "screened": own.problem.screened,
        "seconds": round(time.process_time() - started, 1),
    }


def report(study: Study, options: argparse.Namespace) -> None:
    """Write delivered top-1 of allocation and searches, and print the table."""
    path = options.out / f"deliveries_{options.network}.jsonl"
    delivered = {}
    for r in newest(path):
        if all(r[key] == value for key, value in DELIVERED.items() if key != "seed"):
            problem = r["budget"], r.get("min_channels", 1), r["seed"]
            delivered[problem, tuple(r["keep"])] = r["top1"]
    groups: dict[tuple[Any, ...], list[Fields]] = {}
    for record in study.records():
        key = tuple(record[k] for k in ("budget", "min_channels", "reward", "agent", "evaluations"))
        groups.setdefault(key, []).append(record)
    shortlists = newest(options.out / f"shortlists_{options.network}.jsonl")
    chosen = {tuple(r[name] for name in SEARCH): tuple(r["chosen"]) for r in shortlists}
    table = []
    for key, mine in sorted(groups.items()):
        pairs, choices = [], []
        for r in mine:
            problem = r["budget"], r["min_channels"], r["seed"]
            places = [(problem, tuple(r[k][0]["keep"])) for k in ("best", "course")]
            if all(place in delivered for place in places):
                pairs.append([delivered[place] for place in places])
            choice = problem, chosen.get(tuple(r[name] for name in SEARCH), ())
            if choice in delivered and places[1] in delivered:
                choices.append(delivered[choice] - delivered[places[1]])
        line = dict(zip(("budget", "fewest", "reward", "agent", "evaluations"), key, strict=True))
        line |= {
            "searches": len(mine),
            "found": round(float(np.mean([r["reward_found"] for r in mine])), 5),
            "start": round(float(np.mean([r["course"][0]["reward"] for r in mine])), 5),
            "seconds": round(float(np.median([r["seconds"] for r in mine]))),
        }
        if pairs:
            found, start = np.array(pairs).T
            line |= {
                "delivered": len(pairs),
                "top-1": round(float(found.mean()), 2),
                "of the start": round(float(start.mean()), 2),
                "gain": round(float((found - start).mean()), 2),
            }
        if choices:
            line |= {"shortlists": len(choices), "their gain": round(float(np.mean(choices)), 2)}
        table.append(line)
    if table:
        columns = list(dict.fromkeys(column for line in table for column in line))
        cells = [[str(line.get(column, "")) for column in columns] for line in table]
        print(markdown_table(columns, cells))
        print(study.write_report({"table": table}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepare()
    sys.exit(main())
