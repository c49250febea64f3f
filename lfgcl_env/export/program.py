"""Tracing a network by ``torch.export``, for any number of images."""

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from lfgcl_env.edge.quiet import quiet
from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.export.exported_module import ExportedModule


def trace_program(module: ExportedModule, example: Tensor) -> ExportedProgram:
    """Trace a module for batches of any size.

    Paths of the code, which the result would name, are left out.

    Args:
        module: in evaluation mode.
        example: two inputs.

    Raises:
        ValueError: if it cannot be traced, or takes batches of one size only.
    """
    try:
        program = _trace(module, example, ({0: Dim("batch")},))
    except Exception as error:  # torch.export has no common one
        title = type(module.network).__name__
        try:
            _trace(module, example, None)
        except Exception:
            raise ValueError(
                f"torch.export cannot trace {title} ({_reason(error)}): take what depends on "
                "values of tensors out of its forward"
            ) from error
        raise ValueError(
            f"{title} fixes the number of images when torch.export traces it ({_reason(error)}): "
            "let its forward take it from x.shape[0], not from len(x) or a number"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _trace(
    module: ExportedModule, example: Tensor, dynamic: tuple[dict[int, Dim]] | None
) -> ExportedProgram:
    with quiet(), torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=dynamic, strict=False)


def _reason(error: Exception) -> str:
    """Return the line of torch.export's message that says what is wrong, or the first."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line[2:].split(". ")[0] for line in lines if line.startswith("- ")]
    return said[0][:200] if said else with_kind(error)
