"""A study: a grid of runs, each measured once and kept as a line of JSON."""

import json
import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lfgcl_env.edge.files import write_text
from lfgcl_env.runs.provenance import provenance
from study.records import Fields, append, identity, newest, origins, read

_log = logging.getLogger(__name__)


class Study:
    """A grid of runs, measured by one function and kept in one file.

    A run is a dictionary of JSON values. All its fields together identify it: a run that the file
    holds is not measured again, and one that differs in any field, such as ``agent_version``, is
    another run. Every record is on disk as soon as it is measured, so that a study can be stopped
    and started again. A run that fails is reported, and the others go on.

    Args:
        path: the JSON Lines file.
        runs: the grid, in the order in which it is measured.
        measure: returns the result of a run, a dictionary of JSON values. For an engine it must be
            picklable: a module's function, or a ``partial`` of one. What several runs share, such
            as a network, it caches for itself; each worker has its own cache.
        name: names a run in messages.
        summary: says in a few words what was measured; given the fields of run and result.
    """

    def __init__(
        self,
        path: Path,
        runs: Sequence[Fields],
        measure: Callable[[Fields], Fields],
        *,
        name: Callable[[Fields], str] = identity,
        summary: Callable[[Fields], str] = lambda record: "measured",
    ) -> None:
        self.path = path
        self.runs = [json.loads(identity(run)) for run in runs]
        self._measure, self._name, self._summary = measure, name, summary

    def missing(self) -> list[Fields]:
        """Return the runs of the grid that the file does not hold."""
        known = {identity(line["run"]) for line in read(self.path)}
        return list({identity(r): r for r in self.runs if identity(r) not in known}.values())

    def run(self, engine: Executor | None = None, *, isolated: bool = False) -> int:
        """Measure what is missing.

        Args:
            engine: whose workers measure runs at the same time; None for this process.
            isolated: measure every run in a process of its own, which no other has used.

        Returns:
            An exit code: 1 if a run failed, else 0.
        """
        runs, failed = self.missing(), 0
        here = provenance()
        quiet = 0.2 if sys.stderr.isatty() else 60
        bar = tqdm(total=len(runs), desc=self.path.stem, unit="run", mininterval=quiet)
        with logging_redirect_tqdm(), bar:
            for run, result in self._outcomes(runs, engine, isolated):
                try:
                    measured = result()
                    append(self.path, run, measured, here)
                except BrokenExecutor:
                    raise
                except Exception:
                    failed += 1
                    _log.exception("%s: failed", self._name(run))
                else:
                    _log.info("%s: %s", self._name(run), self._summary(run | measured))
                bar.update()
        if failed:
            _log.error("%d of %d runs failed, see above", failed, len(runs))
        return int(failed > 0)

    def records(self) -> list[Fields]:
        """Return the newest record of every run in the file, see :func:`study.records.newest`."""
        return newest(self.path)

    def write_report(self, report: Fields) -> Path:
        """Write what the records come to, and what made them, as JSON beside the file."""
        path = self.path.with_suffix(".json")
        text = json.dumps({"provenance": origins(self.path), **report}, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text + "\n")
        return path

    def _outcomes(
        self, runs: Sequence[Fields], engine: Executor | None, isolated: bool
    ) -> Iterator[tuple[Fields, Callable[[], Fields]]]:
        """Yield every run as it ends, and what returns its result or raises."""
        if engine is not None:
            yield from self._by(engine, runs)
        elif isolated:
            # Forked processes would wait for the threads of this one's PyTorch.
            context = multiprocessing.get_context("spawn")
            one_thread = (torch.set_num_threads, (1,))
            with ProcessPoolExecutor(1, context, *one_thread, max_tasks_per_child=1) as processes:
                yield from self._by(processes, runs)
        else:
            yield from ((run, partial(self._measure, run)) for run in runs)

    def _by(
        self, executor: Executor, runs: Sequence[Fields]
    ) -> Iterator[tuple[Fields, Callable[[], Fields]]]:
        futures: dict[Future[Fields], Fields] = {}
        try:
            for run in runs:
                futures[executor.submit(self._measure, run)] = run
            yield from ((futures[future], future.result) for future in as_completed(futures))
        finally:
            for future in futures:
                future.cancel()
