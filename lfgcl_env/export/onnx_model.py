"""ONNX models: written by PyTorch's exporter, run by ONNX Runtime."""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.edge.quiet import quiet
from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.export.exported_module import ExportedModule
from lfgcl_env.export.program import trace_program

OPSET = 18
"""The default: what PyTorch's exporter is written for; ONNX Runtime reads it since 1.14."""

LARGEST_MODEL = 2**31
"""Bytes of the largest model that one ONNX file can hold."""

_NEEDED = ("onnx", "onnxruntime", "onnxscript")


def check_installed() -> None:
    """Check that the packages of the extra ``onnx`` are there.

    Raises:
        ImportError: if one is missing.
    """
    for name in _NEEDED:
        if find_spec(name) is None:
            raise ImportError(f"exporting to ONNX needs {name}: run `pip install lfgcl-env[onnx]`")


def check_opset(opset: int) -> int:
    """Return a version of the operator set that PyTorch's exporter writes.

    Raises:
        ValueError: if it is older, or newer than the installed onnx knows.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if type(opset) is not int or not OPSET <= opset <= newest:
        raise ValueError(f"opset must be a whole number from {OPSET} to {newest}, got {opset!r}")
    return opset


def write_onnx(
    module: ExportedModule,
    example: Tensor,
    inputs: str,
    outputs: Sequence[str],
    opset: int,
    facts: Mapping[str, Any],
) -> bytes:
    """Export a module as an ONNX model with any number of images.

    Args:
        module: in evaluation mode.
        example: two inputs.
        inputs: name of its input.
        outputs: names of its outputs.
        opset: version of the operator set.
        facts: JSON-able, for the model's metadata.

    Raises:
        ValueError: if it cannot be traced, an operation is missing in this opset, or the model is
            too large for one file.
    """
    program = trace_program(module, example)
    title = type(module.network).__name__
    try:
        with quiet():
            exported: Any = torch.onnx.export(
                program,
                input_names=[inputs],
                output_names=list(outputs),
                opset_version=opset,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            model = exported.model_proto
    except Exception as error:  # the exporter has no common one
        cause = error.__cause__ or error
        raise ValueError(
            f"PyTorch's exporter cannot write {title} as ONNX ({with_kind(cause)}): export it as "
            "pt2 or torchscript"
        ) from error
    written = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if written != opset:
        raise ValueError(
            f"{title} cannot be written with opset {opset}: PyTorch's exporter gave opset {written}"
        )
    _strip(model)
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else _json(value))
    if model.ByteSize() >= LARGEST_MODEL:
        raise ValueError(f"{title} is too large for one ONNX file of 2 GiB: export it as pt2")
    return bytes(model.SerializeToString())


def open_session(model: bytes) -> Any:
    """Open a model in ONNX Runtime, on the CPU and as many threads as PyTorch uses.

    Raises:
        ValueError: if ONNX Runtime does not take it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own are made for every kind of failure
        raise ValueError(f"ONNX Runtime does not take the model ({with_kind(error)})") from error


def run_session(session: Any, images: Tensor) -> dict[str, NDArray[np.float32]]:
    """Run a model of one input on images; return its outputs by name."""
    (name,) = [one.name for one in session.get_inputs()]
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: images.contiguous().numpy()}), strict=True))


def _strip(model: Any) -> None:
    """Take out what the exporter notes for its developers, such as paths of this machine."""
    for entries in (model.graph.node, model.graph.input, model.graph.output):
        for entry in entries:
            del entry.metadata_props[:]
            entry.doc_string = ""
    for entry in (*model.graph.value_info, *model.graph.initializer):
        del entry.metadata_props[:]
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)
