"""Running an agent on an environment: keep the best strategy, log, and go on after a stop."""

import json
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.graph_runner import trace
from lfgcl_env.runs.logs import Logs, check_wandb, losses_of, open_logs
from lfgcl_env.runs.run_folder import Record, RunFolder
from lfgcl_env.search.budget_sweep import answer, spaced
from lfgcl_env.search.protocol import Agent, AgentError, AgentFactory, agents_errors, find_agent
from lfgcl_env.search.record_evaluations import RecordEvaluations, budgets_of, problem_of
from lfgcl_env.search.result import SearchResult, best_of, save_agent, with_shortlist, with_sweep
from lfgcl_env.search.warm_start import Learnt, check_same_start, find_learnt, hand_over

STEPS_PER_EVALUATION = 10
"""An agent that only repeats itself is stopped after so many steps for every evaluation.

Where several steps decide one strategy, as in the layerwise environment, that many times as many.
"""

_SAME = 1e-3  # similarities of one strategy under other versions or threads differ by far less


def run_search(
    env: gym.Env[Any, Any],
    agent: str | AgentFactory = "ddpg",
    evaluations: int = 400,
    *,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    arguments: Mapping[str, Any] | None = None,
    may_differ: Sequence[str] = (),
    shortlist: int = 0,
    repair_images: Tensor | None = None,
    points: int = 6,
    init_from: str | os.PathLike[str] | None = None,
    progress: bool = False,
    wandb: bool = False,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> SearchResult:
    """Let an agent search for the best strategy, as ``lfgcl prune`` does.

    With ``out``, every scored strategy is on disk before the agent goes on. A search that stopped,
    for whatever reason, goes on with ``resume=True``: the agent begins again with the same seed,
    what was scored is looked up, and so it comes to where it was. The result is that of a search
    that was never interrupted. The global random states are seeded, for agents that use them.

    Where the environment's budget is a range, one agent learns all of it and is then asked for
    several budgets, see :mod:`lfgcl_env.search.budget_sweep`. Its answers are scored besides
    ``evaluations``.

    Args:
        env: an environment of this package.
        agent: see :func:`lfgcl_env.search.protocol.find_agent`, or a factory.
        evaluations: distinct strategies to score. The search also ends after
            ``STEPS_PER_EVALUATION`` times as many steps, or when the agent ends it.
        seed: of the agent.
        out: the run folder to write; None writes nothing.
        resume: go on with the run in ``out``.
        arguments: what else decides the search, to be recorded; by default the environment's id
            and keyword arguments.
        may_differ: names in ``arguments`` that a resumed search may change.
        shortlist: how many of the best strategies are repaired sequentially and compared before
            one is kept, see :mod:`lfgcl_env.search.shortlist`; 0 keeps the best as it was scored.
            Where accuracy is rewarded the best by accuracy is repaired and kept.
        repair_images: unlabelled images for that, better others than the environment's; float
            (images, channels, height, width), normalised.
        points: how many budgets of a range get a network, at equal distances, both ends included.
        init_from: the folder of a run of the same agent; the agent begins with what it learnt
            there. The first strategy scored is what it predicts before it learns anything here,
            in the middle of a range of budgets.
        progress: show a progress bar on standard error.
        wandb: log to Weights & Biases.
        say: is told what the user should know.

    Raises:
        ValueError: if an argument is wrong, ``out`` holds a run and ``resume`` is not set, or the
            run there was begun with other arguments.
        OSError: if ``out`` cannot be written.
        ImportError: if a package is missing; names the extra to install.
        AgentError: if the agent raised, or scored nothing.
    """
    problem = problem_of(env)
    low, high = budgets_of(env)
    budgets = spaced(low, high, points) if low < high else (high,)
    if not isinstance(evaluations, int) or isinstance(evaluations, bool) or evaluations < 1:
        raise ValueError(f"evaluations must be a whole number of at least 1, got {evaluations!r}")
    if (resume or wandb) and out is None:
        raise ValueError(f"{'resume' if resume else 'wandb'} needs out, the run folder")
    if shortlist and repair_images is None:
        raise ValueError("a shortlist needs repair_images, such as env.unwrapped.repair_images()")
    if shortlist:
        trace(problem.baseline.network)  # refuses what cannot be repaired before it is searched
    if wandb:
        check_wandb()
    factory = find_agent(agent) if isinstance(agent, str) else agent
    name = agent if isinstance(agent, str) else _name(agent)
    asked = {
        **(_described(env) if arguments is None else arguments),
        "agent": name,
        "evaluations": evaluations,
        "seed": seed,
    }
    learnt: Learnt | None = None
    if init_from is not None:
        learnt = find_learnt(init_from, name)
        with agents_errors("before it began"):
            refused_early = factory(env, seed)
        hand_over(learnt, refused_early, problem)  # before there is a run folder
        asked |= learnt.arguments
    run: RunFolder | None = None
    recorded: list[Record] = []
    if out is not None:
        run = RunFolder(out)
        if resume:
            check_same_start(run, learnt)
        decided = [*may_differ, "init_from"]  # where that lies; what it holds may not differ
        recorded = _opened(run, problem, asked, resume=resume, may_differ=decided)
    with ExitStack() as stack:
        write = stack.enter_context(run.open_records(recorded)) if run else None
        logs = open_logs(
            run, problem, budgets, total=evaluations, arguments=asked,
            progress=progress, wandb=wandb, say=say,
        )  # fmt: skip
        stack.callback(logs.close)

        def tell(record: Record, new: bool) -> None:
            if new and write:
                write(record)
            logs.add(record)

        visits = RecordEvaluations(env, recorded, tell, say)
        made = _learnt(factory, visits, seed, evaluations, run, learnt, logs)
        records = visits.finish()
    if not records:
        raise AgentError("the agent ended its search without scoring a strategy")
    if run:
        save_agent(made, run.path)
    rewarded = str(getattr(env.unwrapped, "reward_name", "similarity"))
    result = SearchResult(
        best_of(records, rewarded),
        tuple(records),
        visits.steps,
        _ended(len(records), visits, evaluations),
        made,
        run.path if run else None,
        rewarded=rewarded,
    )
    images = repair_images if shortlist else None
    if low < high:
        return with_sweep(result, env, budgets, images, shortlist, say)
    return with_shortlist(result, problem, images, shortlist, say)


def _ended(scored: int, visits: RecordEvaluations, evaluations: int) -> str:
    if scored >= evaluations:
        return f"{scored} strategies were scored"
    if visits.steps >= _most_steps(visits, evaluations):
        return f"the agent repeats itself: {scored} distinct strategies in {visits.steps} steps"
    return f"the agent ended it after {scored} strategies"


def _most_steps(visits: RecordEvaluations, evaluations: int) -> int:
    return STEPS_PER_EVALUATION * evaluations * visits.steps_per_strategy


def _learnt(
    factory: AgentFactory,
    env: RecordEvaluations,
    seed: int,
    evaluations: int,
    run: RunFolder | None,
    learnt: Learnt | None,
    logs: Logs,
) -> Agent:
    """Make the agent and let it learn; its exceptions are told from everybody else's."""
    limit = _most_steps(env, evaluations)

    def unfinished() -> bool:
        return len(env.records) < evaluations and env.steps < limit

    def go_on(_locals: dict[str, Any], _globals: dict[str, Any]) -> bool:
        logs.add_losses(losses_of(agent), len(env.records))
        return unfinished()

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for agents that use the global state
    torch.manual_seed(seed)
    with agents_errors(lambda: _after(len(env.records), run)):
        agent = factory(env, seed)
        if learnt:
            hand_over(learnt, agent, env.problem)
            answer(env, agent, sum(budgets_of(env)) / 2)
        if unfinished():
            agent.learn(total_timesteps=limit, callback=go_on)
    return agent


def _after(evaluations: int, run: RunFolder | None) -> str:
    return f"after {evaluations} evaluations" + (f", which are kept in {run.path}" if run else "")


def _opened(
    run: RunFolder,
    problem: PruningProblem,
    asked: Mapping[str, Any],
    *,
    resume: bool,
    may_differ: Sequence[str],
) -> list[Record]:
    """Begin a run or open one to go on with, and return what it has scored."""
    if not resume:
        run.check_new()
        run.begin(asked)
        return []
    records = run.records()
    run.check_same(asked, may_differ, len(records))
    if records:
        first = records[0].evaluation
        problem.remember(first)  # refuses what is not of this problem before it is run
        del problem.memory[first.keep]
        now = problem.evaluate(first.keep).similarity
        if abs(now - first.similarity) > _SAME:
            raise ValueError(
                f"the run in {run.path} cannot go on: its first strategy had similarity "
                f"{first.similarity:.6f} and has {now:.6f} now, so that images, weights or "
                "versions have changed"
            )
    run.go_on(asked)
    return records


def _described(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """The environment's id and keyword arguments; what is no JSON by its type."""
    if env.spec is None:
        return {"environment": type(env.unwrapped).__name__}
    plain = json.dumps(dict(env.spec.kwargs), default=lambda value: type(value).__name__)
    return {"environment": env.spec.id, **json.loads(plain)}


def _name(factory: AgentFactory) -> str:
    return f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}"
