"""Tables of a comparison: one for all networks, one for each of them as Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

from study import Fields, markdown_table

CRITERION = "obs"
"""The usual order of channels."""

EARLY = 100
"""Evaluations of the smaller of both numbers in a network's table, if all were delivered then."""

SEEDS = 3
"""A mean over fewer seeds is not shown as the best of its column."""

LAYERWISE, GLOBAL = "layer by layer", "globally"

CROSSED = {
    "LFGCL": (GLOBAL, "similarity"),
    "LFGCL-accuracy": (GLOBAL, "accuracy"),
    "AMC-similarity": (LAYERWISE, "similarity"),
    "AMC-accuracy": (LAYERWISE, "accuracy"),
    "AMC": (LAYERWISE, "accuracy, as published"),
}
"""How decisions are made and what is rewarded, by environment."""


def overview(networks: Sequence[tuple[str, list[Fields], int]]) -> str:
    """Return all networks and budgets in one table: top-1 / similarity.

    The order and the seconds are those of the first network's middle budget. The highest numbers of
    a column are bold, among those of several seeds.

    Args:
        networks: name, summaries and evaluations of each.
    """
    columns: list[tuple[str, dict[str, Fields], str]] = []
    for network, table, evaluations in networks:
        for budget in sorted({row["budget"] for row in table}, reverse=True):
            here = {_named(row): row for row in table if row["budget"] == budget}
            columns.append((f"{network}, {budget:.0%}", here, str(evaluations)))
    budgets = {row["budget"] for row in networks[0][1]}
    where, middle, _ = columns[len(budgets) // 2]
    methods = dict.fromkeys(name for here in (middle, *(c[1] for c in columns)) for name in here)
    titles = [title for title, _, _ in columns]
    heads = ["method", "evaluations", "seeds", *titles, f"seconds ({where})"]
    cells = []
    for method in methods:
        mine = [here[method] for _, here, _ in columns if method in here]
        seeds = sorted({row["seeds"] for row in mine})
        took = f"{middle[method]['seconds']:.0f}" if method in middle else ""
        cells.append(
            [
                method,
                str(max(row["evaluations"] for row in mine)),
                f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else str(seeds[0]),
                *(_pair(here, method, last) for _, here, last in columns),
                took,
            ]
        )
    return markdown_table(heads, cells) + "\n"


def _pair(here: dict[str, Fields], method: str, last: str) -> str:
    """Top-1 and similarity; the column's highest are bold."""
    if method not in here:
        return ""

    def text(name: str, digits: int) -> str:
        best = max((row[name][last]["iqm"] for row in here.values() if _counts(row)), default=None)
        value = here[method][name][last]["iqm"]
        bold = value == best and _counts(here[method])
        return f"**{value:.{digits}f}**" if bold else f"{value:.{digits}f}"

    return f"{text('top1', 2)} / {text('similarity', 3)}"


def _counts(row: Fields) -> bool:
    """Whether a summary has enough seeds to be shown as best; without a search one is enough."""
    return bool(row["seeds"] >= SEEDS or row["evaluations"] == 1)


def markdown(network: str, table: list[Fields], quoted: list[Fields], evaluations: int) -> str:
    """Return a network's page: the comparison, quoted results, global against layerwise."""
    last = str(evaluations)
    tested = [last]
    if all(str(EARLY) in row["top1"] for row in table):
        tested.insert(0, str(EARLY))
    heads = [
        "MACs", "method", "seeds", "evaluations", "MACs kept", "similarity",
        *(f"top-1 after {count}" for count in tested), "seconds", "agent's s per evaluation",
    ]  # fmt: skip
    cells = [
        [
            f"{row['budget']:.0%}",
            _named(row),
            str(row["seeds"]),
            str(row["evaluations"]),
            f"{row['macs_ratio']:.1%}",
            _cell(row["similarity"].get(last), 4),
            *(_cell(row["top1"].get(count), 2) for count in tested),
            f"{row['seconds']:.0f}",
            f"{row['agent_seconds_per_evaluation']:.3f}",
        ]
        for row in table
    ]
    for row in quoted:
        tuned = {True: "fine-tuned", False: "not fine-tuned", None: "fine-tuned?"}[
            row["fine_tuned"]
        ]
        name = f"{row['method']} ({row['paper']}; {tuned}) *quoted*"
        kept = f"{row['macs_ratio']:.1%}"
        empty = [""] * len(tested)
        cells.append(["", name, "", "", kept, *empty, f"{row['top1']:.2f}", "", ""])
    parts = [f"# {network}", markdown_table(heads, cells)]
    if quoted:
        parts.append("*quoted*: as published, on other baselines; the CSV says where it was read.")
    if crossed := two_by_two(table, last):
        parts.append("Who decides and what is rewarded: top-1 after " + last)
        parts.append(markdown_table(crossed[0], crossed[1:]))
    return "\n\n".join(parts) + "\n"


def _named(row: Fields) -> str:
    """Return a method's name, with the order of channels where it has its own."""
    own = row["criterion"] != CRITERION
    return f"{row['method']}, {row['criterion']} order" if own else str(row["method"])


def two_by_two(table: list[Fields], last: str) -> list[list[str]]:
    """Return heads and cells of a table: how decisions are made, by which agent, for which reward.

    Agents that ran in ``LFGCL`` alone are left out: there is nothing to compare them with.
    """
    found: dict[tuple[float, str, str], dict[str, Fields]] = {}
    for row in table:
        if row["environment"] in CROSSED:
            who, reward = CROSSED[row["environment"]]
            found.setdefault((row["budget"], who, row["agent"]), {})[reward] = row["top1"][last]
    crossed = {(r["budget"], r["agent"]) for r in table if r["environment"] != "LFGCL"}
    rewards = list(dict.fromkeys(reward for _, reward in CROSSED.values()))
    cells = [
        [f"{budget:.0%}", f"{who}, {agent}", *(_cell(mine.get(r), 2) for r in rewards)]
        for (budget, who, agent), mine in sorted(found.items(), key=lambda item: item[0])
        if (budget, agent) in crossed
    ]
    return [["MACs", "who decides", *rewards], *cells] if cells else []


def _cell(found: dict[str, float] | None, digits: int) -> str:
    if not found:
        return ""
    text = f"{found['iqm']:.{digits}f}"
    if "low" in found:
        text += f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
    return text


def comma_separated(table: list[Fields], quoted: list[Fields], evaluations: int) -> str:
    """Return the comparison as CSV, intervals in columns of their own."""
    last = str(evaluations)
    names = [
        "source", "budget", "method", "environment", "kind", "criterion", "seeds", "evaluations",
        "macs_ratio", "similarity", "similarity_low", "similarity_high", "top1", "top1_low",
        "top1_high", "seconds", "agent_seconds_per_evaluation", "paper", "fine_tuned",
        "baseline_top1", "training", "read_in",
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in table:
        flat = {"source": "re-run", **row}
        for name in ("similarity", "top1"):
            found = row[name][last]
            flat |= {name: found["iqm"]}
            flat |= {f"{name}_{end}": found.get(end) for end in ("low", "high")}
        writer.writerow(flat)
    for row in quoted:
        writer.writerow({"source": "quoted", **row})
    return text.getvalue()
