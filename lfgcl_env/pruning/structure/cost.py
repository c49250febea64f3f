"""MACs, parameters and whatever else a budget counts, of any strategy in closed form."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lfgcl_env.config import LatencyConfig
from lfgcl_env.pruning.structure.head_counts import head_axes, head_count
from lfgcl_env.pruning.structure.layers import Layer, layer_sizes, weight_axes
from lfgcl_env.pruning.structure.slice_plan import Dimension, SlicePlan


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        macs: multiply-accumulates of convolutions, linear layers and attention for one input.
        params: number of parameters.
    """

    macs: int
    params: int


@dataclass(frozen=True)
class Measured:
    """What a metric may look at.

    Attributes:
        network: the baseline.
        plan: its slice plan.
        layers: its convolutions and linear layers.
        other_macs: MACs of matrix products outside these layers that stay.
        head_macs: MACs of such products for one head, by the name of the attention.
        input_shape: of one input.
        allowed: counts that every group may keep, ascending.
        latency: whose time counts.
    """

    network: nn.Module
    plan: SlicePlan
    layers: Sequence[Layer]
    other_macs: int = 0
    head_macs: Mapping[str, int] = field(default_factory=dict)
    input_shape: Sequence[int] = ()
    allowed: Sequence[Sequence[int]] = ()
    latency: LatencyConfig = field(default_factory=LatencyConfig)


Count = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""From strategies (..., groups) to what they cost (...), int64; grows with every kept count."""

Metric = Callable[[Measured], Count]

METRICS: dict[str, Metric] = {}
"""What a budget may count, by name; see :func:`metric`."""

TIMED: set[str] = set()
"""Those whose first count takes a minute, because something has to be measured for it."""


def metric(name: str, *, timed: bool = False) -> Callable[[Metric], Metric]:
    """Register what a budget may count under a name in :data:`METRICS`.

    Args:
        name: of the metric.
        timed: whether something has to be measured for it.
    """

    def register(function: Metric) -> Metric:
        METRICS[name] = function
        if timed:
            TIMED.add(name)
        return function

    return register


class Products:
    """A sum of products, each of a constant and two numbers affine in the kept channels.

    Besides, numbers that count where another one is zero.

    Args:
        groups: how many groups a strategy has.
    """

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self._terms: list[tuple[int, Dimension | int, Dimension | int]] = []
        self._constants: list[tuple[Dimension | int, Dimension]] = []

    def add(self, factor: int, first: Dimension | int, second: Dimension | int = 1) -> None:
        """Add a product of a constant and the sizes of two dimensions."""
        self._terms.append((factor, first, second))

    def add_if_empty(self, size: Dimension | int, inputs: Dimension) -> None:
        """Add the size of a dimension where another one has no positions left."""
        if not inputs.fixed:
            self._constants.append((size, inputs))

    def finish(self) -> "Products":
        """Turn the terms into matrices. To be called once, after the last addition."""
        fixed = 0
        varying = []
        for factor, *sizes in self._terms:
            if any(isinstance(size, Dimension) for size in sizes):
                varying.append((factor, *sizes))
            else:
                fixed += factor * int(sizes[0]) * int(sizes[1])  # type: ignore[arg-type]
        self._constant = fixed
        self._factors = np.array([term[0] for term in varying], dtype=np.int64)
        self._first = self._affine([term[1] for term in varying])
        self._second = self._affine([term[2] for term in varying])
        self._sizes = self._affine([size for size, _ in self._constants])
        self._inputs = self._affine([inputs for _, inputs in self._constants])
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
        """Sum up for many strategies at once; (..., groups) to (...)."""
        # Sizes are small integers, exact in float64, whose matrix product is BLAS's; the products
        # of sizes are taken in integers because they may exceed 2**53.
        first = (keep @ self._first[0] + self._first[1]).astype(np.int64)
        second = (keep @ self._second[0] + self._second[1]).astype(np.int64)
        total: NDArray[np.int64] = (first * second) @ self._factors + self._constant
        if self._constants and not keep.all():
            sizes = (keep @ self._sizes[0] + self._sizes[1]).astype(np.int64)
            empty = keep @ self._inputs[0] + self._inputs[1] == 0
            total = total + (sizes * empty).sum(axis=-1)
        return total


@metric("macs")
def multiply_accumulates(measured: Measured) -> Count:
    """Count multiply-accumulates for one input."""
    products = Products(len(measured.plan.groups))
    products.add(measured.other_macs, 1)
    for name, each in measured.head_macs.items():
        heads = measured.plan.layers[name].out
        assert heads is not None
        products.add(each, heads)
    for layer in measured.layers:
        slices = measured.plan.layers.get(layer.name)
        out = (slices and slices.out) or layer.out_channels
        into = (slices and slices.into) or layer.fan
        products.add(layer.kernel * layer.positions, out, into)
    return products.finish()


@metric("params")
def parameters(measured: Measured) -> Count:
    """Count parameters; one that several modules share counts once."""
    products = Products(len(measured.plan.groups))
    counted: set[int] = set()
    for name, module in measured.network.named_modules():
        slices = measured.plan.layers.get(name)
        axes = head_axes(module) if slices and head_count(module) else None
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) in counted:
                continue
            counted.add(id(parameter))
            shape = list(parameter.shape)
            if slices and axes is not None:
                each = parameter.numel() // shape[axes[key]] if key in axes else parameter.numel()
                products.add(each, (key in axes and slices.out) or 1)
                continue
            sizes: list[Dimension | int] = [*shape, 1, 1][: max(2, len(shape))]
            out, into = weight_axes(module) if key == "weight" else (0, 1)
            if slices and slices.out and slices.rows and shape:
                sizes[out] = slices.rows if key == "weight" else slices.out
            if slices and slices.into and key == "weight":  # others have no inputs
                sizes[into] = slices.into
            products.add(int(np.prod(shape[2:], dtype=np.int64)), sizes[0], sizes[1])
        if slices and slices.into and module.bias is None:
            # Without inputs it becomes a constant, which has a bias.
            products.add_if_empty(slices.out or layer_sizes(module)[0], slices.into)
    return products.finish()


class CostModel:
    """Counts whatever a budget may count, for any strategy.

    Args:
        measured: what metrics look at.

    Attributes:
        baseline: cost of the unpruned network.
    """

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._counts: dict[str, Count] = {}
        groups = measured.plan.groups
        self._whole = np.array([group.channels for group in groups], dtype=np.int64)
        self.baseline = self(self._whole)

    def __call__(self, keep: NDArray[np.int64]) -> Cost:
        """Return the cost of keeping ``keep[g]`` channels of every group g; int64, (groups,)."""
        return Cost(int(self.many(keep, "macs")), int(self.many(keep, "params")))

    def count(self, metric: str) -> Count:
        """Return what counts a metric, made when it is first asked for."""
        if metric not in self._counts:
            self._counts[metric] = METRICS[metric](self._measured)
        return self._counts[metric]

    def many(self, keep: NDArray[np.int64], metric: str) -> NDArray[np.int64]:
        """Count one metric of many strategies at once, from (..., groups) to (...)."""
        return self.count(metric)(keep)

    def of_baseline(self, metric: str) -> int:
        """Count one metric of the unpruned network."""
        return int(self.count(metric)(self._whole))
