"""``lfgcl evaluate``: accuracy on labelled test images, which the search never saw."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lfgcl_env.cli.targets import check_device
from lfgcl_env.cli.text import METRIC_NAMES, columns
from lfgcl_env.images import LabelledImages, load_test_set, top1
from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.pruning import load_pruned
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.runs.run_folder import PRUNED, RunFolder
from lfgcl_env.search.sweep_files import network_file, read_sweep, write_accuracy


def evaluate(arguments: dict[str, Any]) -> None:
    """``lfgcl evaluate``: accuracy of a network, or of a whole sweep.

    Args:
        arguments: those that were given.
    """
    path = Path(arguments["run"])
    device = check_device(arguments["device"])
    seed, budgets = 0, []
    if path.is_dir():
        run = RunFolder(path)
        seed = run.described()["arguments"].get("seed", 0) if run.begun else 0
        budgets = _budgets(run)
    networks = pruned_networks(path, budgets)
    baseline = _baseline(networks[0].pruned_structure, seed)  # type: ignore[arg-type]
    tell_accuracy(path, budgets, networks, baseline, fitting_test_set(arguments, baseline), device)


def pruned_networks(path: Path, budgets: Sequence[float]) -> list[nn.Module]:
    """Load the networks of a sweep, or without budgets the one of a run folder or file.

    Raises:
        FileNotFoundError, ValueError: see :func:`~lfgcl_env.pruning.load_pruned`.
    """
    files = [path / network_file(b) for b in budgets] or [path / PRUNED if path.is_dir() else path]
    return [load_pruned(file) for file in files]


def tell_accuracy(
    path: Path,
    budgets: Sequence[float],
    networks: Sequence[nn.Module],
    baseline: Baseline,
    test_set: LabelledImages,
    device: str,
) -> None:
    """Print the accuracy of pruned networks beside their baseline's, and write that of a sweep.

    Args:
        path: of the run folder, or of the pruned network's file.
        budgets: of the sweep; empty for a single network.
        networks: see :func:`pruned_networks`.
        baseline: what they were pruned from.
        test_set: images and labels.
        device: where to compute.
    """
    before = top1(baseline.network, test_set, device=device)
    after = [top1(network, test_set, device=device) for network in networks]
    print(f"{test_set.name}: {len(test_set.images):,} images")
    structures: list[dict[str, Any]] = [network.pruned_structure for network in networks]  # type: ignore[misc]
    costs = [structure["evaluation"] for structure in structures]
    if not budgets:
        _print_one(before, after[0], costs[0])
        return
    rows = _rows(budgets, before, after, costs)
    _print_sweep(rows)
    for written in write_accuracy(path, rows, test_set.name):
        print(written)


def _budgets(run: RunFolder) -> list[float]:
    """Budgets of a run's sweep; none for a run on one budget.

    Raises:
        FileNotFoundError: if the run has not ended.
    """
    sweep = read_sweep(run.path)
    ended = (run.path / PRUNED).exists() or not run.begun
    if sweep:
        ended = len(sweep["points"]) == len(sweep["budgets"])
    if not ended:
        raise FileNotFoundError(
            f"the search in {run.path} has not ended: `lfgcl prune --resume --out {run.path}` "
            "goes on with it"
        )
    return list(sweep["budgets"]) if sweep else []


def _baseline(structure: Mapping[str, Any], seed: int) -> Baseline:
    return load_baseline(
        structure["network"],
        structure["weights"],
        input_shape=structure["input_shape"],
        normalization=structure["normalization"],
        seed=seed,
        **structure["arguments"],
    )


def fitting_test_set(arguments: Mapping[str, Any], baseline: Baseline) -> LabelledImages:
    """The labelled images that were asked for, if the network takes them.

    Args:
        arguments: ``data``, ``data_root`` and ``download``.
        baseline: the network.

    Raises:
        ValueError: if it takes other images, or tells another number of classes apart.
        FileNotFoundError: if the data set is missing; the message says how to get it.
    """
    test_set = load_test_set(
        arguments["data"],
        normalization=baseline.normalization,
        root=arguments["data_root"],
        download=arguments["download"],
    )
    shape, classes = tuple(test_set.images.shape[1:]), int(test_set.labels.max()) + 1
    if (shape, classes) != (baseline.input_shape, baseline.num_classes):
        raise ValueError(
            f"{arguments['data']} has images {shape} of {classes} classes, and the network takes "
            f"{baseline.input_shape} and tells {baseline.num_classes} classes apart"
        )
    return test_set


def _whole(cost: Mapping[str, Any]) -> dict[str, int]:
    """The baseline's costs from those of a pruned network."""
    return {metric: round(cost[metric] / cost[f"{metric}_ratio"]) for metric in METRIC_NAMES}


def _print_one(before: float, after: float, cost: Mapping[str, Any]) -> None:
    whole = _whole(cost)
    print(f"{'':10}{'baseline':>14}{'pruned':>14}")
    print(f"{'top-1':10}{before:>12.2f} %{after:>12.2f} %{after - before:>+10.2f}")
    for metric, name in METRIC_NAMES.items():
        print(f"{name:10}{whole[metric]:>14,}{cost[metric]:>14,}{cost[f'{metric}_ratio']:>10.1%}")


def _rows(
    budgets: Sequence[float],
    before: float,
    after: Sequence[float],
    costs: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The baseline, then every budget."""
    whole = _whole(costs[0]) | {"macs_ratio": 1.0, "params_ratio": 1.0}
    names = ["baseline", *map(network_file, budgets)]
    return [
        {
            "network": name,
            "budget": budget,
            "top1": round(top, 4),
            "top1_change": round(top - before, 4),
            **{key: cost[key] for key in ("macs", "macs_ratio", "params", "params_ratio")},
        }
        for name, budget, top, cost in zip(
            names, [1.0, *budgets], [before, *after], [whole, *costs], strict=True
        )
    ]


def _print_sweep(rows: Sequence[Mapping[str, Any]]) -> None:
    cells = [["budget", "top-1", "", "MACs", "", "params", ""]]
    for place, row in enumerate(rows):
        cells.append(
            [
                label(row["budget"]) if place else "baseline",
                f"{row['top1']:.2f} %",
                f"{row['top1_change']:+.2f}" if place else "",
                f"{row['macs']:,}",
                f"{row['macs_ratio']:.1%}",
                f"{row['params']:,}",
                f"{row['params_ratio']:.1%}",
            ]
        )
    for line in columns(cells):
        print(line)
