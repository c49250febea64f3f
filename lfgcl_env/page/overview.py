"""The top of a run's page: what was pruned, and the result in a few numbers."""

from collections.abc import Sequence
from typing import Any

from lfgcl_env.page.markup import Html, element
from lfgcl_env.page.run_facts import RunFacts
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.delivered_network import DELIVERIES
from lfgcl_env.runs.commands import resume_command
from lfgcl_env.runs.measured import BASELINE, StoredMeasurement
from lfgcl_env.runs.recoveries import describe_change

METRIC_TITLES = {"macs": "MACs", "params": "parameters", "latency": "latency"}


def headline(run: RunFacts) -> Html:
    """Say what was pruned, how far, and whether the run has ended."""
    asked, problem = run.asked, run.problem
    name = problem.network if problem else asked["environment"]
    budget = asked.get("budget")
    allowed = (
        f"{label(budget[0])} to {label(budget[1])}" if isinstance(budget, list)
        else label(budget) if budget else "a budget"
    )  # fmt: skip
    counted = str(asked.get("budget_metric", "macs"))
    state = "finished" if run.finished else f"stopped after {len(run.records)} evaluations"
    facts = [
        asked["environment"],
        f"agent {asked['agent']}",
        f"{problem.weights} weights" if problem else "",
        run.described["started"][:10],
        state,
    ]
    parts = [
        element("h1", f"{name} pruned to {allowed} of its {METRIC_TITLES.get(counted, counted)}"),
        element("p", " · ".join(filter(None, facts)), class_="quiet"),
    ]
    if not run.finished:
        command = resume_command(run.folder, asked)
        how = ["Go on with ", element("code", command)] if command else ["It goes on from Python."]
        parts.append(element("p", *how, class_="note"))
    return element("header", *parts)


def result(run: RunFacts) -> Html:
    """Show the result in a few numbers."""
    leader = run.leader
    tiles: list[tuple[str, str, str]] = []
    kept: Any = run.best or (leader.evaluation if leader else None)
    if kept:
        macs, params = _whole(run)
        tiles = [
            ("MACs", f"{kept.macs_ratio:.1%}", f"{macs}{kept.macs:,}"),
            ("parameters", f"{kept.params_ratio:.1%}", f"{params}{kept.params:,}"),
        ]
    if run.best and run.best.predicted_ms:
        tiles.append(_time(run.best.predicted_ms, "predicted"))
    if run.best and run.best.measured_ms:
        tiles.append(_time([one.median for one in run.best.measured_ms], "measured whole"))
    if run.best:
        tiles.append(("reward", f"{run.best.reward:.4f}", "of what is kept, in the search"))
        if run.best.shortlist and run.best.shortlist[0].score is not None:
            score = run.best.shortlist[0].score
            tiles.append(("as delivered", f"{score:.4f}", judged_by(run)))
        text = f"the network {DELIVERIES[run.best.delivery]}"
        tiles.append(("handed over", run.best.delivery, text))
    elif leader:
        tiles.append(("best reward", f"{leader.reward:.4f}", f"at evaluation {leader.index}"))
    used = [one for one in run.recoveries if one.used]
    if run.best and used:
        change = describe_change(used[-1].score, used[-1].before, used[-1].after)
        tiles.append(("recovered", f"{used[-1].after:.4g}", change))
    if run.best and run.accuracy:
        whole, pruned = (one.top1 for one in run.accuracy.networks[:2])
        tiles.append(("top-1", f"{pruned:.2f} %", f"baseline {whole:.2f} %"))
    if run.best and run.measured:
        tiles += _speed(run.measured.measurements)
    screened = (run.best.model_extra or {}).get("screened") if run.best else None
    more = f"{screened} more were screened" if screened else f"{run.asked['evaluations']} allowed"
    tiles.append(("evaluations", f"{len(run.records):,}", more))
    made = [
        element(
            "div",
            element("span", name, class_="name"),
            element("b", number),
            element("span", text, class_="quiet"),
            class_="tile",
        )
        for name, number, text in tiles
    ]
    return element("div", *made, class_="tiles")


def _time(times: Sequence[float], how: str) -> tuple[str, str, str]:
    """Return a tile on the times of baseline and pruned network [ms]."""
    before, after = times
    return "time", f"{after / before:.1%}", f"{before:.3g} ms → {after:.3g} ms, {how}"


def _whole(run: RunFacts) -> tuple[str, str]:
    """Write the baseline's MACs and parameters as what comes before an arrow, if known."""
    if run.problem:
        return f"{run.problem.macs:,} → ", f"{run.problem.params:,} → "
    total = [layer for layer in run.best.layers if layer.name == "total"] if run.best else []
    return (f"{total[0].macs[0]:,} → ", f"{total[0].params[0]:,} → ") if total else ("", "")


def _speed(measurements: Sequence[StoredMeasurement]) -> list[tuple[str, str, str]]:
    """Return a tile on the runtime and batch that were measured first, whatever came out."""
    first = next((one for one in measurements if one.network != BASELINE), None)
    if first is None:
        return []
    where = f"{first.runtime}, batch {first.batch}"
    if first.speedup < 1:
        return [("slower", f"{1 / first.speedup:.2f}x", where)]
    return [("faster", f"{first.speedup:.2f}x", where)]


def judged_by(run: RunFacts) -> str:
    """Name what finished networks are compared by."""
    if run.reward_name == "similarity":
        return "the similarity of outputs"
    return f"the reward, {run.reward_name}"
