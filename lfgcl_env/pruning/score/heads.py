"""The layers that feed a network's outputs, whose inputs are compared where nothing else is named.

Every output's gradient is followed back to the first layers that it meets. A network with one
classifier has one such layer; one that also says where things are has several.
"""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lfgcl_env.networks import Baseline
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.networks.recording import recorded_copy, recording
from lfgcl_env.pruning.structure.layers import Layer


@dataclass(frozen=True)
class Head:
    """A layer from which an output can be reached without passing another layer.

    Attributes:
        layer: its name.
        maps: whether such an output has positions, as a segmentation has.
    """

    layer: str
    maps: bool


@torch.inference_mode(False)
@torch.enable_grad()
def find_heads(baseline: Baseline, layers: Sequence[Layer]) -> tuple[Head, ...]:
    """Find the layers that feed the outputs that can be compared.

    Args:
        baseline: the network.
        layers: its convolutions and linear layers, measured.

    Returns:
        In order of use; the last layer alone where no gradient comes through the outputs.
    """
    network = recorded_copy(baseline.network)
    example = torch.randn(1, *baseline.input_shape, generator=torch.Generator().manual_seed(0))
    example = example.to(next(network.parameters(), example)).requires_grad_()
    calls: dict[Any, str] = {}
    with ExitStack() as stack:
        for layer in layers:
            hook = partial(_mark, calls, layer.name)
            stack.callback(network.get_submodule(layer.name).register_forward_hook(hook).remove)
        with recording(baseline.network, example.detach()):
            outputs = named_outputs(network(example))
    fed = {
        place: _first_met(outputs[place].grad_fn, calls)
        for place in baseline.outputs
        if place in outputs
    }
    maps = {name for place, names in fed.items() if outputs[place].dim() > 2 for name in names}
    found = {name for names in fed.values() for name in names} or {layers[-1].name}
    return tuple(Head(layer.name, layer.name in maps) for layer in layers if layer.name in found)


def _mark(
    calls: dict[Any, str], name: str, _: nn.Module, __: tuple[Any, ...], output: Tensor
) -> Tensor:
    """Remember the step of the graph that a layer's output comes out of."""
    marked = output.clone()  # a step of its own, which what works in place leaves alone
    if marked.grad_fn is not None:
        calls[marked.grad_fn] = name
    return marked


def _first_met(output: Any, calls: dict[Any, str]) -> Collection[str]:
    """Return the layers whose calls are met first on all ways back from an output."""
    met: dict[str, None] = {}
    seen: set[Any] = set()
    left = [output]
    while left:
        step = left.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if step in calls:
            met[calls[step]] = None
        else:
            left += [before for before, _ in step.next_functions]
    return met
