"""Files that PyTorch runs without the network's code: ``.pt2`` and TorchScript."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lfgcl_env.edge.quiet import quiet
from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.export.exported_module import ExportedModule
from lfgcl_env.export.program import trace_program

FACTS = "lfgcl_env.json"
"""The entry of a file that holds what is known of the network."""

Run = Callable[[Tensor], Any]


def write_pt2(module: ExportedModule, example: Tensor, facts: Mapping[str, Any]) -> bytes:
    """Export a module by ``torch.export`` with any number of images.

    Args:
        module: in evaluation mode.
        example: two inputs; the file keeps them.
        facts: JSON-able, kept in the file.

    Raises:
        ValueError: if it cannot be traced.
    """
    program, file = trace_program(module, example), io.BytesIO()
    with quiet():
        torch.export.save(program, file, extra_files={FACTS: json.dumps(facts, sort_keys=True)})
    return file.getvalue()


def load_pt2(content: bytes) -> Run:
    """Load what :func:`write_pt2` wrote."""
    with quiet():
        return torch.export.load(io.BytesIO(content)).module()


def write_torchscript(module: ExportedModule, example: Tensor, facts: Mapping[str, Any]) -> bytes:
    """Trace a module by ``torch.jit.trace``.

    Decisions that its forward takes by values of tensors are taken as for the example.

    Args:
        module: in evaluation mode.
        example: two inputs.
        facts: JSON-able, kept in the file.

    Raises:
        ValueError: if it cannot be traced.
    """
    file = io.BytesIO()
    try:
        with quiet(), torch.no_grad():
            traced = torch.jit.trace(module, example, strict=False)  # type: ignore[no-untyped-call]
            text = json.dumps(facts, sort_keys=True)
            torch.jit.save(traced, file, _extra_files={FACTS: text})
    except Exception as error:  # TorchScript has no common one
        raise ValueError(
            f"torch.jit.trace cannot trace {type(module.network).__name__} ({with_kind(error)}): "
            "export it as pt2 or onnx"
        ) from error
    return file.getvalue()


def load_torchscript(content: bytes) -> Run:
    """Load what :func:`write_torchscript` wrote."""
    with quiet():
        loaded: Run = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return loaded
