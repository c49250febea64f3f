"""BatchNorm statistics of a repaired network, made those of its own activations.

A repair stores fitted biases in running means, and sums of fewer channels have other variances:
what BatchNorm subtracts and divides by is no longer the mean and deviation of what comes in. In
training it would use those of the batch, and the network would lose what the repair gained. So the
statistics are measured and set, and the affine parameters absorb the difference: in evaluation mode
the network computes what it did.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sums:
    """Running sums of what a BatchNorm gets."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.first, self.second = (
            torch.zeros(channels, dtype=torch.float64, device=device) for _ in range(2)
        )

    def add(self, _: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        values = (
            (inputs[0] if inputs else named["input"]).detach().transpose(0, 1).flatten(1).double()
        )
        self.count += values.shape[1]
        self.first += values.sum(1)
        self.second += values.square().sum(1)


@torch.no_grad()
def recentre(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set BatchNorm statistics to those of the activations, at unchanged outputs, in place.

    Layers without affine parameters or running statistics, frozen ones, and channels that hardly
    vary are left alone.

    Args:
        network: in evaluation mode.
        batches: inputs on its device.

    Returns:
        The number of layers changed.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm)
        and learns(module)
        and module.running_mean is not None
        and module.num_features
    ]
    sums = {norm: _Sums(norm.num_features, norm.weight.device) for norm in norms}
    handles: list[Any] = [
        norm.register_forward_pre_hook(partial(_Sums.add, sums[norm]), with_kwargs=True)
        for norm in norms
    ]
    try:
        for batch in batches:
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    changed = [norm for norm in norms if sums[norm].count > 1]
    for norm in changed:
        _absorb(norm, sums[norm])
    return len(changed)


def learns(norm: _BatchNorm) -> bool:
    """Whether a layer has gains and offsets, and they are to be trained."""
    return bool(norm.affine and norm.weight.requires_grad and norm.bias.requires_grad)


def _absorb(norm: _BatchNorm, sums: _Sums) -> None:
    """Set the statistics of one layer, and let gain and offset make up for it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean = sums.first / sums.count
    variance = (sums.second / sums.count - mean.square()).clamp(min=0)
    # A channel that hardly varies would get a gain of any size.
    alive = variance > 1e-3 * norm.running_var.double() + 1e-12
    old_mean, old_variance = norm.running_mean.double(), norm.running_var.double()
    mean = torch.where(alive, mean, old_mean)
    variance = torch.where(alive, variance, old_variance)
    gain = norm.weight.double() / (old_variance + norm.eps).sqrt()
    norm.bias.copy_(norm.bias.double() + gain * (mean - old_mean))
    norm.weight.copy_(gain * (variance + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
