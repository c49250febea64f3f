"""Recovery of a pruned network, from images to the network that is better."""

import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lfgcl_env.recovery.distilling import Training
from lfgcl_env.recovery.recovery_options import RecoveryOptions


@dataclass(frozen=True)
class Progress:
    """Where a recovery stands.

    Attributes:
        step: steps done.
        steps: of the whole recovery.
        epochs: what the epochs until now ended with, see :class:`Recovered`.
    """

    step: int
    steps: int
    epochs: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Recovered:
    """What came out of a recovery.

    Attributes:
        network: the better one of the recovered and the pruned network, on the CPU.
        better: whether that is the recovered one.
        before: score of the pruned network.
        after: score of the recovered one.
        epochs: what every epoch ended with: its mean ``loss``, and the averaged network's
            ``score``.
        mapped: the module whose maps were compared, or None.
    """

    network: nn.Module
    better: bool
    before: float
    after: float
    epochs: list[dict[str, float]]
    mapped: str | None


def recover(
    baseline: nn.Module,
    network: nn.Module,
    images: Tensor,
    score: Callable[[nn.Module], float],
    options: RecoveryOptions | None = None,
    *,
    device: torch.device | str = "cpu",
    labels: Tensor | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Recovered:
    """Train a pruned network to give its baseline's outputs, on unlabelled images.

    With a checkpoint, every epoch's end and an interruption are kept, and a call with the same
    arguments goes on from there: on a CPU to the very network that it would have given in one go.

    Args:
        baseline: what the network was pruned from.
        network: the pruned network; not changed.
        images: normalised inputs, (images, ...).
        score: of a network on the CPU, the higher the better; best on images that are not trained
            on. It is asked before, and at the end of every epoch.
        options: see there.
        device: where to train.
        labels: int64, (images,): train on these instead of the baseline's outputs.
        checkpoint: a file to write; removed by nobody.
        progress: called after every step.

    Raises:
        ValueError: if the images are too few, or the checkpoint is of another recovery or damaged.
        FloatingPointError: if the loss is not finite.
        OSError: if the checkpoint cannot be written.
    """
    options = options or RecoveryOptions()
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels were given for {len(images)} images")
    training = Training(baseline, network, images, options, torch.device(device), labels)
    of = _fingerprint(network, images, labels)
    if checkpoint is not None and checkpoint.exists():
        kept = _read(checkpoint, training, of)
    else:
        kept = {"of": of, "before": score(network), "epochs": [], "losses": []}
    epochs, losses = kept["epochs"], kept["losses"]

    def keep() -> None:
        if checkpoint is not None:
            training.save(checkpoint, **kept)

    try:
        while training.done < training.steps:
            losses.append(training.step())
            if training.epoch_ends:
                mean = sum(losses) / len(losses)
                epochs.append({"loss": mean, "score": score(training.network())})
                losses.clear()
                keep()
            progress(Progress(training.done, training.steps, epochs))
    except KeyboardInterrupt:
        keep()
        raise
    before, after = kept["before"], epochs[-1]["score"]
    better = after > before
    return Recovered(
        training.network() if better else network, better, before, after, epochs,
        training.mapped,
    )  # fmt: skip


def _fingerprint(network: nn.Module, images: Tensor, labels: Tensor | None) -> str:
    """Return a checksum of what is trained and on what; of many images every hundredth counts."""
    found = hashlib.sha256(f"{tuple(images.shape)}".encode())
    step = max(1, len(images) // 100)
    for tensor in (*network.state_dict().values(), images[::step], labels):
        if tensor is not None:
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _read(path: Path, training: Training, of: str) -> dict[str, Any]:
    """Let a training go on from a checkpoint, and return what it had found."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        kept = {name: content[name] for name in ("of", "before", "epochs", "losses")}
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is no checkpoint of a recovery, or was damaged: delete it to begin anew"
        ) from error
    if kept["of"] != of:
        raise ValueError(f"{path} is of another network or other images: delete it to begin anew")
    try:
        training.load(content)
    except ValueError as error:
        raise ValueError(
            f"{path} is of another recovery ({error}): delete it to begin anew"
        ) from error
    return kept
