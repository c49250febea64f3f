"""``lfgcl validate``: replay a leaderboard, and say whether its entries hold."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
from torch import Tensor

from lfgcl_env.cli.evaluate import fitting_test_set
from lfgcl_env.cli.outcome import Failure, Outcome
from lfgcl_env.cli.text import columns
from lfgcl_env.edge.progress import progress
from lfgcl_env.envs import LFGCLEnv
from lfgcl_env.images import LabelledImages
from lfgcl_env.leaderboard import (
    Entry,
    LineError,
    Replay,
    add_entries,
    entry_of_run,
    read_entries,
    read_lines,
    replay,
)
from lfgcl_env.networks import Baseline, Normalization


def validate(arguments: dict[str, Any]) -> Outcome:
    """Measure anew what every entry claims; or add the results of runs whose claims hold.

    Args:
        arguments: all of the command's.

    Raises:
        ValueError: if the file is no leaderboard.
        Failure: if entries do not hold, or could not be measured because data are missing; the
            message names them.
        FileNotFoundError: if there is no such run.
        OSError: if the file cannot be written.
    """
    path, runs = Path(arguments["leaderboard"]), arguments["add"]
    if not runs:
        lines = read_lines(path)
        damaged = [line for line in lines if isinstance(line, LineError)]
        return _measure([line for line in lines if isinstance(line, Entry)], arguments, damaged)
    else:
        if path.exists():
            read_entries(path)  # refuses what cannot be added to before anything is measured
        entries = [entry_of_run(run, arguments["author"]) for run in runs]
        outcome = _measure(entries, arguments)
        replaced = add_entries(path, entries)
        less = f", {replaced} in place of the same method's" if replaced else ""
        print(f"{len(entries)} added to {path}{less}")
        return outcome | {"added": len(entries), "replaced": replaced}


def _measure(
    entries: list[Entry], arguments: dict[str, Any], damaged: Sequence[LineError] = ()
) -> Outcome:
    """Measure entries; print what was found, and which lines are no entries."""
    places = {name: arguments[name] for name in ("data_root", "download")}
    measure = _Measurement(places | {"device": arguments["device"]})
    found: dict[int, Replay] = {}
    unmeasured = set()
    # Entries of one network follow each other, so that it is analysed once.
    order = sorted(range(len(entries)), key=lambda index: _problem_key(entries[index]))
    with progress("replaying", "entry") as advance:
        for done, index in enumerate(order, start=1):
            try:
                found[index] = measure(entries[index])
            except (ValueError, OSError, ImportError) as error:
                found[index] = Replay(entries[index], None, None, None, (str(error),))
                if isinstance(error, FileNotFoundError):
                    unmeasured.add(index)
            advance(done, len(order))
    replays = [found[index] for index in range(len(entries))]
    _show(replays)
    notes = [*(line.message for line in damaged), *measure.notes]
    for note in notes:
        print(note)
    outcome: Outcome = {"entries": [_as_json(one) for one in replays], "notes": notes}
    names = [_name(i, r.entry) for i, r in enumerate(replays)]
    wrong = [names[i] for i, r in enumerate(replays) if r.faults and i not in unmeasured]
    wrong += [f"line {line.line}" for line in damaged]
    lacking = f"{len(unmeasured)} of {len(entries)} entries could not be measured: " + ", ".join(
        names[i] for i in sorted(unmeasured)
    )
    if wrong:
        more = f"; {lacking}" if unmeasured else ""
        raise Failure(
            f"{len(wrong)} of {len(entries) + len(damaged)} entries do not hold: "
            f"{', '.join(wrong)}{more}",
            outcome,
        )
    if unmeasured:
        raise Failure(lacking, outcome)
    untested = [r for r in replays if r.entry.top1 is not None and r.top1 is None]
    less = f", less the top-1 of {len(untested)}, which was not measured" if untested else ""
    print(f"all {len(entries)} entries hold{less}")
    return outcome


def _as_json(found: Replay) -> dict[str, Any]:
    entry = found.entry
    claimed = {"method": entry.method, "author": entry.author, "problem": dict(entry.problem)}
    measured = {"macs": found.macs, "similarity": found.similarity, "top1": found.top1}
    return {**claimed, **measured, "faults": list(found.faults)}


class _Measurement:
    """Replays entries; keeps the last problem, and test sets.

    Args:
        places: where data are, whether to fetch them, and where to compute.

    Attributes:
        notes: what could not be measured, and why.
    """

    def __init__(self, places: dict[str, Any]) -> None:
        self._places = places
        self._at = ""
        self._env: LFGCLEnv | None = None
        self._test_sets: dict[tuple[str, Normalization | None], LabelledImages] = {}
        self.notes: list[str] = []

    def __call__(self, entry: Entry) -> Replay:
        """Replay an entry."""
        if self._env is None or _problem_key(entry) != self._at:
            made = gym.make("LFGCL-v0", **entry.problem, **self._places)
            assert isinstance(made.unwrapped, LFGCLEnv)
            self._env, self._at = made.unwrapped, _problem_key(entry)
        test_set = self._test(entry, self._env.problem.baseline)
        images: Tensor | None = None
        if entry.sequential is not None and test_set is not None:
            images = self._env.other_images(entry.sequential["images"])
            if images is None:
                raise ValueError(
                    f"there are no {entry.sequential['images']} other images of "
                    f"{entry.problem['images']!r} for its sequential repair"
                )
        return replay(entry, self._env.problem, images, test_set)

    def _test(self, entry: Entry, baseline: Baseline) -> LabelledImages | None:
        if entry.test_set is None:
            return None
        key = (entry.test_set, baseline.normalization)
        try:
            if key not in self._test_sets:
                asked = self._places | {"data": entry.test_set}
                self._test_sets[key] = fitting_test_set(asked, baseline)
        except FileNotFoundError as error:
            note = f"top-1 was not measured: {error}"
            if note not in self.notes:
                self.notes.append(note)
            return None
        return self._test_sets[key]


def _problem_key(entry: Entry) -> str:
    """Return what decides the scores of strategies; the budget does not."""
    return json.dumps({k: v for k, v in entry.problem.items() if k != "budget"}, sort_keys=True)


def _name(index: int, entry: Entry) -> str:
    problem = entry.problem
    return f"entry {index + 1} ({entry.method}, {problem['network']} at {problem['budget']:g})"


def _show(replays: list[Replay]) -> None:
    """Print a line for every entry: what was measured, and what does not hold."""
    heads = ["method", "author", "network", "weights", "budget", "MACs", "reward", "similarity"]
    cells = [["", *heads, "top-1", ""]]
    for place, found in enumerate(replays, start=1):
        entry = found.entry
        cells.append(
            [
                str(place),
                entry.method,
                entry.author,
                entry.problem["network"],
                entry.problem["weights"],
                f"{entry.problem['budget']:g}",
                "-" if found.macs is None else f"{found.macs:,}",
                entry.problem["similarity"],
                "-" if found.similarity is None else f"{found.similarity:.5f}",
                "-" if found.top1 is None else f"{found.top1:.2f} %",
                "holds" if not found.faults else "; ".join(found.faults),
            ]
        )
    for line in columns(cells):
        print(line)
