"""``lfgcl recover``: a pruned network, trained on its baseline's outputs without labels."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lfgcl_env.cli.pruned_files import check_target, load_unpruned, own_builder, the_pruned_network
from lfgcl_env.edge.files import remove_file
from lfgcl_env.images import load_held_out
from lfgcl_env.images.calibration import MADE, default_images, load_calibration
from lfgcl_env.images.chunks import chunks_of
from lfgcl_env.images.datasets import DATASETS, read_dataset
from lfgcl_env.networks import Baseline
from lfgcl_env.pruning.score.judge import Judge
from lfgcl_env.pruning.structure.saved_form import save_again
from lfgcl_env.recovery import RecoveryOptions, recover
from lfgcl_env.recovery.recovering import Progress
from lfgcl_env.runs.run_folder import PRUNED

RECOVERED = "recovered.safetensors"

WATCHED = 2048
"""Images that networks are compared on, where there are so many: at most an eighth of all."""

_MADE = 4096
"""Images that are made, where the source makes any number."""


@dataclass(frozen=True)
class _Images:
    """What is trained and watched on.

    Attributes:
        train: inputs, normalised.
        watched: others.
        labels: of those in ``train``, or None.
        source: their name.
    """

    train: Tensor
    watched: Tensor
    labels: Tensor | None
    source: str


def recover_network(arguments: dict[str, Any]) -> None:
    """Recover the network of a run or a file, and write it beside that.

    Args:
        arguments: all of the command's.

    Raises:
        ValueError: if options or images do not fit, a file names code that is not trusted, or a
            checkpoint is of another recovery.
        FileNotFoundError: if a network or the images are missing.
        FileExistsError: if the file is there already.
    """
    path = Path(arguments["run"])
    if not path.exists():
        raise FileNotFoundError(f"there is no run folder and no pruned network at {path}")
    target = Path(arguments["output"] or _default_target(path))
    check_target(target)
    builder = own_builder(arguments)
    network, run = the_pruned_network(path, builder)
    structure: dict[str, Any] = network.pruned_structure  # type: ignore[assignment]
    asked = run.asked() if run and run.begun else {}
    baseline = load_unpruned(structure, builder, asked.get("seed", 0))
    chosen = {name: arguments[name] for name in _OPTIONS if arguments.get(name) is not None}
    options = RecoveryOptions(**chosen)
    images = _load_images(baseline, asked, arguments)
    began = time.perf_counter()
    device = torch.device(arguments["device"])
    judge = _Judged(baseline, images.watched, device)
    checkpoint = target.with_suffix(".checkpoint")
    if checkpoint.exists():
        print(f"going on from {checkpoint}", file=sys.stderr)
    with _bar() as advance:
        done = recover(
            baseline.network,
            network,
            images.train,
            judge,
            options,
            device=device,
            labels=images.labels,
            checkpoint=checkpoint,
            progress=advance,
        )
    facts = {
        "before": done.before,
        "after": done.after,
        "used": done.better,
        "epochs": done.epochs,
        "maps": done.mapped,
        "images": images.source,
        "num_images": len(images.train),
        "watched": len(images.watched),
        "labels": images.labels is not None,
        "options": asdict(options),
        "seconds": round(time.perf_counter() - began, 1),
    }
    if done.better:
        done.network.pruned_structure = structure  # type: ignore[assignment]
        save_again(target, done.network, recovered=facts)
    remove_file(checkpoint)
    how = f"{options.epochs} epochs of {len(images.train):,} images from {images.source}"
    print(f"{how}, {'with' if facts['labels'] else 'no'} labels: outputs {done.before:.5f} -> "
          f"{done.after:.5f} on {len(images.watched):,} others")  # fmt: skip
    if done.better:
        print(target)
    else:
        print(
            "training did not make the network better, so nothing was written: try more --epochs, "
            "more --images or a lower --learning-rate"
        )


_OPTIONS = ("epochs", "batch_size", "learning_rate", "precision", "seed")


def _default_target(path: Path) -> Path:
    if path.is_dir():
        return path / RECOVERED
    if path.name == PRUNED:
        return path.with_name(RECOVERED)
    return path.with_name(f"{path.stem}_{RECOVERED}")


def _load_images(
    baseline: Baseline, run: Mapping[str, Any], arguments: Mapping[str, Any]
) -> _Images:
    """Load the images to train on, and others to watch."""
    source = arguments.get("images") or run.get("images") or default_images(baseline)
    where: dict[str, Any] = {
        "root": arguments["data_root"] or run.get("data_root"),
        "download": arguments["download"],
    }
    seed = arguments.get("seed") or 0
    count = arguments.get("num_images")
    if arguments["labels"]:
        return _load_labelled(baseline, source, count, seed, where)
    if source in MADE and count is None:
        count = _MADE
    wanted = None if count is None else count + min(WATCHED, max(1, count // 7))
    every = load_calibration(baseline, source, wanted, seed=seed, **where)
    watched = min(WATCHED, max(1, len(every) // 8))
    return _Images(every[watched:], every[:watched], None, str(source))


def _load_labelled(
    baseline: Baseline, source: str, count: int | None, seed: int, where: Mapping[str, Any]
) -> _Images:
    if source not in DATASETS:
        raise ValueError(
            f"--labels needs a data set that has them, {' or '.join(DATASETS)}, got {source!r}"
        )
    shape, normalization = baseline.input_shape, baseline.normalization
    if count is None:
        count = len(read_dataset(source, train=True, **where).labels) - WATCHED
    labelled = load_held_out(
        source, count, used=WATCHED, shape=shape, normalization=normalization, seed=seed, **where
    )
    classes = int(labelled.labels.max()) + 1
    if baseline.num_classes is None or classes > baseline.num_classes:
        raise ValueError(
            f"{source} has {classes} classes, and {baseline.title} has {baseline.num_classes}"
        )
    watched = load_calibration(baseline, source, WATCHED, seed=seed, **where)
    return _Images(labelled.images, watched, labelled.labels, source)


class _Judged:
    """Scores networks on the CPU by their outputs on watched images."""

    def __init__(self, baseline: Baseline, images: Tensor, device: torch.device) -> None:
        self._device = device
        placed = [batch.to(device) for batch in chunks_of(images, 128)]
        self._judge = Judge(baseline.network.to(device), placed, baseline.outputs)
        baseline.network.cpu()

    def __call__(self, network: nn.Module) -> float:
        score = self._judge(network.to(self._device))
        network.cpu()
        return score


@contextmanager
def _bar() -> Iterator[Any]:
    """Show steps, and the loss and score of the last epoch."""
    with tqdm(unit="step", disable=None, file=sys.stderr, desc="recovery") as bar:

        def advance(now: Progress) -> None:
            bar.total = now.steps
            bar.update(now.step - bar.n)
            if now.score == now.score:
                bar.set_postfix_str(f"loss {now.loss:.4f}, outputs {now.score:.5f}")

        yield advance
