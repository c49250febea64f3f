"""``exports.json``: files that ``lfgcl export`` made of a run's networks, and what int8 changes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, MaxLen, MinLen

from lfgcl_env.edge.bounds import (
    LONGEST_LIST,
    Cost,
    Count,
    Milliseconds,
    Name,
    TensorsChecksum,
    Text,
)
from lfgcl_env.edge.schema import Schema
from lfgcl_env.edge.sealed import Sealed
from lfgcl_env.runs.stored_result import add_to_stored, read_stored

EXPORTS = "exports.json"

_HEAD = "exported by `lfgcl export`"
_Percent = Annotated[float, Ge(0), Le(100)]
_Error = Annotated[float, Ge(0), Le(1e9)]


class StoredBatch(Schema):
    """Median times of a batch [ms], of the float and of the int8 model."""

    images: Count
    float_ms: Milliseconds
    int8_ms: Milliseconds


class StoredInt8(Schema):
    """An int8 model beside its float model, see :class:`~lfgcl_env.export.Comparison`.

    Attributes:
        calibrated: images that scales come from.
        calibration: how, see :func:`~lfgcl_env.export.quantize`.
        images: others, that outputs were compared on.
        float_bytes: size of the float model.
        agreement: how often the largest output is the same [%]; None for outputs without classes.
        error: of outputs, relative.
        times: by the number of images.
        top1: of the float and of the int8 model [%]; None where it was not tested.
    """

    calibrated: Count
    calibration: Name
    images: Count
    float_bytes: Cost
    agreement: _Percent | None
    error: _Error
    times: Annotated[list[StoredBatch], MaxLen(100)]
    top1: Annotated[list[_Percent], MinLen(2), MaxLen(2)] | None


class StoredExport(Schema):
    """One exported file.

    Attributes:
        file: in the run folder, or elsewhere.
        of: the file of its network.
        of_tensors: the checksum of that.
        format: of the file.
        opset: of ONNX; else None.
        bytes: of the file.
        takes: its input, in words.
        error: of its outputs beside PyTorch's, relative to their largest value; for int8 that of
            the float model it was made from.
        int8: what int8 changes; None for a float model.
    """

    file: Text
    of: Text
    of_tensors: TensorsChecksum
    format: Name
    opset: Count | None
    bytes: Cost
    takes: Text
    error: _Error
    int8: StoredInt8 | None


class Exports(Sealed):
    """``exports.json``: the last export into every file."""

    exports: Annotated[list[StoredExport], MaxLen(LONGEST_LIST)]


def add_to_exports(folder: Path, fields: Mapping[str, Any]) -> None:
    """Add an export in place of an earlier one into the same file.

    Args:
        folder: the run folder.
        fields: of :class:`StoredExport`.

    Raises:
        ValueError: if they cannot be recorded, or the folder holds a link out of it.
        OSError: if the file cannot be written.
    """
    add_to_stored(Exports, folder / EXPORTS, "exports", fields, "the export")


def read_exports(folder: Path, tensors: Iterable[str | None]) -> list[StoredExport]:
    """Read the exports of networks with these checksums.

    Returns:
        None of other networks, and none if the file is damaged, with a warning.
    """
    known = set(tensors)
    return [one for one in _read(folder) if one.of_tensors in known]


def describe_int8(int8: StoredInt8, size: int) -> list[tuple[str, str, str]]:
    """Return what int8 changes: the quantity, and its values in float and in int8.

    Args:
        int8: what was compared.
        size: of the int8 file [bytes].
    """
    rows = [("size [MB]", f"{int8.float_bytes / 1e6:.2f}", f"{size / 1e6:.2f}")]
    for batch in int8.times:
        name = f"{batch.images} image{'s' * (batch.images > 1)} [ms]"
        rows.append((name, f"{batch.float_ms:.2f}", f"{batch.int8_ms:.2f}"))
    if int8.top1:
        rows.append(("top-1 [%]", *(f"{value:.2f}" for value in int8.top1)))  # type: ignore[arg-type]
    if int8.agreement is not None:
        rows.append(("same largest output [%]", "", f"{int8.agreement:.2f}"))
    rows.append(("error of outputs", "", f"{int8.error:.1%}"))
    return rows


def format_exports(exports: Sequence[StoredExport]) -> str:
    """Write a section of a page of text; nothing without exports."""
    if not exports:
        return ""
    lines = [f"{_HEAD}:"]
    for one in exports:
        opset = f", opset {one.opset}" if one.opset else ""
        lines.append(f"{one.of} -> {one.file}: {one.format}{opset}, {one.bytes / 1e6:.2f} MB")
        if one.int8:
            changes = [
                f"{name} {before + ' -> ' if before else ''}{after}"
                for name, before, after in describe_int8(one.int8, one.bytes)
            ]
            lines.append(f"  int8 on {one.int8.images:,} images: {', '.join(changes)}")
    return "\n".join(lines) + "\n"


def _read(folder: Path) -> list[StoredExport]:
    found = read_stored(Exports, folder / EXPORTS, "export again")
    return found.exports if found else []
