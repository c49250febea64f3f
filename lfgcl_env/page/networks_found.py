"""The parts of a run's page on its networks: times, accuracy, recovery, and how to use them."""

import shlex
from collections.abc import Mapping
from typing import Any

from lfgcl_env.edge.named_code import names_code
from lfgcl_env.page.charts import Line, chart
from lfgcl_env.page.markup import Html, element, section, table
from lfgcl_env.page.run_facts import RunFacts
from lfgcl_env.runs.commands import recover_command
from lfgcl_env.runs.exports import describe_int8
from lfgcl_env.runs.measured import describe
from lfgcl_env.runs.recoveries import describe_change, describe_training


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
    if run.accuracy.stated:
        text += " The baseline's accuracy is the one stated with its weights."
    return section(
        "Accuracy",
        element("p", text),
        table(["network", "top-1", "change"], rows, (1, 2)),
    )


def recovery(run: RunFacts) -> Html:
    """Show what training brought afterwards, or how to train."""
    if not run.networks:
        return Html("")
    if not run.recoveries:
        if run.options is None:
            return Html("")
        target = run.networks[-1] if run.sweep else run.folder
        command = recover_command(target, run.asked, run.options)
        return section("Recovery", _command("Not recovered yet:", command)) if command else Html("")
    rows = [
        [
            one.of,
            one.file if one.used else f"{one.file} (not written: not better)",
            describe_change(one.score, one.before, one.after),
            describe_training(one),
        ]
        for one in run.recoveries
    ]
    last = run.recoveries[-1]
    scores: list[tuple[float, float]] = [(0, last.before)]
    scores += [(n, e.score) for n, e in enumerate(last.epochs, start=1)]
    lines = [Line("after every epoch", scores, "line", "strong")]
    return section(
        "Recovery",
        table(["network", "recovered", "score", "training"], rows),
        element("p", f"The score of {last.file} after every epoch:"),
        chart(lines, "epoch", last.score),
    )


def exported(run: RunFacts) -> Html:
    """Show the files that were exported, and what int8 changes."""
    if not run.exports:
        return Html("")
    rows = [
        [
            one.file,
            one.of,
            f"{one.format}{f', opset {one.opset}' if one.opset else ''}",
            f"{one.bytes / 1e6:.2f}",
            one.takes,
        ]
        for one in run.exports
    ]
    heads = ["file", "network", "format", "size [MB]", "takes"]
    parts = [table(heads, rows, (3,))]
    for one in run.exports:
        if one.int8:
            text = (
                f"{one.file} beside its float model: calibrated on {one.int8.calibrated:,} images "
                f"({one.int8.calibration}), compared on {one.int8.images:,} others."
            )
            changes = table(["", "float", "int8"], describe_int8(one.int8, one.bytes), (1, 2))
            parts += [element("p", text), changes]
    return section("Exported files", *parts)


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


def _command(before: str, command: str) -> Html:
    return element("p", before, " ", element("code", command))
