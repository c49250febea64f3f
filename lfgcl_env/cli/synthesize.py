"""``lfgcl synthesize``: calibration images from a network alone."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lfgcl_env.cli.outcome import Outcome
from lfgcl_env.cli.targets import load_network
from lfgcl_env.images import write_sheet
from lfgcl_env.images.image_sheet import SUFFIX
from lfgcl_env.images.synthetic import RECIPE, check_statistics
from lfgcl_env.images.synthetic_batches import batch_files, provenance, synthetic_pixels


def synthesize(arguments: dict[str, Any]) -> Outcome:
    """Make images and write them as a sheet; finished batches wait beside it until it is there.

    Raises:
        FileExistsError: if the sheet is there already.
        KeyboardInterrupt: with a sentence that says how to go on.
    """
    out, seed, count = Path(arguments["out"]), arguments["seed"], arguments["count"]
    if out.suffix != SUFFIX:
        raise ValueError(f"--out {str(out)!r} is no PNG file: give a name that ends with {SUFFIX}")
    if out.exists():
        raise FileExistsError(f"{str(out)!r} exists: delete it, or give another --out")
    torch.set_num_threads(arguments["threads"])
    baseline = load_network(arguments)
    check_statistics(baseline)
    recipe = replace(RECIPE, steps=arguments["steps"])
    folder = out.with_name(f"{out.name}.batches")
    folder.mkdir(parents=True, exist_ok=True)  # not only after minutes of work
    batches = batch_files(folder, count, recipe)
    try:
        pixels = synthetic_pixels(
            baseline, count, folder, seed=seed, recipe=recipe, device=arguments["device"]
        )
    except KeyboardInterrupt:
        finished = sum(path.exists() for path in batches)
        raise KeyboardInterrupt(
            f"interrupted after {finished} of {len(batches)} batches: the same command goes on"
        ) from None
    write_sheet(out, pixels, provenance(baseline, seed, recipe))
    for path in batches:
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
    print(f"{out}  {count} images, {out.stat().st_size:,} bytes")
    print(
        f"next: lfgcl prune {shlex.quote(arguments['network'])}{_options(arguments)} "
        f"--images {shlex.quote(str(out))} --out runs/synthetic"
    )
    return {"file": str(out), "images": count, "bytes": out.stat().st_size}


def _options(arguments: dict[str, Any]) -> str:
    """Return the options by which ``lfgcl prune`` gets the same network."""
    weights, shape = arguments["weights"], arguments["input_shape"]
    given = {"weights": weights, "seed": arguments["seed"] if weights == "random" else None}
    given["network-arguments"] = arguments["network_arguments"] and json.dumps(
        arguments["network_arguments"]
    )
    given["input-shape"] = shape and ",".join(map(str, shape))
    given["normalization"] = arguments["normalization"] and "/".join(
        ",".join(map(str, numbers)) for numbers in arguments["normalization"]
    )
    return "".join(
        f" --{name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None
    )
