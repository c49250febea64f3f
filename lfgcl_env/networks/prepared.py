"""Preparing a module to be pruned: evaluation mode and the CPU."""

import itertools

import torch
from torch import nn

from lfgcl_env.edge.value_checks import first_line
from lfgcl_env.networks.copying import copy_network


def settle(network: nn.Module, device: str | torch.device = "cpu") -> nn.Module:
    """Return a network in evaluation mode on a device: itself if it is so, else a copy.

    Raises:
        ValueError: if it cannot be copied.
    """
    tensors = itertools.chain(network.parameters(), network.buffers())
    if any(module.training for module in network.modules()) or any(
        tensor.device.type != torch.device(device).type for tensor in tensors
    ):
        return copy_module(network).to(device).eval()
    return network


def copy_module(network: nn.Module) -> nn.Module:
    """Copy a network.

    Raises:
        ValueError: if it cannot be copied.
    """
    try:
        return copy_network(network)
    except Exception as error:  # a module of one's own may hold anything
        raise ValueError(
            f"{type(network).__name__} cannot be copied ({first_line(error)}): pass it in "
            "evaluation mode and on the CPU"
        ) from error
