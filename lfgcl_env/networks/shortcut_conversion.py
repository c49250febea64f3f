"""Weights of residual networks with zero-padded shortcuts, converted to projections, exactly.

Zero padding adds channels of one stage to other channels of the next, which ties neither: residual
streams cannot be pruned. A 1x1 convolution that copies every channel to where the padding put it,
and a BatchNorm that changes nothing, compute the same; and every stage has a stream of its own.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lfgcl_env.networks.cifar_resnet import ConvShortcut, ZeroPadShortcut


def with_projections(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Add the projection shortcuts that a network has and its weights lack, exactly.

    Args:
        state: tensors by name, of a :class:`~lfgcl_env.networks.CifarResNet`. One that has
            projections already is returned as it is.
        network: of the same depth, built with ``shortcut="B"``; for any other nothing is added.

    Returns:
        Weights with which the network computes what one with ``shortcut="A"`` does with ``state``.

    >>> from lfgcl_env.networks import build_network
    >>> projecting = build_network("resnet20", shortcut="B")
    >>> state = with_projections(build_network("resnet20").state_dict(), projecting)
    >>> projecting.load_state_dict(state)
    <All keys matched successfully>
    """
    shortcuts = {n: m for n, m in network.named_modules() if isinstance(m, ConvShortcut)}
    if any(key.startswith(tuple(shortcuts)) for key in state):
        return dict(state)
    added = {
        f"{name}.{key}": tensor
        for name, shortcut in shortcuts.items()
        for key, tensor in _projection(shortcut).items()
    }
    return dict(state) | added


def _projection(shortcut: ConvShortcut) -> dict[str, Tensor]:
    """Return weights with which a projection shortcut does what zero padding does."""
    conv, norm = shortcut
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    weight = torch.zeros_like(conv.weight)
    padding = ZeroPadShortcut(conv.in_channels, conv.out_channels, 1)
    copied = torch.arange(conv.in_channels)
    weight[padding.before + copied, copied] = 1
    ones = torch.ones(conv.out_channels, dtype=weight.dtype)
    return {
        "0.weight": weight,
        "1.weight": ones,
        "1.bias": torch.zeros_like(ones),
        "1.running_mean": torch.zeros_like(ones),
        "1.running_var": ones - norm.eps,  # so that the BatchNorm divides by 1
        "1.num_batches_tracked": torch.tensor(0),
    }
