"""What an agent that learnt on one network is worth on others, at once and as a start.

The agent learns on a range of budgets of one network. Applied to another network it predicts a
strategy without any evaluation: this is repaired sequentially and tested as in compare.py, beside
uniform ratios. As a start: how many evaluations a search needs to reach the similarity that a
search from scratch has after --reach of them. Resumable: finished seeds and networks are kept in
results/transfer.jsonl.

    python benchmarks/transfer.py
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import checkout  # noqa: F401 - baselines are found by it
import torch
from ground import Ground
from lfgcl_env.baselines import uniform_ratios as uniform
from provenance import RESULTS, write
from rows import interval, lines

from lfgcl_env.search.run_search import run_search


def main() -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="resnet20")
    parser.add_argument("--targets", nargs="+", default=["resnet32", "resnet44", "resnet56"])
    parser.add_argument("--agent", default="lfgcl")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--range", type=float, nargs=2, default=[0.3, 0.8])
    parser.add_argument("--budget", type=float, default=0.5, help="on the targets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=800, help="on the source")
    parser.add_argument("--reach", type=int, default=150, help="evaluations from scratch")
    options = parser.parse_args()
    path = RESULTS / "transfer.jsonl"
    grounds: dict[str, Ground] = {}
    for seed in options.seeds:
        mine = [r for r in lines(path) if is_of(r, options) and r["seed"] == seed]
        done = {r["network"] for r in mine}
        missing = [name for name in options.targets if name not in done]
        if missing:
            with tempfile.TemporaryDirectory() as folder:
                learnt = Path(folder) / "source"
                wide = Ground(options.source, options.images, tuple(options.range))
                run_search(
                    wide.env, options.agent, options.evaluations, seed=seed, out=learnt, points=2
                )
                for name in missing:
                    if name not in grounds:
                        grounds[name] = Ground(name, options.images, options.budget)
                    line = apply(grounds[name], options, seed, learnt)
                    print(json.dumps(line), flush=True)
                    with path.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    report(options, [r for r in lines(path) if is_of(r, options)])


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What decides a line, besides its network and seed."""
    return {k: v for k, v in vars(options).items() if k not in ("targets", "seeds")}


def is_of(row: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether a line was measured with these settings."""
    return settings(options).items() <= row.items()


def apply(ground: Ground, options: argparse.Namespace, seed: int, learnt: Path) -> dict[str, Any]:
    """Apply what was learnt to a network: at once, and as a start."""
    problem, test = ground.problem, ground.test_set()
    problem.memory.clear()
    equal = problem.evaluate(uniform.strategy(problem, options.budget))
    problem.memory.clear()
    warm = run_search(ground.env, options.agent, options.reach, seed=seed, init_from=learnt)
    zero = warm.records[0].evaluation
    problem.memory.clear()
    cold = run_search(ground.env, options.agent, options.reach, seed=seed)
    reached = [max(r.evaluation.similarity for r in cold.records[:n]) for n in (50, 100, 150)]
    return {
        "network": ground.network,
        "seed": seed,
        **settings(options),
        "uniform": {
            "similarity": equal.similarity,
            "top1": ground.repaired_top1(equal.keep, test),
        },
        "zero_shot": {
            "similarity": zero.similarity,
            "top1": ground.repaired_top1(zero.keep, test),
        },
        "scratch": dict(zip(("50", "100", "150"), reached, strict=True)),
        "evaluations_warm": {
            n: evaluations_to(warm.records, level)
            for n, level in zip(("50", "100", "150"), reached, strict=True)
        },
    }


def evaluations_to(records: Any, level: float) -> int | None:
    """The first evaluation that reaches a similarity; None if there is none."""
    return next((r.index for r in records if r.evaluation.similarity >= level), None)


def report(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write results/transfer.json and print a Markdown table."""
    table = []
    print("| network | uniform | zero-shot | gain | evaluations for what 50, 100, 150 reach |")
    print("|---|---|---|---|---|")
    for name in dict.fromkeys(r["network"] for r in rows):
        mine = [r for r in rows if r["network"] == name]
        row: dict[str, Any] = {"network": name, "seeds": len(mine)}
        for how in ("uniform", "zero_shot"):
            row[how] = {
                key: interval([r[how][key] for r in mine]) for key in ("top1", "similarity")
            }
        needed = {n: [r["evaluations_warm"][n] for r in mine] for n in mine[0]["evaluations_warm"]}
        row["evaluations_warm"] = needed
        table.append(row)
        before, after = (row[how]["top1"]["iqm"] for how in ("uniform", "zero_shot"))
        cells = ", ".join(f"{n}: {values}" for n, values in needed.items())
        print(f"| {name} | {before:.2f} | {after:.2f} | {after - before:+.2f} | {cells} |")
    write("transfer", {**settings(options), "table": table})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
