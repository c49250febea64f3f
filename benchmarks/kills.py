"""Kill `lfgcl prune --workers 2` and its workers at random moments, and see that nothing is lost.

One run is undisturbed. Another one is killed, time and again: its driver or one of its workers, by
signal 9, at a moment that is drawn from the seconds that the undisturbed one took to search. A
driver that was killed is followed by `--resume`. Just before every kill the strategies that are
finished in `evaluations.jsonl` or `scored.jsonl` are read: after it, and ever after, all of them
must still be there. At the end the records and the pruned network must be those of the undisturbed
run. A run that ends before its kills are spent is compared likewise, and followed by a new one.
Linux only.

Results are written to results/kills.jsonl.

    python benchmarks/kills.py --kills 50
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from study import Fields, Study, markdown_table, prepare, study_parser

from lfgcl_env.runs.run_folder import PRUNED, RunFolder

TARGET = "LFGCL-ResNet20-v0 --weights embedded --num-images 64 --agent random --shortlist 0"

STARTS = 5
"""Starts that may fail in a row."""

Strategies = set[tuple[int, ...]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print; return 1 if something was lost or changed."""
    parser = study_parser(__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of drivers and workers")
    parser.add_argument("--evaluations", type=int, default=100, help="of the search")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    options = parser.parse_args(arguments)
    run = {name: getattr(options, name) for name in ("kills", "evaluations", "seed")}
    study = Study(options.out / "kills.jsonl", [run], disturb)
    code = 0 if options.report else study.run()
    names = [*run, "drivers", "workers", "runs", "lost", "same"]
    print(markdown_table(names, [[str(r[name]) for name in names] for r in study.records()]))
    kept = all(record["lost"] == 0 and record["same"] for record in study.records())
    return code or int(not kept)


def disturb(run: Fields) -> Fields:
    """Return how many drivers and workers were killed, and what differs from the whole run."""
    with TemporaryDirectory() as place:
        whole, broken = RunFolder(Path(place) / "whole"), RunFolder(Path(place) / "broken")
        seconds = undisturbed(whole, run["evaluations"])
        draws = np.random.default_rng(run["seed"])
        killed, lost, same, ended_runs = {"drivers": 0, "workers": 0}, 0, True, 0
        fruitless = 0  # starts in a row that ended by themselves and scored nothing
        seen: Strategies = set()
        at_start: Strategies = set()
        driver = start(broken, run["evaluations"])
        try:
            while sum(killed.values()) < run["kills"]:
                if not wait(driver, broken, draws.uniform(0, seconds)):
                    lost += len(seen - finished_in(broken))
                    same &= result_of(whole) == result_of(broken)
                    ended_runs += 1
                    broken, seen = RunFolder(Path(place) / f"broken-{ended_runs}"), set()
                elif draws.random() < 0.5 and (workers := workers_of(driver.pid)):
                    seen |= finished_in(broken)
                    with suppress(ProcessLookupError):
                        os.kill(int(draws.choice(workers)), signal.SIGKILL)
                        killed["workers"] += 1
                    lost += len(seen - finished_in(broken))
                    continue
                else:
                    ended = driver.poll() is not None
                    seen |= finished_in(broken)
                    killed["drivers"] += not ended
                    driver.kill()
                    driver.wait()
                    finished = finished_in(broken)
                    lost += len(seen - finished)
                    fruitless = fruitless + 1 if ended and finished <= at_start else 0
                    if fruitless == STARTS:
                        raise RuntimeError(f"the command fails with exit code {driver.returncode}")
                at_start = finished_in(broken)
                driver = start(broken, run["evaluations"])
            driver.wait()
            for _ in range(STARTS):
                if driver.returncode != 1:  # two workers in a row were killed with one strategy
                    break
                driver = start(broken, run["evaluations"])
                driver.wait()
        finally:
            driver.kill()
            driver.wait()
        lost += len(seen - finished_in(broken))
        same &= result_of(whole) == result_of(broken)
        return killed | {"runs": ended_runs + 1, "lost": lost, "same": same}


def start(run: RunFolder, evaluations: int) -> "subprocess.Popen[bytes]":
    """Begin a search, or go on with it."""
    command = [sys.executable, "-m", "lfgcl_env.cli.main", "prune", *TARGET.split(), "-q"]
    command += ["--workers", "2", "--evaluations", str(evaluations), "--out", str(run.path)]
    command += ["--resume"] * run.begun
    nothing = os.environ | {"LFGCL_DATA": str(run.path / "no data")}  # it would be tested on
    output = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=output, stderr=output, env=nothing)


def undisturbed(run: RunFolder, evaluations: int) -> float:
    """Search; return the seconds from the first strategy that was scored to the last."""
    driver = start(run, evaluations)
    wait(driver, run, 0.0)
    begun = ended = time.monotonic()
    while driver.poll() is None:
        time.sleep(0.05)
        if len(finished_in(run)) < evaluations:
            ended = time.monotonic()
    if driver.returncode:
        raise RuntimeError(f"the undisturbed run failed with exit code {driver.returncode}")
    return ended - begun


def wait(driver: "subprocess.Popen[bytes]", run: RunFolder, seconds: float) -> bool:
    """Wait until a search has scored more, and then some time; return whether it has not ended."""
    before = len(finished_in(run))
    while driver.poll() is None and len(finished_in(run)) == before:
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired):
        driver.wait(seconds)
    return driver.returncode != 0


def finished_in(run: RunFolder) -> Strategies:
    """Return all strategies that the folder has scores of."""
    if not run.begun:
        return set()
    scored = {one.evaluation.keep for one in run.scored()}
    return scored | {one.evaluation.keep for one in run.records()}


def workers_of(driver: int) -> list[int]:
    """Return the processes that the driver's server has forked."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    return sorted(
        worker for server in parents.get(driver, []) for worker in parents.get(server, [])
    )


def result_of(run: RunFolder) -> Any:
    records = [(one.reward, one.evaluation) for one in run.records()]
    network = run.path / PRUNED
    return records, network.read_bytes() if network.exists() else None


if __name__ == "__main__":
    prepare()
    sys.exit(main())
