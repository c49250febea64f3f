"""Tables of a comparison: one for all networks, one for each of them as Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

from rows import BEFORE, Row

EARLY = 100
"""Evaluations of the smaller of both numbers in a network's table."""

SEEDS = 3
"""Fewest of them that a mean is called the best of."""

LAYERWISE, GLOBAL = "layer by layer", "globally"

CROSSED = {
    "LFGCL": (GLOBAL, "similarity"),
    "LFGCL-accuracy": (GLOBAL, "accuracy"),
    "AMC-similarity": (LAYERWISE, "similarity"),
    "AMC-accuracy": (LAYERWISE, "accuracy"),
    "AMC": (LAYERWISE, "accuracy, as published"),
}
"""Who decides and what is rewarded, by environment."""


def overview(networks: Sequence[tuple[str, list[Row], int]]) -> str:
    """All networks and budgets in one table: top-1 / similarity.

    The first network's middle budget decides the order, and is where seconds were measured. The
    highest numbers of a column are bold, among those of several seeds.

    Args:
        networks: names, rows of their tables, and evaluations that these are about.
    """
    columns: list[tuple[str, dict[str, Row], str]] = []
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
    return _rows_of([heads, *cells]) + "\n"


def _pair(here: dict[str, Row], method: str, last: str) -> str:
    """Top-1 and similarity, the column's highest ones bold."""
    if method not in here:
        return ""

    def text(name: str, digits: int) -> str:
        best = max((row[name][last]["iqm"] for row in here.values() if _counts(row)), default=None)
        value = here[method][name][last]["iqm"]
        bold = value == best and _counts(here[method])
        return f"**{value:.{digits}f}**" if bold else f"{value:.{digits}f}"

    return f"{text('top1', 2)} / {text('similarity', 3)}"


def _counts(row: Row) -> bool:
    """Whether a row is of seeds enough to be called best; what searches nothing needs one."""
    return bool(row["seeds"] >= SEEDS or row["evaluations"] == 1)


def markdown(network: str, table: list[Row], quoted: list[Row], evaluations: int) -> str:
    """The comparison, what is quoted, and global or layerwise by similarity or accuracy."""
    last = str(evaluations)
    heads = [
        "MACs", "method", "seeds", "evaluations", "MACs kept", "similarity",
        f"top-1 after {EARLY}", f"top-1 after {last}", "seconds", "agent's s per evaluation",
    ]  # fmt: skip
    cells = [
        [
            f"{row['budget']:.0%}",
            _named(row),
            str(row["seeds"]),
            str(row["evaluations"]),
            f"{row['macs_ratio']:.1%}",
            _cell(row["similarity"].get(last), 4),
            _cell(row["top1"].get(str(EARLY)), 2),
            _cell(row["top1"].get(last), 2),
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
        cells.append(["", name, "", "", kept, "", "", f"{row['top1']:.2f}", "", ""])
    parts = [f"# {network}", _rows_of([heads, *cells])]
    if quoted:
        parts.append("*quoted*: as published, on other baselines; the CSV says where it was read.")
    if crossed := two_by_two(table, last):
        parts.append("Who decides and what is rewarded: top-1 after " + last)
        parts.append(_rows_of(crossed))
    return "\n\n".join(parts) + "\n"


def _named(row: Row) -> str:
    """A method, with the order of channels where it has its own."""
    own = row["criterion"] != BEFORE["criterion"]
    return f"{row['method']}, {row['criterion']} order" if own else str(row["method"])


def two_by_two(table: list[Row], last: str) -> list[list[str]]:
    """Cells of a table: who decides, by which agent, and what it is rewarded with.

    Agents that ran in one environment only tell nothing, unless it is one of the rivals'.
    """
    found: dict[tuple[float, str, str], dict[str, Row]] = {}
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


def _rows_of(cells: list[list[str]]) -> str:
    head, *body = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([head, "|---" * len(cells[0]) + "|", *body])


def _cell(found: dict[str, float] | None, digits: int) -> str:
    if not found:
        return ""
    text = f"{found['iqm']:.{digits}f}"
    if "low" in found:
        text += f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
    return text


def comma_separated(table: list[Row], quoted: list[Row], evaluations: int) -> str:
    """The same as CSV, intervals in columns of their own."""
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
