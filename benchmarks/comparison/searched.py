"""One run of the comparison: a method finds strategies, and the best of them are scored."""

import time

import numpy as np
from study import Fields

from comparison.methods import OWN_ARGUMENTS, STRATEGIES, factory
from comparison.protocol import shared_protocol
from comparison.records import TESTED
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.run_search import run_search

COUNTS = (1, 10, 25, 50, 100, 150, 200, 250, 300, 400, 600, 800)


def measured(
    run: Fields, *, labelled: int, data_root: str | None = None, download: bool = False
) -> Fields:
    """Let a method find strategies, then score the best of them."""
    shared = shared_protocol(
        run["network"],
        run["images"],
        run["budget"],
        weights=run["weights"],
        data=run["data"],
        similarity=run["similarity"],
        labelled=labelled,
        data_root=data_root,
        download=download,
    )
    agent, evaluations = run["agent"], run["evaluations"]
    changes = OWN_ARGUMENTS.get(agent, {})
    env = shared.environment(run["environment"], **changes)
    problem = problem_of(env)
    env.get_wrapper_attr("forget")()
    shared.problem.forget()
    env.seconds = 0.0
    began = time.perf_counter()
    with problem.count() as counted:
        if agent in STRATEGIES:
            keep = STRATEGIES[agent](problem)
            agent_seconds = time.perf_counter() - began
            visited = [problem.evaluate(keep).keep]
            rewards, steps = np.ones(1), 1
            spent = time.perf_counter() - began
        else:
            found = run_search(env, factory(agent), evaluations, agent_seed=run["seed"])
            visited = [record.evaluation.keep for record in found.records]
            rewards, steps = np.array([r.reward for r in found.records]), found.steps
            spent = time.perf_counter() - began
            agent_seconds = spent - env.seconds
    # Scored besides, before the first answer, such as single groups halved.
    besides = len(counted) - len(visited)
    judge = problem if "criterion" in changes else shared.problem

    def best(count: int) -> tuple[int, ...]:
        return visited[int(rewards[: max(1, count - besides)].argmax())]

    counts = [*(c for c in COUNTS if besides < c < evaluations), evaluations]
    last = min(evaluations, TESTED[-1])
    to_test = [*(c for c in TESTED if besides < c < last), last]
    return {
        "scored": len(counted),
        "steps": steps,
        "seconds": round(spent, 1),
        "agent_seconds": round(agent_seconds, 2),
        "criterion": judge.criterion,
        "best": {str(count): similarity(judge, best(count)) for count in counts},
        "tested": {
            str(count): {"similarity": similarity(judge, best(count)), "keep": list(best(count))}
            for count in to_test
        },
        "macs_ratio": round(judge.evaluate(best(last)).macs_ratio, 5),
    }


def similarity(judge: PruningProblem, keep: tuple[int, ...]) -> float:
    """Return a strategy's similarity."""
    return round(judge.evaluate(keep).similarity, 6)
