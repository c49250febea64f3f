"""The parts of a run's page; each is empty where the run knows nothing of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lfgcl_env.page.charts import Line, bar, chart
from lfgcl_env.page.markup import Html, element, section, table
from lfgcl_env.page.networks_found import accuracy, exported, latency, recovery, use
from lfgcl_env.page.overview import METRIC_TITLES, headline, judged_by, result
from lfgcl_env.page.run_facts import RunFacts
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.delivered_network import DELIVERIES
from lfgcl_env.runs.problem_file import PrunedGroup

_NAMED_CURVES = 5
_CIRCLES = 1000
"""Dots of a chart at most."""


def search(run: RunFacts) -> Html:
    """Draw the rewards in the order of the search, or against costs on a range of budgets."""
    if not run.records:
        return Html("")
    if run.ranged:
        metric = str(run.asked.get("budget_metric", "macs"))
        points = run.sweep["points"] if run.sweep else []
        if metric in ("macs", "params"):
            x = f"share of {METRIC_TITLES[metric]}"
            tried = [(getattr(r.evaluation, f"{metric}_ratio"), r.reward) for r in run.records]
            kept = [(p["searched"][f"{metric}_ratio"], p["reward"]) for p in points]
        else:
            x = f"budget of {METRIC_TITLES.get(metric, metric)}"
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
    text = (
        f"Rewards of {_counted(len(rewards))} in {_duration(run.records[-1].seconds)} "
        f"(grey{every}), and the best so far."
    )
    return section("Search", element("p", text), chart(lines, "evaluation", "reward"))


def _counted(strategies: int) -> str:
    """Say how many strategies.

    >>> _counted(1), _counted(1200)
    ('1 strategy', '1,200 strategies')
    """
    return f"{strategies:,} {'strategy' if strategies == 1 else 'strategies'}"


def _duration(seconds: float) -> str:
    """Say how long it took.

    >>> _duration(2.4), _duration(119.0), _duration(9000.0)
    ('2.4 seconds', '119 seconds', '150 minutes')
    """
    if seconds < 120:
        return f"{seconds:.1f} seconds" if seconds < 10 else f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes"


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
        timed = any(p["predicted_ms"] for p in run.sweep["points"])
        rows = [
            [
                label(p["budget"]),
                f"{p['searched']['macs']:,}",
                f"{p['searched']['macs_ratio']:.1%}",
                f"{p['searched']['params_ratio']:.1%}",
                *([_share(p["predicted_ms"]), _measured_share(p)] if timed else []),
                f"{p['reward']:.4f}",
                _score(p["shortlist"][0]["score"] if p["shortlist"] else None),
                p["origin"],
                p["delivery"],
            ]
            for p in run.sweep["points"]
        ]
        times = ["time left, predicted", "measured"] if timed else []
        heads = ["budget", "MACs", "MACs left", "params left", *times, "reward", "delivered"]
        made = {p["delivery"] for p in run.sweep["points"]}
        texts = [f"{word}: the network {DELIVERIES[word]}." for word in DELIVERIES if word in made]
        return section(
            "Networks of the sweep",
            table([*heads, "origin", "handed over"], rows, range(1, len(heads))),
            *(element("p", text, class_="quiet") for text in texts),
        )
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
        f"{judged_by(run)}; the first was then repaired thoroughly. What is handed over is the "
        f"network {DELIVERIES[run.best.delivery]}."
    )
    heads = ["", "origin", "MACs left", "params left", "reward in the search", "as repaired"]
    return section("Shortlist", element("p", text), table(heads, rows, (2, 3, 4, 5)))


def _measured_share(point: Mapping[str, Any]) -> str:
    return _share([one["median"] for one in point["measured_ms"] or []])


def _share(times: Sequence[float] | None) -> str:
    return f"{times[1] / times[0]:.1%}" if times else "-"


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


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


SECTIONS: Sequence[Callable[[RunFacts], Html]] = (
    *(headline, result, search, sensitivity, channels, shortlist),
    *(recovery, latency, accuracy, exported, use, circumstances),
)
"""In the order of the page."""
