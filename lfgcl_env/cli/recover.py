"""``lfgcl recover``: a pruned network, trained on its baseline's outputs without labels."""

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
from lfgcl_env.cli.recovery_arguments import recovery_options
from lfgcl_env.cli.recovery_logs import recovery_logs
from lfgcl_env.cli.recovery_score import RecoveryScore, find_score
from lfgcl_env.cli.stopping import stop_between_steps
from lfgcl_env.edge.files import remove_file
from lfgcl_env.images import load_held_out
from lfgcl_env.images.calibration import MADE, load_calibration
from lfgcl_env.images.datasets import DATASETS, read_dataset
from lfgcl_env.networks import Baseline
from lfgcl_env.pruning import read_structure
from lfgcl_env.pruning.structure.saved_form import save_again
from lfgcl_env.recovery import Recovered, RecoveryOptions, recover
from lfgcl_env.recovery.recovering import Progress
from lfgcl_env.recovery.watching import WATCHED, views_of, watch_some
from lfgcl_env.runs.findings import add_recovery
from lfgcl_env.runs.logs import check_wandb
from lfgcl_env.runs.recoveries import describe_change
from lfgcl_env.runs.run_folder import PRUNED

RECOVERED = "recovered.safetensors"


_MOST_BYTES = 2**31
"""Of the images of a data set, as the network takes them."""


@dataclass(frozen=True)
class _Images:
    """What is trained and watched on.

    Attributes:
        train: inputs, normalised.
        watched: others.
        source: their name.
        labels: of those in ``train``, or None.
        watched_labels: of the others, or None.
    """

    train: Tensor
    watched: Tensor
    source: str
    labels: Tensor | None = None
    watched_labels: Tensor | None = None


def recover_network(arguments: dict[str, Any]) -> Outcome:
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
    if arguments["wandb"]:
        check_wandb()
    builder = own_builder(arguments)
    network, run = the_pruned_network(path, builder)
    structure: dict[str, Any] = network.pruned_structure  # type: ignore[assignment]
    asked = run.asked() if run and run.begun else {}
    baseline = load_unpruned(structure, builder, asked.get("seed", 0))
    of_tensors = structure["tensors"]
    options = recovery_options(arguments)
    compared = find_score(arguments, asked, run.path if run else None)
    images = _load_images(baseline, asked, arguments, options, compared)
    began = time.perf_counter()
    done = _train(baseline, network, images, compared, options, target, arguments)
    facts = {
        "score": compared.name,
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
    remove_file(_checkpoint(target))
    if run:
        fields = {
            "file": name_in_run(run, target),
            "of": name_in_run(run, file_of(path)),
            "of_tensors": of_tensors,
            "tensors": read_structure(target)["tensors"] if done.better else None,
            "device": arguments["device"],
            **{name: value for name, value in facts.items() if name not in ("used", "maps")},
        }
        keep_in_run(run, partial(add_recovery, fields=fields))
    change = describe_change(compared.name, done.before, done.after)
    print(
        f"{options.epochs} epochs of {len(images.train):,} images from {images.source}, "
        f"{'with' if facts['labels'] else 'no'} labels: {change} on {len(images.watched):,} others"
    )
    if done.better:
        print(target)
    else:
        print(
            "training did not make the network better, so nothing was written: try more --epochs, "
            "more images or a lower --learning-rate"
        )
    return {"file": str(target) if done.better else None, **facts}


def _train(
    baseline: Baseline,
    network: nn.Module,
    images: _Images,
    compared: RecoveryScore,
    options: RecoveryOptions,
    target: Path,
    arguments: Mapping[str, Any],
) -> Recovered:
    """Train, with a bar and logs, until it is done or interrupted; its checkpoint stays."""
    device, checkpoint = torch.device(arguments["device"]), _checkpoint(target)
    if checkpoint.exists():
        print(f"going on from {checkpoint}", file=sys.stderr)
    settings = asdict(options) | {"images": images.source, "num_images": len(images.train)}
    folder = target.with_name(f"{target.name}.logs")
    logs = recovery_logs(folder, settings, wandb=arguments["wandb"])
    try:
        with logs as advance, stop_between_steps() as check:

            def after_step(now: Progress) -> None:
                advance(now)
                check()

            return recover(
                baseline.network,
                network,
                images.train,
                compared.on(baseline, images.watched, images.watched_labels, device),
                options,
                device=device,
                labels=images.labels,
                checkpoint=checkpoint,
                progress=after_step,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {checkpoint} holds what was done, and the same command goes on"
        ) from None
    except FloatingPointError as error:
        remove_file(checkpoint)
        raise ValueError(f"{error}, and begin anew") from error


def _checkpoint(target: Path) -> Path:
    return target.with_name(f"{target.name}.checkpoint")


def _default_target(path: Path) -> Path:
    if path.is_dir():
        return path / RECOVERED
    if path.name == PRUNED:
        return path.with_name(RECOVERED)
    return path.with_name(f"{path.stem}_{RECOVERED}")


def _load_images(
    baseline: Baseline,
    run: Mapping[str, Any],
    arguments: Mapping[str, Any],
    options: RecoveryOptions,
    compared: RecoveryScore,
) -> _Images:
    """Load the images to train on, and others to watch.

    Of few images the repair saw all, or most: views of those that are left out are watched.
    """
    source = images_for(arguments, run, baseline)
    where: dict[str, Any] = {
        "root": arguments["data_root"] or run.get("data_root"),
        "download": arguments["download"],
    }
    count, seed = arguments.get("num_images"), run.get("seed", 0)
    if source not in MADE:
        seed += 1  # what is watched is chosen from others than those that the repair saw
    if arguments["labels"] or compared.needs_labels:
        why = "--labels" if arguments["labels"] else "reward 'accuracy'"
        found = _load_labelled(baseline, source, count, seed, where, why)
        return found if arguments["labels"] else replace(found, labels=None)
    if count is None and source in DATASETS:
        count = min(_MOST_BYTES // (4 * math.prod(baseline.input_shape)), 50_000)
    every = load_calibration(
        baseline, source, count, seed=seed, device=arguments["device"], **where
    )
    train, watched = watch_some(every, seed)
    if source not in DATASETS and len(watched) < WATCHED:
        watched = views_of(watched, options, seed)
    return _Images(train, watched, source)


def _load_labelled(
    baseline: Baseline,
    source: str,
    count: int | None,
    seed: int,
    where: Mapping[str, Any],
    why: str,
) -> _Images:
    if source not in DATASETS:
        raise ValueError(
            f"{why} needs a data set that has labels, {' or '.join(DATASETS)}, got {source!r}"
        )
    shape, normalization = baseline.input_shape, baseline.normalization
    every = len(read_dataset(source, train=True, **where).labels)
    watched = min(WATCHED, max(1, (count or every) // 8))
    labelled = load_held_out(
        source, min(every, count or every), used=0, shape=shape,
        normalization=normalization, seed=seed, **where,
    )  # fmt: skip
    classes = int(labelled.labels.max()) + 1
    if baseline.num_classes != classes:
        raise ValueError(
            f"{source} has {classes} classes, and {baseline.title} has {baseline.num_classes}"
        )
    pixels, labels = labelled.images, labelled.labels
    return _Images(pixels[watched:], pixels[:watched], source, labels[watched:], labels[:watched])
