"""Exporting a network to a file that runs without this package, and checking that it does."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.edge.files import as_path, write_beside
from lfgcl_env.edge.schema import short
from lfgcl_env.edge.value_checks import first_line
from lfgcl_env.export.agreement import largest_error, repeated
from lfgcl_env.export.exported_module import ExportedModule, name_outputs
from lfgcl_env.export.formats import FORMATS, Request
from lfgcl_env.export.onnx_model import OPSET, check_installed, check_opset
from lfgcl_env.networks import Normalization
from lfgcl_env.networks.outputs import Shape
from lfgcl_env.networks.plain_module import make_plain
from lfgcl_env.networks.prepared import settle

INPUT = "images"
"""The default name of the input."""


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        path: of the file.
        format: a name of :data:`~lfgcl_env.export.formats.FORMATS`.
        bytes: its size.
        input: name of the input.
        input_shape: of one input.
        outputs: shape for one image of every output, by name.
        opset: version of ONNX's operator set; None for other formats.
        error: largest difference of an output from the network's in PyTorch, relative to the
            output's largest value.
        batches: numbers of images that it was checked on.
    """

    path: Path
    format: str
    bytes: int
    input: str
    input_shape: Shape
    outputs: dict[str, Shape]
    opset: int | None
    error: float
    batches: tuple[int, ...]


def export_network(
    network: nn.Module,
    example: Tensor,
    path: str | os.PathLike[str],
    format: str = "onnx",
    *,
    normalization: Normalization | None = None,
    input_name: str = INPUT,
    output_names: Sequence[str] | None = None,
    opset: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Exported:
    """Export a network, for any number of images, to a file that needs none of its code.

    The file is run, by ONNX Runtime, ``torch.export.load`` or ``torch.jit.load``, on batches of
    1, 3 and 8 images before it is written, and written only if each output is the network's in
    PyTorch to 1e-4 of its largest value. A file at ``path`` is replaced.

    Several outputs are returned in their order by ONNX, and in a dictionary by their names by the
    other formats. Single numbers and tensors of whole numbers among them are left out. Where the
    network takes decisions by values of tensors, TorchScript keeps those of one example, and the
    other formats refuse it.

    Args:
        network: such as :func:`lfgcl_env.load_pruned` or ``problem.finish`` returns. It is not
            changed; one in training mode or on another device is copied.
        example: inputs to check it on, float32, (images, ...); given again where there are fewer
            than 8. The file does not hold them.
        path: of the file to write; its folder must exist.
        format: ``"onnx"``, ``"pt2"`` (``torch.export``) or ``"torchscript"``.
        normalization: to be folded in: the file then takes images (images, channels, height, width)
            with values from 0 to 1, and so must ``example``. None for a file that takes inputs as
            the network does.
        input_name: of the input; for ONNX.
        output_names: of all outputs, for ONNX; by default ``logits`` or ``output`` for one alone,
            and for several their places in what the network returns.
        opset: version of ONNX's operator set, by default 18.
        facts: JSON-able facts to keep in the file: in ONNX's metadata, in the entry
            ``lfgcl_env.json`` of the others.

    Raises:
        ValueError: if an argument is wrong, or the network cannot be exported or the file gives
            other outputs, with the reason; no file is written then.
        ImportError: if the extra ``onnx`` is needed and missing.
        OSError: if the file cannot be written.
    """
    target = as_path(path, "path")
    check_choice(format, FORMATS, "format")
    if format == "onnx":
        check_installed()
        opset = check_opset(OPSET if opset is None else opset)
    elif opset is not None or output_names is not None or input_name != INPUT:
        raise ValueError(f"opset and names of inputs and outputs are for ONNX, not for {format}")
    settled = settle(make_plain(network))
    title = type(settled).__name__
    if isinstance(example, tuple | list | Mapping) or _inputs(settled) > 1:
        raise ValueError(
            f"{title} takes several inputs, and only networks of one are exported: give a module "
            "that takes one tensor and calls it, or torch.onnx.export(network, inputs, dynamo=True)"
        )
    images = _check_example(example, normalization)
    module = ExportedModule(settled, normalization).eval()
    outputs = _run(module, images, title)
    module.names = _names(outputs, output_names, input_name)
    chosen = FORMATS[format]
    request = Request(
        module=module,
        example=torch.rand(2, *images.shape[1:], generator=torch.Generator().manual_seed(0)),
        input=input_name,
        outputs=list(module.names.values()),
        opset=opset or OPSET,
        facts=facts or {},
    )
    content = chosen.write(request)
    run = chosen.load(content, request.outputs)
    error, batches = largest_error(module, run, images, f"{title} in {chosen.runtime}")
    write_beside(target, lambda partial: partial.write_bytes(content))
    return Exported(
        path=target,
        format=format,
        bytes=len(content),
        input=input_name,
        input_shape=tuple(images.shape[1:]),
        outputs={module.names[place]: tuple(t.shape[1:]) for place, t in outputs.items()},
        opset=opset,
        error=error,
        batches=batches,
    )


def _inputs(network: nn.Module) -> int:
    """Count the inputs that a network needs."""
    given = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature(network.forward).parameters.values()
    return sum(one.kind in given and one.default is Parameter.empty for one in parameters)


def _check_example(example: Tensor, normalization: Normalization | None) -> Tensor:
    """Return the inputs to check a file on.

    Raises:
        ValueError: if they are no inputs, or no pixels where the normalisation is folded in.
    """
    if not isinstance(example, Tensor) or not example.is_floating_point() or example.dim() < 2:
        raise ValueError(
            f"example must be a floating-point tensor of inputs (images, ...), got {short(example)}"
        )
    if len(example) == 0:
        raise ValueError("example holds no inputs: at least one is needed")
    images = example.detach().float().cpu()
    if normalization is not None:
        channels = len(normalization.mean)
        if images.dim() != 4 or images.shape[1] != channels:
            raise ValueError(
                f"example has the shape {tuple(images.shape)}, and the normalization is of images "
                f"(images, {channels}, height, width)"
            )
        if images.min() < 0 or images.max() > 1:
            raise ValueError(
                f"example has values from {images.min():.3g} to {images.max():.3g}: where the "
                "normalization is folded in, give pixels from 0 to 1"
            )
    return images


def _run(module: ExportedModule, images: Tensor, title: str) -> dict[str, Tensor]:
    """Return the network's outputs for two images, by place."""
    pair = repeated(images, 2)
    try:
        with torch.no_grad():
            outputs = module.by_place(pair)
    except Exception as error:  # a network of one's own may raise anything
        raise ValueError(
            f"{title} does not take inputs of shape {tuple(pair.shape[1:])} ({first_line(error)}): "
            "give an example of its own"
        ) from error
    if not outputs:
        raise ValueError(
            f"{title} returns no floating-point tensors: only such outputs are exported"
        )
    return outputs


def _names(
    outputs: Mapping[str, Tensor], given: Sequence[str] | None, input_name: str
) -> dict[str, str]:
    """Return the names of outputs by place.

    Raises:
        ValueError: if they do not fit the outputs, or are not distinct.
    """
    names = name_outputs(outputs)
    if given is not None:
        given = [given] if isinstance(given, str) else list(given)
        if len(given) != len(names):
            raise ValueError(
                f"{len(names)} outputs need names ({', '.join(names.values())}), got {short(given)}"
            )
        names = dict(zip(names, given, strict=True))
    every = [input_name, *names.values()]
    if len(set(every)) < len(every) or not all(isinstance(n, str) and n for n in every):
        raise ValueError(f"the input and every output need a name of their own, got {short(every)}")
    return names
