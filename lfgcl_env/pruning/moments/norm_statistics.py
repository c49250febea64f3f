"""What norms over all channels see in the baseline, and how it changes without some channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lfgcl_env.pruning.moments.patches import gram
from lfgcl_env.pruning.structure.channel_norms import (
    channel_axis,
    is_centred,
    is_channel_norm,
    only_input,
)
from lfgcl_env.pruning.structure.slice_plan import SlicePlan


@dataclass(frozen=True)
class NormStatistics:
    """Averages over what a norm normalises together: positions, or images of a GroupNorm.

    Attributes:
        mean: of every channel; float64, (channels,).
        products: of two channels' means over what is normalised together; float64,
            (channels, channels).
        squares: of every channel; float64, (channels,).
        eps: that the norm adds to variances.
        centred: whether it subtracts means.
    """

    mean: Tensor
    products: Tensor
    squares: Tensor
    eps: float
    centred: bool

    def rescale(self, kept: Tensor) -> tuple[float, float]:
        """Return what gives kept channels their values in the baseline back, on average.

        Args:
            kept: positions of the channels that stay, at least one; int64.

        Returns:
            A factor, and what is added behind it.
        """
        before = self._whole_deviation
        moved = float(self.mean[kept].mean() - self.mean.mean()) if self.centred else 0.0
        return self._deviation(kept) / before, moved / before

    @cached_property
    def _whole_deviation(self) -> float:
        return self._deviation(torch.arange(len(self.mean), device=self.mean.device))

    def _deviation(self, channels: Tensor) -> float:
        square = float(self.squares[channels].mean())
        if self.centred:
            square -= float(self.products[channels][:, channels].mean())
        return float((max(square, 0.0) + max(self.eps, 1e-12)) ** 0.5)


@torch.inference_mode()
def collect_norm_statistics(
    network: nn.Module, plan: SlicePlan, batches: Sequence[Tensor]
) -> dict[str, NormStatistics]:
    """Collect statistics of all norms over channels that follow groups, in one pass over images.

    Args:
        network: the baseline or an exact copy, in evaluation mode.
        plan: its slice plan.
        batches: calibration images on the network's device.

    Returns:
        By the norm's name; without those that compute something else, or have nothing to scale by.
    """
    sums: dict[str, _Sums] = {}
    handles = []
    for name in plan.layers:
        module = network.get_submodule(name)
        if is_channel_norm(module) and module.weight is not None:
            sums[name] = _Sums()
            handles.append(module.register_forward_hook(sums[name].add, with_kwargs=True))
    try:
        for batch in batches if sums else ():
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: collected.statistics(network.get_submodule(name))
        for name, collected in sums.items()
        if collected.count
    }


class _Sums:
    """Running sums of one norm."""

    def __init__(self) -> None:
        self.count = self._parts = 0
        self._mean: Tensor | float = 0.0
        self._products: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(
        self, module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any], output: Any
    ) -> None:
        x = only_input(arguments, named)
        axis = channel_axis(module, x, output)
        if axis is None:
            return
        rows = x.movedim(axis, -1)
        together = isinstance(module, nn.GroupNorm)
        means = rows.flatten(1, -2).mean(1) if together and rows.dim() > 2 else rows.flatten(0, -2)
        flat = rows.flatten(0, -2)
        self.count += len(means)
        self._parts += len(flat)
        self._mean = self._mean + means.sum(0).double()
        self._products = self._products + gram(means)
        self._squares = self._squares + flat.square().sum(0).double()

    def statistics(self, module: nn.Module) -> NormStatistics:
        assert isinstance(self._mean, Tensor)
        assert isinstance(self._products, Tensor)
        assert isinstance(self._squares, Tensor)
        return NormStatistics(
            self._mean / self.count,
            self._products / self.count,
            self._squares / self._parts,
            float(module.eps or 0.0),  # type: ignore[arg-type]
            is_centred(module),
        )
