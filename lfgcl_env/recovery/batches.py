"""Batches of unlabelled images, made on the device and reproducible."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lfgcl_env.recovery.recovery_options import RecoveryOptions


class Batches:
    """Batches of which every one is a function of seed, epoch and position.

    No random state is carried from batch to batch, so that training can go on at any step.

    Args:
        images: inputs of the network, normalised; (images, ...). Crops and flips are for (images,
            channels, height, width) alone.
        options: see there.
    """

    def __init__(self, images: Tensor, options: RecoveryOptions) -> None:
        self._images, self._options = images, options
        self._of_epoch = max(len(images), options.epoch_images)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def of_pictures(self) -> bool:
        """Whether inputs have channels, height and width."""
        return self._images.dim() == 4

    def __len__(self) -> int:
        """Return the number of batches of an epoch; what is left at its end waits for the next."""
        return max(1, self._of_epoch // self._options.batch_size)

    def chosen(self, epoch: int, position: int) -> Tensor:
        """Return the indices of a batch's images; int64, (batch,)."""
        if epoch != self._epoch:
            turns = math.ceil(max(self._of_epoch, self._options.batch_size) / len(self._images))
            order = _draw(self._options.seed, 1, epoch).permutation(turns * len(self._images))
            self._epoch, self._order = epoch, torch.from_numpy(order % len(self._images))
        size = self._options.batch_size
        return self._order[position * size : (position + 1) * size]

    def __call__(self, epoch: int, position: int, device: torch.device) -> Tensor:
        """Return a batch; (batch, ...), on the device."""
        options = self._options
        batch = self._images[self.chosen(epoch, position)].to(device)
        draw = _draw(options.seed, 2, epoch, position)
        if self.of_pictures:
            batch = _cropped(batch, options.crop, draw)
            if options.flip:
                mirrored = torch.from_numpy(draw.random(len(batch)) < 0.5).to(device)
                batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        if options.mixup:
            share = torch.from_numpy(draw.uniform(0, options.mixup, len(batch)))
            share = share.to(batch).view(-1, *[1] * (batch.dim() - 1))
            batch = torch.lerp(batch, batch.roll(1, 0), share)
        return batch


def _cropped(batch: Tensor, part: float, draw: np.random.Generator) -> Tensor:
    """Shift every image by up to a part of its sides; what comes in is its own reflection."""
    height, width = batch.shape[2:]
    down, right = (int(part * side) for side in (height, width))
    if not down and not right:
        return batch
    padded = F.pad(batch, (right, right, down, down), mode="reflect")
    views = padded.unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = (
        torch.from_numpy(draw.integers(2 * most + 1, size=len(batch))).to(batch.device)
        for most in (down, right)
    )
    return views[torch.arange(len(batch), device=batch.device), :, rows, columns]


def _draw(*key: int) -> np.random.Generator:
    """Return a generator for one purpose: the second number says which."""
    return np.random.default_rng(np.random.SeedSequence(key))
