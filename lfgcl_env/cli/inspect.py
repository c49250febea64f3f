"""``lfgcl inspect``: what can be pruned of a network, how far, and how it can be repaired."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lfgcl_env.cli.colour import paint
from lfgcl_env.cli.outcome import Outcome
from lfgcl_env.cli.targets import config_of, load_network, named
from lfgcl_env.cli.text import METRIC_NAMES, columns, described
from lfgcl_env.config import StructureConfig, complete, part
from lfgcl_env.pruning import METRICS, REPAIRS, SCOPES, Group, PrunableNetwork
from lfgcl_env.pruning.moments.second_moments import LARGEST, large_layers
from lfgcl_env.pruning.repair.cut_graph import find_obstacle
from lfgcl_env.pruning.structure.cost import TIMED
from lfgcl_env.pruning.structure.scope import COUPLED


def show_network(arguments: dict[str, Any]) -> Outcome:
    """Print groups, costs, limits, lowest budgets, repairs, and what is not pruned."""
    environment = named(arguments["network"])["environment"]
    kind = config_of(environment)
    given = part(StructureConfig, arguments)
    config = part(StructureConfig, complete(kind, given, environment))
    baseline = load_network(arguments)
    network = PrunableNetwork(baseline, **config)
    cost = network.baseline_cost
    saved = {metric: _saved(network, metric) for metric in _METRICS}
    _print(_groups(network, saved["macs"]))
    print(f"\n{len(network.groups)} groups, {described(baseline)}")
    print(f"MACs {cost.macs:,} for one input of {baseline.input_shape}, params {cost.params:,}")
    limits = {"protect": network.protect, **vars(network.limits)}
    print("limits: " + ", ".join(f"{name} {_text(limit)}" for name, limit in limits.items()))
    by_scope = _by_scope(network, config)
    lowest = _lowest(network, by_scope)
    _section("lowest budgets", _lowest_rows(network, lowest))
    repairs = _repairs(network)
    _section(
        "repairs before scoring",
        [[name, f"does not work: {why}" if why else "works"] for name, why in repairs.items()],
    )
    obstacle = find_obstacle(network)
    if obstacle is not None:
        _section("repair of what is handed over", [["from module calls", obstacle]])
    large = [[name, f"{n:,}"] for name, n in large_layers(baseline.network, network.plan).items()]
    _section(
        f"repaired by their means alone before scoring: over {LARGEST:,} patch features", large
    )
    left = _left(network, by_scope)
    _section("not pruned", left)
    return {
        "network": baseline.title,
        "weights": baseline.weights,
        "input_shape": list(baseline.input_shape) if baseline.input_shape else None,
        "macs": cost.macs,
        "params": cost.params,
        "groups": [
            {
                "name": group.name,
                "channels": group.channels,
                "bundle": group.bundle,
                "fewest": int(network.rounding.fewest[index]),
                "step": int(network.rounding.round_to[index]),
                "saves": {metric: shares[index] for metric, shares in saved.items()},
                "layers": _layers_of(group),
            }
            for index, group in enumerate(network.groups)
        ],
        "limits": {name: str(limit) for name, limit in limits.items()},
        "scopes": {
            name: {"error": str(found)} if isinstance(found, ValueError) else found
            for name, found in lowest.items()
        },
        "repairs": repairs,
        "handed_over": {"repair": "by calls" if obstacle else "sequential", "why": obstacle},
        "not_pruned": [
            {"name": name, "channels": int(channels), "reason": reason}
            for name, channels, reason in left
        ],
    }


def _saved(network: PrunableNetwork, metric: str) -> list[float]:
    """Return the share of the baseline's cost that every group saves where it alone is pruned."""
    fewest, full = network.rounding.fewest, network.channels
    alone = np.where(np.eye(len(full), dtype=bool), fewest, full)
    whole = int(network.cost_model.many(full, metric))
    return [1 - int(cost) / whole for cost in network.cost_model.many(alone, metric)]


def _groups(network: PrunableNetwork, saved: Sequence[float]) -> list[list[str]]:
    """Return a row for each group: its channels, what pruning it alone can save, its layers.

    Channels that go in bundles are written as bundles times channels in each.
    """
    fewest, full = network.rounding.fewest, network.channels
    rows = [["group", "channels", "keeps", "saves MACs", "layers that change"]]
    for index, (group, share) in enumerate(zip(network.groups, saved, strict=True)):
        step = network.rounding.round_to[index]
        keeps = f"{fewest[index]} or more" + (f", by {step}" if step > 1 else "")
        if fewest[index] == full[index]:
            keeps = "all"
        changed = ", ".join(_layers_of(group))
        channels = str(group.channels) + (f" x {group.bundle}" if group.bundle > 1 else "")
        rows.append([group.name, channels, keeps, f"{share:.1%}", changed])
    return rows


def _layers_of(group: Group) -> list[str]:
    """Return the layers that change with a group."""
    sides = ("out", "through", "in")
    return list(dict.fromkeys(name for side in sides for name in group.layers(side)))


def _by_scope(
    network: PrunableNetwork, config: StructureConfig
) -> dict[str, PrunableNetwork | ValueError]:
    """Return the network under every scope, or why nothing of it can be pruned so."""
    found: dict[str, PrunableNetwork | ValueError] = {}
    for scope in SCOPES:
        try:
            same = scope == config["scope"]
            chosen: StructureConfig = {**config, "scope": scope}
            found[scope] = network if same else PrunableNetwork(network.baseline, **chosen)
        except ValueError as error:
            found[scope] = error
    return found


_METRICS = [metric for metric in METRICS if metric not in TIMED]


def _lowest(
    network: PrunableNetwork, by_scope: Mapping[str, PrunableNetwork | ValueError]
) -> dict[str, dict[str, Any] | ValueError]:
    """Return each scope's groups, and its lowest budgets but of what takes time."""
    return {
        scope: there
        if isinstance(there, ValueError)
        else {
            "groups": len(there.groups),
            **{metric: there.projection(metric).lowest for metric in _METRICS},
        }
        for scope, there in by_scope.items()
    }


def _lowest_rows(
    network: PrunableNetwork, lowest: Mapping[str, dict[str, Any] | ValueError]
) -> list[list[str]]:
    """Return a row for each scope."""
    rows = [["scope", "groups", *(METRIC_NAMES.get(metric, metric) for metric in _METRICS), ""]]
    for scope, found in lowest.items():
        if isinstance(found, ValueError):
            rows.append([scope, "0", *["-" for _ in _METRICS], str(found)])
            continue
        more = found["groups"] - len(network.groups)
        note = f"--scope {scope} prunes {more} more groups" if more > 0 else ""
        budgets = [f"{found[metric]:.4f}" for metric in _METRICS]
        rows.append([scope, str(found["groups"]), *budgets, note])
    return rows


def _left(
    network: PrunableNetwork, by_scope: Mapping[str, PrunableNetwork | ValueError]
) -> list[list[str]]:
    """Return a row for everything that is not pruned; what no scope prunes has its true reason."""
    reasons = {e.name: e.reason for e in network.excluded}
    for there in by_scope.values():
        if isinstance(there, PrunableNetwork):
            beyond = {e.name: e.reason for e in there.excluded}
            reasons |= {n: beyond[n] for n, r in reasons.items() if r == COUPLED and n in beyond}
    return [[e.name, str(e.channels), reasons[e.name]] for e in network.excluded]


def _repairs(network: PrunableNetwork) -> dict[str, str | None]:
    """Return why a repair does not work on the network, by its name; None where it does."""
    found: dict[str, str | None] = {}
    for name, kind in REPAIRS.items():
        try:
            kind().check(network.baseline.network)
            kind().check_cut(network)
            found[name] = None
        except ValueError as error:
            found[name] = str(error)
    return found


def _text(limit: Any) -> str:
    """Write a limit as it is given on the command line."""
    if not isinstance(limit, tuple):
        return str(limit)
    if not limit:
        return "nothing"
    return " ".join(one if isinstance(one, str) else f"{one[0]}={one[1]}" for one in limit)


def _section(title: str, rows: Sequence[Sequence[str]]) -> None:
    if rows:
        print(f"\n{paint(title, 'bold')}")
        _print(rows, indent="  ")


def _print(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    for line in columns(rows):
        print(f"{indent}{line}")
