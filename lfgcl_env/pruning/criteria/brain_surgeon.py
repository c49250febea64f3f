"""Optimal Brain Surgeon order: whole channels removed one by one, the cheapest first.

Source: Hassibi and Stork (1993) for weights; Kurtić et al., ZipLM (NeurIPS 2023) for structures,
both with H the second moments of a layer's inputs. Here a channel is removed from all layers that
consume it at once, and the cost is the exact increase of their outputs' squared error. One layer's
error is relative to the energy of its output; several layers' errors are summed by what they matter
to the network's predictions.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.pruning.criteria.criterion import Context, Elimination, Scores, criterion
from lfgcl_env.pruning.moments.second_moments import Moments, ridge_of
from lfgcl_env.pruning.structure.groups import Group

_AT_ONCE = 64
"""Groups with more channels left lose one in so many at a time instead of one."""


@criterion("obs")
def obs(context: Context, group: Group) -> Scores:
    """Score a channel by how late backward elimination removes it."""
    order = context.eliminations()[group.name].order
    scores = np.empty(group.channels)
    scores[order] = -np.arange(group.channels)
    return scores


def consumers_of(group: Group, moments: Mapping[str, Moments]) -> list[str]:
    """Return the layers whose errors order a group's channels."""
    return [name for name in group.layers("in") if name in moments]


def eliminate(
    group: Group, moments: Mapping[str, Moments], weights: Mapping[str, Tensor] | None = None
) -> Elimination:
    """Order a group's channels by backward elimination over all its consumers together.

    Args:
        group: the group.
        moments: of every layer whose inputs follow groups.
        weights: of squared errors at the output channels of its consumers, (out,) each; None
            counts every consumer's error relative to its own energy.
    """
    names = consumers_of(group, moments)
    mine = [moments[name] for name in names]
    energies = [found.energy for found in mine]
    if weights is not None and any(bool(weights[name].any()) for name in names):
        mine = [_weigh(moments[name], weights[name]) for name in names]
        # As many as consumers in all, so that error curves have the same scale either way.
        energies = [sum(found.energy for found in mine) / len(mine)] * len(mine)
    consumers: list[_Consumer | _Independent] = []
    for name, found, energy in zip(names, mine, energies, strict=True):
        member = next(m for m in group.members if m.side == "in" and m.layer == name)
        blocks = _blocks(member.positions, member.channels, group.channels)
        kind = _Independent if found.gram is None else _Consumer
        consumers.append(kind(found, blocks, max(energy, 1e-300)))
    left = list(range(group.channels))
    removed: list[int] = []
    errors = [0.0]
    totals = np.zeros(len(consumers))
    while left:
        costs = torch.stack([consumer.costs() for consumer in consumers]).sum(dim=0).cpu()
        count = max(1, len(left) // _AT_ONCE)
        chosen = torch.sort(costs.argsort()[:count]).values
        increases = [consumer.remove(chosen) for consumer in consumers]
        totals += increases
        increase = sum(increases)
        # The exact increase of several together is divided by what each would cost alone.
        alone = costs[chosen].clamp(min=1e-300)
        for index in alone.argsort().tolist():
            share = float(alone[index] / alone.sum())
            removed.append(left[int(chosen[index])])
            errors.append(errors[-1] + max(increase, 0.0) * share)
        gone = set(removed)
        left = [channel for channel in left if channel not in gone]
    best = [consumer.constant for consumer in consumers]
    errors[-1] += float(np.minimum(best - totals, 0).sum())
    return Elimination(np.array(removed[::-1], dtype=np.int64), np.array(errors[::-1]))


def _weigh(moments: Moments, weights: Tensor) -> Moments:
    """Scale a layer's outputs so that their squared errors have weights.

    A transposed convolution has one row for every tap of an output channel.
    """
    weights = weights.repeat_interleave(len(moments.weights) // len(weights))
    return replace(moments, weights=moments.weights * weights.to(moments.weights).sqrt()[:, None])


def _blocks(
    positions: NDArray[np.int64], channels: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return the positions of each channel: (channels, positions per channel)."""
    return positions[np.argsort(channels, kind="stable")].reshape(count, -1)


class _Consumer:
    """One layer's part in an elimination: its current weights and inverse moments.

    Only the group's columns can be removed, so only these rows and columns of the inverse are kept;
    the other inputs of a layer (in concatenations) act through them. What is removed is cut away.

    Args:
        moments: of the layer.
        blocks: the positions of each channel in its inputs; (channels, positions per channel).
        energy: that its error is relative to.

    Attributes:
        constant: relative error as a constant; infinite for a layer that keeps other inputs, or
            has an intercept anyway.
    """

    def __init__(self, moments: Moments, blocks: NDArray[np.int64], energy: float) -> None:
        reader = moments.reader
        device = moments.weights.device
        columns = reader.columns(torch.from_numpy(blocks.reshape(-1)).to(device))
        # Tap by tap as the reader gives them, then one row of columns per channel.
        columns = columns.reshape(reader.taps, len(blocks), -1).movedim(0, 1).flatten(1)
        self._width = columns.shape[1]
        alone = columns.numel() == reader.features - 1
        self.constant = moments.energy / energy if alone and not moments.intercept else np.inf
        own = columns.flatten()
        self._energy = energy
        self._weights = moments.weights[:, own].clone()
        self._inverse = _inverse(moments, own)

    def costs(self) -> Tensor:
        """Return the increase of the relative error for removing each channel left; (left,)."""
        left, width = len(self._inverse) // self._width, self._width
        blocks = self._inverse.reshape(left, width, left, width).diagonal(dim1=0, dim2=2)
        weights = self._weights.T.reshape(left, width, -1)
        solved = torch.linalg.solve(blocks.movedim(-1, 0), weights)
        return (weights * solved).sum(dim=(1, 2)) / self._energy

    def remove(self, chosen: Tensor) -> float:
        """Take channels out, refit the rest, and return the increase of the relative error.

        Args:
            chosen: indices among the channels left, ascending.
        """
        taps = torch.arange(self._width)
        out = (chosen[:, None] * self._width + taps).flatten().to(self._weights.device)
        stay = torch.ones(len(self._inverse), dtype=torch.bool, device=out.device)
        stay[out] = False
        across = self._inverse[out]
        weights = self._weights[:, out]
        solved = torch.linalg.solve(across[:, out], weights.T)
        increase = float((weights.T * solved).sum()) / self._energy
        across_stay = across[:, stay]
        self._weights = self._weights[:, stay] - solved.T @ across_stay
        update = across_stay.T @ torch.linalg.solve(across[:, out], across_stay)
        self._inverse = self._inverse[stay][:, stay].sub_(update)
        return increase


class _Independent:
    """One layer with per-channel moments alone: every channel costs its own variance."""

    def __init__(self, moments: Moments, blocks: NDArray[np.int64], energy: float) -> None:
        costs = moments.weights.square().sum(dim=0) * moments.variance
        positions = torch.from_numpy(blocks).to(costs.device)
        columns = moments.reader.columns(positions.flatten()).reshape(-1, *blocks.shape)
        self._costs = costs[columns].sum(dim=(0, 2)) / energy
        self.constant = np.inf  # its costs are variances

    def costs(self) -> Tensor:
        return self._costs

    def remove(self, chosen: Tensor) -> float:
        chosen = chosen.to(self._costs.device)
        increase = float(self._costs[chosen].sum())
        stay = torch.ones(len(self._costs), dtype=torch.bool, device=chosen.device)
        stay[chosen] = False
        self._costs = self._costs[stay]
        return increase


def _inverse(moments: Moments, own: Tensor) -> Tensor:
    """Return the part at ``own`` of the inverse of a layer's moments with their ridge.

    Raises:
        ValueError: if the moments are not finite.
    """
    assert moments.gram is not None
    if not bool(torch.isfinite(moments.gram).all()):
        raise ValueError(
            "the network's activations on these images are not finite, so that its channels cannot "
            "be ordered: check the weights, and that the images are normalised as it expects"
        )
    size = moments.reader.features if moments.intercept else moments.reader.features - 1
    matrix = moments.gram[:size, :size]
    ridge = ridge_of(moments.gram, moments.ridge)[:size]
    factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag(ridge))
    while int(failed):
        ridge = ridge * 10
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag(ridge))
    identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    return torch.cholesky_solve(identity, factor)[own][:, own].contiguous()
