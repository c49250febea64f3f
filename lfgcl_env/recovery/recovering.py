"""Recovery of a pruned network, from images to the network that is better."""

import hashlib
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lfgcl_env.networks.copying import copy_network
from lfgcl_env.recovery.distilling import STATE, Training
from lfgcl_env.recovery.recovery_options import RecoveryOptions

_EVERY = 60.0
"""Seconds after which a checkpoint is written anew."""


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
        network: the better one of the recovered and the pruned network, both copies, on the CPU.
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

    With a checkpoint, what was done is kept at every epoch's end, every minute, and when
    ``progress`` raises; a call with the same arguments goes on from there: on a CPU to the very
    network that it would have given in one go.

    Args:
        baseline: what the network was pruned from.
        network: the pruned network, of the same floating-point type; not changed.
        images: normalised inputs, (images, ...).
        score: of a network on the CPU in evaluation mode, the higher the better; best on images
            that are not trained on. It is asked before, and at the end of every epoch.
        options: see there.
        device: where to train.
        labels: int64, (images,): train on these instead of the baseline's outputs.
        checkpoint: a file to write; removed by nobody.
        progress: called after every step.

    Raises:
        ValueError: if labels do not fit, types differ, a network does not take the images or
            returns other outputs than its baseline, nothing is left to train, or the checkpoint is
            of another recovery or damaged.
        FloatingPointError: if the loss is not finite.
        OSError: if the checkpoint cannot be written; it is tried before the first step.
    """
    options = options or RecoveryOptions()
    images = _of_type(images, baseline, network)
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels were given for {len(images)} images")
    network = copy_network(network).eval()
    training = Training(baseline, network, images, options, torch.device(device), labels)
    of = _fingerprint(baseline, network, images, labels)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    resumed = checkpoint is not None and checkpoint.exists()
    kept: dict[str, Any] = {"of": of, "epochs": [], "losses": []}
    if checkpoint is not None and resumed:
        kept = _read(checkpoint, training, of)
    epochs, losses = kept["epochs"], kept["losses"]
    written, at = time.monotonic(), -1

    def keep() -> None:
        nonlocal written, at
        if checkpoint is not None and at != training.done:
            training.save(checkpoint, **kept)
            written, at = time.monotonic(), training.done

    keep()
    before = score(network)
    while training.done < training.steps:
        losses.append(training.step())
        if training.epoch_ends:
            mean = sum(losses) / len(losses)
            epochs.append({"loss": mean, "score": score(training.network())})
            losses.clear()
        # Not where a step or a score is interrupted: the state would be of neither side.
        if training.epoch_ends or time.monotonic() - written > _EVERY:
            keep()
        try:
            progress(Progress(training.done, training.steps, epochs))
        except BaseException:
            keep()
            raise
    after = score(training.network()) if resumed else epochs[-1]["score"]
    better = after > before
    return Recovered(
        training.network() if better else network, better, before, after, epochs,
        training.mapped,
    )  # fmt: skip


def _of_type(images: Tensor, baseline: nn.Module, network: nn.Module) -> Tensor:
    """Return images of the networks' floating-point type."""
    types = [
        next((p.dtype for p in one.parameters() if p.is_floating_point()), torch.float32)
        for one in (baseline, network)
    ]
    if types[0] != types[1]:
        raise ValueError(f"the network is of {types[1]}, and its baseline of {types[0]}")
    return images.to(types[0]) if images.is_floating_point() else images


def _fingerprint(
    baseline: nn.Module, network: nn.Module, images: Tensor, labels: Tensor | None
) -> str:
    """Return a checksum of what is trained and on what; of many images every hundredth counts."""
    found = hashlib.sha256(f"{tuple(images.shape)}".encode())
    step = max(1, len(images) // 100)
    weights = (*baseline.state_dict().values(), *network.state_dict().values())
    for tensor in (*weights, images[::step], labels):
        if tensor is not None:
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _read(path: Path, training: Training, of: str) -> dict[str, Any]:
    """Let a training go on from a checkpoint, and return what it had found."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        kept = {name: content[name] for name in ("of", "epochs", "losses")}
        state = {name: content[name] for name in STATE}
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is no checkpoint of a recovery, or was damaged: delete it to begin anew"
        ) from error
    if kept["of"] != of:
        raise ValueError(f"{path} is of another network or other images: delete it to begin anew")
    try:
        training.load(state)
    except ValueError as error:
        raise ValueError(
            f"{path} is of another recovery ({error}): delete it to begin anew"
        ) from error
    return kept
