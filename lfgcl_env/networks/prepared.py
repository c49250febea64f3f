"""Preparing a module to be pruned: evaluation mode, the CPU, and a check of its outputs."""

import copy
import itertools

import torch
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import first_line


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
        return copy.deepcopy(network)
    except Exception as error:  # a module of one's own may hold anything
        raise ValueError(
            f"{type(network).__name__} cannot be copied ({first_line(error)}): pass it in "
            "evaluation mode and on the CPU"
        ) from error


def count_classes(network: nn.Module, shape: tuple[int, int, int], name: str) -> int:
    """Run two black images through a network and count its outputs.

    Args:
        network: in evaluation mode on the CPU.
        shape: (channels, height, width) of one input.
        name: of the network, for errors.

    Raises:
        ValueError: if the network fails, or does not return logits (images, classes).
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            logits = network(torch.zeros(2, *shape))
        except Exception as error:  # a network of one's own may raise anything
            raise ValueError(
                f"{name} does not take inputs of shape {shape} ({first_line(error)}): give "
                "input_shape=(channels, height, width)"
            ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{name} returns {found} for two inputs: logits of shape (inputs, classes) are needed"
        )
    return int(logits.shape[1])
