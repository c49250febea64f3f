"""What int8 costs and saves: outputs, size and latency of two ONNX models beside each other."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.export.agreement import repeated
from lfgcl_env.export.onnx_model import check_installed, open_session, run_session
from lfgcl_env.images.chunks import chunks_of
from lfgcl_env.networks.outputs import holds_classes

TIMED = (1, 32)
"""Images in the batches that are timed."""

RUNS = 15
"""Timed runs of every model and batch, of which the median counts."""

_WARM_UP = 3
_BATCH = 100


@dataclass(frozen=True)
class Comparison:
    """A model beside the float model that it was made from.

    Attributes:
        images: how many the outputs were compared on.
        agreement: how often the largest of an output's scores is the same [%], the mean of all
            outputs that have classes; None where none has.
        error: root mean square of the outputs' differences, relative to that of the float model's
            deviations from their mean over the images; the mean of all outputs.
        bytes: sizes of the files, of the float model first.
        milliseconds: of a batch, by the number of images; of the float model first.
    """

    images: int
    agreement: float | None
    error: float
    bytes: tuple[int, int]
    milliseconds: dict[int, tuple[float, float]]


def compare(
    source: str | os.PathLike[str],
    other: str | os.PathLike[str],
    images: Tensor,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Compare an int8 model with its float model.

    Args:
        source: the float model's file.
        other: the file that :func:`~lfgcl_env.export.quantize` made from it.
        images: inputs that the quantisation did not see, (images, ...).
        clock: tells the seconds; the median of 15 runs of each model in turn counts.

    Raises:
        ValueError: if a file is no ONNX model.
        OSError: if it cannot be read.
        ImportError: if the extra ``onnx`` is missing.
    """
    check_installed()
    contents = [Path(path).read_bytes() for path in (source, other)]
    sessions = [open_session(content) for content in contents]
    expected, found = (outputs_of(session, images) for session in sessions)
    agreements = [
        float((one.argmax(1) == found[name].argmax(1)).mean())
        for name, one in expected.items()
        if holds_classes(one.shape[1:])
    ]
    return Comparison(
        images=len(images),
        agreement=100 * float(np.mean(agreements)) if agreements else None,
        error=output_error(expected, found),
        bytes=(len(contents[0]), len(contents[1])),
        milliseconds={size: _times(sessions, repeated(images, size), clock) for size in TIMED},
    )


class OnnxNetwork(nn.Module):
    """An ONNX model with one output as a module, such as :func:`lfgcl_env.images.top1` takes.

    Args:
        path: of the model.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        check_installed()
        self._session = open_session(Path(path).read_bytes())

    def forward(self, images: Tensor) -> Tensor:
        """Run the model."""
        (values,) = run_session(self._session, images).values()
        return torch.from_numpy(values)


def outputs_of(session: Any, images: Tensor) -> dict[str, NDArray[np.float32]]:
    """Return all outputs of a session on images, by name."""
    parts = [run_session(session, batch) for batch in chunks_of(images, _BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def output_error(
    expected: dict[str, NDArray[np.float32]], found: dict[str, NDArray[np.float32]]
) -> float:
    """Return the relative error of outputs, see :class:`Comparison`."""
    return float(np.mean([_error(one, found[name]) for name, one in expected.items()]))


def _error(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    scale = float(np.square(expected - expected.mean(0), dtype=np.float64).sum())
    return float(np.sqrt(np.square(found - expected, dtype=np.float64).sum() / max(scale, 1e-30)))


def _times(sessions: list[Any], images: Tensor, clock: Callable[[], float]) -> tuple[float, float]:
    """Return the median milliseconds of both, run in turn so that both meet the same machine."""
    seconds: list[list[float]] = [[], []]
    for run in range(-_WARM_UP, RUNS):
        for session, measured in zip(sessions, seconds, strict=True):
            before = clock()
            run_session(session, images)
            if run >= 0:
                measured.append(clock() - before)
    one, other = (1000 * median(measured) for measured in seconds)
    return one, other
