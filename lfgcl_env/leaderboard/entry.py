"""Entries of a leaderboard, and the file that they are read from and added to."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import JsonValue

from lfgcl_env.config import EnvConfig, complete, options
from lfgcl_env.edge.bounds import LONGEST_LIST, Budget, Cost, Count, Kept, Name, Similarity
from lfgcl_env.edge.choices import check_choice
from lfgcl_env.edge.files import as_path, write_text
from lfgcl_env.edge.schema import Schema, check_value, parse, read_text, short
from lfgcl_env.images.datasets import DATASETS
from lfgcl_env.networks.builders import BUILDERS
from lfgcl_env.networks.safe_building import build_safely, find_safely
from lfgcl_env.pruning import CRITERIA, REPAIRS, SCOPES, SIMILARITIES
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.pruning.structure.cost import TIMED

WEIGHTS = ("published", "embedded", "random")
"""Weights that everybody has; a file could hold any network under another one's name."""

IMAGES = (*DATASETS, "embedded", "synthetic", "random")
"""Images that everybody has, or can have."""

LARGEST_IMAGES = 2**32
"""Bytes of the images that an entry may ask for: 4 GiB."""

_FIXED = {"reward": "similarity", "horizon": 1}
"""Arguments of ``LFGCL-v0`` that all entries share."""


@dataclass(frozen=True)
class Entry:
    """One pruned network, and what is claimed of it.

    Attributes:
        method: what found the strategy.
        author: who adds it.
        evaluations: distinct strategies that were scored to find it.
        problem: those arguments of ``gym.make("LFGCL-v0", ...)`` that decide scores, see
            :func:`problem_arguments`; one that is missing has its default. The images are
            calibration images, the seed is theirs, and the similarity is the name of how features
            are compared.
        keep: the strategy: channels, or bundles of them, kept, by the name of the group (see
            ``lfgcl inspect``).
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


class _Line(Schema):
    method: Name
    author: Name
    evaluations: Count
    problem: Annotated[dict[Name, JsonValue], MaxLen(100)]
    keep: Annotated[dict[Name, Kept], MinLen(1), MaxLen(LONGEST_LIST)]
    macs: Cost
    similarity: Similarity
    top1: Annotated[float, Ge(0), Le(100)] | None = None
    test_set: Name | None = None
    sequential: Annotated[dict[Name, JsonValue], MaxLen(100)] | None = None


@dataclass(frozen=True)
class LineError:
    """A line that holds no entry.

    Attributes:
        line: its number, from 1.
        message: what is wrong with it, in one sentence.
    """

    line: int
    message: str


def read_lines(path: str | os.PathLike[str]) -> list[Entry | LineError]:
    """Read a leaderboard whose lines may be wrong.

    Returns:
        For every line that is not empty an entry, or what is wrong with the line.

    Raises:
        ValueError: if the file is no text, or holds no lines.
        OSError: if the file cannot be read.
    """
    found: list[Entry | LineError] = []
    path = as_path(path, "a leaderboard")
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            try:
                found.append(_parse(line, f"{path}, line {number}"))
            except ValueError as error:
                found.append(LineError(number, str(error)))
    if not found:
        raise ValueError(f"{path} holds no entries: a leaderboard has one on each line")
    return found


def read_entries(path: str | os.PathLike[str]) -> list[Entry]:
    """Read a leaderboard all of whose lines are entries.

    Raises:
        ValueError: if a line is no entry; the message says which line and what is wrong with it.
        OSError: if the file cannot be read.
    """
    entries = []
    for found in read_lines(path):
        if isinstance(found, LineError):
            raise ValueError(found.message)
        entries.append(found)
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
    path = as_path(path, "a leaderboard")
    if isinstance(entries, Entry) or not isinstance(entries, Iterable):
        raise ValueError(f"entries must be several Entry, got {short(entries)}")
    entries = [checked(entry) for entry in entries]
    before = read_entries(path) if path.exists() else []
    by_key = {_key(entry): entry for entry in (*before, *entries)}
    text = "".join(f"{json.dumps(asdict(entry))}\n" for entry in by_key.values())
    write_text(path, text)
    return len(before) + len(entries) - len(by_key)


def checked(entry: Entry) -> Entry:
    """Return an entry as it is read from a leaderboard, its problem complete.

    Raises:
        ValueError: if it could not be read from one.
    """
    if not isinstance(entry, Entry):
        raise ValueError(f"an entry of a leaderboard is an Entry, got {short(entry)}")
    try:
        line = json.dumps(asdict(entry))
    except (TypeError, RecursionError):
        raise ValueError("the entry holds values that JSON cannot hold") from None
    return _parse(line, "the entry")


def problem_arguments() -> list[str]:
    """Return the arguments of ``LFGCL-v0`` that an entry's problem is made of."""
    return [name for name, option in options(EnvConfig).items() if option.decides]


def sequential_options(sequential: Mapping[str, Any]) -> SequentialOptions:
    """Return settings of sequential repair, without the number of images.

    Raises:
        ValueError: for unknown ones, and values that are not accepted.
    """
    settings = {name: value for name, value in sequential.items() if name != "images"}
    known = {field.name: field.default for field in fields(SequentialOptions)}
    for name, value in settings.items():
        check_choice(name, known, "setting of sequential repair")
        kind = int if known[name] is None else type(known[name])
        bounded = kind if kind is bool else Annotated[kind, Ge(0), Le(2**20)]
        check_value(value, bounded, f"sequential repair's {name}", "a number from 0 to 1,048,576")
    return SequentialOptions(**settings)


def _parse(text: str, what: str) -> Entry:
    line = parse(_Line, text, what)
    try:
        return Entry(**line.model_dump() | {"problem": _check_problem(line)})
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _check_problem(line: _Line) -> dict[str, Any]:
    """Return a line's problem with the defaults of what it does not say, after all checks."""
    if (line.top1 is None) != (line.test_set is None):
        raise ValueError("top1 and test_set belong together: give both or none")
    if line.test_set is not None:
        check_choice(line.test_set, DATASETS, "test_set")
    given = dict(line.problem)
    for name, value in _FIXED.items():
        if given.pop(name, value) != value:
            raise ValueError(f"{name} must be {value!r}: entries are compared by similarity")
    for name in given:
        check_choice(name, problem_arguments(), "argument of the problem")
    problem = complete(EnvConfig, given, "the problem")
    kept = {name: problem[name] for name in problem_arguments() if problem[name] is not None}  # type: ignore[literal-required]
    _check_names(kept)
    _check_sizes(kept, line.sequential)
    return kept


def _check_names(problem: Mapping[str, Any]) -> None:
    """Refuse what not everybody has, and names that would run code."""
    network = problem["network"]
    if network in BUILDERS and "input_shape" in problem:
        raise ValueError(f"{network} is compared on inputs of its own size: no input_shape")
    find_safely(network, "the problem")
    if "network_arguments" in problem:
        build_safely(network, problem["network_arguments"], "the problem")
    if problem["budget_metric"] in TIMED:
        raise ValueError(
            f"a budget of {problem['budget_metric']} holds on one machine: entries are on others"
        )
    check_value(problem["budget"], Budget, "budget", "a number above 0 and at most 1")
    for name, choices in (
        ("weights", WEIGHTS),
        ("images", IMAGES),
        ("criterion", CRITERIA),
        ("repair", REPAIRS),
        ("similarity", SIMILARITIES),
        ("scope", SCOPES),
    ):
        check_choice(problem.get(name, "missing"), choices, name)


def _check_sizes(problem: Mapping[str, Any], sequential: Mapping[str, Any] | None) -> None:
    """Refuse what would take more than ``LARGEST_IMAGES``."""
    shape = problem.get("input_shape") or ((3, 32, 32) if problem["network"] in BUILDERS else None)
    count = problem.get("num_images", 50_000) + (problem.get("num_score_images") or 0)
    if sequential is not None:
        images = sequential.get("images")
        check_value(images, Count, "sequential repair's images", "a whole number of at least 1")
        sequential_options(sequential)
        count = max(count, count + images)
    size = 4 * count * math.prod(shape or (3, 512, 512))
    if size > LARGEST_IMAGES:
        raise ValueError(
            f"the images of the problem would take {short(size)} bytes; at most "
            f"{LARGEST_IMAGES:,} are accepted"
        )


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.method, entry.author, json.dumps(entry.problem, sort_keys=True)
