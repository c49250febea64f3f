"""Torch-Pruning's dependency graph, with the layers that it does not know."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from lfgcl_env.edge.quiet import without_warnings
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.networks.recording import recording, steps_before
from lfgcl_env.pruning.structure.channel_norms import is_channel_norm
from lfgcl_env.pruning.structure.layers import (
    is_frozen_norm,
    layer_kind,
    layer_sizes,
    passes_channels,
)
from lfgcl_env.pruning.structure.meeting_channels import follow_shuffles
from lfgcl_env.pruning.structure.training_mode import set_training

_KNOWN_NORMS = (nn.LayerNorm, nn.GroupNorm)


class _Norm(tp.BasePruningFunc):  # type: ignore[misc]
    """Tells Torch-Pruning that channels go through a norm that it does not know."""

    def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        return layer_sizes(layer)[0]

    get_in_channels = get_out_channels


_Calls = list[tuple[nn.Module, Any, Tensor]]
"""Layers, the steps of autograd's graph that their outputs came out of, and these outputs."""


@contextmanager
def _own_outputs(network: nn.Module) -> Iterator[_Calls]:
    """Let no layer return a view, as linear layers of sequences and InstanceNorms do.

    An operation in place, such as a ReLU, would write another history into a view, and
    Torch-Pruning knows a layer by the history of its output.

    Yields:
        All outputs of layers inside the block, in the order of their calls.
    """
    calls: _Calls = []

    def keep(layer: nn.Module, _: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return None
        own = output.clone() if output._is_view() else output
        calls.append((layer, own.grad_fn, own))
        return own

    layers = [m for m in network.modules() if layer_kind(m) or passes_channels(m)]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _find_unread(outputs: Sequence[Tensor], calls: _Calls) -> dict[nn.Module, Tensor]:
    """Return outputs of layers from which no output of the network can be reached, by layer.

    Such a layer runs all the same, and reads channels, as the last block of a WaveNet does, or one
    of whose output only the place of the largest value is used.
    """
    seen = steps_before([output.grad_fn for output in outputs])
    unread = {}
    for layer, step, output in reversed(calls):
        if step is not None and step not in seen:
            unread[layer] = output
            seen |= steps_before([output.grad_fn, step])
    return unread


def dependency_graph(
    network: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, training: bool = False
) -> tp.DependencyGraph:
    """Build Torch-Pruning's dependency graph of ``network``.

    Args:
        network: a copy in evaluation mode that autograd follows, see
            :func:`~lfgcl_env.networks.recording.recorded_copy`; what is frozen is not traced. It
            may keep what it computed, and hooks if this fails.
        inputs: of the network.
        training: trace what it does in training, but for BatchNorms and dropout.

    Returns:
        The graph. Its attribute ``unread`` has the layers that no gradient of outputs comes to.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
    running = recording(network, inputs)
    with torch.enable_grad(), without_warnings(), _own_outputs(network) as calls:
        graph = _trace(network, inputs, training, running, calls)
    follow_shuffles(graph)
    return graph


def _trace(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    training: bool,
    running: AbstractContextManager[object],
    calls: _Calls,
) -> tp.DependencyGraph:
    def run(module: nn.Module, arguments: tuple[Tensor, ...]) -> list[Tensor]:
        if training:
            set_training(module)  # tracing has set it to evaluation
        calls.clear()
        with running:
            returned = named_outputs(module(*arguments)).values()
        outputs = [output for output in returned if output.grad_fn is not None]
        unread.update(_find_unread(outputs, calls))
        return [*outputs, *unread.values()]

    unread: dict[nn.Module, Tensor] = {}
    graph = tp.DependencyGraph()
    graph.build_dependency(
        network,
        example_inputs=inputs,
        forward_fn=run,
        customized_pruners={
            type(module): _Norm()
            for module in network.modules()
            if is_frozen_norm(module)
            or (is_channel_norm(module) and not isinstance(module, _KNOWN_NORMS))
        },
        verbose=False,
    )
    graph.unread = frozenset(unread)
    return graph
