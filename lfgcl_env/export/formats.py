"""The formats that networks are exported to, each with the runtime that checks its files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lfgcl_env.edge.quiet import quiet
from lfgcl_env.export.exported_module import ExportedModule
from lfgcl_env.export.onnx_model import open_session, run_session, write_onnx
from lfgcl_env.export.torch_files import (
    Run,
    load_pt2,
    load_torchscript,
    write_pt2,
    write_torchscript,
)

Runner = Callable[[Tensor], dict[str, Tensor]]
"""Runs a file on images; returns its outputs by name."""


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
        module: in evaluation mode.
        example: two inputs to trace it with.
        input: name of its input.
        outputs: names of its outputs.
        opset: version of ONNX's operator set.
        facts: JSON-able, kept in the file.
    """

    module: ExportedModule
    example: Tensor
    input: str
    outputs: Sequence[str]
    opset: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        suffix: of their names.
        runtime: what runs them, in words.
        write: returns a file's content.
        load: returns what runs it, given its content and the names of its outputs.
    """

    suffix: str
    runtime: str
    write: Callable[[Request], bytes]
    load: Callable[[bytes, Sequence[str]], Runner]


def _onnx(asked: Request) -> bytes:
    return write_onnx(
        asked.module, asked.example, asked.input, asked.outputs, asked.opset, asked.facts
    )


def _load_onnx(content: bytes, outputs: Sequence[str]) -> Runner:
    session = open_session(content)

    def run(images: Tensor) -> dict[str, Tensor]:
        found = run_session(session, images)
        return {name: torch.from_numpy(found[name]) for name in outputs}

    return run


def _loaded(load: Callable[[bytes], Run]) -> Callable[[bytes, Sequence[str]], Runner]:
    def open_file(content: bytes, outputs: Sequence[str]) -> Runner:
        run = load(content)

        def named(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad(), quiet():
                found = run(images)
            return {outputs[0]: found} if isinstance(found, Tensor) else dict(found)

        return named

    return open_file


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", "ONNX Runtime", _onnx, _load_onnx),
    "pt2": Format(
        ".pt2",
        "torch.export.load",
        lambda asked: write_pt2(asked.module, asked.example, asked.facts),
        _loaded(load_pt2),
    ),
    "torchscript": Format(
        ".pt",
        "torch.jit.load",
        lambda asked: write_torchscript(asked.module, asked.example, asked.facts),
        _loaded(load_torchscript),
    ),
}
"""By name."""
