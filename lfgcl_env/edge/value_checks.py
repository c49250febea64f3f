"""Checks of single values that a type alone cannot express: budgets, shapes, devices."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Ge, MaxLen, MinLen

from lfgcl_env.edge.bounds import Seed
from lfgcl_env.edge.schema import check_value, short

Size = Annotated[int, Ge(1)]
"""One side of a shape."""

_Sizes = Annotated[tuple[Size, ...], MinLen(1), MaxLen(4)]

_Amounts = dict[str, Annotated[float, Ge(0)]]

_CLUSTER = re.compile(r"auto|local|(ray://)?([^\s:/\[\]]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})")

LARGEST_INPUT = 2**24
"""Most numbers in one input of a network: 3 x 2048 x 2048 and some more."""


def budget_range(budget: float | Sequence[float]) -> tuple[float, float]:
    """Return the lowest and highest budget of an episode; they are equal for a single budget.

    >>> budget_range(0.5), budget_range([0.3, 0.8])
    ((0.5, 0.5), (0.3, 0.8))
    """
    low, high = budget if isinstance(budget, Sequence) else (budget, budget)
    return float(low), float(high)


def check_budget(budget: float | Sequence[float]) -> float | tuple[float, float]:
    """Return a budget as a float, or a range of budgets as a tuple.

    Args:
        budget: numbers above 0 and at most 1. The problem checks whether they can be reached.

    Raises:
        ValueError: if it is a range other than (low, high).
    """
    if not isinstance(budget, Sequence):
        return float(budget)
    if len(budget) != 2 or budget[0] > budget[1]:
        raise ValueError(f"a range of budgets is (low, high) with low <= high, got {budget!r}")
    return float(budget[0]), float(budget[1])


def check_seed(seed: int) -> int:
    """Return a seed as a Python integer.

    Raises:
        ValueError: if NumPy or PyTorch would not take it.
    """
    return int(check_value(seed, Seed, "seed", "a whole number from 0 to 4,294,967,295"))


def check_count(count: int, what: str) -> int:
    """Return a number of images as a Python integer.

    Raises:
        ValueError: if it is no positive whole number.
    """
    return int(check_value(count, Size, what, "a whole number of at least 1"))


def check_shape(shape: Sequence[int], what: str = "input_shape") -> tuple[int, ...]:
    """Return the shape of one input, such as (channels, height, width), as a tuple.

    Raises:
        ValueError: if it is no 1 to 4 positive whole numbers, or an input would be too large.

    >>> check_shape([3, 32, 32]), check_shape([20])
    ((3, 32, 32), (20,))
    """
    given = tuple(shape) if isinstance(shape, Sequence) else shape
    accepts = (
        "1 to 4 positive whole numbers, such as (channels, height, width), with a product of at "
        f"most {LARGEST_INPUT:,}"
    )
    sizes: tuple[int, ...] = check_value(given, _Sizes, what, accepts)
    if math.prod(sizes) > LARGEST_INPUT:
        raise ValueError(f"{what} must be {accepts}, got {short(sizes)}")
    return sizes


def check_optional_shape(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return the shape of one input as a tuple, or None; see :func:`check_shape`."""
    return None if shape is None else check_shape(shape)


def check_device(device: str) -> str:
    """Return the name of a device that tensors can be computed on.

    Raises:
        ValueError: if there is no such device here.
    """
    import torch

    try:
        probe = torch.ones(1, device=torch.device(device))
        usable = bool((probe + probe).item() == 2)
        reason = "it does not compute"
    except Exception as error:  # every backend has its own
        usable, reason = False, first_line(error)
    if not usable:
        raise ValueError(
            f"device {device!r} cannot be used ({reason}): choose 'cpu', or 'cuda' where PyTorch "
            "finds a GPU"
        )
    return device


def check_cluster(address: str | None) -> str | None:
    """Return the address of a Ray cluster, which may not be there.

    Raises:
        ValueError: if it has the form of none.

    >>> check_cluster("ray://gpu-7.lab:10001")
    'ray://gpu-7.lab:10001'
    """
    if address is None:
        return None
    form = _CLUSTER.fullmatch(address) if isinstance(address, str) else None
    if form is None or int(form["port"] or 1) not in range(1, 2**16):
        raise ValueError(
            "ray_address must be 'auto', 'local', 'HOST:PORT' or 'ray://HOST:PORT', got "
            f"{short(address)}"
        )
    return address


def check_resources(resources: Mapping[str, float] | None) -> dict[str, float] | None:
    """Return amounts of a cluster's resources by name.

    Raises:
        ValueError: if one of them is no finite number from 0 on.

    >>> check_resources({"GPU": 0.25})
    {'GPU': 0.25}
    """
    if resources is None:
        return None
    accepts = "a mapping of names to numbers of at least 0, as in {'CPU': 1, 'GPU': 0.25}"
    given = dict(resources) if isinstance(resources, Mapping) else resources
    return dict(check_value(given, _Amounts, "ray_resources", accepts))


def first_line(error: BaseException) -> str:
    """Return the first line of somebody else's error, to be quoted within a sentence."""
    return (str(error).strip() or type(error).__name__).split("\n")[0].split(". ")[0][:120]


def with_kind(error: BaseException) -> str:
    """Return the kind of somebody else's error before the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"
