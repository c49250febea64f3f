"""Synthetic images on disk: finished batches are cached, reused and added to."""

import os
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from lfgcl_env.edge.progress import progress
from lfgcl_env.edge.value_checks import check_count, check_seed
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
    """Make images from a network, reusing batches that were made before.

    A bar on standard error shows the progress. More images begin with the same ones as fewer.

    Args:
        baseline: the network to make images from.
        count: number of images; they are made in whole batches.
        folder: of finished batches, created if missing; by default in the user's cache, see
            :func:`cache_folder`. A warning says if it cannot be written.
        seed: of the images.
        recipe: settings of the optimisation; by default :data:`RECIPE`.
        device: where to compute.

    Returns:
        (count, channels, height, width), uint8.

    Raises:
        ValueError: if the network has no BatchNorm statistics, or ``count`` is not positive.
    """
    count, seed = check_count(count, "the number of images"), check_seed(seed)
    check_statistics(baseline)
    recipe = recipe or RECIPE
    made_by = provenance(baseline, seed, recipe)
    folder = cache_folder(made_by) if folder is None else Path(folder)
    paths = batch_files(folder, count, recipe)
    batches = [_finished(path, made_by, index) for index, path in enumerate(paths)]
    missing = [index for index, batch in enumerate(batches) if batch is None]
    steps = len(missing) * recipe.steps
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        advance(done, steps)

    with progress(f"synthetic images, {len(missing)} x {recipe.batch}", default=True) as advance:
        for index in missing:
            batch = synthesize_batch(
                baseline, index, seed=seed, recipe=recipe, device=device, progress=step
            )
            _keep(paths[index], batch, {**made_by, "batch": str(index)})
            batches[index] = batch
    return torch.cat([batch for batch in batches if batch is not None])[:count]


def provenance(baseline: Baseline, seed: int, recipe: Recipe) -> dict[str, str]:
    """Return everything that decides the images, as text by name."""
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
    """Return the folder of batches, below ``LFGCL_CACHE`` or else ``~/.cache/lfgcl``.

    It is named after the network and a hash of everything that decides the images.
    """
    import hashlib

    # The same weights from another file are the same weights.
    deciding = {name: value for name, value in made_by.items() if name != "weights"}
    key = hashlib.sha256(repr(sorted(deciding.items())).encode()).hexdigest()[:16]
    root = Path(os.path.expanduser(os.environ.get("LFGCL_CACHE") or "~/.cache/lfgcl"))
    name = "".join(c if c.isalnum() else "-" for c in made_by["network"])
    return root / "synthetic" / f"{name}-{key}"


def batch_files(folder: Path, count: int, recipe: Recipe) -> list[Path]:
    """Return the files of the batches for ``count`` images, whether they exist or not."""
    return [folder / f"{index:05d}.png" for index in range(-(-count // recipe.batch))]


def _finished(path: Path, made_by: dict[str, str], index: int) -> Tensor | None:
    """Read a batch; return None if it is missing, damaged, or of another provenance."""
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
            f"synthetic images cannot be cached in {str(path.parent)!r} ({error.strerror}) and "
            "will be made again next time: set LFGCL_CACHE to a writable folder",
            stacklevel=3,
        )
