"""The run folder: what a search was asked, and every strategy it scored, as they come."""

import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lfgcl_env.edge.files import write_text
from lfgcl_env.pruning import Evaluation

PACKAGES = (
    "lfgcl-env", "torch", "torchvision", "torch-pruning", "gymnasium", "stable-baselines3", "numpy"
)  # fmt: skip
ARGUMENTS = "arguments.json"
EVALUATIONS = "evaluations.jsonl"
PRUNED = "pruned.safetensors"
AGENT = "agent.zip"


class RunWriteError(OSError):
    """A run folder that could be written at first cannot be any more."""


@dataclass(frozen=True)
class Record:
    """One line of ``evaluations.jsonl``.

    Attributes:
        index: 1 for the first distinct strategy, 2 for the second, ...
        seconds: of search until it was scored, pauses between interruption and resuming excluded.
        reward: what the environment's step returned for it.
        budget: of the episode in which it was scored.
        evaluation: of the strategy.
    """

    index: int
    seconds: float
    reward: float
    budget: float
    evaluation: Evaluation

    def to_json(self) -> str:
        """One line of JSON, from which :meth:`from_json` makes an equal record."""
        fields = asdict(self)
        evaluation = fields.pop("evaluation")
        return json.dumps(fields | evaluation)

    @staticmethod
    def from_json(line: str) -> "Record":
        """Read one line.

        Raises:
            ValueError: if it is none.
        """
        try:
            fields = json.loads(line)
            head = {key: fields.pop(key) for key in ("index", "seconds", "reward", "budget")}
            keep = tuple(int(count) for count in fields.pop("keep"))
            return Record(**head, evaluation=Evaluation(keep=keep, **fields))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a record of an evaluation ({error})") from error


class RunFolder:
    """A folder with a search's arguments, evaluations and results.

    Args:
        path: of the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def started(self) -> datetime:
        """When the run was first begun."""
        return datetime.fromisoformat(self.described()["started"])

    @property
    def begun(self) -> bool:
        """Whether a search was begun here."""
        return (self.path / ARGUMENTS).exists()

    def check_new(self) -> None:
        """Make sure that a new run can be written here; what is made to find out is removed.

        Raises:
            ValueError: if there is a run already.
            OSError: if the folder cannot be made or written.
        """
        if self.begun and self.records():  # one that scored nothing is worth nothing
            raise ValueError(
                f"{self.path} holds a run already: go on with it by --resume (resume=True), or "
                "give another folder"
            )
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise OSError(
                f"the run folder {self.path} cannot be written: {error.strerror or error}"
            ) from error
        finally:
            for folder in missing:
                if folder.is_dir():
                    folder.rmdir()

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Make the folder and write what the search was asked.

        Raises:
            OSError: if it cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_arguments({"arguments": dict(arguments), **_circumstances()})

    def described(self) -> dict[str, Any]:
        """What :meth:`begin` wrote.

        Raises:
            FileNotFoundError: if no search was begun here.
            ValueError: if the file is damaged.
        """
        if not self.begun:
            raise FileNotFoundError(f"there is no run to go on with in {self.path}")
        try:
            found = json.loads((self.path / ARGUMENTS).read_text(encoding="utf-8"))
            dict(found["arguments"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path / ARGUMENTS} is damaged ({error})") from error
        return found  # type: ignore[no-any-return]

    def check_same(
        self, arguments: Mapping[str, Any], may_differ: Sequence[str], scored: int
    ) -> None:
        """Check that the run here was asked the same.

        Args:
            arguments: what is asked now.
            may_differ: arguments that do not decide what is found.
            scored: how many strategies were; ``evaluations`` may differ but not be less.

        Raises:
            ValueError: if another argument differs; the message names it.
        """
        recorded: dict[str, Any] = self.described()["arguments"]
        if arguments["evaluations"] < scored:
            raise ValueError(
                f"the run in {self.path} has scored {scored} strategies already: give at least as "
                f"many evaluations, not {arguments['evaluations']}"
            )
        for name in sorted(recorded.keys() | arguments.keys()):
            was, now = recorded.get(name), arguments.get(name)
            if name not in ("evaluations", *may_differ) and json.dumps(was) != json.dumps(now):
                raise ValueError(
                    f"the run in {self.path} was begun with {name}={was!r} and cannot go on with "
                    f"{now!r}"
                )

    def go_on(self, arguments: Mapping[str, Any]) -> None:
        """Write down that the run goes on, see :meth:`check_same`."""
        described = self.described()
        described["arguments"] = dict(arguments)
        described["resumed"] = [*described.get("resumed", []), _circumstances()]
        self._write_arguments(described)

    def records(self) -> list[Record]:
        """Every strategy scored so far; a last line that was cut short is dropped.

        Raises:
            ValueError: if another line is damaged.
        """
        path = self.path / EVALUATIONS
        if not path.exists():
            return []
        lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
        records: list[Record] = []
        for number, line in enumerate(lines, start=1):
            try:
                if line:
                    records.append(Record.from_json(line))
                    if records[-1].index != len(records):
                        raise ValueError(f"evaluation {records[-1].index} is out of order")
            except ValueError as error:
                if number < len(lines):
                    raise ValueError(f"{path}, line {number}: {error}") from error
        return records

    @contextmanager
    def open_records(self, records: Sequence[Record]) -> Iterator[Callable[[Record], None]]:
        """Write ``records`` anew, and yield a function that adds one, safely on disk.

        Raises:
            OSError: if the file cannot be written; RunWriteError from the function.
        """
        path = self.path / EVALUATIONS
        text = "".join(f"{record.to_json()}\n" for record in records)
        write_text(path, text)
        with path.open("ab", buffering=0) as file:

            def add(record: Record) -> None:
                try:
                    file.write(f"{record.to_json()}\n".encode())
                    os.fsync(file.fileno())
                except OSError as error:
                    raise RunWriteError(f"cannot write {path}: {error.strerror}") from error

            yield add

    def _write_arguments(self, described: Mapping[str, Any]) -> None:
        write_text(self.path / ARGUMENTS, json.dumps(described, indent=2) + "\n")


def _circumstances() -> dict[str, Any]:
    return {
        "command": shlex.join(sys.orig_argv),
        "versions": versions(),
        "platform": platform.platform(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results; missing ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if "lfgcl-env" not in found:
        from lfgcl_env import __version__

        found["lfgcl-env"] = __version__
    return found
