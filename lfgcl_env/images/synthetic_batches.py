"""Synthetic images on disk: finished batches are kept, reused and added to."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lfgcl_env.images.image_sheet import read_sheet, write_sheet
from lfgcl_env.images.synthetic import RECIPE, Recipe, check_statistics, synthesize_batch
from lfgcl_env.networks import Baseline
from lfgcl_env.networks.state_dicts import state_sha256


def synthetic_pixels(
    baseline: Baseline,
    count: int,
    folder: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    device: str = "cpu",
) -> Tensor:
    """Make images from a network, or read those batches that were made before.

    A bar on standard error shows the steps if there are any to take. Of fewer images, more images
    are a continuation.

    Args:
        baseline: what the images are made from.
        count: images wanted; they are made in whole batches.
        folder: of finished batches, which is made; by default in the user's cache, see
            :func:`cache_folder`. If it cannot be written, a warning says so.
        seed: of the images.
        recipe: how they are made; by default :data:`RECIPE`.
        device: where to compute.

    Returns:
        (count, channels, height, width), uint8.

    Raises:
        ValueError: if the network has no BatchNorm statistics, or ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f"{count!r} images were asked for: give a positive whole number")
    check_statistics(baseline)
    recipe = recipe or RECIPE
    made_by = provenance(baseline, seed, recipe)
    folder = cache_folder(made_by) if folder is None else Path(folder)
    paths = batch_files(folder, count, recipe)
    batches = [_finished(path, made_by, index) for index, path in enumerate(paths)]
    missing = [index for index, batch in enumerate(batches) if batch is None]
    with _bar(len(missing), recipe) as bar:
        for index in missing:
            batch = synthesize_batch(
                baseline, index, seed=seed, recipe=recipe, device=device, progress=bar.update
            )
            _keep(paths[index], batch, {**made_by, "batch": str(index)})
            batches[index] = batch
    return torch.cat([batch for batch in batches if batch is not None])[:count]


def provenance(baseline: Baseline, seed: int, recipe: Recipe) -> dict[str, str]:
    """All that decides what the images are, as text by name."""
    from lfgcl_env import __version__

    known = baseline.normalization
    return {
        "software": f"lfgcl-env {__version__}",
        "network": baseline.name or type(baseline.network).__name__,
        "weights": baseline.weights,
        "weights_sha256": state_sha256(baseline.network.state_dict()),
        "input_shape": "x".join(map(str, baseline.input_shape)),
        "normalization": f"{known.mean} {known.std}" if known else "none",
        "seed": str(seed),
        **{f"recipe_{name}": str(value) for name, value in asdict(recipe).items()},
    }


def cache_folder(made_by: dict[str, str]) -> Path:
    """Where batches are kept for a user: below ``LFGCL_CACHE``, else ``~/.cache/lfgcl``.

    The folder is named after the network, and after a hash of all that decides the images.
    """
    import hashlib

    # The same weights from another file are the same weights.
    deciding = {name: value for name, value in made_by.items() if name != "weights"}
    key = hashlib.sha256(repr(sorted(deciding.items())).encode()).hexdigest()[:16]
    root = Path(os.environ.get("LFGCL_CACHE") or "~/.cache/lfgcl").expanduser()
    name = "".join(c if c.isalnum() else "-" for c in made_by["network"])
    return root / "synthetic" / f"{name}-{key}"


def batch_files(folder: Path, count: int, recipe: Recipe) -> list[Path]:
    """The files of the batches that ``count`` images take, whether they are there or not."""
    return [folder / f"{index:05d}.png" for index in range(-(-count // recipe.batch))]


def _finished(path: Path, made_by: dict[str, str], index: int) -> Tensor | None:
    """A batch from its file; None if that is missing, damaged, or made in another way."""
    try:
        pixels, texts = read_sheet(path)
    except (ValueError, OSError):
        return None
    wanted = {**made_by, "batch": str(index)}
    same = all(texts.get(name) == text for name, text in wanted.items() if name != "weights")
    return pixels if same else None


def _keep(path: Path, batch: Tensor, made_by: dict[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sheet(path, batch, made_by)
    except OSError as error:
        warnings.warn(
            f"synthetic images cannot be kept in {str(path.parent)!r} ({error.strerror}), and "
            "will be made again the next time: set LFGCL_CACHE to a folder that can be written",
            stacklevel=3,
        )


@contextmanager
def _bar(missing: int, recipe: Recipe) -> Iterator["tqdm[Any]"]:
    """A bar of the steps to take; none if there are no batches to make."""
    quiet = not sys.stderr.isatty()  # a file gets a line now and then, not ten a second
    with tqdm(
        total=missing * recipe.steps,
        desc=f"synthetic images, {missing} x {recipe.batch}",
        unit="step",
        mininterval=10 if quiet else 0.2,
        disable=not missing,
    ) as bar:
        yield bar
