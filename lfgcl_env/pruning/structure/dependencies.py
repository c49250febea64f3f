"""Torch-Pruning's dependency graph, with the layers that it does not know."""

import warnings
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.pruning.structure.layers import is_frozen_norm, layer_sizes
from lfgcl_env.pruning.structure.training_mode import set_training


class _FrozenNorm(tp.BasePruningFunc):  # type: ignore[misc]
    """Tells Torch-Pruning that channels go through a BatchNorm made of buffers."""

    def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        kept = sorted(set(range(layer_sizes(layer)[0])) - set(idxs))
        for key, tensor in layer.named_buffers(recurse=False):
            if tensor.dim():
                layer._buffers[key] = tensor[kept]
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        return layer_sizes(layer)[0]

    get_in_channels = get_out_channels


def dependency_graph(
    network: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, training: bool = False
) -> tp.DependencyGraph:
    """Build Torch-Pruning's dependency graph of ``network``.

    Args:
        network: in evaluation mode; not changed, but for its mode with ``training``.
        inputs: of the network.
        training: trace what it does in training, but for BatchNorms and dropout.
    """

    def run(module: nn.Module, arguments: tuple[Tensor, ...]) -> list[Tensor]:
        if training:
            set_training(module)  # tracing has set it to evaluation
        outputs = named_outputs(module(*arguments)).values()
        return [output for output in outputs if output.grad_fn is not None]

    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = [p for p in network.parameters() if not p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(True)
        try:
            inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
            graph = tp.DependencyGraph()
            graph.build_dependency(
                network,
                example_inputs=inputs,
                forward_fn=run,
                customized_pruners={
                    type(module): _FrozenNorm()
                    for module in network.modules()
                    if is_frozen_norm(module)
                },
                verbose=False,
            )
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
    return graph


def pruning_group(graph: tp.DependencyGraph, root: nn.Module, channels: list[int]) -> tp.Group:
    """Return Torch-Pruning's group for removing ``channels`` of the output of ``root``."""
    return graph.get_pruning_group(
        root, graph.get_pruner_of_module(root).prune_out_channels, channels
    )
