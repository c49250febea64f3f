"""The run folder: what a search was asked, and every strategy it scored, each safely on disk."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lfgcl_env.config import EngineConfig, defaults
from lfgcl_env.edge.files import as_path, check_links, remove_file, remove_partials, write_text
from lfgcl_env.edge.schema import read_text
from lfgcl_env.edge.sealed import parse_sealed, sealed
from lfgcl_env.pruning import Evaluation
from lfgcl_env.runs.arguments_file import Described
from lfgcl_env.runs.lines import open_lines, read_lines
from lfgcl_env.runs.provenance import provenance
from lfgcl_env.runs.record import Record, Scored

ARGUMENTS = "arguments.json"
EVALUATIONS = "evaluations.jsonl"
SCORED = "scored.jsonl"
PRUNED = "pruned.safetensors"
AGENT = "agent.zip"
LATENCY = "latency.json"
LOCK = ".lock"


class RunFolder:
    """A folder with a search's arguments, evaluations and results.

    Its files may come from strangers: they are checked against schemas, run no code, and carry
    checksums against damage and edits by hand (not against forgery, see
    :mod:`lfgcl_env.edge.sealed`). Nothing is written through a link out of the folder.

    Args:
        path: of the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = as_path(path, "a run folder")

    @property
    def started(self) -> datetime:
        """When the run was first begun."""
        text = self.described()["started"]
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"{self.path / ARGUMENTS} is damaged: {text!r} is not a time"
            ) from None

    @property
    def begun(self) -> bool:
        """Whether a search was begun here."""
        return (self.path / ARGUMENTS).exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process out of the folder inside the block.

        The folder is made if it is missing, and removed again if nothing was written there. Files
        that a killed process left half-written are removed.

        Raises:
            ValueError: if another process is writing the run, or the folder holds a link out of it.
            OSError: if the folder cannot be made or written.
        """
        made = self._make()
        lock = FileLock(self.path / LOCK)
        try:
            check_links(self.path)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise ValueError(f"another process is writing the run in {self.path}") from None
            try:
                remove_partials(self.path)
                remove_partials(self.path / "sweep")
                yield
            finally:
                remove_file(self.path / LOCK)  # while it is held, so that it is nobody else's
                lock.release()
        finally:
            _remove_empty(made)

    def check_new(self) -> None:
        """Check that a new run can be written here; what is made to find out is removed.

        A run that scored nothing may be overwritten.

        Raises:
            ValueError: if there is a run already, or the folder holds a link out of it.
            OSError: if the folder cannot be made or written.
        """
        if self.begun and self.records():
            raise ValueError(
                f"{self.path} holds a run already: go on with it by --resume (resume=True), or "
                "give another folder"
            )
        made = self._make()
        try:
            check_links(self.path)
        finally:
            _remove_empty(made)

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Make the folder and write what the search was asked.

        Args:
            arguments: ``environment``, its keyword arguments, and the search's own, as JSON, see
                :class:`~lfgcl_env.runs.arguments_file.Asked`.

        Raises:
            ValueError: if an argument is of a wrong type or out of bounds, or the folder holds a
                link out of it.
            OSError: if it cannot be written.
        """
        self._make()
        check_links(self.path)
        self._write({"arguments": dict(arguments), **provenance()})

    def described(self) -> dict[str, Any]:
        """Read what :meth:`begin` wrote: ``arguments``, ``started``, versions and so on.

        Raises:
            FileNotFoundError: if no search was begun here.
            ValueError: if the file is damaged or was edited.
        """
        path = self.path / ARGUMENTS
        if not self.begun:
            raise FileNotFoundError(f"there is no run to go on with in {self.path}")
        described = parse_sealed(Described, read_text(path), f"{path} is damaged")
        return described.model_dump(exclude_unset=True, exclude={"checksum"})

    def asked(self) -> dict[str, Any]:
        """Read the arguments of the run, see :meth:`described`."""
        arguments: dict[str, Any] = self.described()["arguments"]
        return arguments

    def check_same(
        self, arguments: Mapping[str, Any], may_differ: Sequence[str], scored: int
    ) -> None:
        """Check that the run here was asked the same.

        Args:
            arguments: what is asked now, as for :meth:`begin`.
            may_differ: names of arguments that do not decide what is found.
            scored: how many strategies were; ``evaluations`` may differ but not be less.

        Raises:
            ValueError: if another argument differs; the message names it.
        """
        recorded = self.asked()
        if arguments["evaluations"] < scored:
            raise ValueError(
                f"the run in {self.path} has scored {scored} strategies already: give at least as "
                f"many evaluations, not {arguments['evaluations']}"
            )
        for name in sorted(recorded.keys() | arguments.keys()):
            was = recorded.get(name, defaults(EngineConfig).get(name))
            now = arguments.get(name)
            if name not in ("evaluations", *may_differ) and json.dumps(was) != json.dumps(now):
                raise ValueError(
                    f"the run in {self.path} was begun with {name}={was!r} and cannot go on with "
                    f"{now!r}"
                )

    def go_on(self, arguments: Mapping[str, Any]) -> None:
        """Write down that the run goes on, see :meth:`check_same`.

        Raises:
            ValueError: if the folder holds a link out of it.
            OSError: if it cannot be written.
        """
        described = self.described()
        check_links(self.path)
        resumed = [*described.get("resumed", []), provenance()]
        self._write(described | {"arguments": dict(arguments), "resumed": resumed})

    def records(self) -> list[Record]:
        """Read every strategy scored so far; a last line that was cut short is dropped.

        Raises:
            ValueError: if another line is damaged or was edited; the message names it.
        """
        records = read_lines(self.path / EVALUATIONS, Record.from_json)
        for number, record in enumerate(records, start=1):
            if record.index != number:
                raise ValueError(
                    f"{self.path / EVALUATIONS}, line {number}: evaluation {record.index} is out "
                    "of order"
                )
        return records

    def scored(self) -> list[Scored]:
        """Read what workers scored ahead; a last line that was cut short is dropped.

        Raises:
            ValueError: if another line is damaged or was edited; the message names it.
        """
        return read_lines(self.path / SCORED, Scored.from_json)

    def begin_scored(self, scored: Sequence[Scored]) -> None:
        """Write what workers scored ahead anew; nothing removes the file.

        Raises:
            OSError: if the file cannot be written.
        """
        if scored:
            write_text(self.path / SCORED, "".join(f"{one.to_json()}\n" for one in scored))
        else:
            remove_file(self.path / SCORED)

    def add_scored(self, evaluation: Evaluation, score: float) -> None:
        """Add a strategy that a worker scored, safely on disk.

        Raises:
            RunWriteError: if the file cannot be written.
        """
        with open_lines(self.path / SCORED) as add:
            add(Scored(score, evaluation).to_json())

    @contextmanager
    def open_records(self, records: Sequence[Record]) -> Iterator[Callable[[Record], None]]:
        """Write ``records`` anew, and yield a function that adds one, safely on disk.

        Raises:
            OSError: if the file cannot be written; RunWriteError from the function.
        """
        path = self.path / EVALUATIONS
        text = "".join(f"{record.to_json()}\n" for record in records)
        write_text(path, text)
        with open_lines(path) as add:
            yield lambda record: add(record.to_json())

    def _make(self) -> list[Path]:
        """Make the folder, check that it can be written, and return the folders that were made."""
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            _remove_empty(made)
            raise OSError(
                f"the run folder {self.path} cannot be written: {error.strerror or error}"
            ) from error
        return made

    def _write(self, described: Mapping[str, Any]) -> None:
        try:
            text = sealed(described, indent=2)
        except TypeError as error:
            raise ValueError(f"the run cannot be recorded: {error}") from None
        parse_sealed(Described, text, "the run cannot be recorded")
        write_text(self.path / ARGUMENTS, f"{text}\n")


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of these folders that are empty, the innermost first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
