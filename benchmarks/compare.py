"""Agents and baselines at equal evaluations: similarity, and top-1 after sequential repair.

One run is a contestant, an environment, a seed, a network and a budget; benchmarks/ground.py says
what all of them share, benchmarks/contestants.py who they are. The best strategies after 100 and
after all evaluations are repaired and tested. "Best" is by the contestant's own reward, as nobody
else would choose for it. What an agent scores besides the strategies that it tries counts as an
evaluation, too: the allocation's single groups halved. Every run is kept in
results/compare_NETWORK.jsonl as soon as it has ended, so that the script can be stopped and started
again: runs that are there are left out.

    python benchmarks/compare.py --network resnet20 --budgets 0.35 0.5 0.65 --processes 2
    python benchmarks/compare.py --network resnet20 --budgets 0.5 --agents lfgcl --baselines amc \
        --environments LFGCL AMC LFGCL-accuracy AMC-similarity AMC-accuracy
    python benchmarks/report.py --network resnet20
"""

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants import AGENTS, BASELINES, OWN, STRATEGIES, applies, check_names, factory
from ground import ENVIRONMENTS, LABELLED, Ground
from provenance import RESULTS, provenance
from rows import SIMILARITY, TESTED, Row, is_done, read_rows, results_file
from tqdm import tqdm

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.run_search import run_search

COUNTS = (1, 10, 25, 50, 100, 150, 200, 250, 300, 400, 600, 800)
LONGER = {"cma_es": 800}  # evaluations, where --evaluations is 400: it learns from generations

MACHINE = ("python", "torch", "torch-pruning", "gymnasium", "processor", "cores", "device")
"""What a run's times depend on, besides the threads: each has one."""

Outcome = tuple[Row, Row | None]
"""A planned run, and its record; None if it failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; returns 1 if a run failed."""
    options = parsed(arguments)
    check_names(options.agents, options.baselines)
    options.out.mkdir(parents=True, exist_ok=True)
    runs = list(missing(options))
    bar = tqdm(total=len(runs), unit="run", mininterval=0.2 if sys.stderr.isatty() else 60)
    here, failed = provenance(), 0
    with bar:
        for run, line in outcomes(runs, options.processes):
            what = f"{run['network']} {run['budget']:.0%} {run['environment']} {run['agent']}"
            if line is None:
                failed += 1
                bar.write(f"{what} seed {run['seed']}: failed", file=sys.stderr)
            else:
                line |= {
                    "commit": here["commit"],
                    "machine": {name: here[name] for name in MACHINE},
                }
                with results_file(options.out, run["network"]).open("a") as file:
                    file.write(json.dumps(line) + "\n")
                last = list(line["tested"].values())[-1]
                bar.write(
                    f"{what} seed {run['seed']}: top-1 {last['top1']:.2f} %, similarity "
                    f"{last['similarity']:.4f}, {line['evaluations']} evaluations in "
                    f"{line['seconds']:.0f} s ({bar.n + 1}/{bar.total})"
                )
            bar.update()
    if failed:
        print(f"{failed} of {len(runs)} runs failed, see above", file=sys.stderr)
    return int(failed > 0)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=["resnet20"], help="one or several")
    parser.add_argument("--weights", default="published")
    parser.add_argument("--data", default="CIFAR10", help="CIFAR10, CIFAR100, or random for noise")
    parser.add_argument("--images", type=int, default=128, help="for calibration")
    parser.add_argument("--similarity", default=SIMILARITY, help="the reward without labels")
    parser.add_argument("--labelled", type=int, default=5000, help="for rewards with accuracy")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.35])
    parser.add_argument("--environments", nargs="+", choices=ENVIRONMENTS, default=["LFGCL"])
    parser.add_argument("--agents", nargs="*", default=list(AGENTS), help="or your_module:make")
    parser.add_argument("--baselines", nargs="*", default=list(BASELINES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--evaluations", type=int, default=400)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--data-root", help="folder of data sets, as for lfgcl prune")
    parser.add_argument(
        "--download", action="store_true", help="fetch the data if they are missing"
    )
    return parser.parse_args(arguments)


def missing(options: argparse.Namespace) -> Iterator[Row]:
    """Runs that there are no lines of: all contestants' first seeds first."""
    places = {"data_root": options.data_root, "download": options.download}
    further = {"num_labelled": options.labelled, "places": places}
    names = [*options.agents, *(b for b in options.baselines if b not in options.agents)]
    pairs = [(e, n) for e in options.environments for n in names]
    if out := [f"{name} on {where}" for where, name in pairs if not applies(name, where)]:
        print(f"left out, where they do not apply: {', '.join(out)}", file=sys.stderr)
    for network in options.network:
        rows = read_rows(results_file(options.out, network))
        for budget in options.budgets:
            for seed in options.seeds:
                for environment, name in pairs:
                    if not applies(name, environment):
                        continue
                    if name in STRATEGIES and seed != options.seeds[0]:
                        continue
                    run = {
                        "network": network,
                        "environment": environment,
                        "kind": "baseline" if name in BASELINES else "agent",
                        "agent": name,
                        "budget": budget,
                        "seed": seed,
                        "images": options.images,
                        "weights": options.weights,
                        "data": options.data,
                        "similarity": options.similarity,
                        "labelled": options.labelled if environment in LABELLED else None,
                    }
                    evaluations = options.evaluations
                    if evaluations == 400:
                        evaluations = LONGER.get(name, evaluations)
                    if not is_done(run, evaluations, rows):
                        yield run | {"evaluations": evaluations} | further


def outcomes(runs: Sequence[Row], processes: int) -> Iterator[Outcome]:
    """Do all runs, in this process or in others, and yield them as they end."""
    if processes == 1:
        for run in runs:
            yield run, _told(partial(work, run))
        return
    # Forked processes would wait for the threads of this one's PyTorch.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures: dict[Future[Row], Row] = {pool.submit(work, run): run for run in runs}
        for future in as_completed(futures):
            yield futures[future], _told(future.result)
    finally:
        pool.shutdown(cancel_futures=True)


def _told(result: Callable[[], Row]) -> Row | None:
    """The result, or None and what was raised on standard error: the other runs go on."""
    try:
        return result()
    except BrokenExecutor:
        raise
    except Exception:
        traceback.print_exc()
        return None


_NOT_RECORDED = ("network", "evaluations", "num_labelled", "places")

_grounds: dict[tuple[Any, ...], Ground] = {}
"""This process's ground, the last one only."""


def work(run: Row) -> Row:
    """Do a run on this process's ground, and return its record."""
    shared = tuple(run[name] for name in ("network", "images", "budget"))
    further = {name: run[name] for name in ("weights", "data", "similarity")}
    further |= {"labelled": run["num_labelled"], **run["places"]}
    key = (*shared, *further.values())
    if key not in _grounds:
        _grounds.clear()
        _grounds[key] = Ground(*shared, **further)
    head = {k: v for k, v in run.items() if k not in _NOT_RECORDED}
    return head | one_run(_grounds[key], run)


def one_run(ground: Ground, run: Row) -> Row:
    """Let a contestant find strategies, then score, repair and test the best of them."""
    name, evaluations = run["agent"], run["evaluations"]
    changes = OWN.get(name, {})
    env = ground.environment(run["environment"], **changes)
    problem = problem_of(env)
    env.get_wrapper_attr("forget")()
    ground.problem.memory.clear()
    env.seconds = 0.0
    began = time.perf_counter()
    if name in STRATEGIES:
        keep = STRATEGIES[name](problem)
        found_in = time.perf_counter() - began
        visited = [tuple(problem.evaluate(keep).keep)]
        rewards, steps = np.ones(1), 1
        spent = time.perf_counter() - began
    else:
        found = run_search(env, factory(name), evaluations, seed=run["seed"], say=lambda text: None)
        spent = time.perf_counter() - began
        found_in = spent - env.seconds
        visited = [record.evaluation.keep for record in found.records]
        rewards, steps = np.array([r.reward for r in found.records]), found.steps
    # What an agent has scored besides, such as single groups halved, before its first answer.
    besides = len(problem.memory) - len(visited)
    judge = problem if "criterion" in changes else ground.problem

    def best(count: int) -> tuple[int, ...]:
        return visited[int(rewards[: max(1, count - besides)].argmax())]

    counts = [*(c for c in COUNTS if besides < c < evaluations), evaluations]
    last = min(evaluations, TESTED[-1])
    to_test = [*(c for c in TESTED if besides < c < last), last]
    return {
        "evaluations": besides + len(visited),
        "steps": steps,
        "seconds": round(spent, 1),
        "agent_seconds": round(found_in, 2),
        "criterion": judge.criterion,
        "best": {str(count): _similarity(judge, best(count)) for count in counts},
        "tested": {str(count): tested(ground, judge, best(count)) for count in to_test},
        "macs_ratio": round(judge.evaluate(best(last)).macs_ratio, 5),
    }


def _similarity(judge: PruningProblem, keep: tuple[int, ...]) -> float:
    return round(judge.evaluate(keep).similarity, 6)


def tested(ground: Ground, judge: PruningProblem, keep: tuple[int, ...]) -> Row:
    """A strategy's similarity, and its top-1 after sequential repair [%]."""
    return {
        "top1": ground.repaired_top1(keep, ground.test_set(), judge),
        "similarity": _similarity(judge, keep),
        "keep": list(keep),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
