"""AMC's state: eleven numbers about the layer at hand and the savings that are left.

Source: He et al., AMC, ECCV 2018, section 3.1; the scaling is that of the authors' code
(mit-han-lab/amc, ``env/channel_pruning_env.py``). What differs:

- AMC prunes the input channels of a layer and describes that layer. A group is described by the
  layer that first produces its channels, since it can have several consumers.
- The paper's features are used, in its order. The authors' code has ten: the type of the layer in
  place of height and width, and the number of weights in place of MACs.
- ``reduced`` is what the decisions so far have saved. The authors' code also counts what the layers
  to come would save if they were pruned as far as possible.
- The previous action is a prune ratio, and 0 at first. In the authors' code actions are the ratio
  that is preserved, 1 at first.
- A feature that is the same for all groups is 0. The authors' code leaves it unscaled.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.problem import PruningProblem
from lfgcl_env.pruning.structure.layers import Layer

FEATURES: tuple[str, ...] = (
    "index",  # of the group, from 0
    "out_channels",  # of the group's first producing layer, and so all that follow
    "in_channels",
    "height",  # of the layer's input; 1 for a linear layer
    "width",
    "stride",  # 0 for a linear layer
    "kernel",  # side; the geometric mean of unequal ones; 1 for a linear layer
    "macs",
    "reduced",  # MACs saved by what was decided so far, as a fraction of the baseline's
    "rest",  # MACs of the layers that follow, unpruned, as a fraction of the baseline's
    "previous_action",  # prune ratio executed in the group before; 0 at the first
)
"""The numbers of a state, in order. The first eight are scaled to [0, 1] over the groups."""

_STATIC = 8  # numbers that only depend on the layer


class AMCState:
    """Computes the states of a problem.

    Args:
        problem: the problem to describe.

    Attributes:
        table: the layers' own numbers before scaling; float64, (groups, 8).
        rest: the column of that name; float64, (groups,).
    """

    def __init__(self, problem: PruningProblem) -> None:
        self._problem = problem
        layers = {layer.name: layer for layer in problem.layers}
        producers = [
            next(layers[name] for name in group.layers("out") if name in layers)
            for group in problem.groups
        ]
        sizes = _input_sizes(problem, producers)
        self.table = np.array(
            [
                _row(index, layer, size)
                for index, (layer, size) in enumerate(zip(producers, sizes, strict=True))
            ]
        )
        order = [layer.name for layer in problem.layers]
        macs = np.array([layer.macs for layer in problem.layers])
        after = [macs[order.index(layer.name) + 1 :].sum() for layer in producers]
        self.rest = np.array(after) / problem.baseline_cost.macs
        low, high = self.table.min(axis=0), self.table.max(axis=0)
        self._scaled = (self.table - low) / np.where(high > low, high - low, 1.0)

    def __call__(
        self, group: int, keep: NDArray[np.int64], previous_action: float
    ) -> NDArray[np.float32]:
        """Return the state before the decision on a group; a new array, float32, (11,), in [0, 1].

        Args:
            group: to be decided next.
            keep: channels kept in every group at the moment; (groups,).
            previous_action: the prune ratio executed last, 0 if there is none.
        """
        state = np.empty(len(FEATURES), dtype=np.float64)
        state[:_STATIC] = self._scaled[group]
        state[-3] = 1.0 - self._problem.cost(keep).macs / self._problem.baseline_cost.macs
        state[-2] = self.rest[group]
        state[-1] = previous_action
        return np.clip(state, 0.0, 1.0).astype(np.float32)


def _row(index: int, layer: Layer, size: tuple[int, int]) -> tuple[float, ...]:
    stride = 0 if layer.kind == "linear" else layer.stride
    return (
        index,
        layer.out_channels,
        layer.in_channels,
        *size,
        stride,
        layer.kernel**0.5,
        layer.macs,
    )


def _input_sizes(problem: PruningProblem, layers: list[Layer]) -> list[tuple[int, int]]:
    """Measure height and width of the layers' inputs by running the baseline on one image."""
    network = problem.baseline.network
    found: dict[nn.Module, tuple[int, int]] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        height, width = (1, 1, *inputs[0].shape[2:])[-2:]
        found.setdefault(module, (1, 1) if isinstance(module, nn.Linear) else (height, width))

    modules = [network.get_submodule(layer.name) for layer in layers]
    handles = [module.register_forward_pre_hook(record) for module in modules]
    try:
        with torch.inference_mode():
            first = next(network.parameters())
            network(first.new_zeros((1, *problem.baseline.input_shape)))
    finally:
        for handle in handles:
            handle.remove()
    return [found[module] for module in modules]
