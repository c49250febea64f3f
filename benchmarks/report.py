"""Tables and plots of what benchmarks/compare.py has measured, and entries for the leaderboard.

Everything is written to the folder of the results: compare_NETWORK.md, .csv and .json, the plots of
benchmarks/plots.py, and compare.md with all networks in one table. Numbers are interquartile means
over seeds with 95 % bootstrap intervals. Rows marked *quoted* are what publications report, most of
it after training, on other baselines: they stand beside the comparison, not in it.

    python benchmarks/report.py --network resnet20
    python benchmarks/report.py --network resnet20 --leaderboard benchmarks/leaderboard.jsonl
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import checkout  # noqa: F401 - baselines are found by it
import numpy as np
import torch
from lfgcl_env.baselines.quoted import QUOTED
from plots import Plots
from provenance import RESULTS, provenance
from rows import SIMILARITY, Row, identity, interval, label, lines, read_rows, results_file, seconds
from tables import comma_separated, markdown, overview

from lfgcl_env.edge.files import write_text
from lfgcl_env.leaderboard import Entry, add_entries
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.search.shortlist import QUICK, QUICK_IMAGES


def main(arguments: Sequence[str] | None = None) -> None:
    """Report on every network."""
    options = parsed(arguments)
    for network in options.network:
        rows = measured(options, network)
        problem = structure(network, options.weights)
        write_tables(options, network, rows, problem)
        for path in Plots(network, rows, problem, options.evaluations).draw(options.out):
            print(path)
        if options.leaderboard:
            add_entries(options.leaderboard, entries(options, network, rows, problem))
            print(options.leaderboard)
    write_text(options.out / "compare.md", overview(reported(options)))
    print(options.out / "compare.md")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=["resnet20"], help="one or several")
    parser.add_argument("--weights", default="published")
    parser.add_argument("--data", default="CIFAR10")
    parser.add_argument("--images", type=int, default=128, help="runs with as many")
    parser.add_argument("--similarity", default=SIMILARITY, help="runs with this reward")
    parser.add_argument("--evaluations", type=int, default=400, help="runs with at least as many")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument(
        "--leaderboard", type=Path, metavar="FILE", help="also add the best run of every method"
    )
    parser.add_argument("--author", default="lfgcl_env", help="of the leaderboard's entries")
    return parser.parse_args(arguments)


def settings(options: argparse.Namespace) -> Row:
    """What runs must share to be compared."""
    return {name: getattr(options, name) for name in ("weights", "data", "images", "similarity")}


def measured(options: argparse.Namespace, network: str) -> list[Row]:
    """The runs that can be compared: on the same ground, with as many evaluations.

    Raises:
        SystemExit: if there are none.
    """
    path = results_file(options.out, network)
    count = str(options.evaluations)
    ground = settings(options)
    rows = [
        row
        for row in read_rows(path)
        if ground.items() <= row.items() and count in row["best"] and count in row["tested"]
    ]
    if not rows:
        raise SystemExit(
            f"{path} has no runs with {ground} and {count} evaluations, of {len(list(lines(path)))}"
        )
    return list({identity(row): row for row in rows}.values())


def structure(network: str, weights: str) -> PruningProblem:
    """The network's groups and costs; its weights do not matter where they can be random."""
    own = ":" in network and not network.startswith("torchvision:")
    baseline = load_baseline(network, weights if own else "random")
    noise = torch.randn(2, *baseline.input_shape)
    return PruningProblem(baseline, noise, budget=1.0, criterion="l1", repair="none")


def write_tables(
    options: argparse.Namespace, network: str, rows: list[Row], problem: PruningProblem
) -> None:
    """Write the tables in three forms, and print the first."""
    table = summaries(rows, problem, options.evaluations)
    quoted = [asdict(row) for row in QUOTED if row.network == network]
    path = results_file(options.out, network)
    page = markdown(network, table, quoted, options.evaluations)
    write_text(path.with_suffix(".md"), page)
    write_text(path.with_suffix(".csv"), comma_separated(table, quoted, options.evaluations))
    found = {
        "provenance": provenance(),
        "network": network,
        "settings": settings(options),
        "evaluations": options.evaluations,
        "table": table,
        "quoted": quoted,
    }
    write_text(path.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    print(page)


def reported(options: argparse.Namespace) -> list[tuple[str, list[Row], int]]:
    """Tables of all networks reported on so far with these settings: name, rows, evaluations."""
    asked = settings(options)
    found = [json.loads(path.read_text()) for path in sorted(options.out.glob("compare_*.json"))]
    return [
        (one["network"], one["table"], one["evaluations"])
        for one in found
        if one.get("settings") == asked
    ]


def summaries(rows: list[Row], problem: PruningProblem, evaluations: int) -> list[Row]:
    """A row for every budget and contestant: the highest budget, the highest top-1 first."""
    table = []
    for budget, name in dict.fromkeys((r["budget"], label(r)) for r in rows):
        mine = [r for r in rows if (r["budget"], label(r)) == (budget, name)]
        table.append(summary(budget, name, mine, problem, evaluations))
    last = str(evaluations)
    return sorted(table, key=lambda row: (-row["budget"], -row["top1"][last]["iqm"]))


def summary(
    budget: float, name: str, rows: list[Row], problem: PruningProblem, evaluations: int
) -> Row:
    """Interquartile means with bootstrap intervals over seeds."""
    last = str(evaluations)
    counts = [c for c in rows[0]["best"] if all(c in r["best"] for r in rows)]
    tested = [c for c in rows[0]["tested"] if all(c in r["tested"] for r in rows)]
    macs = [problem.cost(r["tested"][last]["keep"]).macs for r in rows]
    return {
        "budget": budget,
        "method": name,
        "environment": rows[0]["environment"],
        "agent": rows[0]["agent"],
        "kind": rows[0]["kind"],
        "criterion": rows[0]["criterion"],
        "seeds": len(rows),
        "evaluations": int(np.median([min(r["evaluations"], evaluations) for r in rows])),
        "macs_ratio": round(float(np.mean(macs)) / problem.baseline_cost.macs, 4),
        "similarity": {c: interval([r["best"][c] for r in rows]) for c in counts},
        "top1": {c: interval([r["tested"][c]["top1"] for r in rows]) for c in tested},
        "seconds": round(float(np.median([seconds(r, evaluations) for r in rows])), 1),
        "agent_seconds_per_evaluation": _median(rows, "agent_seconds", "evaluations"),
        "agent_share": _median(rows, "agent_seconds", "seconds"),
        "steps_per_evaluation": _median(rows, "steps", "evaluations"),
    }


def _median(rows: list[Row], part: str, whole: str) -> float:
    return round(float(np.median([r[part] / max(r[whole], 1e-9) for r in rows])), 4)


def entries(
    options: argparse.Namespace, network: str, rows: list[Row], problem: PruningProblem
) -> list[Entry]:
    """For the leaderboard: of every method and budget the run with the highest similarity.

    Test labels choose nothing, here either.
    """
    last = str(options.evaluations)
    best: dict[tuple[float, str], Row] = {}
    for row in rows:
        key = (row["budget"], label(row))
        if key not in best or row["best"][last] > best[key]["best"][last]:
            best[key] = row
    return [
        entry(options, network, name, row, problem)
        for (_, name), row in sorted(best.items(), key=lambda item: item[0])
    ]


def entry(
    options: argparse.Namespace, network: str, name: str, row: Row, problem: PruningProblem
) -> Entry:
    """One run as an entry."""
    found = row["tested"][str(options.evaluations)]
    names = [group.name for group in problem.groups]
    return Entry(
        method=name,
        author=options.author,
        evaluations=min(row["evaluations"], options.evaluations),
        problem={
            "network": network,
            "weights": row["weights"],
            "images": row["data"],
            "num_images": row["images"],
            "seed": 0,
            "budget": row["budget"],
            "criterion": row["criterion"],
            "repair": "least_squares",
            "similarity": row["similarity"],
        },
        keep=dict(zip(names, found["keep"], strict=True)),
        macs=problem.cost(found["keep"]).macs,
        similarity=row["best"][str(options.evaluations)],
        top1=found["top1"],
        test_set=row["data"],
        sequential={"images": QUICK_IMAGES, "rows": QUICK.rows, "relu_aware": QUICK.relu_aware},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
