"""``recoveries.json``: what ``lfgcl recover`` made of a run's networks, better or not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MaxLen

from lfgcl_env.edge.bounds import LONGEST_LIST, Count, Name, Seconds, TensorsChecksum, Text
from lfgcl_env.edge.schema import Schema
from lfgcl_env.edge.sealed import Sealed
from lfgcl_env.runs.stored_result import add_to_stored, read_stored

RECOVERIES = "recoveries.json"
OUTPUTS, TOP1 = "outputs", "top-1"
"""Names of scores that are no function of the user's."""

_HEAD = "recovered by `lfgcl recover`"


class StoredEpoch(Schema):
    """What an epoch ended with, see :class:`~lfgcl_env.recovery.Recovered`."""

    loss: float
    score: float


class StoredRecovery(Schema):
    """A recovery of one network.

    Attributes:
        file: that was written, or would have been; in the run folder, or elsewhere.
        of: the file of the network that was trained.
        of_tensors: its checksum.
        tensors: checksum of what was written; None where training did not help.
        score: what networks were compared by: ``"outputs"``, ``"top-1"`` [%], or a function's name.
        before: the score of the network that was trained.
        after: that of what came out.
        epochs: what each ended with.
        images: where they came from.
        num_images: that were trained on.
        watched: others, or views of others, that networks were compared on.
        labels: whether labels were learned instead of the baseline's outputs.
        options: see :class:`~lfgcl_env.recovery.RecoveryOptions`.
        device: where it was trained.
        seconds: that it took since it was begun or last went on.
    """

    file: Text
    of: Text
    of_tensors: TensorsChecksum
    tensors: TensorsChecksum | None
    score: Name
    before: float
    after: float
    epochs: Annotated[list[StoredEpoch], MaxLen(LONGEST_LIST)]
    images: Text
    num_images: Count
    watched: Count
    labels: bool
    options: dict[Name, bool | int | float | str]
    device: Name
    seconds: Seconds

    @property
    def used(self) -> bool:
        """Whether training helped."""
        return self.tensors is not None


class Recoveries(Sealed):
    """``recoveries.json``: the last recovery into every file."""

    recoveries: Annotated[list[StoredRecovery], MaxLen(LONGEST_LIST)]


def add_to_recoveries(folder: Path, fields: Mapping[str, Any]) -> None:
    """Add a recovery in place of an earlier one into the same file.

    Args:
        folder: the run folder.
        fields: of :class:`StoredRecovery`.

    Raises:
        ValueError: if they cannot be recorded, or the folder holds a link out of it.
        OSError: if the file cannot be written.
    """
    add_to_stored(Recoveries, folder / RECOVERIES, "recoveries", fields, "the recovery")


def read_recoveries(folder: Path, tensors: Sequence[str]) -> list[StoredRecovery]:
    """Read the recoveries of networks with these checksums, and those of what came out of them.

    Returns:
        None of other networks, and none if the file is damaged, with a warning.
    """
    every, known = _read(folder), set(tensors)
    # A network that was recovered again stands behind what had been made of it.
    while more := {one.tensors for one in every if one.tensors and one.of_tensors in known} - known:
        known |= more
    return [one for one in every if one.of_tensors in known]


def describe_change(score: str, before: float, after: float) -> str:
    """Say what training did to a score.

    >>> describe_change("top-1", 91.0, 92.5), describe_change("outputs", 0.5, 0.625)
    ('top-1 91.00 -> 92.50 %', 'outputs 0.50000 -> 0.62500')
    """
    if score == TOP1:
        return f"{score} {before:.2f} -> {after:.2f} %"
    digits = ".5f" if score == OUTPUTS else ".6g"
    return f"{score} {before:{digits}} -> {after:{digits}}"


def describe_training(one: StoredRecovery) -> str:
    """Say what a network was trained on, and how long."""
    return (
        f"{len(one.epochs)} epochs of {one.num_images:,} images from {one.images}, "
        f"{'with' if one.labels else 'no'} labels, compared on {one.watched:,} others, "
        f"{one.seconds / 60:.1f} minutes"
    )


def format_recoveries(recoveries: Sequence[StoredRecovery]) -> str:
    """Write a section of a page of text; nothing without recoveries."""
    if not recoveries:
        return ""
    lines = [f"{_HEAD}:"]
    for one in recoveries:
        change = describe_change(one.score, one.before, one.after)
        kept = "" if one.used else ", so it was not used"
        lines += [f"{one.of} -> {one.file}: {change}{kept}", f"  {describe_training(one)}"]
    return "\n".join(lines) + "\n"


def _read(folder: Path) -> list[StoredRecovery]:
    found = read_stored(Recoveries, folder / RECOVERIES, "recover again")
    return found.recoveries if found else []
