"""MACs and parameters of any strategy in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lfgcl_env.pruning.structure.layers import Layer
from lfgcl_env.pruning.structure.slice_plan import Dimension, SlicePlan

METRICS = ("macs", "params")


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        macs: multiply-accumulates of convolutions and linear layers for one input.
        params: number of parameters.
    """

    macs: int
    params: int


class _Products:
    """A sum of products, each of a constant and two numbers affine in the kept channels."""

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self._rows: list[tuple[int, Dimension | int, Dimension | int]] = []

    def add(self, factor: int, first: Dimension | int, second: Dimension | int = 1) -> None:
        self._rows.append((factor, first, second))

    def finish(self) -> "_Products":
        fixed = 0
        varying = []
        for factor, *sizes in self._rows:
            if any(isinstance(size, Dimension) for size in sizes):
                varying.append((factor, *sizes))
            else:
                fixed += factor * int(sizes[0]) * int(sizes[1])  # type: ignore[arg-type]
        self._constant = fixed
        self._factors = np.array([row[0] for row in varying], dtype=np.int64)
        self._first = self._affine([row[1] for row in varying])
        self._second = self._affine([row[2] for row in varying])
        return self

    def _affine(
        self, sizes: Sequence[Dimension | int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shares = np.zeros((self._groups, len(sizes)))
        fixed = np.zeros(len(sizes))
        for column, size in enumerate(sizes):
            if isinstance(size, Dimension):
                shares[:, column] = size.shares
                fixed[column] = size.fixed
            else:
                fixed[column] = size
        return shares, fixed

    def __call__(self, keep: NDArray[np.int64]) -> NDArray[np.int64]:
        # Sizes are small integers, exact in float64, whose matrix product is BLAS's; the products
        # of sizes are taken in integers because they may exceed 2**53.
        first = (keep @ self._first[0] + self._first[1]).astype(np.int64)
        second = (keep @ self._second[0] + self._second[1]).astype(np.int64)
        total: NDArray[np.int64] = (first * second) @ self._factors + self._constant
        return total


class CostModel:
    """Counts MACs and parameters of strategies.

    Args:
        network: the baseline.
        plan: its slice plan.
        layers: its convolutions and linear layers, measured.
        other_macs: MACs of matrix products outside these layers, such as attention; constant.
    """

    def __init__(
        self, network: nn.Module, plan: SlicePlan, layers: Sequence[Layer], other_macs: int = 0
    ) -> None:
        self._terms = {metric: _Products(len(plan.groups)) for metric in METRICS}
        self._terms["macs"].add(other_macs, 1)
        for layer in layers:
            per_pair = layer.kernel * layer.positions
            slices = plan.layers.get(layer.name)
            out = (slices and slices.out) or layer.out_channels
            into = (slices and slices.into) or layer.fan
            self._terms["macs"].add(per_pair, out, into)
        counted: set[int] = set()
        for name, module in network.named_modules():
            slices = plan.layers.get(name)
            for parameter in module.parameters(recurse=False):
                if id(parameter) in counted:
                    continue
                counted.add(id(parameter))
                shape = tuple(parameter.shape)
                rest = int(np.prod(shape[2:], dtype=np.int64))
                out = (slices and slices.out) or (shape[0] if shape else 1)
                into = (slices and slices.into) or (shape[1] if len(shape) > 1 else 1)
                self._terms["params"].add(rest, out, into if len(shape) > 1 else 1)
        for terms in self._terms.values():
            terms.finish()
        self.baseline = self(np.array([group.channels for group in plan.groups], dtype=np.int64))

    def __call__(self, keep: NDArray[np.int64]) -> Cost:
        """Cost of keeping ``keep[g]`` channels of every group g; int64, (groups,)."""
        return Cost(int(self._terms["macs"](keep)), int(self._terms["params"](keep)))

    def many(self, keep: NDArray[np.int64], metric: str) -> NDArray[np.int64]:
        """One metric of many strategies at once; ``keep`` is (..., groups), the result (...)."""
        return self._terms[metric](keep)

    def of_baseline(self, metric: str) -> int:
        """One metric of the unpruned network."""
        return int(getattr(self.baseline, metric))
