"""Agents and controls at equal evaluations: best similarity, and top-1 after sequential repair.

One run is an agent, a seed, a network and a budget; all runs on a network and budget see the same
calibration images. The best strategies after 100 and after all evaluations are repaired
sequentially on other unlabelled training images and tested on the 10,000 test images, which nothing
else sees. Every run is kept in results/compare_NETWORK.jsonl as soon as it has ended, so that the
script can be stopped and started again; --report makes table and curves from what is there.

    python benchmarks/compare.py --network resnet20 --budgets 0.5 0.35
    python benchmarks/compare.py --network resnet20 --report
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from provenance import RESULTS, provenance, write
from scipy import stats

import lfgcl_env
from lfgcl_env.images import LabelledImages, load_test_set, top1
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.search import search
from lfgcl_env.shortlist import QUICK

AGENTS = (
    "lfgcl",
    "ddpg",
    "cma_es",
    "random",
    "uniform",
    "allocation",
    "cross_entropy",
    "one_plus_one",
    "tpe",
    "td3",
    "sac",
    "tqc",
    "crossq",
    "ppo",
    "gaussian_process",
)
COUNTS = (1, 10, 25, 50, 100, 150, 200, 250, 300, 400, 600, 800)
TESTED = (100, 400)
LONGER = {"cma_es": 800}  # evaluations, where --evaluations is 400
REPAIR_IMAGES = 256


def main() -> None:
    """Run what is missing, or report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.35])
    parser.add_argument("--agents", nargs="+", default=list(AGENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--report", action="store_true", help="only make table and curves")
    options = parser.parse_args()
    path = RESULTS / f"compare_{options.network}.jsonl"
    if not options.report:
        run(options, path)
    report(options.network, list(lines(path)))


def run(options: argparse.Namespace, path: Path) -> None:
    """Append a line for every run that has none yet: all agents' first seeds first."""
    test: LabelledImages | None = None
    for budget in options.budgets:
        ground: Ground | None = None
        for seed in options.seeds:
            for agent in options.agents:
                key = (agent, budget, seed)
                if key in {(r["agent"], r["budget"], r["seed"]) for r in lines(path)}:
                    continue
                ground = ground or Ground(options.network, options.images, budget)
                test = test or ground.test_set()
                evaluations = options.evaluations
                if evaluations == 400:
                    evaluations = LONGER.get(agent, evaluations)
                line = one_run(ground, test, agent, seed, evaluations)
                print(json.dumps({k: v for k, v in line.items() if k != "tested"}), flush=True)
                path.parent.mkdir(exist_ok=True)
                with path.open("a") as file:
                    file.write(json.dumps(line) + "\n")


class Ground:
    """An environment that all runs on a network and budget share, and what repairs its networks.

    Args:
        network: its name.
        images: calibration images.
        budget: fraction of the MACs that may remain, or a range.
    """

    def __init__(self, network: str, images: int, budget: float | tuple[float, ...]) -> None:
        assert lfgcl_env  # registers the environments
        made = gym.make(
            "LFGCL-v0",
            network=network,
            weights="published",
            images="CIFAR10",
            num_images=images,
            budget=budget,
        )
        self.env = Timed(made)
        self.network, self.budget = network, budget
        self.problem: PruningProblem = made.unwrapped.problem  # type: ignore[attr-defined]
        self.repair_images = made.unwrapped.other_images(REPAIR_IMAGES)  # type: ignore[attr-defined]
        self._tested: dict[tuple[int, ...], float] = {}

    def test_set(self) -> LabelledImages:
        """Test images and labels."""
        return load_test_set("CIFAR10", normalization=self.problem.baseline.normalization)

    def repaired_top1(self, keep: Sequence[int], test: LabelledImages) -> float:
        """Top-1 of a strategy after sequential repair [%]."""
        if tuple(keep) not in self._tested:
            network, _ = self.problem.finish(keep, self.repair_images, QUICK)
            self._tested[tuple(keep)] = round(top1(network, test), 2)
        return self._tested[tuple(keep)]


class Timed(gym.Wrapper[Any, Any, Any, Any]):
    """Adds up the time in the environment."""

    seconds = 0.0

    def step(self, action: Any) -> Any:
        """Step, and take the time."""
        began = time.perf_counter()
        result = self.env.step(action)
        self.seconds += time.perf_counter() - began
        return result


def one_run(
    ground: Ground, test: LabelledImages, agent: str, seed: int, evaluations: int
) -> dict[str, Any]:
    """Let an agent search, then test the best strategies."""
    ground.problem.memory.clear()
    ground.env.seconds = 0.0
    began = time.perf_counter()
    found = search(ground.env, agent, evaluations, seed=seed, say=lambda text: None)
    seconds = time.perf_counter() - began
    scores = np.array([record.evaluation.similarity for record in found.records])
    best = np.maximum.accumulate(scores)
    tested = {}
    for count in TESTED:
        record = found.records[int(scores[:count].argmax())]
        keep = record.evaluation.keep
        tested[str(count)] = {"top1": ground.repaired_top1(keep, test), "keep": list(keep)}
    return {
        "agent": agent,
        "budget": ground.budget,
        "seed": seed,
        "evaluations": len(scores),
        "steps": found.steps,
        "seconds": round(seconds, 1),
        "agent_seconds": round(seconds - ground.env.seconds, 1),
        "images": ground.problem.images,
        "best": {
            str(count): round(float(best[min(count, len(best)) - 1]), 5)
            for count in COUNTS
            if count <= evaluations
        },
        "tested": tested,
        "commit": provenance()["commit"],
    }


def report(network: str, rows: list[dict[str, Any]]) -> None:
    """Write results/compare_NETWORK.json and .png, and print a Markdown table."""
    table = []
    for budget in sorted({r["budget"] for r in rows}, reverse=True):
        for agent in AGENTS:
            mine = [r for r in rows if (r["agent"], r["budget"]) == (agent, budget)]
            if mine:
                table.append(summary(agent, budget, mine))
    table.sort(key=lambda row: (-row["budget"], -row["similarity"]["400"]["iqm"]))
    counts = ("25", "100", "250", "400", "800")
    heads = " | ".join(counts)
    print(f"| MACs | agent | seeds | {heads} | top-1 after 100 | after 400 | s per evaluation |")
    print("|---" * (6 + len(counts)) + "|")
    for row in table:
        cells = [_cell(row["similarity"].get(count), 4) for count in counts]
        cells += [_cell(row["top1"][str(count)], 2) for count in TESTED]
        cells += [f"{row['agent_seconds_per_evaluation']:.3f}"]
        head = f"| {row['budget']:.0%} | {row['agent']} | {row['seeds']} | "
        print(head + " | ".join(cells) + " |")
    write(f"compare_{network}", {"network": network, "table": table})
    curves(network, rows)


def summary(agent: str, budget: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Interquartile means with bootstrap intervals over seeds."""
    counts = [c for c in map(str, COUNTS) if all(c in r["best"] for r in rows)]
    return {
        "budget": budget,
        "agent": agent,
        "seeds": len(rows),
        "similarity": {c: interval([r["best"][c] for r in rows]) for c in counts},
        "top1": {
            str(count): interval([r["tested"][str(count)]["top1"] for r in rows])
            for count in TESTED
        },
        "agent_seconds_per_evaluation": round(
            float(np.median([r["agent_seconds"] / r["evaluations"] for r in rows])), 4
        ),
        "agent_share": round(
            float(np.median([r["agent_seconds"] / r["seconds"] for r in rows])), 3
        ),
        "steps_per_evaluation": round(
            float(np.median([r["steps"] / r["evaluations"] for r in rows])), 2
        ),
    }


def interval(values: Sequence[float]) -> dict[str, float]:
    """The interquartile mean, and its 95 % percentile-bootstrap interval."""
    sample = np.array(values)
    found = {"iqm": round(float(_iqm(sample)), 5)}
    if len(sample) > 1 and np.ptp(sample) > 0:
        drawn = stats.bootstrap(
            (sample,), _iqm, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
        ).confidence_interval
        found |= {"low": round(float(drawn.low), 5), "high": round(float(drawn.high), 5)}
    return found


def _iqm(values: NDArray[np.float64], axis: int = -1) -> Any:
    return stats.trim_mean(values, 0.25, axis=axis)


def _cell(found: dict[str, float] | None, digits: int) -> str:
    return f"{found['iqm']:.{digits}f}" if found else ""


def curves(network: str, rows: list[dict[str, Any]]) -> None:
    """Draw the best similarity against evaluations."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    budgets = sorted({r["budget"] for r in rows}, reverse=True)
    figure = Figure(figsize=(6.4 * len(budgets), 4.8), dpi=120, layout="constrained")
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    panels = figure.subplots(1, len(budgets), squeeze=False)[0]
    for axes, budget in zip(panels, budgets, strict=True):
        for agent in AGENTS:
            mine = [r for r in rows if (r["agent"], r["budget"]) == (agent, budget)]
            if not mine:
                continue
            counts = [c for c in COUNTS if all(str(c) in r["best"] for r in mine)]
            found = [interval([r["best"][str(c)] for r in mine]) for c in counts]
            colour = colours[AGENTS.index(agent)]
            middle = [f["iqm"] for f in found]
            width = 2.4 if agent == "lfgcl" else 1.2
            axes.plot(counts, middle, label=agent, color=colour, linewidth=width)
            low = [f.get("low", f["iqm"]) for f in found]
            high = [f.get("high", f["iqm"]) for f in found]
            axes.fill_between(counts, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(xscale="log", xlabel="evaluations", ylabel="best similarity")
        axes.set_title(f"{network}, {budget:.0%} of MACs", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        best = max(max(r["best"].values()) for r in rows if r["budget"] == budget)
        axes.set_ylim(best - 0.3, best + 0.01)
    panels[-1].legend(frameon=False, fontsize=7, loc="lower right")
    figure.savefig(RESULTS / f"compare_{network}.png")


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The runs that are there already."""
    if path.exists():
        yield from (json.loads(line) for line in path.read_text().splitlines())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
