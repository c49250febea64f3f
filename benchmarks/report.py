"""Tables and plots of what benchmarks/compare.py has measured, and entries for the leaderboard.

Everything is written to the folder of the results: compare_NETWORK.md, .csv and .json, the plots of
comparison/plots.py, and compare.md with all networks in one table. Numbers are interquartile means
over seeds with 95 % bootstrap intervals. Lines marked *quoted* are what publications report, most
of it after training, on other baselines: they are shown beside the comparison, not as part of it.

    python benchmarks/report.py --network resnet20
    python benchmarks/report.py --network resnet20 --leaderboard benchmarks/leaderboard.jsonl
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from comparison.delivered import DELIVERY, delivered_file, with_top1
from comparison.plots import Plots
from comparison.records import SIMILARITY, for_network, kind, label, results_file, seconds
from comparison.tables import comma_separated, markdown, overview
from lfgcl_env.baselines.quoted import QUOTED
from study import RESULTS, Fields, interval, new_parser, newest, origins, prepare

from lfgcl_env.edge.files import write_text
from lfgcl_env.leaderboard import Entry, add_entries
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem


def main(arguments: Sequence[str] | None = None) -> None:
    """Report on every network."""
    options = parsed(arguments)
    for network in options.network:
        own = for_network(options, network)
        records = comparable(own, network)
        problem = structure(network, own.weights)
        write_tables(own, network, records, problem)
        for path in Plots(network, records, problem, options.evaluations).draw(options.out):
            print(path)
        if options.leaderboard:
            add_entries(options.leaderboard, entries(own, network, records, problem))
            print(options.leaderboard)
    write_text(options.out / "compare.md", overview(reported(options)))
    print(options.out / "compare.md")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--network", nargs="+", default=["resnet20"], help="one or several")
    parser.add_argument("--weights", help="else published, or those of the package")
    parser.add_argument("--data", help="else what the network was trained on")
    parser.add_argument("--images", type=int, default=128, help="runs with as many")
    parser.add_argument("--similarity", default=SIMILARITY, help="runs with this reward")
    parser.add_argument("--evaluations", type=int, default=400, help="runs with at least as many")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument(
        "--leaderboard", type=Path, metavar="FILE", help="also add the best run of every method"
    )
    parser.add_argument("--author", default="lfgcl_env", help="of the leaderboard's entries")
    return parser.parse_args(arguments)


def settings(options: argparse.Namespace) -> Fields:
    """Return what runs must share to be compared."""
    return {name: getattr(options, name) for name in ("weights", "data", "images", "similarity")}


def comparable(options: argparse.Namespace, network: str) -> list[Fields]:
    """Return the newest runs with these settings and enough evaluations, one of every kind.

    Raises:
        SystemExit: if there are none.
    """
    path = results_file(options.out, network)
    count, shared = str(options.evaluations), settings(options)
    records = with_top1(newest(path), delivered_file(options.out, network))
    found = {
        (label(record), record["budget"], record["seed"]): record
        for record in records
        if shared.items() <= record.items()
        and count in record["best"]
        and count in record["tested"]
    }
    asked = [r for r in records if shared.items() <= r.items() and count in r["best"]]
    if missing := sum(count not in record["tested"] for record in asked):
        print(f"{missing} of {len(asked)} runs are left out, whose strategies are not delivered")
    if not found:
        raise SystemExit(
            f"{path} has no delivered runs with {shared} and {count} evaluations, of {len(records)}"
        )
    return list(found.values())


def structure(network: str, weights: str) -> PruningProblem:
    """Return the network's groups and costs; with random weights unless the network is a user's."""
    own = ":" in network and not network.startswith("torchvision:")
    baseline = load_baseline(network, weights if own else "random")
    noise = torch.randn(2, *baseline.input_shape)
    return PruningProblem(baseline, noise, budget=1.0, criterion="l1", repair="none")


def write_tables(
    options: argparse.Namespace, network: str, records: list[Fields], problem: PruningProblem
) -> None:
    """Write the tables in three forms, and print the first."""
    table = summaries(records, problem, options.evaluations)
    quoted = [asdict(result) for result in QUOTED if result.network == network]
    path = results_file(options.out, network)
    page = markdown(network, table, quoted, options.evaluations)
    write_text(path.with_suffix(".md"), page)
    write_text(path.with_suffix(".csv"), comma_separated(table, quoted, options.evaluations))
    found = {
        "provenance": origins(path, delivered_file(options.out, network)),
        "network": network,
        "settings": settings(options),
        "evaluations": options.evaluations,
        "table": table,
        "quoted": quoted,
    }
    write_text(path.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    print(page)


def reported(options: argparse.Namespace) -> list[tuple[str, list[Fields], int]]:
    """Return name, summaries and evaluations of all networks reported on with these settings."""
    found = [json.loads(path.read_text()) for path in sorted(options.out.glob("compare_*.json"))]
    return [
        (one["network"], one["table"], one["evaluations"])
        for one in found
        if one.get("settings") == settings(for_network(options, one["network"]))
    ]


def summaries(records: list[Fields], problem: PruningProblem, evaluations: int) -> list[Fields]:
    """Return a summary for every budget and method: highest budget and highest top-1 first."""
    table = []
    for budget, name in dict.fromkeys((r["budget"], label(r)) for r in records):
        mine = [r for r in records if (r["budget"], label(r)) == (budget, name)]
        table.append(summary(budget, name, mine, problem, evaluations))
    last = str(evaluations)
    return sorted(table, key=lambda one: (-one["budget"], -one["top1"][last]["iqm"]))


def summary(
    budget: float, name: str, records: list[Fields], problem: PruningProblem, evaluations: int
) -> Fields:
    """Return interquartile means with bootstrap intervals over seeds."""
    first, last = records[0], str(evaluations)
    counts = [c for c in first["best"] if all(c in r["best"] for r in records)]
    tested = [c for c in first["tested"] if all(c in r["tested"] for r in records)]
    macs = [problem.cost(r["tested"][last]["keep"]).macs for r in records]
    return {
        "budget": budget,
        "method": name,
        "environment": first["environment"],
        "agent": first["agent"],
        "kind": kind(first),
        "criterion": first["criterion"],
        "seeds": len(records),
        "evaluations": int(np.median([min(r["scored"], evaluations) for r in records])),
        "macs_ratio": round(float(np.mean(macs)) / problem.baseline_cost.macs, 4),
        "similarity": {c: interval([r["best"][c] for r in records]) for c in counts},
        "top1": {c: interval([r["tested"][c]["top1"] for r in records]) for c in tested},
        "seconds": round(float(np.median([seconds(r, evaluations) for r in records])), 1),
        "agent_seconds_per_evaluation": _median(records, "agent_seconds", "scored"),
        "agent_share": _median(records, "agent_seconds", "seconds"),
        "steps_per_evaluation": _median(records, "steps", "scored"),
    }


def _median(records: list[Fields], part: str, whole: str) -> float:
    return round(float(np.median([r[part] / max(r[whole], 1e-9) for r in records])), 4)


def entries(
    options: argparse.Namespace, network: str, records: list[Fields], problem: PruningProblem
) -> list[Entry]:
    """Return leaderboard entries: the run with the highest similarity of every method and budget.

    The choice does not look at test labels.
    """
    last = str(options.evaluations)
    best: dict[tuple[float, str], Fields] = {}
    for record in records:
        key = (record["budget"], label(record))
        if key not in best or record["best"][last] > best[key]["best"][last]:
            best[key] = record
    return [
        entry(options, network, name, record, problem)
        for (_, name), record in sorted(best.items(), key=lambda item: item[0])
    ]


def entry(
    options: argparse.Namespace, network: str, name: str, record: Fields, problem: PruningProblem
) -> Entry:
    """Return one run as an entry."""
    found = record["tested"][str(options.evaluations)]
    names = [group.name for group in problem.groups]
    return Entry(
        method=name,
        author=options.author,
        evaluations=min(record["scored"], options.evaluations),
        problem={
            "network": network,
            "weights": record["weights"],
            "images": record["data"],
            "num_images": record["images"],
            "seed": 0,
            "budget": record["budget"],
            "criterion": record["criterion"],
            "repair": "least_squares",
            "similarity": record["similarity"],
        },
        keep=dict(zip(names, found["keep"], strict=True)),
        macs=problem.cost(found["keep"]).macs,
        similarity=record["best"][str(options.evaluations)],
        top1=found["top1"],
        test_set=record["data"],
        sequential=dict(DELIVERY),
    )


if __name__ == "__main__":
    prepare()
    main()
