"""Post-training static quantisation of ONNX models to int8, by ONNX Runtime.

Weights have one scale for every output channel, activations one for every tensor (Jacob et al.,
*Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR
2018, without the training). Scales of activations come from unlabelled images: from the extremes
that a tensor takes, or from all but its rarest values, which spends the 256 steps on the others
(Migacz, *8-bit Inference with TensorRT*, GTC 2017; Wu et al., *Integer Quantization for Deep
Learning Inference*, 2020, section 4). Activations are unsigned: with signed ones ONNX Runtime took
twice the time of float on x86.
"""

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.edge.choices import check_choice
from lfgcl_env.edge.files import as_path, write_beside
from lfgcl_env.edge.progress import Advance, progress
from lfgcl_env.edge.quiet import quiet
from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.export.agreement import BATCHES, repeated
from lfgcl_env.export.comparison_with_float import output_error, outputs_of
from lfgcl_env.export.onnx_model import check_installed, open_session, run_session
from lfgcl_env.images.chunks import chunks_of

BATCH = 32
"""Images that the float model is run on at a time to see its activations, all of which it keeps."""

BATCH_NUMBERS = 2**20
"""Numbers in these images, beyond which there are fewer at a time."""


CALIBRATIONS = ("minmax", "percentile")
"""Where activations' ranges end."""

PERCENTILE = 99.99
"""Of a tensor's values that lie within its range, with ``"percentile"``."""

_COUNTED = 64  # images whose values are counted, which takes long; each has thousands
_CHOSEN_ON = 128  # images that calibrations are compared on


@dataclass(frozen=True)
class Quantized:
    """An int8 model.

    Attributes:
        path: of its file.
        calibration: where its activations' ranges end.
        errors: of the outputs on calibration images, of every calibration that could be done, see
            :class:`~lfgcl_env.export.Comparison`.
    """

    path: Path
    calibration: str
    errors: Mapping[str, float]


def quantize(
    source: str | os.PathLike[str],
    images: Tensor,
    path: str | os.PathLike[str],
    calibration: str = "auto",
) -> Quantized:
    """Quantise an exported ONNX model to int8.

    The file is run on batches of 1, 3 and 8 images before it is written. How far its outputs are
    from the float model's, :func:`~lfgcl_env.export.comparison_with_float.compare` measures.

    Args:
        source: the float model, a file that :func:`~lfgcl_env.export.export_network` wrote.
        images: unlabelled inputs as the file takes them, float32, (images, ...); a few hundred.
        path: of the file to write; its folder must exist. A file there is replaced.
        calibration: ``"minmax"``: activations' ranges are their extremes on the images;
            ``"percentile"``: the smallest that hold 99.99 % of the values on the first 64 images;
            ``"auto"`` tries both, and takes what gives outputs nearer to the float model's on the
            first 128.

    Raises:
        ValueError: if it cannot be quantised, the result gives no finite numbers, or there is no
            such calibration.
        FileNotFoundError: if there is no such model.
        ImportError: if the extra ``onnx`` is missing.
        OSError: if the file cannot be written.
    """
    check_choice(calibration, ("auto", *CALIBRATIONS), "calibration")
    check_installed()
    model, target = as_path(source, "source"), as_path(path, "path")
    if not model.is_file():
        raise FileNotFoundError(f"no ONNX model at {model}")
    (name,) = [one.name for one in open_session(model.read_bytes()).get_inputs()]
    tried = CALIBRATIONS if calibration == "auto" else (calibration,)
    contents: dict[str, bytes] = {}
    failure: Exception | None = None
    for one in tried:
        few = images[:_COUNTED] if one == "percentile" else images
        try:
            with progress(f"calibrating int8 by {one}", "batch") as advance:
                contents[one] = _quantized(model, {name: few}, one, advance)
        except Exception as error:  # ONNX Runtime has no common one
            failure = failure or error
    if not contents:
        assert failure is not None
        why = with_kind(failure)
        raise ValueError(f"ONNX Runtime cannot quantise {model} ({why})") from failure
    errors = _errors(model, contents, images[:_CHOSEN_ON])
    best = min(contents, key=lambda one: (not np.isfinite(errors[one]), errors[one]))
    content = contents[best]
    session = open_session(content)
    for size in BATCHES:
        for output, values in run_session(session, repeated(images, size)).items():
            if not np.isfinite(values).all():
                raise ValueError(
                    f"{model} gives NaN or infinite values in {output!r} as int8: keep it float"
                )
    write_beside(target, lambda partial: partial.write_bytes(content))
    return Quantized(target, best, errors)


def _errors(model: Path, contents: Mapping[str, bytes], images: Tensor) -> dict[str, float]:
    """Return how far the outputs of int8 models are from the float model's."""
    expected = outputs_of(open_session(model.read_bytes()), images)
    return {
        name: output_error(expected, outputs_of(open_session(content), images))
        for name, content in contents.items()
    }


def _quantized(
    model: Path, inputs: Mapping[str, Tensor], calibration: str, advance: Advance
) -> bytes:
    """Return the quantised model; batch normalisations are folded before."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Gives ONNX Runtime the images, a batch at a time."""

        def __init__(self) -> None:
            self._all = list(_batches(inputs))
            self._left = iter(self._all)
            self._begun = 0

        def __len__(self) -> int:
            return len(self._all)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(self._all[start_index:end_index])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            advance(self._begun, len(self._all))
            self._begun = min(self._begun + 1, len(self._all))
            return next(self._left, None)

    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared, written = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(written),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method={
                "minmax": quantization.CalibrationMethod.MinMax,
                "percentile": quantization.CalibrationMethod.Percentile,
            }[calibration],
            # A batch at a time, whose activations are all kept.
            extra_options={"CalibStridedMinMax": 1, "CalibPercentile": PERCENTILE},
        )
        result: Any = onnx.load(written)
    known = {entry.key for entry in result.metadata_props}
    for entry in onnx.load(model, load_external_data=False).metadata_props:
        if entry.key not in known:
            result.metadata_props.add(key=entry.key, value=entry.value)
    return bytes(result.SerializeToString())


def _batches(inputs: Mapping[str, Tensor]) -> Iterator[dict[str, NDArray[np.float32]]]:
    for name, images in inputs.items():
        fitting = BATCH_NUMBERS // math.prod(images.shape[1:])
        for batch in chunks_of(images, min(max(fitting, 1), BATCH)):
            yield {name: batch.contiguous().numpy()}
