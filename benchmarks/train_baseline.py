"""Train a network for CIFAR-10 or CIFAR-100 from scratch: fast, resumable to the bit.

A checkpoint is written after every epoch and every few minutes, and when the training is stopped
with Ctrl-C; the same command continues. The test images are used once, by --export, which writes
half-precision weights and a model card where the package reads them, or into the folder that is
given.

    python benchmarks/train_baseline.py resnet20 --epochs 30 --export
    python benchmarks/train_baseline.py resnet20 --data CIFAR100 --epochs 40 --export
    python benchmarks/train_baseline.py resnet56 --epochs 30 --teacher resnet56 --export
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from study import new_parser
from tqdm import tqdm
from training.batches import held_out
from training.export import default_precision, export
from training.growing import grown
from training.recipe import CLASSES, Recipe
from training.trainer import Training

from lfgcl_env.images.datasets import DATASETS, Split, read_dataset
from lfgcl_env.networks import PUBLISHED
from lfgcl_env.networks.embedded_weights import FOLDER
from lfgcl_env.networks.state_dicts import state_sha256

SHOWN = 20  # steps between updates of the loss: reading it waits for the device


def main(arguments: list[str] | None = None) -> int:
    """Train, or continue, and export."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.precision == "auto":
        options.precision = default_precision(device)
    out = options.out or Path("runs") / f"train_{options.network}_{options.data}"
    start = None
    if options.grow_from:
        shallow = torch.load(options.grow_from, map_location="cpu", weights_only=True)["average"]
        start = grown(shallow, options.network, CLASSES[options.data])
        options.grown_from = state_sha256(start)
    recipe = Recipe(**{f.name: getattr(options, f.name) for f in fields(Recipe)})
    data = read_dataset(options.data, train=True, root=options.data_root, download=options.download)
    images, watched = held_out(data, recipe.held_out, recipe.subset, recipe.seed)
    training = Training(recipe, images, device, start)
    try:
        run(training, out / "checkpoint.pt", options.minutes, watched)
    except KeyboardInterrupt as error:
        print(error, file=sys.stderr)
        return 130
    if options.export:
        facts = {"training_seconds": round(training.seconds), "history": training.history}
        card = export(training.weights(), recipe, options.export, facts)
        print(f"{card['top1']:.2f} % on {card['tested_on']}; written to {options.export}")
    return 0


def run(training: Training, path: Path, minutes: float, watched: Split) -> None:
    """Train to the end, from a checkpoint if there is one.

    Args:
        training: what is trained.
        path: of the checkpoint.
        minutes: between checkpoints, beside those at the ends of epochs.
        watched: held-out training images whose accuracy is printed after every epoch; may be
            empty.

    Raises:
        ValueError: if the checkpoint was made with another recipe.
        KeyboardInterrupt: after a checkpoint, if the process was asked to stop.
    """
    if path.exists():
        training.load(path)
    batch = training.recipe.batch_size
    saved = time.monotonic()
    with stopping() as asked, bar(training) as progress:
        while training.done < training.steps:
            loss = training.step()
            progress.update(batch)
            if training.done % SHOWN == 0:
                progress.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
            if training.epoch_begins:
                print_epoch(training, watched)
            due = time.monotonic() - saved >= 60 * minutes
            if due or training.epoch_begins or asked:
                training.save(path)
                saved = time.monotonic()
            if asked:
                raise KeyboardInterrupt(
                    f"stopped after {training.done} of {training.steps} steps, which are kept in "
                    f"{str(path)!r}: the same command continues"
                )


def print_epoch(training: Training, watched: Split) -> None:
    """Print a line about the last epoch."""
    last = training.history[-1]
    if len(watched.labels):
        last["held_out_top1"] = training.top1(watched)
    rate = training.done * training.recipe.batch_size / training.seconds
    left = training.seconds / training.done * (training.steps - training.done)
    scored = f"  held out {last['held_out_top1']:.2f} %" if "held_out_top1" in last else ""
    tqdm.write(
        f"epoch {training.epoch}/{training.recipe.epochs}  loss {last['loss']:.4f}{scored}  "
        f"{rate:.0f} images/s  {training.seconds / 60:.1f} min, {left / 60:.1f} min left"
    )
    sys.stdout.flush()


def bar(training: Training) -> "tqdm[Any]":
    """Return a progress bar of images; in a file it is updated once a minute."""
    batch = training.recipe.batch_size
    return tqdm(
        total=training.steps * batch,
        initial=training.done * batch,
        desc=training.recipe.network,
        unit=" images",
        mininterval=0.5 if sys.stderr.isatty() else 60,
    )


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Collect requests to stop, so that none interrupts a step."""
    asked: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda number, _: asked.append(number)) for kind in kinds]
    try:
        yield asked
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def parser() -> argparse.ArgumentParser:
    """Return the command's options; their defaults are those of :class:`Recipe`."""
    made = new_parser(__doc__)
    add = made.add_argument
    add("network", choices=list(PUBLISHED))
    add("--data", choices=DATASETS)
    add("--epochs", type=int)
    add("--batch-size", type=int)
    add("--learning-rate", type=float, help="the highest")
    add("--momentum", type=float)
    add("--weight-decay", type=float)
    add("--schedule", choices=["one-cycle", "cosine"])
    add("--smoothing", type=float, help="of labels")
    add("--ema", type=float, help="decay of the average of weights, per step")
    add("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    add("--teacher", choices=list(PUBLISHED), help="distil its published weights")
    add("--distillation", type=float, help="share of the teacher in the loss")
    add("--temperature", type=float, help="of the distillation")
    add("--seed", type=int)
    add("--subset", type=int, help="train on so many images only")
    add(
        "--hold-out",
        type=int,
        dest="held_out",
        help="train on so many images fewer, and test on them",
    )
    add("--grow-from", type=Path, help="checkpoint of a shallower ResNet to start from")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, default=1, help="of PyTorch")
    add("--minutes", type=float, default=5, help="between checkpoints")
    add("--out", type=Path, help="folder of the checkpoint; else runs/train_NETWORK_DATA")
    add("--export", type=Path, nargs="?", const=FOLDER, help="folder; else the package's own")
    add("--data-root", help="folder of data sets; else LFGCL_DATA, else ~/.cache/lfgcl/data")
    add("--download", action="store_true", help="fetch the data set if it is missing")
    made.set_defaults(grown_from=None)
    given = {action.dest for action in made._actions}
    defaults = {f.name: f.default for f in fields(Recipe) if f.name in given}
    made.set_defaults(**{k: v for k, v in defaults.items() if k not in ("network", "precision")})
    return made


if __name__ == "__main__":
    sys.exit(main())
