"""Augmented training batches: made on the device, and reproducible."""

import numpy as np
import torch
from torch import Tensor

from lfgcl_env.images.datasets import Split
from lfgcl_env.networks import Normalization

PADDING = 4  # pixels on every side, reflected; a crop of the old size is taken from it


class TrainingImages:
    """Images on a device, of which every batch is a function of seed, epoch and position.

    No random state is carried from batch to batch, so that training can be resumed at any step.

    Args:
        split: pixels (images, channels, height, width), uint8, and labels (images,), int64.
        batch_size: images of a batch; an incomplete batch at the end of an epoch is left out.
        seed: of order, crops and flips.
        device: where the images lie and batches are made.

    Raises:
        ValueError: if there are fewer images than one batch takes.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, device: torch.device) -> None:
        count, _, height, width = split.pixels.shape
        if count < batch_size:
            raise ValueError(f"{count} images are fewer than one batch of {batch_size}")
        self._batch_size, self._seed, self._device = batch_size, seed, device
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)
        sides = ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING))
        padded = torch.from_numpy(np.pad(split.pixels.numpy(), sides, mode="reflect")).to(device)
        # (images, channels, rows, columns, height, width): a view of every crop there can be.
        self._crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        self._labels = split.labels.to(device)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._labels) // self._batch_size

    def batch(self, epoch: int, position: int) -> tuple[Tensor, Tensor]:
        """Return pixels (batch, channels, height, width), uint8, and labels of a batch."""
        if epoch != self._epoch:
            order = _draw(self._seed, 2, epoch).permutation(len(self._labels))
            self._epoch, self._order = epoch, torch.from_numpy(order)
        chosen = self._order[position * self._batch_size : (position + 1) * self._batch_size]
        draw = _draw(self._seed, 3, epoch, position)
        choices = self._crops.shape[2:4]
        rows, columns = (torch.from_numpy(draw.integers(n, size=len(chosen))) for n in choices)
        flips = torch.from_numpy(draw.random(len(chosen)) < 0.5)
        chosen, rows, columns, flips = (
            drawn.to(self._device) for drawn in (chosen, rows, columns, flips)
        )
        pixels = self._crops[chosen, :, rows, columns]
        pixels = torch.where(flips[:, None, None, None], pixels.flip(3), pixels)
        return pixels, self._labels[chosen]


def held_out(split: Split, count: int, subset: int | None, seed: int) -> tuple[Split, Split]:
    """Split training images into those to train on and those to measure accuracy on.

    Args:
        split: all training images.
        count: how many are held out.
        subset: train on so many only; None for all others.
        seed: of the choice.

    Raises:
        ValueError: if there are fewer.
    """
    available = len(split.labels)
    if count + (subset or 1) > available:
        raise ValueError(
            f"{count} images held out and {subset or 'some'} to train on are more than the "
            f"{available} training images"
        )
    order = torch.from_numpy(_draw(seed, 1).permutation(available))
    rest = order[count:][:subset]
    watched = order[:count]
    return (
        Split(split.pixels[rest], split.labels[rest]),
        Split(split.pixels[watched], split.labels[watched]),
    )


def normalized(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return network inputs, channels last.

    Args:
        pixels: (images, channels, height, width), uint8.
        mean: (channels, 1, 1), of values in [0, 1].
        std: (channels, 1, 1).
    """
    inputs = pixels.to(torch.float32, memory_format=torch.channels_last)
    return (inputs - 255 * mean) / (255 * std)


def normalization_constants(
    normalization: Normalization, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, both (channels, 1, 1)."""
    mean, std = (
        torch.tensor(values, device=device)[:, None, None]
        for values in (normalization.mean, normalization.std)
    )
    return mean, std


def _draw(*key: int) -> np.random.Generator:
    """Return a generator for one purpose: the second number says which, and is never 0."""
    return np.random.default_rng(np.random.SeedSequence(key))
