"""What scoring by worker processes gains and costs.

Every run measures one of these:

- ``workers``: evaluations a second of ResNet-56 with two workers and with one, in turns of the same
  strategies in one run, and the median ratio of the turns. The cores must be idle.
- ``overhead``: the time that a strategy takes which costs nothing, with one worker [microseconds],
  in every engine.
- ``sleeping``: how much of 64 workers' time is spent in evaluations that only sleep, in every
  engine, and what the largest of these workers holds, which never import PyTorch where they are
  not forked from a process that has. It needs no cores: what is lost is the engine's own work.
- ``search``: how much of the workers' time a search spends in evaluations that sleep 0.6 s, with
  one worker and with many, and with cheap scores that sleep 0.06 s (``sequential`` repair, four
  for each evaluation) or without any (``least_squares``). And the search's own time for each
  evaluation, of one core [ms].
- ``uneven``: the same of random search, whose evaluations sleep 0.2 to 1 s, with as many strategies
  at a time as workers, and with more.
- ``command``: the README's command with one worker and with two, in turn, and the ratio of
  their seconds on the clock. Shortlist, delivery and test are done by one process in both. The
  cores must be idle.
- ``memory``: what a worker holds after it has scored strategies, of ResNet-56 and of MobileNetV2 at
  224 pixels: its own pages, and its share of those that workers map together (PSS, Linux only).

A worker is served by one thread of the driver, so that the driver's own work for each strategy
(``overhead``) times the workers bounds their number. Ray is one that is started on this machine
(extra ``ray``); ``--engines processes`` leaves it out.

Results are written to results/engine.jsonl.

    python benchmarks/engine.py
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
from study import Fields, Study, markdown_table, prepare, study_parser
from torch import nn

import lfgcl_env
from lfgcl_env.engine import Processes, RayActors, Shared, spread
from lfgcl_env.pruning import Evaluation, PruningProblem
from lfgcl_env.pruning.score.screen import Screen
from lfgcl_env.pruning.scored_problem import ScoredProblem
from lfgcl_env.search.run_search import run_search

COMMAND = "prune LFGCL-ResNet56-v0 --budget 0.5 --agent lfgcl --evaluations 8"
"""Of the README, with twice its evaluations."""

SLEEPS = (0.1, 0.5, 1.0)
"""Evaluations that only sleep take so long [s]."""

SEARCHES = ("random", "tpe", "one_plus_one", "cross_entropy", "cma_es", "lfgcl")
"""Agents whose searches are measured."""

EVALUATION, CHEAP = 0.6, 0.06
"""Seconds that evaluations and cheap scores of a search sleep."""

UNEVEN = (0.2, 1.0)
"""Likewise, at least and at most, where evaluations differ."""

KINDS: dict[str, type[Processes] | type[RayActors]] = {"processes": Processes, "ray": RayActors}

NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet-56": {"id": "LFGCL-ResNet56-v0"},
    "MobileNetV2, 224 pixels": {
        "id": "LFGCL-v0",
        "network": "torchvision:mobilenet_v2",
        "weights": "random",
        "images": "random",
        "input_shape": (3, 224, 224),
        "num_images": 32,
        "repair": "sequential",
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print; return 1 if a run failed."""
    assert lfgcl_env  # registers the environments
    parser = study_parser(__doc__)
    parser.add_argument("--turns", type=int, default=5, help="of one worker and of two")
    parser.add_argument("--strategies", type=int, default=8, help="in every turn, or per worker")
    parser.add_argument("--tasks", type=int, default=5000, help="that cost nothing")
    parser.add_argument("--sleepers", type=int, default=64, help="workers that sleep")
    parser.add_argument("--searchers", type=int, default=16, help="workers of a search")
    parser.add_argument("--evaluations", type=int, default=10, help="of a search, per worker")
    parser.add_argument("--engines", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--only", nargs="+", choices=list(MEASURED), default=list(MEASURED))
    options = parser.parse_args(arguments)
    settings: dict[str, list[Fields]] = {
        "workers": [{"turns": options.turns, "strategies": options.strategies}],
        "overhead": [{"engine": name, "tasks": options.tasks} for name in options.engines],
        "sleeping": [{"engine": name, "workers": options.sleepers} for name in options.engines],
        "search": [
            {"agent": agent, "repair": repair, "workers": workers, "per worker": count}
            for workers, count in (
                (1, 2 * options.evaluations),
                (options.searchers, options.evaluations),
            )
            for agent in SEARCHES
            for repair in ("sequential", "least_squares")
        ],
        "uneven": [
            {"workers": workers, "at a time": workers * part // 4, "per worker": count}
            for workers, count in ((options.searchers // 2, 2 * options.evaluations),)
            for part in (4, 6, 8)
        ],
        "command": [{"command": COMMAND}],
        "memory": [{"network": name, "strategies": options.strategies} for name in NETWORKS],
    }
    runs = [{"what": what, **run} for what in options.only for run in settings[what]]
    study = Study(options.out / "engine.jsonl", runs, lambda run: MEASURED[run["what"]](run))
    code = 0 if options.report else study.run()
    cells = [
        [
            ", ".join(str(record[name]) for name in run),
            *(f"{name} {value:.4g}" for name, value in record.items() if name not in run),
        ]
        for record in study.records()
        for run in (r for r in runs if r.items() <= record.items())
    ]
    width = max((len(row) for row in cells), default=1)
    rows = [row + [""] * (width - len(row)) for row in cells]
    print(markdown_table(["run", *[""] * (width - 1)], rows))
    return code


def speedup(run: Fields) -> Fields:
    """Return evaluations a second with one worker and two, and the median of their ratios."""
    problem = problem_of("ResNet-56")
    draws = np.random.default_rng(0)
    rates: dict[int, list[float]] = {1: [], 2: []}
    with Processes(1) as one, Processes(2) as two:
        for executor in (one, two):  # load the problem before the clock runs
            scored_in(problem, drawn(problem, draws, 2), executor)
        for _ in range(run["turns"]):
            strategies = drawn(problem, draws, run["strategies"])
            for workers, executor in ((1, one), (2, two)):
                seconds = scored_in(problem, strategies, executor)
                rates[workers].append(len(strategies) / seconds)
    ratios = np.divide(rates[2], rates[1])
    return {
        "one": float(np.median(rates[1])),
        "two": float(np.median(rates[2])),
        "ratio": float(np.median(ratios)),
        "least ratio": float(ratios.min()),
    }


def overhead(run: Fields) -> Fields:
    """Return what a strategy costs that costs nothing [microseconds], beside a call of it here."""
    shared, tasks = Shared(None), [(*range(59), task) for task in range(run["tasks"])]
    with KINDS[run["engine"]](1) as executor:
        spread(executor, nothing, shared, tasks[:10], ignored)
        started, own = time.perf_counter(), time.process_time()
        spread(executor, nothing, shared, tasks, ignored)
        seconds, own = time.perf_counter() - started, time.process_time() - own
    return {"microseconds": 1e6 * seconds / len(tasks), "of the driver": 1e6 * own / len(tasks)}


def sleeping(run: Fields) -> Fields:
    """Return the fraction of the workers' time in which they sleep as they are asked to."""
    workers, found = run["workers"], {}
    with KINDS[run["engine"]](workers) as executor:
        begun: dict[int, float] = {}
        while len(begun) < workers:
            begun |= dict(executor.map(process_and_pages, [0.5] * workers))
        found["own MiB"] = max(begun.values())
        for seconds in SLEEPS:
            shared, rounds = Shared(seconds), round(4 / seconds)
            spread(executor, nap, shared, range(2 * workers), ignored)
            started = time.perf_counter()
            spread(executor, nap, shared, range(workers * rounds), ignored)
            spent = time.perf_counter() - started
            found[f"efficiency at {seconds} s"] = rounds * seconds / spent
    return found


def search(run: Fields) -> Fields:
    """Return the fraction of the workers' time that a search spends in evaluations."""
    return searched(run["agent"], run["repair"], run["workers"], run["workers"], run["per worker"])


def uneven(run: Fields) -> Fields:
    """Return the same of random search, whose evaluations take different times."""
    workers, together = run["workers"], run["at a time"]
    return searched("random", "least_squares", workers, together, run["per worker"], UNEVEN)


def searched(
    agent: str,
    repair: str,
    workers: int,
    together: int,
    per_worker: int,
    seconds: tuple[float, float] = (EVALUATION, EVALUATION),
) -> Fields:
    """Search with workers that sleep, and so many strategies at a time."""

    def asleep(problem: ScoredProblem, keep: Any) -> Evaluation:
        time.sleep(np.random.default_rng(keep).uniform(*seconds))
        return problem._evaluation(keep, even(keep))

    with (
        patch.object(ScoredProblem, "_score", asleep),
        patch.object(Screen, "__call__", cheaply_asleep),
        ThreadPoolExecutor(workers) as executor,
    ):
        env = gym.make(
            "LFGCL-v0",
            network=own_network(),
            input_shape=(3, 8, 8),
            images="random",
            num_images=8,
            repair=repair,
            engine=executor,
            workers=together,
        )
        shared = env.unwrapped.problem.shared  # type: ignore[attr-defined]
        spread(executor, loaded, shared, range(workers), ignored)  # before the clock runs
        started, own = time.perf_counter(), time.thread_time()
        result = run_search(env, agent, workers * per_worker)
        spent, own = time.perf_counter() - started, time.thread_time() - own
    keeps = [record.evaluation.keep for record in result.records]
    slept = sum(np.random.default_rng(keep).uniform(*seconds) for keep in keeps)
    return {
        "busy": float(slept / (workers * spent)),
        "evaluations": len(keeps),
        "screened": result.screened,
        "own ms": 1000 * own / len(keeps),
    }


def memory(run: Fields) -> Fields:
    """Return what each of two workers holds after scoring, and the file they share [MiB]."""
    problem = problem_of(run["network"])
    with Processes(2) as executor:
        strategies = drawn(problem, np.random.default_rng(0), 2 * run["strategies"])
        scored_in(problem, strategies, executor)
        pages = list(executor.map(own_pages, [0.5] * 2))
    file = Shared(problem)
    return {
        "own MiB": max(own for own, _ in pages),
        "with its share MiB": max(proportional for _, proportional in pages),
        "file MiB": file.path.stat().st_size / 2**20,
    }


def commands(run: Fields) -> Fields:
    """Return the seconds of a command with one worker and with two, and their ratio."""
    seconds = {}
    for workers in (1, 2):
        with TemporaryDirectory() as folder:
            options = [*run["command"].split(), "--workers", str(workers)]
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "lfgcl_env.cli.main", *options, "--out", f"{folder}/run"],
                check=True,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            seconds[workers] = time.perf_counter() - started
    return {"one s": seconds[1], "two s": seconds[2], "ratio": seconds[1] / seconds[2]}


MEASURED = {
    "workers": speedup,
    "overhead": overhead,
    "sleeping": sleeping,
    "search": search,
    "uneven": uneven,
    "command": commands,
    "memory": memory,
}


def own_network() -> nn.Module:
    """Return a network of ten groups."""
    layers: list[nn.Module] = []
    for inputs in (3, *[32] * 9):
        layers += [nn.Conv2d(inputs, 32, 3, padding=1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*layers, *head).eval()


def loaded(_problem: ScoredProblem, _item: int) -> None:
    """Stay with a worker until all others have loaded the problem too."""
    time.sleep(3)


def cheaply_asleep(screen: Screen, keep: Any, _kept: object) -> float:
    """Sleep instead of screening a strategy that was not screened before."""
    if keep not in screen:
        time.sleep(CHEAP)
        screen.remember(tuple(keep.tolist()), even(keep))
    return even(keep)


def even(keep: Any) -> float:
    """Return a score that is the higher, the more alike the groups are."""
    return float(1 / (1 + np.std(keep)))


def problem_of(network: str) -> PruningProblem:
    arguments = dict(NETWORKS[network])
    problem: PruningProblem = gym.make(arguments.pop("id"), **arguments).unwrapped.problem  # type: ignore[attr-defined]
    return problem


def drawn(problem: PruningProblem, draws: np.random.Generator, count: int) -> list[Any]:
    return [problem.project(draws.random(len(problem.groups))) for _ in range(count)]


def scored_in(problem: PruningProblem, strategies: Sequence[Any], executor: Processes) -> float:
    """Score strategies that are all forgotten again here; return the time it took [s]."""
    fresh = [tuple(int(count) for count in strategy) for strategy in strategies]
    shared = problem.shared
    started = time.perf_counter()
    spread(executor, anew, shared, fresh, ignored)
    return time.perf_counter() - started


def anew(problem: ScoredProblem, strategy: tuple[int, ...]) -> float:
    """Score a strategy in a worker, also one that it remembers."""
    problem.forget()
    return problem.evaluate(strategy).similarity


def ignored(_item: object, _result: object) -> None:
    """Take a result that nobody needs."""


def nothing(_shared: None, _item: Sequence[int]) -> float:
    return 0.0


def nap(seconds: float, _item: int) -> None:
    time.sleep(seconds)


def process_and_pages(seconds: float) -> tuple[int, float]:
    own, _ = own_pages(seconds)
    return os.getpid(), own


def own_pages(seconds: float) -> tuple[float, float]:
    """Return a worker's own and proportional memory, once every worker is asked [MiB]."""
    time.sleep(seconds)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    own = kib["Private_Clean"] + kib["Private_Dirty"]
    return own / 1024, kib["Pss"] / 1024


if __name__ == "__main__":
    prepare()
    sys.exit(main())
