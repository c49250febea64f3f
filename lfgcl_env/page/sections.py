"""The parts of a run's page; each is empty where the run knows nothing of it."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lfgcl_env.edge.named_code import names_code
from lfgcl_env.page.charts import Line, bar, chart
from lfgcl_env.page.markup import Html, element, section, table
from lfgcl_env.page.run_facts import RunFacts
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.runs.commands import resume_command
from lfgcl_env.runs.measured import BASELINE, StoredMeasurement, describe
from lfgcl_env.runs.problem_file import PrunedGroup

_NAMED_CURVES = 5
_CIRCLES = 1000
"""Dots of a chart at most."""

_METRICS = {"macs": "MACs", "params": "parameters", "latency": "latency"}


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
        element("h1", f"{name} pruned to {allowed} of its {_METRICS.get(counted, counted)}"),
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
        before, after = run.best.predicted_ms
        text = f"{before:.3g} ms → {after:.3g} ms, predicted"
        tiles.append(("time", f"{after / before:.1%}", text))
    if run.best:
        tiles.append(("reward", f"{run.best.reward:.4f}", "of what is kept, in the search"))
        if run.best.shortlist and run.best.shortlist[0].score is not None:
            score = run.best.shortlist[0].score
            tiles.append(("as delivered", f"{score:.4f}", _judged_by(run)))
    elif leader:
        tiles.append(("best reward", f"{leader.reward:.4f}", f"at evaluation {leader.index}"))
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


def search(run: RunFacts) -> Html:
    """Draw the rewards in the order of the search, or against costs on a range of budgets."""
    if not run.records:
        return Html("")
    if run.ranged:
        metric = str(run.asked.get("budget_metric", "macs"))
        points = run.sweep["points"] if run.sweep else []
        if metric in ("macs", "params"):
            x = f"share of {_METRICS[metric]}"
            tried = [(getattr(r.evaluation, f"{metric}_ratio"), r.reward) for r in run.records]
            kept = [(p["searched"][f"{metric}_ratio"], p["reward"]) for p in points]
        else:
            x = f"budget of {_METRICS.get(metric, metric)}"
            tried = [(r.budget, r.reward) for r in run.records]
            kept = [(p["budget"], p["reward"]) for p in points]
        drawn, every = _thinned(tried)
        lines = [
            Line("scored in the search", drawn, "dots", "weak"),
            Line("kept", kept, "line", "strong"),
            Line("kept", kept, "dots", "strong"),
        ]
        return section(
            "Search",
            element("p", f"Strategies that were scored (grey{every}), and those that are kept."),
            chart(lines, x, "reward"),
        )
    rewards = [(record.index, record.reward) for record in run.records]
    best: list[tuple[float, float]] = []
    for index, reward in rewards:
        if not best or reward > best[-1][1]:
            best.append((index, reward))
    best.append((rewards[-1][0], best[-1][1]))
    shown, every = _thinned(rewards)
    lines = [
        Line("a strategy's reward", shown, "dots", "weak"),
        Line("the best so far", best, "step", "strong"),
    ]
    minutes = run.records[-1].seconds / 60
    text = (
        f"Rewards of {len(rewards):,} strategies in {minutes:.1f} minutes (grey{every}), and the "
        "best so far."
    )
    return section("Search", element("p", text), chart(lines, "evaluation", "reward"))


def _thinned(
    points: Sequence[tuple[float, float]],
) -> tuple[Sequence[tuple[float, float]], str]:
    """Leave out points beyond what a page draws quickly, and say how many."""
    step = -(-len(points) // _CIRCLES)
    return (points, "") if step <= 1 else (points[::step], f", one of {step}")


def channels(run: RunFacts) -> Html:
    """Show channels before and after: of every layer, or of groups as far as a run came."""
    if run.best:
        layers = [layer for layer in run.best.layers if layer.outputs]
        most = max((layer.outputs[0] for layer in layers if layer.outputs), default=1)
        rows = []
        for layer in layers:
            assert layer.outputs
            (before, after), macs = layer.outputs, layer.macs
            share = f"{macs[1] / macs[0]:.0%}" if macs[0] else ""
            rows.append([layer.name, bar(before, after, most), _change(before, after), share])
        heads = ["layer", "", "channels", "MACs left"]
        return section("Output channels of every layer", table(heads, rows, (2, 3)))
    if run.sweep and run.problem:
        heads = ["group", "channels", *(label(p["budget"]) for p in run.sweep["points"])]
        rows = [
            [group.name, f"{group.channels:,}"]
            + [str(p["searched"]["keep"][place]) for p in run.sweep["points"]]
            for place, group in enumerate(run.problem.groups)
        ]
        title = "Channels that every budget keeps"
        return section(title, table(heads, rows, range(1, len(heads))))
    if run.leader and run.problem:
        return section(
            "Channels of the best strategy so far",
            _groups(run.problem.groups, run.leader.evaluation.keep),
        )
    return Html("")


def _groups(groups: Sequence[PrunedGroup], keep: Sequence[int]) -> Html:
    most = max(group.channels for group in groups)
    rows = [
        [group.name, bar(group.channels, kept, most), _change(group.channels, kept)]
        for group, kept in zip(groups, keep, strict=True)
    ]
    return table(["group", "", "channels"], rows, (2,))


def _change(before: int, after: int) -> str:
    return f"{before:,} → {after:,}" if after != before else f"{before:,}"


def sensitivity(run: RunFacts) -> Html:
    """Draw what the removal of every group's channels costs, and where it was cut."""
    if not run.problem:
        return Html("")
    curves = [(place, g) for place, g in enumerate(run.problem.groups) if g.curve]
    if not curves:
        return Html("")
    kept: Any = run.best or (run.leader.evaluation if run.leader else None)
    by_cost = sorted(curves, key=lambda one: -max(one[1].curve.losses[1:] or [0]))  # type: ignore[union-attr]
    named = by_cost[:_NAMED_CURVES]
    lines, cuts = [], []
    for place, group in [*by_cost[_NAMED_CURVES:], *named]:
        curve = group.curve
        assert curve
        points = [
            (count / group.channels, loss)
            for count, loss in zip(curve.keep, curve.losses, strict=True)
        ]
        kind = f"curve-{named.index((place, group)) + 1}" if (place, group) in named else "weak"
        lines.append(Line(group.name, points, "line", kind))
        if kept and kept.keep[place] < group.channels:
            near = min(range(len(curve.keep)), key=lambda i: abs(curve.keep[i] - kept.keep[place]))
            cuts.append(points[near])
    lines.append(Line("kept", cuts, "dots", "strong"))
    legend = element(
        "ul",
        *(
            element("li", element("i", class_=f"curve-{place}"), group.name)
            for place, (_, group) in enumerate(named, start=1)
        ),
        class_="legend",
    )
    text = (
        "The similarity that is lost where one group alone keeps fewer channels, as the allocation "
        f"estimates it. The {len(named)} most costly are named, the others grey; dots are what is "
        "kept."
    )
    return section(
        "Sensitivity",
        element("p", text),
        chart(lines, "share of the group's channels kept", "loss", logarithmic=True),
        legend,
    )


def shortlist(run: RunFacts) -> Html:
    """Show what was repaired and compared at the end, or the networks of a sweep."""
    if run.sweep:
        rows = [
            [
                label(p["budget"]),
                f"{p['searched']['macs']:,}",
                f"{p['searched']['macs_ratio']:.1%}",
                f"{p['searched']['params_ratio']:.1%}",
                f"{p['reward']:.4f}",
                _score(p["shortlist"][0]["score"] if p["shortlist"] else None),
                p["origin"],
            ]
            for p in run.sweep["points"]
        ]
        heads = ["budget", "MACs", "MACs left", "params left", "reward", "delivered", "origin"]
        return section("Networks of the sweep", table(heads, rows, range(1, 6)))
    if not (run.best and run.best.shortlist):
        return Html("")
    rows = [
        [
            str(place),
            one.origin,
            f"{one.searched.macs_ratio:.1%}",
            f"{one.searched.params_ratio:.1%}",
            f"{one.reward:.4f}",
            _score(one.score),
        ]
        for place, one in enumerate(run.best.shortlist, start=1)
    ]
    text = (
        "The best strategies were repaired layer by layer and compared by "
        f"{_judged_by(run)}; the first was then repaired thoroughly and is handed over."
    )
    heads = ["", "origin", "MACs left", "params left", "reward in the search", "as repaired"]
    return section("Shortlist", element("p", text), table(heads, rows, (2, 3, 4, 5)))


def _judged_by(run: RunFacts) -> str:
    """Name what finished networks are compared by."""
    if run.reward_name == "similarity":
        return "the similarity of outputs"
    return f"the reward, {run.reward_name}"


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def latency(run: RunFacts) -> Html:
    """Show the times that were measured, or how to measure them."""
    if not run.networks:
        return Html("")
    if not run.measured:
        if run.options is None:
            return Html("")
        command = f"lfgcl measure {shlex.quote(str(run.folder))}{run.options}"
        return section("Time", _command("Not measured yet:", command))
    rows = [
        [
            one.runtime,
            str(one.batch),
            one.network,
            f"{one.time.median:.2f}",
            f"{one.time.low:.2f}-{one.time.high:.2f}",
            f"{one.speedup:.2f}x",
            f"{one.images_per_second:,.0f}",
            f"{one.file_bytes / 1e6:.2f}",
        ]
        for one in run.measured.measurements
    ]
    heads = ["runtime", "batch", "network", "median [ms]", "quartiles [ms]", "faster"]
    heads += ["images/s", "file [MB]"]
    return section(
        "Time", element("p", describe(run.measured)), table(heads, rows, (1, 3, 4, 5, 6, 7))
    )


def accuracy(run: RunFacts) -> Html:
    """Show the accuracy on labelled images, which the search never saw, or how to test it."""
    if not run.networks:
        return Html("")
    if not run.accuracy:
        if run.options is None:
            return Html("")
        data = f" --data {run.data}" if run.data else ""
        command = f"lfgcl evaluate {shlex.quote(str(run.folder))}{data}{run.options}"
        return section("Accuracy", _command("Not tested yet:", command))
    whole, *_ = run.accuracy.networks
    rows = [
        [one.network, f"{one.top1:.2f} %", f"{one.top1 - whole.top1:+.2f}" if place else ""]
        for place, one in enumerate(run.accuracy.networks)
    ]
    text = (
        f"{run.accuracy.data}, {run.accuracy.images:,} labelled images, which search and repair "
        "never saw."
    )
    return section(
        "Accuracy",
        element("p", text),
        table(["network", "top-1", "change"], rows, (1, 2)),
    )


def use(run: RunFacts) -> Html:
    """Say how to load and export what was found."""
    if not run.networks or run.header is None:
        return Html("")
    file = run.networks[-1]
    imported, network = _builder(run.header["network"], run.header["arguments"])
    lines = [
        "import lfgcl_env",
        *imported,
        "",
        f"network = lfgcl_env.load_pruned({str(file)!r}{network and ', '}{network})",
    ]
    parts = [
        element("p", "A smaller torch.nn.Module:"),
        element("pre", element("code", "\n".join(lines))),
    ]
    if run.options is not None:
        target = shlex.quote(str(file if run.sweep else run.folder))
        command = f"lfgcl export {target}{run.options}"
        parts.append(_command("A file for ONNX Runtime:", command))
    return section("Load and export", *parts)


def _builder(name: str | None, arguments: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the import and the expression that make the unpruned network, where one is needed."""
    if name is None:
        return [], "YOUR_NETWORK"
    if not names_code(name):
        return [], ""
    module, _, function = name.partition(":")
    imported = [f"from {module} import {function.partition('.')[0]}"]
    given = f"(**{dict(arguments)!r})" if arguments else ""
    return imported, f"{function}{given}"


def circumstances(run: RunFacts) -> Html:
    """Show what is needed to make the run again."""
    known: Mapping[str, Any] = run.described
    named = ("command", "commit", "platform", "processor", "cores", "threads", "device")
    facts = [[name, str(known[name])] for name in named if known.get(name) is not None]
    facts += [[name, version] for name, version in known.get("versions", {}).items()]
    asked = [[name, _plain(value)] for name, value in sorted(run.asked.items())]
    return section(
        "How it was made",
        element("details", element("summary", "Arguments"), table(["argument", "value"], asked)),
        element(
            "details", element("summary", "Command, versions, machine"), table(["", ""], facts)
        ),
    )


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 400 else f"{text[:400]}…"


def _command(before: str, command: str) -> Html:
    return element("p", before, " ", element("code", command))


SECTIONS: Sequence[Callable[[RunFacts], Html]] = (
    *(headline, result, search, sensitivity, channels, shortlist),
    *(latency, accuracy, use, circumstances),
)
"""In the order of the page."""
