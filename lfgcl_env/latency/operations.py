"""The operations of a network whose sizes follow from a strategy, found by running it.

A network is run whole, and once with a channel less in every group. Where a size of an operation's
tensors or arguments differs, the operation's time depends on that group. All others take the same
time under every strategy and need no table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

MOST_AXES = 2
"""An operation of more sizes that vary by themselves, such as a concatenation, has their sum."""

Keep = NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """What a size varies with: a sum of kept channels.

    Attributes:
        shares: how often every group's kept channels count.
        full: the sum for the whole network.
        scaled: whether single sizes are taken in proportion to it, where it joins several.
    """

    shares: tuple[int, ...]
    full: int
    scaled: bool = False

    @property
    def group(self) -> int | None:
        """The group that it is the kept channels of; None for sums."""
        found = np.flatnonzero(self.shares)
        return int(found[0]) if len(found) == 1 and self.shares[found[0]] == 1 else None

    def values(self, keep: Keep) -> Keep:
        """Return the sum for many strategies, (..., groups) to (...)."""
        return keep @ np.array(self.shares, dtype=np.int64)


@dataclass(frozen=True)
class Number:
    """A size: a fixed part, and for every axis how often it counts."""

    fixed: int
    times: tuple[float, ...]

    def at(self, values: Sequence[int]) -> int:
        """Return the size where the axes have these values; at least 1."""
        varying = sum(t * v for t, v in zip(self.times, values, strict=True))
        return max(1, self.fixed + round(varying)) if any(self.times) else self.fixed


@dataclass(frozen=True)
class TensorLike:
    """A tensor's sizes and type."""

    shape: tuple[Number, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Signature:
    """An operation without the groups that it belongs to: equal ones take the same time.

    Attributes:
        name: of the operation, such as ``"aten.convolution.default"``.
        leaves: its arguments: :class:`TensorLike`, :class:`Number`, or whatever else they are.
        spec: how the leaves make the arguments.
        full: the whole network's value of every axis.
    """

    name: str
    leaves: tuple[Any, ...]
    spec: TreeSpec
    full: tuple[int, ...]

    def arguments(self, values: Sequence[int], device: str) -> tuple[Any, Any]:
        """Return positional and keyword arguments for values of the axes; tensors hold noise."""
        found: tuple[Any, Any] = tree_unflatten(self.made(values, device), self.spec)
        return found

    def made(self, values: Sequence[int], device: str = "cpu") -> list[Any]:
        """Return the leaves for values of the axes; tensors hold noise."""
        return [_made(leaf, values, device) for leaf in self.leaves]

    @property
    def operation(self) -> str:
        """The name alone, such as ``"conv2d"``; the same where it works in place."""
        return self.name.split(".")[1].rstrip("_")

    @property
    def function(self) -> Any:
        """What computes it, not in place."""
        namespace, operation, overload = self.name.split(".")
        found = getattr(torch.ops, namespace)
        for name in (operation.rstrip("_"), operation):
            if hasattr(found, name) and overload in getattr(found, name).overloads():
                return getattr(getattr(found, name), overload)
        raise ValueError(f"this PyTorch has no operation {self.name}")

    def sizes(self, values: Sequence[int]) -> list[Any]:
        """Return the leaves for values of the axes, shapes for tensors."""
        return [
            tuple(n.at(values) for n in leaf.shape)
            if isinstance(leaf, TensorLike)
            else (leaf.at(values) if isinstance(leaf, Number) else leaf)
            for leaf in self.leaves
        ]

    def bytes(self, values: Sequence[int]) -> int:
        """Count the bytes of the tensors for values of the axes."""
        return sum(
            prod(size) * leaf.dtype.itemsize
            for leaf, size in zip(self.leaves, self.sizes(values), strict=True)
            if isinstance(leaf, TensorLike)
        )

    @property
    def text(self) -> str:
        """The same for the same operation in every process."""
        return f"{self.name} {self.leaves!r} {self.spec!r}"


@dataclass(frozen=True)
class Operation:
    """An operation of a network whose time depends on its strategy.

    Attributes:
        signature: what it computes.
        axes: what its sizes vary with.
    """

    signature: Signature
    axes: tuple[Axis, ...]


def find_operations(
    build: Callable[[Keep], nn.Module], channels: Keep, example: Tensor
) -> list[Operation]:
    """Find the operations whose sizes depend on a strategy.

    Args:
        build: returns a network with so many channels in every group.
        channels: of every group in the whole network.
        example: inputs (images, ...).

    Returns:
        In the order in which the network runs them, one that is run often often.
    """
    calls = _record(build(channels), example)
    shares = [np.zeros((len(channels), len(call.numbers)), dtype=np.int64) for call in calls]
    for group in np.flatnonzero(channels > 1):
        less = channels.copy()
        less[group] -= 1
        fewer = _record(build(less), example)
        if [call.name for call in fewer] != [call.name for call in calls]:
            continue
        for share, whole, cut in zip(shares, calls, fewer, strict=True):
            if len(whole.numbers) == len(cut.numbers):
                share[group] = np.subtract(whole.numbers, cut.numbers)
    return [
        _operation(call, share, channels)
        for call, share in zip(calls, shares, strict=True)
        if share.any() and not call.is_view
    ]


@dataclass(frozen=True)
class _Call:
    name: str
    is_view: bool
    leaves: list[Any]  # tensors as (shape, dtype)
    spec: TreeSpec

    @property
    def numbers(self) -> list[int]:
        return [number for leaf in self.leaves for number in _numbers(leaf)]


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        flat, spec = tree_flatten((tuple(args), kwargs or {}))
        leaves = [
            (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in flat
        ]
        self.calls.append(_Call(str(func), bool(func.is_view), leaves, spec))
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
def _record(network: nn.Module, example: Tensor) -> list[_Call]:
    with _Recorder() as recorder:
        network(example)
    return recorder.calls


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, tuple) and len(leaf) == 2 and isinstance(leaf[1], torch.dtype)


def _numbers(leaf: Any) -> Sequence[int]:
    if _is_tensor(leaf):
        shape: Sequence[int] = leaf[0]
        return shape
    return (leaf,) if isinstance(leaf, int) and not isinstance(leaf, bool) else ()


def _operation(call: _Call, shares: NDArray[np.int64], channels: Keep) -> Operation:
    """Make an operation from a call and the groups' shares in its numbers, (groups, numbers)."""
    directions: dict[tuple[int, ...], None] = {}
    for column in shares.T:
        if column.any():
            divisor = gcd(*(int(share) for share in column))
            directions[tuple(int(share) // divisor for share in column)] = None
    axes = [Axis(shares=one, full=int(np.dot(one, channels))) for one in directions]
    if len(axes) > MOST_AXES:
        joined = tuple(int(n) for n in np.sum([axis.shares for axis in axes], axis=0))
        axes = [Axis(joined, sum(axis.full for axis in axes), scaled=True)]
    columns = iter(shares.T)
    leaves: list[Any] = []
    for leaf in call.leaves:
        numbers = tuple(_number(n, next(columns), axes, channels) for n in _numbers(leaf))
        if _is_tensor(leaf):
            leaves.append(TensorLike(numbers, leaf[1]))
        else:
            leaves.append(numbers[0] if numbers else leaf)
    full = tuple(axis.full for axis in axes)
    return Operation(Signature(call.name, tuple(leaves), call.spec, full), tuple(axes))


def _number(number: int, column: NDArray[np.int64], axes: Sequence[Axis], channels: Keep) -> Number:
    varying = int(column @ channels)
    fixed = int(number) - varying
    times = [0.0] * len(axes)
    if varying:
        divisor = gcd(*(int(share) for share in column))
        direction = tuple(int(share) // divisor for share in column)
        for place, axis in enumerate(axes):
            if axis.scaled:
                times[place] = varying / axis.full
            elif axis.shares == direction:
                times[place] = float(divisor)
    return Number(fixed, tuple(times))


def _made(leaf: Any, values: Sequence[int], device: str) -> Any:
    if isinstance(leaf, Number):
        return leaf.at(values)
    if not isinstance(leaf, TensorLike):
        return torch.device(device) if isinstance(leaf, torch.device) else leaf
    shape = [number.at(values) for number in leaf.shape]
    if leaf.dtype.is_floating_point:
        return torch.rand(shape, device=device).add_(0.5).to(leaf.dtype)
    return torch.zeros(shape, dtype=leaf.dtype, device=device)
