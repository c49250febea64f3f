"""``lfgcl export``: a pruned network as a file that runs without this package."""

import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lfgcl_env.cli.evaluate import fitting_test_set, top1_of_all
from lfgcl_env.cli.int8_text import print_int8
from lfgcl_env.cli.outcome import Outcome
from lfgcl_env.cli.pruned_files import (
    check_target,
    file_of,
    images_for,
    keep_in_run,
    load_unpruned,
    name_in_run,
    own_builder,
    the_pruned_network,
)
from lfgcl_env.cli.targets import load_network
from lfgcl_env.edge.files import write_beside
from lfgcl_env.export import FORMATS, Comparison, OnnxNetwork, compare, export_network, quantize
from lfgcl_env.export.onnx_model import check_installed
from lfgcl_env.images import LabelledImages, TooFewImages
from lfgcl_env.images.calibration import DEFAULT_COUNT, MADE, load_calibration
from lfgcl_env.images.views import make_views
from lfgcl_env.networks import Baseline, Normalization
from lfgcl_env.networks.normalization import as_normalization
from lfgcl_env.networks.outputs import find_outputs
from lfgcl_env.runs.findings import add_export
from lfgcl_env.runs.run_folder import PRUNED, RunFolder

COMPARED = 2048
"""Images that int8 is compared on, where there are so many."""

COMPARED_NUMBERS = 2**24
"""Numbers in these images, beyond which there are fewer, but at least 256."""

_EXAMPLES = 8


@dataclass(frozen=True)
class _Source:
    """What is exported.

    Attributes:
        baseline: its network is the one that is exported, pruned or not.
        unpruned: loads what it was pruned from.
        place: the default file, without suffix.
        run: arguments of its run; empty without one.
        cost: MACs and parameters, if they are known.
        folder: the run that the network's file is of; None without one.
        file: of the network; None for a whole one by its name.
        tensors: checksum of the file's; None likewise.
    """

    baseline: Baseline
    unpruned: Any
    place: Path
    run: Mapping[str, Any]
    cost: Mapping[str, Any]
    folder: RunFolder | None = None
    file: Path | None = None
    tensors: str | None = None


def export(arguments: dict[str, Any]) -> Outcome:
    """Export a network, check the file, and print what it takes and returns.

    Args:
        arguments: all of the command's; those of images and of a network's name only where they
            are given.

    Raises:
        ValueError: if options do not fit each other, the network cannot be exported, or a file
            names code that is not trusted.
        FileNotFoundError: if the network or images are missing.
        FileExistsError: if the file is there already.
        ImportError: if the extra ``onnx`` is needed and missing.
    """
    int8, kind = arguments["int8"], arguments["format"]
    _check_options(arguments)
    if kind == "onnx":
        check_installed()
    source = _load(arguments)
    end = ("_int8" if int8 else "") + FORMATS[kind].suffix
    target = Path(arguments["output"] or f"{source.place}{end}")
    check_target(target)
    baseline = source.baseline
    normalization = baseline.normalization
    if arguments["fold_normalization"] and normalization is None:
        raise ValueError(
            f"the normalization of {baseline.title}'s inputs is not known, so it cannot be folded "
            "in: give --normalization M,M,M/S,S,S"
        )
    folded = normalization if arguments["fold_normalization"] else None
    takes = _describe_input(baseline, folded=folded is not None)
    test_set = _test_set(arguments, baseline, folded)
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        done = export_network(
            baseline.network,
            _examples(baseline, folded=folded is not None),
            whole if int8 else target,
            kind,
            normalization=folded,
            input_name=arguments["input_name"],
            output_names=arguments["output_names"],
            opset=arguments["opset"],
            facts={"network": baseline.title, "input": takes, **source.cost},
        )
        if int8:
            calibration, others = _images(source, arguments)
            if folded:
                calibration, others = folded.undo(calibration), folded.undo(others)
            quantized = quantize(whole, calibration, small, arguments["calibration"])
            found = compare(whole, small, others)
            models = [OnnxNetwork(one) for one in (whole, small)]
            top1s = top1_of_all(models, test_set) if test_set else None
            # Last, so that whatever fails leaves nothing in the way of the next try.
            write_beside(target, partial(shutil.copyfile, small))
    opset = f", opset {done.opset}" if done.opset else ""
    print(f"{target}  {target.stat().st_size:,} bytes{opset}")
    print(f"input   {done.input} {_shape(done.input_shape)}, float32, {takes}")
    for name, shape in done.outputs.items():
        print(f"output  {name} {_shape(shape)}")
    sizes = ", ".join(map(str, done.batches[:-1])) + f" and {done.batches[-1]}"
    print(
        f"{'its float model is ' if int8 else ''}equal to PyTorch to {done.error:.0e} in "
        f"{FORMATS[kind].runtime}, on batches of {sizes} images"
    )
    outcome: Outcome = {
        "file": str(target),
        "bytes": target.stat().st_size,
        "format": kind,
        "opset": done.opset,
        "input": {"name": done.input, "shape": list(done.input_shape), "takes": takes},
        "outputs": {name: list(shape) for name, shape in done.outputs.items()},
        "error": done.error,
        "batches": list(done.batches),
    }
    if int8:
        print_int8(found, len(calibration), quantized.calibration, top1s)
        outcome["int8"] = {
            **asdict(found),
            "calibrated": len(calibration),
            "calibration": quantized.calibration,
            "calibration_errors": {
                name: error if math.isfinite(error) else None
                for name, error in quantized.errors.items()
            },
            "top1": top1s,
        }
    if source.folder and source.file:
        fields = {
            **{name: outcome[name] for name in ("format", "opset", "bytes", "error")},
            "file": name_in_run(source.folder, target),
            "of": name_in_run(source.folder, source.file),
            "of_tensors": source.tensors,
            "takes": takes,
            "int8": (
                _stored(found, len(calibration), quantized.calibration, top1s) if int8 else None
            ),
        }
        keep_in_run(source.folder, partial(add_export, fields=fields))
    return outcome


def _stored(
    found: Comparison, calibrated: int, calibration: str, top1s: list[float] | None
) -> dict[str, Any]:
    """Return what int8 changes as a run's record has it."""
    return {
        "calibrated": calibrated,
        "calibration": calibration,
        "images": found.images,
        "float_bytes": found.bytes[0],
        "agreement": found.agreement,
        "error": found.error,
        "times": [
            {"images": size, "float_ms": slow, "int8_ms": fast}
            for size, (slow, fast) in found.milliseconds.items()
        ],
        "top1": top1s,
    }


def _check_options(arguments: Mapping[str, Any]) -> None:
    if arguments["int8"] and arguments["format"] != "onnx":
        raise ValueError(
            f"--int8 is quantised by ONNX Runtime: give --format onnx, not {arguments['format']}"
        )
    if not arguments["int8"]:
        for name in ("images", "num_images", "data", "calibration"):
            given = arguments.get(name)
            if given is not None and (name, given) != ("calibration", "auto"):
                raise ValueError(f"--{name.replace('_', '-')} is for --int8: add it, or leave both")


def _load(arguments: Mapping[str, Any]) -> _Source:
    """Load the network of a run folder, of a file, or of a name."""
    target = arguments["run"]
    path = Path(target)
    if not path.exists():
        if os.sep in target or path.suffix == ".safetensors":
            raise FileNotFoundError(f"there is no run folder and no pruned network at {target}")
        baseline = load_network({**arguments, "network": target})
        place = Path(re.sub(r"\W+", "_", baseline.title))
        return _Source(baseline, lambda: baseline, place, {}, {})
    for name in ("weights", "input_shape"):
        if name in arguments:
            raise ValueError(
                f"--{name.replace('_', '-')} is for a network's name, and {target} has its own"
            )
    builder = own_builder(arguments)
    network, run = the_pruned_network(path, builder)
    structure: dict[str, Any] = network.pruned_structure  # type: ignore[assignment]
    if structure["inputs"]:
        raise ValueError(
            f"the network in {path} takes several inputs, and only networks of one are exported: "
            "load it with lfgcl_env.load_pruned, and call torch.onnx.export(network, inputs, "
            "dynamo=True)"
        )
    asked = run.asked() if run else {}
    shape = tuple(structure["input_shape"])
    title = structure["network"] or type(network).__name__
    baseline = Baseline(
        network=network,
        name=structure["network"],
        arguments=structure["arguments"],
        input_shape=shape,
        outputs=find_outputs(network, shape, title),
        normalization=_normalization(path, structure["normalization"], arguments),
        weights=structure["weights"],
    )
    evaluation = structure.get("evaluation") or {}
    return _Source(
        baseline,
        partial(load_unpruned, structure, builder, asked.get("seed", 0)),
        path / Path(PRUNED).stem if path.is_dir() else path.with_suffix(""),
        asked,
        {name: evaluation[name] for name in ("macs", "params") if name in evaluation},
        run,
        file_of(path),
        structure["tensors"],
    )


def _normalization(
    path: Path, stored: Sequence[Sequence[float]] | None, arguments: Mapping[str, Any]
) -> Normalization | None:
    """Return the normalization of a file, or the one that is given where the file has none.

    Raises:
        ValueError: if they differ.
    """
    known, given = as_normalization(stored), as_normalization(arguments.get("normalization"))
    if known and given and known != given:
        raise ValueError(
            f"{path} takes inputs normalised by mean {known.mean} and std {known.std}: leave "
            "--normalization out"
        )
    return known or given


def _examples(baseline: Baseline, *, folded: bool) -> Tensor:
    """Return noise to check a file on: pixels, normalised if the network is to get them so."""
    draw = torch.Generator().manual_seed(0)
    if baseline.normalization is None:
        return torch.randn(_EXAMPLES, *baseline.input_shape, generator=draw)
    pixels = torch.rand(_EXAMPLES, *baseline.input_shape, generator=draw)
    return pixels if folded else baseline.normalization.apply(pixels)


def _images(source: _Source, arguments: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Load images to calibrate on, those of the run, and others to compare on."""
    run, baseline = source.run, source.baseline
    images = images_for(arguments, run, baseline)
    count = arguments.get("num_images", run.get("num_images", DEFAULT_COUNT))
    seed = run.get("seed", 0)
    load = partial(
        load_calibration,
        replace(baseline, network=source.unpruned().network) if images == "synthetic" else baseline,
        images,
        seed=seed,
        root=arguments["data_root"] or run.get("data_root"),
        download=arguments["download"],
    )
    calibration = load(count)
    wanted = min(COMPARED, max(COMPARED_NUMBERS // math.prod(baseline.input_shape), DEFAULT_COUNT))
    if images not in MADE:
        try:
            return calibration, load(len(calibration) + wanted)[len(calibration) :]
        except TooFewImages:
            pass
    return calibration, make_views(calibration, min(wanted, 4 * len(calibration)), seed + 1)


def _test_set(
    arguments: Mapping[str, Any], baseline: Baseline, folded: Normalization | None
) -> LabelledImages | None:
    """Load labelled test images as the file takes them, if they are asked for."""
    if arguments["data"] is None:
        return None
    found = fitting_test_set(dict(arguments), baseline)
    pixels = folded.undo(found.images) if folded else found.images
    return LabelledImages(pixels, found.labels, found.name)


def _describe_input(baseline: Baseline, *, folded: bool) -> str:
    """Say what the file takes."""
    normalization = baseline.normalization
    if normalization is None:
        return "as the network takes it"
    channels = {1: "grey ", 3: "RGB "}.get(len(normalization.mean), "")
    if folded:
        return f"{channels}pixels from 0 to 1"
    numbers = ["/".join(f"{n:g}" for n in part) for part in (normalization.mean, normalization.std)]
    return f"{channels}pixels from 0 to 1 normalised by mean {numbers[0]} and std {numbers[1]}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['batch', *map(str, shape)])})"
