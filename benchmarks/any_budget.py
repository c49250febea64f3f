"""One agent for every budget against a search for each, at the same evaluations a search.

The agent learns on budgets drawn from a range and is then asked for several, without another
evaluation than that of its answer. Per-budget searches are the same agent's on a fixed budget. Both
are repaired sequentially and tested as in compare.py, and so are uniform ratios. Resumable:
finished budgets are kept in results/any_budget_NETWORK.jsonl, each with its settings.

    python benchmarks/any_budget.py --network resnet20
    python benchmarks/any_budget.py --network resnet56 --budgets 0.35 0.5 --seeds 0
"""

import argparse
import json
from pathlib import Path
from typing import Any

import checkout  # noqa: F401 - baselines are found by it
import numpy as np
import torch
from ground import Ground
from lfgcl_env.baselines import uniform_ratios as uniform
from provenance import RESULTS, write
from rows import interval, lines

from lfgcl_env.images import LabelledImages
from lfgcl_env.search.budget_sweep import ask
from lfgcl_env.search.run_search import run_search


def main() -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--agent", default="lfgcl")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--range", type=float, nargs=2, default=[0.3, 0.8])
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=800, help="of the any-budget agent")
    parser.add_argument("--each", type=int, default=400, help="of each per-budget search")
    options = parser.parse_args()
    path = RESULTS / f"any_budget_{options.network}.jsonl"
    for seed in options.seeds:
        run(options, seed, path)
    report(options, list(lines(path)))


def run(options: argparse.Namespace, seed: int, path: Path) -> None:
    """Append lines of what a seed has none of yet."""
    rows = list(lines(path))
    wide: Ground | None = None
    test: LabelledImages | None = None

    def missing(how: str) -> list[float]:
        mine = [row for row in rows if is_of(row, options, how) and row["seed"] == seed]
        return [b for b in options.budgets if b not in {row["budget"] for row in mine}]

    def keep(how: str, budget: float, evaluation: Any, ground: Ground) -> None:
        nonlocal test
        test = test or ground.test_set()
        line = {
            "how": how,
            "budget": budget,
            "seed": seed,
            **settings(options, how),
            "similarity": evaluation.similarity,
            "top1": ground.repaired_top1(evaluation.keep, test),
            "keep": evaluation.keep,
        }
        print(json.dumps(line), flush=True)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    if left := missing("any budget"):
        wide = Ground(options.network, options.images, tuple(options.range))
        found = run_search(wide.env, options.agent, options.evaluations, seed=seed, points=2)
        for budget, evaluation in zip(left, ask(wide.env, found.agent, left), strict=True):
            keep("any budget", budget, evaluation, wide)
    equal = missing("uniform") if seed == options.seeds[0] else []
    searched = missing("per budget")
    for budget in options.budgets:
        if budget not in (*equal, *searched):
            continue
        ground = Ground(options.network, options.images, budget)
        if budget in equal:
            strategy = uniform.strategy(ground.problem, budget)
            keep("uniform", budget, ground.problem.evaluate(strategy), ground)
            ground.problem.memory.clear()
        if budget in searched:
            found = run_search(ground.env, options.agent, options.each, seed=seed)
            keep("per budget", budget, found.best, ground)


def settings(options: argparse.Namespace, how: str) -> dict[str, Any]:
    """What decides a line, besides its budget and seed."""
    if how == "uniform":
        return {"images": options.images}
    if how == "per budget":
        return {"images": options.images, "agent": options.agent, "evaluations": options.each}
    return {
        "images": options.images,
        "agent": options.agent,
        "evaluations": options.evaluations,
        "range": list(options.range),
    }


def is_of(row: dict[str, Any], options: argparse.Namespace, how: str) -> bool:
    """Whether a line was measured in this way, with these settings."""
    return row["how"] == how and settings(options, how).items() <= row.items()


def report(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write results/any_budget_NETWORK.json and print a Markdown table."""
    table = []
    for budget in sorted({r["budget"] for r in rows}):
        row: dict[str, Any] = {"budget": budget}
        for how in ("uniform", "per budget", "any budget"):
            mine = [r for r in rows if is_of(r, options, how) and r["budget"] == budget]
            if mine:
                row[how] = {
                    "top1": interval([r["top1"] for r in mine]),
                    "similarity": interval([r["similarity"] for r in mine]),
                    "seeds": len(mine),
                }
        table.append(row)
    print("| MACs | uniform | per budget | any budget | difference |\n|---|---|---|---|---|")
    differences = []
    for row in table:
        scores = [
            row[how]["top1"]["iqm"] if how in row else float("nan")
            for how in ("uniform", "per budget", "any budget")
        ]
        if "per budget" in row and "any budget" in row:
            differences.append(row["any budget"]["top1"]["iqm"] - row["per budget"]["top1"]["iqm"])
            scores.append(differences[-1])
        print(f"| {row['budget']:.0%} | " + " | ".join(f"{s:.2f}" for s in scores) + " |")
    mean = round(float(np.mean(differences)), 3) if differences else None
    print(f"mean difference {mean}")
    given = {k: v for k, v in vars(options).items() if k not in ("network", "budgets", "seeds")}
    write(
        f"any_budget_{options.network}",
        {"network": options.network, **given, "mean_difference": mean, "table": table},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
