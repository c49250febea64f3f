"""``accuracy.json``: what ``lfgcl evaluate`` found of a run's networks on labelled images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, MaxLen, MinLen

from lfgcl_env.edge.bounds import LONGEST_LIST, Count, Name, TensorsChecksum, Text
from lfgcl_env.edge.files import check_links, write_text
from lfgcl_env.edge.schema import Schema
from lfgcl_env.edge.sealed import Sealed, sealed
from lfgcl_env.runs.stored_result import read_stored

TESTED = "accuracy.json"

_Percent = Annotated[float, Ge(0), Le(100)]


class StoredAccuracy(Schema):
    """The top-1 of one network [%]."""

    network: Name
    top1: _Percent


class Accuracy(Sealed):
    """``accuracy.json``.

    Attributes:
        data: the labelled test set.
        images: how many it has.
        tensors: checksums of the pruned networks, in their order.
        networks: the baseline's first.
        stated: whether the baseline's is the one that its weights come with, and no measured one.
    """

    data: Text
    images: Count
    tensors: Annotated[list[TensorsChecksum], MaxLen(LONGEST_LIST)]
    networks: Annotated[list[StoredAccuracy], MinLen(2), MaxLen(LONGEST_LIST + 1)]
    stated: bool


def write_accuracy_file(
    folder: Path,
    data: str,
    images: int,
    tensors: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    stated: bool,
) -> None:
    """Write what was found, see :class:`Accuracy`.

    Args:
        folder: the run folder.
        data: the labelled test set.
        images: how many it has.
        tensors: checksums of the pruned networks.
        rows: the baseline's first, with ``network`` and ``top1``.
        stated: see :class:`Accuracy`.

    Raises:
        ValueError: if the folder holds a link out of it.
        OSError: if the file cannot be written.
    """
    check_links(folder)
    networks = [{"network": row["network"], "top1": row["top1"]} for row in rows]
    fields = {
        "data": data, "images": images, "tensors": list(tensors), "networks": networks,
        "stated": stated,
    }  # fmt: skip
    write_text(folder / TESTED, f"{sealed(fields, indent=2)}\n")


def read_accuracy(folder: Path, tensors: Sequence[str]) -> Accuracy | None:
    """Read what was found of the networks with these checksums.

    Returns:
        None if nothing was, if it was of other networks, or if the file is damaged, with a warning.
    """
    found = read_stored(Accuracy, folder / TESTED, "evaluate again")
    return found if found and found.tensors == list(tensors) else None
