"""Optimal Brain Surgeon order: whole channels removed one by one, the cheapest first.

Source: Hassibi and Stork (1993) for weights; Kurtić et al., ZipLM (NeurIPS 2023) for structures,
both with H the second moments of a layer's inputs. Here a channel is removed from all layers that
consume it at once, and the cost is the exact increase of their outputs' squared error, each
relative to the energy of that layer's output.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.pruning.groups import Group
from lfgcl_env.pruning.moments import Moments, ridge_of


@dataclass(frozen=True)
class Elimination:
    """The result of removing a group's channels one after the other.

    Attributes:
        order: channels from the last to the first removed; int64, (channels,).
        errors: entry k is the consumers' summed squared output error with the first k channels of
            ``order`` kept and all weights refitted, relative to the outputs' energy; float64,
            (channels + 1,), from about 1 (or more) at k = 0 down to 0.
    """

    order: NDArray[np.int64]
    errors: NDArray[np.float64]


def eliminate(group: Group, moments: Mapping[str, Moments]) -> Elimination:
    """Order a group's channels by backward elimination over all its consumers together.

    Args:
        group: the group.
        moments: of every layer whose inputs follow groups.
    """
    consumers = [
        _Consumer(moments[member.layer], _blocks(member.positions, member.channels, group.channels))
        for member in group.members
        if member.side == "in" and member.layer in moments
    ]
    left = torch.ones(group.channels, dtype=torch.bool)
    removed: list[int] = []
    errors = [0.0]
    for _ in range(group.channels):
        costs = torch.stack([consumer.costs() for consumer in consumers]).sum(dim=0).cpu()
        costs[~left] = torch.inf
        channel = int(costs.argmin())
        for consumer in consumers:
            consumer.remove(channel)
        left[channel] = False
        removed.append(channel)
        errors.append(errors[-1] + max(float(costs[channel]), 0.0))
    return Elimination(np.array(removed[::-1], dtype=np.int64), np.array(errors[::-1]))


def _blocks(
    positions: NDArray[np.int64], channels: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Positions of each channel: (channels, positions per channel)."""
    return positions[np.argsort(channels, kind="stable")].reshape(count, -1)


class _Consumer:
    """One layer's part in an elimination: its current weights and inverse moments.

    Only the group's columns can be removed, so only these rows and columns of the inverse are kept;
    the other inputs of a layer (in concatenations) act through them.
    """

    def __init__(self, moments: Moments, blocks: NDArray[np.int64]) -> None:
        reader = moments.reader
        device = moments.weights.device
        columns = reader.columns(torch.from_numpy(blocks.reshape(-1)).to(device))
        # Tap by tap as the reader gives them, then one row of columns per channel.
        columns = columns.reshape(reader.taps, len(blocks), -1).movedim(0, 1).flatten(1)
        self._width = columns.shape[1]
        own = columns.flatten()
        self._energy = max(moments.energy, 1e-300)
        self._weights = moments.weights[:, own].clone()
        if moments.gram is None:
            self._inverse = torch.diag(1.0 / moments.variance[own].clamp(min=1e-12))
        else:
            size = reader.features if moments.intercept else reader.features - 1
            matrix = moments.gram[:size, :size]
            ridge = ridge_of(moments.gram)[:size]
            identity = torch.eye(size, dtype=matrix.dtype, device=device)
            factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag(ridge))
            while int(failed):
                ridge = ridge * 10
                factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag(ridge))
            inverse = torch.cholesky_solve(identity, factor)
            self._inverse = inverse[own][:, own].contiguous()
        self._channels = len(blocks)

    def costs(self) -> Tensor:
        """Increase of the relative error for removing each channel now; (channels,)."""
        blocks, weights = self._diagonal_blocks(), self._by_channel()
        solved = torch.linalg.solve(blocks, weights)
        return (weights * solved).sum(dim=(1, 2)) / self._energy

    def remove(self, channel: int) -> None:
        """Take a channel out and refit the rest."""
        place = slice(channel * self._width, (channel + 1) * self._width)
        across = self._inverse[:, place]
        block = self._inverse[place, place]
        solved = torch.linalg.solve(block, across.T)
        self._weights -= self._weights[:, place] @ solved
        self._inverse -= across @ solved
        self._weights[:, place] = 0
        self._inverse[place, :] = 0
        self._inverse[:, place] = 0
        self._inverse[place, place] = torch.eye(self._width, dtype=block.dtype, device=block.device)

    def _diagonal_blocks(self) -> Tensor:
        shape = (self._channels, self._width, self._channels, self._width)
        return self._inverse.reshape(shape).diagonal(dim1=0, dim2=2).movedim(-1, 0)

    def _by_channel(self) -> Tensor:
        return self._weights.T.reshape(self._channels, self._width, -1)
