"""Entries of a leaderboard, and the file that they are read from and added to."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lfgcl_env.edge.choices import check_choice, closest
from lfgcl_env.edge.files import write_text
from lfgcl_env.images.datasets import DATASETS
from lfgcl_env.networks import network_names
from lfgcl_env.networks.builders import TORCHVISION, find_builder
from lfgcl_env.pruning import CRITERIA, REPAIRS, SIMILARITIES
from lfgcl_env.pruning.repair.sequential import SequentialOptions

REQUIRED: dict[str, type] = {
    "network": str,
    "weights": str,
    "images": str,
    "num_images": int,
    "seed": int,
    "budget": float,
    "criterion": str,
    "repair": str,
    "similarity": str,
}
"""What an entry's ``problem`` must say, and of which type."""

OPTIONAL: dict[str, type] = {
    "budget_metric": str,
    "scope": str,
    "round_to": int,
    "min_channels": int,
    "input_shape": list,
    "normalization": list,
    "network_arguments": dict,
}
"""What it may say besides, with the defaults of ``LFGCL-v0``."""


WEIGHTS = ("published", "embedded", "random")
"""Weights that everybody has; a file could hold any network under another one's name."""

IMAGES = (*DATASETS, "embedded", "synthetic", "random")
"""Images that everybody has, or can have."""


@dataclass(frozen=True)
class Entry:
    """One pruned network, and what is claimed of it.

    Attributes:
        method: what found the strategy.
        author: who adds it.
        evaluations: distinct strategies that were scored to find it.
        problem: arguments of ``gym.make("LFGCL-v0", ...)`` that decide scores: ``REQUIRED`` and
            ``OPTIONAL``. The images are calibration images, the seed is theirs, and the similarity
            is the name of how features are compared.
        keep: the strategy: channels kept, by the name of the group (see ``lfgcl inspect``).
        macs: multiply-accumulates for one input.
        similarity: of features on the calibration images, as ``PruningProblem.evaluate`` scores it.
        top1: accuracy on the test images before any training, in percent; None if none is claimed.
        test_set: ``"CIFAR10"`` or ``"CIFAR100"``: what ``top1`` was measured on.
        sequential: how the network was repaired before ``top1`` was measured: settings of
            :class:`~lfgcl_env.pruning.repair.sequential.SequentialOptions`, and ``images``: how
            many, which are those that follow the calibration images
            (``env.unwrapped.other_images(count)``). None: as it was scored.
    """

    method: str
    author: str
    evaluations: int
    problem: dict[str, Any]
    keep: dict[str, int]
    macs: int
    similarity: float
    top1: float | None = None
    test_set: str | None = None
    sequential: dict[str, Any] | None = None


def read_entries(path: str | os.PathLike[str]) -> list[Entry]:
    """Read a leaderboard.

    Raises:
        ValueError: if a line is no entry; the message says which line and what is wrong with it.
        OSError: if the file cannot be read.
    """
    entries = []
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{os.fspath(path)} is no leaderboard: it is not text") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                entries.append(_entry(json.loads(line)))
            except ValueError as error:
                kind = "is no JSON: " if isinstance(error, json.JSONDecodeError) else ""
                raise ValueError(f"{os.fspath(path)}, line {number}: {kind}{error}") from error
    if not entries:
        raise ValueError(f"{os.fspath(path)} holds no entries: a leaderboard has one a line")
    return entries


def add_entries(path: str | os.PathLike[str], entries: Iterable[Entry]) -> int:
    """Write entries to a leaderboard, in place of the same method's and author's on a problem.

    Args:
        path: the file; it need not exist.
        entries: to be added.

    Returns:
        How many were replaced.

    Raises:
        ValueError: if the file is no leaderboard, or an entry could not be read from one; nothing
            is written then.
        OSError: if it cannot be written.
    """
    entries = [_entry(json.loads(json.dumps(asdict(entry)))) for entry in entries]
    before = read_entries(path) if Path(path).exists() else []
    by_key = {_key(entry): entry for entry in (*before, *entries)}
    text = "".join(f"{json.dumps(asdict(entry))}\n" for entry in by_key.values())
    write_text(Path(path), text)
    return len(before) + len(entries) - len(by_key)


def _entry(found: Any) -> Entry:
    """Make an entry from a line's JSON.

    Raises:
        ValueError: if it is none.
    """
    types = {"method": str, "author": str, "evaluations": int, "problem": dict, "keep": dict}
    needed = types | {"macs": int, "similarity": float}
    further = {"top1": float, "test_set": str, "sequential": dict}
    known = [field.name for field in fields(Entry)]
    _check(found, needed, {name: further[name] for name in known if name in further}, "entry")
    for name, count in found["keep"].items():
        _check_type(count, int, f"channels kept of {name!r}")
    _check_problem(found["problem"])
    entry = Entry(**found)
    if entry.evaluations < 1:
        raise ValueError(f"a strategy takes at least 1 evaluation, got {entry.evaluations}")
    if (entry.top1 is None) != (entry.test_set is None):
        raise ValueError("top1 and test_set belong together: give both or none")
    if entry.test_set is not None:
        check_choice(entry.test_set, DATASETS, "test_set")
    if entry.sequential is not None:
        _check_type(entry.sequential.get("images"), int, "sequential repair's images")
        sequential_options(entry.sequential)
    return entry


def _check_problem(problem: dict[str, Any]) -> None:
    _check(problem, REQUIRED, OPTIONAL, "problem")
    network = problem["network"]
    if ":" in network and not network.startswith(TORCHVISION):
        raise ValueError(
            f"network {network!r} would run code that the file names: only networks of this "
            "package and torchvision:NAME can be replayed"
        )
    if network.startswith(TORCHVISION):
        find_builder(network)
    else:
        check_choice(network, network_names(), "network")
        if problem.get("input_shape") is not None:
            raise ValueError(f"{network} is compared on inputs of its own size: no input_shape")
    check_choice(problem["weights"], WEIGHTS, "weights")
    check_choice(problem["images"], IMAGES, "images")
    check_choice(problem["criterion"], CRITERIA, "criterion")
    check_choice(problem["repair"], REPAIRS, "repair")
    check_choice(problem["similarity"], SIMILARITIES, "similarity")
    if not 0 < problem["budget"] <= 1:
        raise ValueError(f"a budget is above 0 and at most 1, got {problem['budget']}")


def _check(found: Any, needed: Mapping[str, type], further: Mapping[str, type], what: str) -> None:
    """Refuse what lacks keys, has unknown ones, or values of another type."""
    if not isinstance(found, dict):
        raise ValueError(f"the {what} must be a JSON object, got {type(found).__name__}")
    for name in needed:
        if name not in found:
            raise ValueError(f"the {what} has no {name!r}")
    allowed = {**needed, **further}
    for name, value in found.items():
        if name not in allowed:
            raise ValueError(
                f"the {what} has an unknown key {name!r}: known are {', '.join(allowed)}."
                + closest(name, allowed)
            )
        if value is not None or name in needed:
            _check_type(value, allowed[name], f"{what}'s {name!r}")


def _check_type(value: Any, kind: type, what: str) -> None:
    names = {
        str: "text",
        int: "a whole number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    fits = isinstance(value, int | float if kind is float else kind)
    if not fits or isinstance(value, bool) or (kind is float and not math.isfinite(value)):
        raise ValueError(f"the {what} must be {names[kind]}, got {value!r}")


def sequential_options(sequential: Mapping[str, Any]) -> SequentialOptions:
    """Settings of sequential repair, without the number of images.

    Raises:
        ValueError: for unknown ones.
    """
    settings = {name: value for name, value in sequential.items() if name != "images"}
    known = {field.name: field.type for field in fields(SequentialOptions)}
    for name, value in settings.items():
        check_choice(name, known, "setting of sequential repair")
        if name == "flips":
            continue
        _check_type(value, float if name == "ridge" else int, f"sequential repair's {name!r}")
    return SequentialOptions(**settings)


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.method, entry.author, json.dumps(entry.problem, sort_keys=True)
