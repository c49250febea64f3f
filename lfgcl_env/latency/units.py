"""How the time of one operation is measured in every runtime."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from lfgcl_env.latency.onnx_units import in_onnx
from lfgcl_env.latency.operations import Signature
from lfgcl_env.latency.timing import Call

Unit = list[tuple[Call, float]]
"""Calls, and by how much the time of each counts in the time of the operation."""

Bench = Callable[[Signature, Sequence[int], int], Unit]
"""Makes the unit of an operation, given values of its axes and a number of threads.

It is empty where the operation takes no time of its own.
"""


def in_torch(
    signature: Signature, values: Sequence[int], threads: int, device: str = "cpu"
) -> Unit:
    """Return a call of the operation itself, as a network makes it."""
    function = _function(signature.name)
    args, kwargs = signature.arguments(values, device)

    @torch.inference_mode()
    def call() -> object:
        return function(*args, **kwargs)

    return [(call, 1.0)]


def _function(name: str) -> Any:
    namespace, operation, overload = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), operation), overload)


BENCHES: dict[str, Bench] = {
    "pytorch": in_torch,
    "onnxruntime": in_onnx,
    "cuda": partial(in_torch, device="cuda"),
}
"""By the name of the runtime, see :mod:`lfgcl_env.latency.runtimes`."""
