"""``lfgcl evaluate``: costs, and accuracy on labelled test images, which the search never saw."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from lfgcl_env.cli.outcome import Outcome
from lfgcl_env.cli.pruned_files import (
    budgets_of_run,
    load_unpruned,
    own_builder,
    pruned_networks,
)
from lfgcl_env.cli.text import METRIC_NAMES, columns
from lfgcl_env.edge.progress import progress
from lfgcl_env.images import LabelledImages, load_test_set, top1
from lfgcl_env.images.datasets import dataset_for
from lfgcl_env.networks import Baseline
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.repair.fused_forward import fused
from lfgcl_env.runs.accuracy_file import write_accuracy_file
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.sweep_files import network_file, write_accuracy

_log = logging.getLogger(__name__)


def evaluate(arguments: dict[str, Any]) -> Outcome:
    """Print the costs and the accuracy of a network, or of a whole sweep.

    A network without classes has no accuracy, and needs no test images; one that no known data set
    fits is measured on none.

    Args:
        arguments: all of the command's.

    Raises:
        ValueError: if a file names code that is not trusted, or the images do not fit or are
            needed and not named.
        FileNotFoundError: if a network or the data set is missing.
    """
    path = Path(arguments["run"])
    seed, budgets = 0, []
    if path.is_dir():
        run = RunFolder(path)
        seed = run.asked().get("seed", 0) if run.begun else 0
        budgets = budgets_of_run(run)
    builder = own_builder(arguments)
    networks = pruned_networks(path, budgets, builder)
    baseline = load_unpruned(networks[0].pruned_structure, builder, seed)  # type: ignore[arg-type]
    if baseline.num_classes is None:
        print(f"{baseline.title} returns no scores of classes, so it has no accuracy")
        return _costs(budgets, networks)
    if arguments["data"] is None:
        fitting = dataset_for(baseline.input_shape, baseline.num_classes)
        if fitting:
            raise ValueError(
                f"{baseline.title} has {baseline.num_classes} classes: give --data {fitting} to "
                "measure its accuracy"
            )
        print(
            f"no accuracy was measured: no known data set has inputs {baseline.input_shape} of "
            f"{baseline.num_classes} classes"
        )
        return _costs(budgets, networks)
    test_set = fitting_test_set(arguments, baseline)
    return print_accuracy(path, budgets, networks, baseline, test_set, arguments["device"])


def _costs(budgets: Sequence[float], networks: Sequence[nn.Module]) -> Outcome:
    """Print costs alone."""
    rows = _print_results(budgets, networks, None)
    return {"data": None, "images": None, "networks": rows}


def print_accuracy(
    path: Path,
    budgets: Sequence[float],
    networks: Sequence[nn.Module],
    baseline: Baseline,
    test_set: LabelledImages,
    device: str,
    stated: float | None = None,
) -> Outcome:
    """Print the accuracy of pruned networks beside their baseline's, and write that of a sweep.

    Args:
        path: of the run folder, or of the pruned network's file.
        budgets: of the sweep; empty for a single network.
        networks: see :func:`pruned_networks`.
        baseline: what they were pruned from.
        test_set: images and labels.
        device: where to compute.
        stated: the baseline's top-1 [%]; None measures it.

    Returns:
        The test set, a row for every network, and whether the baseline's accuracy was stated.
    """
    if stated is None:
        top1s = top1_of_all((baseline.network, *networks), test_set, device)
    else:
        top1s = [stated, *top1_of_all(networks, test_set, device)]
    print(f"{test_set.name}: {len(test_set.images):,} images")
    rows = _print_results(budgets, networks, top1s)
    if path.is_dir():
        structures: list[Any] = [network.pruned_structure for network in networks]
        tensors = [structure["tensors"] for structure in structures]
        try:
            with RunFolder(path).lock():
                write_accuracy_file(
                    path, test_set.name, len(test_set.images), tensors, rows,
                    stated=stated is not None,
                )  # fmt: skip
                written = write_accuracy(path, rows, test_set.name) if budgets else []
        except (OSError, ValueError) as error:  # what took minutes to find is returned all the same
            _log.warning("the accuracy is not kept in the run folder: %s", error)
        else:
            for file in written:
                print(file)
    return {
        "data": test_set.name,
        "images": len(test_set.images),
        "networks": rows,
        "stated": stated is not None,
    }


def _print_results(
    budgets: Sequence[float], networks: Sequence[nn.Module], top1s: Sequence[float] | None
) -> list[dict[str, Any]]:
    """Print a table of one network, or of a sweep.

    Args:
        budgets: of the sweep; empty for a single network.
        networks: the pruned ones.
        top1s: of the baseline and of these [%]; None where there are no classes.

    Returns:
        A row for the baseline, then one for every network.
    """
    structures: list[dict[str, Any]] = [network.pruned_structure for network in networks]  # type: ignore[misc]
    rows = _rows(budgets or [1.0], top1s, [structure["evaluation"] for structure in structures])
    if budgets:
        _print_sweep(rows)
    else:
        _print_one(*rows)
    return rows


def top1_of_all(
    networks: Sequence[nn.Module], test_set: LabelledImages, device: str = "cpu"
) -> list[float]:
    """Measure the top-1 of networks [%], in the fastest way that the device has."""
    found: list[float] = []
    with progress("testing", "image") as advance:
        for network in networks:
            before, every = len(found) * len(test_set.images), len(networks)

            def passed(done: int, total: int, before: int = before, every: int = every) -> None:
                advance(before + done, every * total)

            with fused(network) if device == "cpu" else nullcontext():
                found.append(top1(network, test_set, device=device, progress=passed))
    return found


def fitting_test_set(arguments: Mapping[str, Any], baseline: Baseline) -> LabelledImages:
    """Load the labelled images that were asked for, if the network takes them.

    Args:
        arguments: ``data``, ``data_root`` and ``download``.
        baseline: the network.

    Raises:
        ValueError: if it takes other images, or has another number of classes.
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
            f"{baseline.input_shape} and has {baseline.num_classes} classes"
        )
    return test_set


def _whole(cost: Mapping[str, Any]) -> dict[str, int]:
    """Return the baseline's costs, computed from those of a pruned network."""
    return {metric: round(cost[metric] / cost[f"{metric}_ratio"]) for metric in METRIC_NAMES}


def _print_one(whole: Mapping[str, Any], pruned: Mapping[str, Any]) -> None:
    rows = [["", "baseline", "pruned", ""]]
    if "top1" in pruned:
        before, after = (f"{row['top1']:.2f} %" for row in (whole, pruned))
        rows.append(["top-1", before, after, f"{pruned['top1_change']:+.2f}"])
    rows += [
        [name, f"{whole[key]:,}", f"{pruned[key]:,}", f"{pruned[f'{key}_ratio']:.1%}"]
        for key, name in METRIC_NAMES.items()
    ]
    _print_table(rows)


def _rows(
    budgets: Sequence[float],
    top1s: Sequence[float] | None,
    costs: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return a row for the baseline, then one for every budget."""
    whole = _whole(costs[0]) | {"macs_ratio": 1.0, "params_ratio": 1.0}
    names = ["baseline", *(map(network_file, budgets) if len(budgets) > 1 else ["pruned"])]
    rows: list[dict[str, Any]] = []
    for place, (name, budget, cost) in enumerate(
        zip(names, [1.0, *budgets], [whole, *costs], strict=True)
    ):
        row: dict[str, Any] = {"network": name}
        row |= {"budget": budget} if len(budgets) > 1 else {}
        if top1s is not None:
            change = top1s[place] - top1s[0]
            row |= {"top1": round(top1s[place], 4), "top1_change": round(change, 4)}
        kept = ("macs", "macs_ratio", "params", "params_ratio")
        rows.append(row | {key: cost[key] for key in kept})
    return rows


def _print_sweep(rows: Sequence[Mapping[str, Any]]) -> None:
    known = "top1" in rows[0]
    heads = ["budget", *["top-1", ""] * known, "MACs", "", "params", ""]
    cells = [heads]
    for place, row in enumerate(rows):
        line = [label(row["budget"]) if place else "baseline"]
        if known:
            line += [f"{row['top1']:.2f} %", f"{row['top1_change']:+.2f}" if place else ""]
        for metric in ("macs", "params"):
            line += [f"{row[metric]:,}", f"{row[f'{metric}_ratio']:.1%}"]
        cells.append(line)
    _print_table(cells)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print a table of numbers; the first column holds their names."""
    for line in columns(rows, ["left", *["right"] * (len(rows[0]) - 1)]):
        print(line)
