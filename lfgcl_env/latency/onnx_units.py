"""How the time of one operation is measured in ONNX Runtime.

A network's session fuses BatchNorm, activations and sums into the convolution before them, and
keeps tensors in a layout of its own between convolutions. A convolution alone would be timed
with the session's overhead and two changes of layout. So several copies of it, whose outputs are
summed and activated, are timed in one session, fewer in another, and their difference counts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from lfgcl_env.latency.onnx_repeated import repeat
from lfgcl_env.latency.onnx_session import start
from lfgcl_env.latency.operations import Signature, TensorLike
from lfgcl_env.latency.timing import Call

_OPSET = 20
_FEW, _MANY = (1, 2), (2, 6)
_LARGE = 2**18  # numbers in a weight, above which few copies are taken


_FUSED = {
    *("add", "alias", "batch_norm", "clamp", "clamp_min", "clone", "contiguous", "detach"),
    *("dropout", "feature_dropout", "flatten", "hardsigmoid", "hardtanh", "leaky_relu", "relu"),
    *("relu6", "reshape", "sigmoid", "tanh", "to", "view", "_to_copy", "_unsafe_view"),
}
"""Operations that the runtime computes within the one before, or not at all."""


def in_onnx(signature: Signature, values: Sequence[int], threads: int) -> list[tuple[Call, float]]:
    """Return two sessions whose times differ by some copies of the operation.

    Empty for operations that the runtime fuses into others, or that take next to no time.

    Raises:
        ValueError: if the operation cannot be measured.
    """
    shapes, others = _arguments(signature, values)
    if signature.operation in _FUSED or not shapes:
        return []
    layer = _LAYERS.get(signature.operation)
    few, many = _MANY if np.prod(shapes[min(1, len(shapes) - 1)]) <= _LARGE else _FEW
    if layer is not None:
        example = torch.rand(shapes[0])
        sessions = [start(layer(shapes, others, n), [example], threads) for n in (few, many)]
    else:
        sessions = [_repeated(signature, values, n, threads) for n in (few, many)]
    share = 1.0 / (many - few)
    return [(sessions[1], share), (sessions[0], -share)]


def _repeated(signature: Signature, values: Sequence[int], copies: int, threads: int) -> Call:
    try:
        return start(*repeat(signature, values, copies), threads)
    except Exception as error:  # whatever the exporter and ONNX Runtime raise
        raise ValueError(
            f"ONNX Runtime's latency table does not know {signature.name}: choose latency_runtime "
            "pytorch (--latency-runtime pytorch)"
        ) from error


def _arguments(
    signature: Signature, values: Sequence[int]
) -> tuple[list[tuple[int, ...]], list[Any]]:
    """Return the shapes of an operation's tensors, and its other arguments in order."""
    sizes = signature.sizes(values)
    pairs = list(zip(signature.leaves, sizes, strict=True))
    return (
        [size for leaf, size in pairs if isinstance(leaf, TensorLike)],
        [size for leaf, size in pairs if not isinstance(leaf, TensorLike)],
    )


def _convolution(shapes: list[tuple[int, ...]], others: list[Any], copies: int) -> bytes:
    weight = shapes[1]
    dims = len(weight) - 2
    # Stride, padding and dilation for every dimension, then groups; missing ones are the default.
    name = next((leaf for leaf in others if isinstance(leaf, str)), None)
    numbers = [leaf for leaf in others if isinstance(leaf, int)]
    if name is not None:  # of the padding, in the place of its numbers
        numbers[dims:dims] = [0] * dims
    defaults = [1] * dims + [0] * dims + [1] * dims + [1]
    full = numbers + defaults[len(numbers) :]
    before = after = full[dims : 2 * dims]
    dilations = full[2 * dims : 3 * dims]
    if name == "same":
        whole = [d * (size - 1) for d, size in zip(dilations, weight[2:], strict=True)]
        before = [size // 2 for size in whole]
        after = [size - size // 2 for size in whole]
    attributes = {
        "kernel_shape": list(weight[2:]),
        "strides": full[:dims],
        "pads": before + after,
        "dilations": dilations,
        "group": full[-1],
    }

    def node(helper: Any, copy: int) -> list[Any]:
        return [helper.make_node("Conv", ["x", f"w{copy}", f"b{copy}"], [f"y{copy}"], **attributes)]

    return _model(shapes[0], {"w": weight, "b": weight[:1]}, node, copies, "Relu")


def _linear(shapes: list[tuple[int, ...]], others: list[Any], copies: int) -> bytes:
    out, into = shapes[1]

    def node(helper: Any, copy: int) -> list[Any]:
        return [
            helper.make_node("MatMul", ["x", f"w{copy}"], [f"m{copy}"]),
            helper.make_node("Add", [f"m{copy}", f"b{copy}"], [f"y{copy}"]),
        ]

    return _model(shapes[0], {"w": (into, out), "b": (out,)}, node, copies, None)


def _gelu(shapes: list[tuple[int, ...]], others: list[Any], copies: int) -> bytes:
    def node(helper: Any, copy: int) -> list[Any]:
        return [helper.make_node("Gelu", ["x" if not copy else f"z{copy - 1}"], [f"y{copy}"])]

    return _model(shapes[0], {}, node, copies, None, summed=False)


_LAYERS: dict[str, Callable[[list[tuple[int, ...]], list[Any], int], bytes]] = {
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "linear": _linear,
    "gelu": _gelu,
}


def _model(
    shape: tuple[int, ...],
    weights: dict[str, tuple[int, ...]],
    node: Callable[[Any, int], list[Any]],
    copies: int,
    activation: str | None,
    *,
    summed: bool = True,
) -> bytes:
    """Return a model of copies of an operation, each output added to that of the one before."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    nodes, tensors = [], []
    for copy in range(copies):
        for name, sizes in weights.items():
            noise = generator.standard_normal(sizes, dtype=np.float32)
            tensors.append(numpy_helper.from_array(noise, f"{name}{copy}"))
        nodes += node(helper, copy)
        last = f"y{copy}"
        if summed and copy:
            nodes.append(helper.make_node("Add", [last, f"z{copy - 1}"], [f"s{copy}"]))
            last = f"s{copy}"
        nodes.append(helper.make_node(activation or "Identity", [last], [f"z{copy}"]))
    graph = helper.make_graph(
        nodes,
        "copies",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(f"z{copies - 1}", TensorProto.FLOAT, None)],
        tensors,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    content: bytes = model.SerializeToString()
    return content
