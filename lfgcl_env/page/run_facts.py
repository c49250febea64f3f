"""All that a run folder knows of its run, finished or not; nothing of it is run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfgcl_env.images.datasets import dataset_for
from lfgcl_env.pruning import read_structure
from lfgcl_env.runs.accuracy_file import Accuracy, read_accuracy
from lfgcl_env.runs.best import BEST, Best, read_best
from lfgcl_env.runs.commands import network_options
from lfgcl_env.runs.exports import StoredExport
from lfgcl_env.runs.findings import Findings, read_findings
from lfgcl_env.runs.measured import Measured
from lfgcl_env.runs.problem_file import PROBLEM, StoredProblem, read_problem
from lfgcl_env.runs.record import Record
from lfgcl_env.runs.recoveries import StoredRecovery
from lfgcl_env.runs.run_folder import PRUNED, RunFolder
from lfgcl_env.search.stored_sweep import read_sweep
from lfgcl_env.search.strategy_reward import best_first
from lfgcl_env.search.sweep_files import network_file


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run.

    Attributes:
        folder: of the run.
        described: what was asked, and where it ran.
        problem: what is pruned; None where the run ended before that was known.
        records: of the strategies scored so far.
        best: of a finished run on one budget; None for one that was extended and has not ended.
        sweep: of a run on a range of budgets, as far as it is finished.
        networks: files of the pruned networks that are there.
        header: of the first of these files.
        data: the labelled data set that fits them, if one does.
        measured: what ``lfgcl measure`` found of them.
        recoveries: what ``lfgcl recover`` made of them.
        exports: what ``lfgcl export`` made of all these.
        accuracy: what ``lfgcl evaluate`` found of them.
    """

    folder: Path
    described: Mapping[str, Any]
    problem: StoredProblem | None
    records: tuple[Record, ...]
    best: Best | None
    sweep: Mapping[str, Any] | None
    networks: tuple[Path, ...]
    header: Mapping[str, Any] | None
    data: str | None
    measured: Measured | None
    recoveries: Sequence[StoredRecovery]
    exports: Sequence[StoredExport]
    accuracy: Accuracy | None

    @property
    def asked(self) -> Mapping[str, Any]:
        """The arguments of the run."""
        arguments: Mapping[str, Any] = self.described["arguments"]
        return arguments

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        if self.sweep:
            return len(self.sweep["points"]) == len(self.sweep["budgets"])
        return self.best is not None

    @property
    def options(self) -> str | None:
        """What commands on the networks need; None where they take no such network."""
        header = self.header
        if header is None or header["network"] is None or header.get("inputs"):
            return None
        return network_options(header["network"], header["arguments"])

    @property
    def reward_name(self) -> str:
        """What the rewards are: ``"similarity"``, ``"accuracy"``, or the name of a function."""
        known = self.best.model_extra if self.best else self.sweep
        return str((known or {}).get("reward_name", self.asked.get("reward", "similarity")))

    @property
    def ranged(self) -> bool:
        """Whether the run is on a range of budgets, on which rewards cannot be compared."""
        return isinstance(self.asked.get("budget"), list)

    @property
    def leader(self) -> Record | None:
        """The strategy with the highest reward so far; None on a range of budgets."""
        return best_first(self.records)[0] if self.records and not self.ranged else None


def read_run(path: str | os.PathLike[str]) -> RunFacts:
    """Read all files of a run folder.

    Raises:
        FileNotFoundError: if no run was begun there.
        ValueError: if a file is damaged or was edited.
    """
    run = RunFolder(path)
    if not run.begun:
        raise FileNotFoundError(f"there is no run in {run.path}: give the --out of `lfgcl prune`")
    folder = run.path
    records, described = tuple(run.records()), run.described()
    best = read_best(folder) if (folder / BEST).exists() else None
    extended = best and (best.evaluations, best.evaluations_asked) != (
        len(records), described["arguments"]["evaluations"]
    )  # fmt: skip
    if extended:  # what an earlier, shorter search found
        best = None
    sweep = read_sweep(folder)
    points = sweep["points"] if sweep else []
    files = [folder / network_file(p["budget"]) for p in points] if sweep else [folder / PRUNED]
    networks = () if extended else tuple(file for file in files if file.exists())
    headers = [read_structure(file) for file in networks]
    tensors = [header["tensors"] for header in headers]
    problem = read_problem(folder)
    found = read_findings(folder, tensors) if networks else Findings(None, (), ())
    kept = [*(r.evaluation.keep for r in records), *(p["searched"]["keep"] for p in points)]
    kept += [best.keep] if best else []
    if problem and any(len(keep) != len(problem.groups) for keep in kept):
        raise ValueError(f"{folder / PROBLEM} is of another run: its groups are not those scored")
    return RunFacts(
        folder=folder,
        described=described,
        problem=problem,
        records=records,
        best=best,
        sweep=sweep,
        networks=networks,
        header=headers[0] if headers else None,
        data=_fitting_data(headers[0]) if headers else None,
        measured=found.measured,
        recoveries=found.recoveries,
        exports=found.exports,
        accuracy=read_accuracy(folder, tensors) if networks else None,
    )


def _fitting_data(header: Mapping[str, Any]) -> str | None:
    shape, classes = header["input_shape"], header["num_classes"]
    return dataset_for(tuple(shape), classes) if shape and classes else None
