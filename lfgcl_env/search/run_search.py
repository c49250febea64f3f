"""Run an agent on an environment: keep the best strategy, log, and go on after a stop."""

import os
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfgcl_env.config import complete
from lfgcl_env.edge.progress import is_shown, show_progress
from lfgcl_env.edge.progress import progress as shown_progress
from lfgcl_env.edge.schema import short
from lfgcl_env.latency.table import write_table
from lfgcl_env.pruning import allocate
from lfgcl_env.pruning.evaluation import SAME_SIMILARITY
from lfgcl_env.pruning.repair.cut_graph import warn_of_obstacle
from lfgcl_env.pruning.sensitivities import sensitivities
from lfgcl_env.runs.logs import Logs, check_wandb, losses_of, open_logs
from lfgcl_env.runs.problem_file import has_problem, write_problem
from lfgcl_env.runs.record import Record
from lfgcl_env.runs.run_folder import LATENCY, RunFolder
from lfgcl_env.search.asked import describe, may_differ
from lfgcl_env.search.budget_sweep import answer, spaced
from lfgcl_env.search.protocol import Agent, AgentError, AgentFactory, agent_errors, find_agent
from lfgcl_env.search.record_evaluations import (
    RecordEvaluations,
    budgets_of,
    engine_of,
    problem_of,
)
from lfgcl_env.search.result import SearchResult, best_of, save_agent, with_shortlist, with_sweep
from lfgcl_env.search.search_config import SearchConfig
from lfgcl_env.search.strategy_reward import best_first, reward_of
from lfgcl_env.search.warm_start import SavedAgent, check_same_start, find_saved_agent, load_into

STEPS_PER_EVALUATION = 10
"""An agent that only repeats itself is stopped after so many steps for every evaluation.

Where several steps decide one strategy, as in the layerwise environment, that many times as many.
"""


def run_search(
    env: gym.Env[Any, Any],
    agent: str | AgentFactory = "ddpg",
    evaluations: int = 400,
    *,
    agent_seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    arguments: Mapping[str, Any] | None = None,
    start: str = "agent",
    shortlist: int = 0,
    repair_images: Tensor | None = None,
    points: int = 6,
    init_from: str | os.PathLike[str] | None = None,
    progress: bool = False,
    wandb: bool = False,
) -> SearchResult:
    """Let an agent search for the strategy with the highest reward, as ``lfgcl prune`` does.

    A strategy's reward is the return of the episode up to the step that scored it. Rewards are
    taken as they come out of ``env``: a wrapper that changes them changes what is found.

    With ``out``, every scored strategy is on disk before the agent goes on. A search that stopped,
    for whatever reason, goes on with ``resume=True``: the agent starts again with the same seed,
    recorded strategies are looked up, and so it comes to where it was. The result is that of a
    search that was never interrupted. The global random states are seeded, for agents that use
    them.

    Where the environment's budget is a range, one agent learns all of it and is then asked for
    several budgets, see :mod:`lfgcl_env.search.budget_sweep`. Its predictions are scored besides
    ``evaluations``.

    Args:
        env: an environment of this package, wrapped or not.
        agent: see :func:`lfgcl_env.search.protocol.find_agent`, or a factory.
        evaluations: distinct strategies to score. The search also ends after
            ``STEPS_PER_EVALUATION`` times as many steps, or when the agent ends it.
        agent_seed: of the agent; the environment has its own.
        out: the run folder to write; None writes nothing.
        resume: go on with the run in ``out``.
        arguments: to be recorded besides, or instead of what is known here, see
            :func:`lfgcl_env.search.asked.describe`.
        start: ``"allocation"``: the first strategy scored is the allocation by sensitivities
            (:func:`~lfgcl_env.pruning.allocate`), and an agent with ``begin_at`` goes on from it.
            A range of budgets, an environment of layerwise steps and ``init_from`` leave it out.
            ``"agent"``: the agent begins as it likes.
        shortlist: how many of the best strategies are repaired sequentially and compared before
            one is kept, see :mod:`lfgcl_env.search.shortlist`; 0 keeps the best as it was scored.
        repair_images: unlabelled images for that, better others than the environment's; float
            (images, channels, height, width), normalised. None: ``env.unwrapped.repair_images()``.
        points: how many budgets of a range get a network, at equal distances, both ends included.
        init_from: the folder of a run of the same agent; this search starts from the agent saved
            there. The first strategy scored is that agent's prediction before it learns anything
            here, in the middle of a range of budgets.
        progress: show on standard error how far the search and the repairs at its end are, unless
            :func:`~lfgcl_env.edge.progress.show_progress` hides it.
        wandb: log to Weights & Biases.

    Raises:
        ValueError: if an argument is wrong, ``out`` holds a run and ``resume`` is not set, or the
            run there was begun with other arguments.
        OSError: if ``out`` cannot be written.
        ImportError: if a package is missing; names the extra to install.
        AgentError: if the agent raised, or scored nothing.
    """
    _check_arguments(
        {
            "evaluations": evaluations,
            "agent_seed": agent_seed,
            "start": start,
            "shortlist": shortlist,
            "points": points,
            "init_from": init_from,
            **({} if callable(agent) else {"agent": agent}),
        },
        repair_images,
        out,
        resume=resume,
        wandb=wandb,
    )
    problem, own = problem_of(env), cast(Any, env.unwrapped)
    low, high = budgets_of(env)
    budgets = spaced(low, high, points) if low < high else (high,)
    images: Tensor | None = None
    if shortlist:
        warn_of_obstacle(problem.network)
        images = own.repair_images() if repair_images is None else repair_images
    factory = find_agent(agent) if isinstance(agent, str) else agent
    name = agent if isinstance(agent, str) else _name(agent)
    saved = None
    if init_from is not None:
        saved = find_saved_agent(init_from, name)
        with agent_errors("before it began"):
            probe = factory(env, agent_seed)
        load_into(saved, probe, problem)  # before there is a run folder
    asked = describe(
        env,
        {
            "agent": name,
            "evaluations": evaluations,
            "agent_seed": agent_seed,
            "start": start,
            "shortlist": shortlist,
            "repair_images": None if images is None else len(images),
            "points": points,
            "threads": torch.get_num_threads(),
            **(saved.arguments if saved else {}),
            **(arguments or {}),
        },
    )
    run = RunFolder(out) if out is not None else None
    recorded: list[Record] = []
    with problem.count() as counted, ExitStack() as stack:
        stack.enter_context(show_progress(is_shown(progress)))
        if run:
            stack.enter_context(run.lock())
        if run and resume:
            check_same_start(run, saved)
            recorded = _go_on(run, env, asked, shortlist)
        elif run:
            run.check_new()
            run.begin(asked)
        if run and not (resume and has_problem(run.path, problem)):  # which has curves
            write_problem(run.path, problem)
        if run and problem.latency_table is not None:
            write_table(run.path / LATENCY, problem.network.latency.table)
        if run:
            _keep_scored(run, env, recorded if resume else None, stack)
        write = stack.enter_context(run.open_records(recorded)) if run else None
        logs = open_logs(
            run,
            problem,
            budgets,
            total=evaluations,
            progress=progress,
            wandb=wandb,
            workers=getattr(env.unwrapped, "workers", 1),
            busy=lambda: getattr(env.unwrapped, "busy_seconds", None),
        )
        stack.callback(logs.close)

        def on_record(record: Record, new: bool) -> None:
            if new and write:
                write(record)
            logs.add(record)

        visits = RecordEvaluations(env, recorded, on_record, evaluations)
        before = problem.screened
        try:
            made = _learn(factory, visits, agent_seed, evaluations, run, saved or start, logs)
        except BaseException as error:
            own.give_up(at_once=not isinstance(error, Exception))  # as with Ctrl-C
            raise
        own.give_up()
        records = visits.finish()
        logs.close()
        if not records:
            raise AgentError("the agent ended its search without scoring a strategy")
        if run:
            save_agent(made, run.path)
        best = best_of(records)
        result = SearchResult(
            best.evaluation,
            best.reward,
            tuple(records),
            visits.steps,
            problem.screened - before,
            _ended(len(records), visits, evaluations),
            made,
            run.path if run else None,
        )
        if low < high:
            return with_sweep(result, env, budgets, images, shortlist, counted)
        return with_shortlist(result, env, images, shortlist, counted)


def _check_arguments(
    declared: Mapping[str, Any], images: object, out: object, *, resume: bool, wandb: bool
) -> None:
    complete(SearchConfig, declared, "the search")
    if images is not None and not isinstance(images, Tensor):
        raise ValueError(f"repair_images must be a tensor of images, or None, got {short(images)}")
    if (resume or wandb) and out is None:
        raise ValueError(f"{'resume' if resume else 'wandb'} needs out, the run folder")
    if wandb:
        check_wandb()


def _go_on(
    run: RunFolder, env: gym.Env[Any, Any], asked: Mapping[str, Any], shortlist: int
) -> list[Record]:
    """Check that a run can go on, note that it does, and return its records.

    The first strategy and those that lead to the shortlist are measured anew, so that neither
    other images or versions nor an invented score decide what is kept.
    """
    records = run.records()
    run.check_same(asked, may_differ(env), len(records))
    problem = problem_of(env)
    best = best_first(records)[: max(1, shortlist)]
    for record in {r.index: r for r in (*records[:1], *best)}.values():
        known = record.evaluation
        problem.remember(known)  # refuses what is not of this problem
        network = problem.compress(known.keep)
        now = problem.score_network(network, known.keep)
        reward = reward_of(env, known.keep, record.budget)
        if reward is not None and abs(reward - record.reward) > SAME_SIMILARITY * max(
            1.0, abs(reward)
        ):
            raise ValueError(
                f"the run in {run.path} cannot go on: its strategy {record.index} had reward "
                f"{record.reward:.6f} and has {reward:.6f} now, so that the reward has changed, "
                "or the record is not of this run"
            )
        if abs(now - known.similarity) > SAME_SIMILARITY:
            raise ValueError(
                f"the run in {run.path} cannot go on: its strategy {record.index} had similarity "
                f"{known.similarity:.6f} and has {now:.6f} now, so that images, weights or "
                "versions have changed, or the record is not of this run"
            )
    run.go_on(asked)
    return records


def _keep_scored(
    run: RunFolder, env: gym.Env[Any, Any], recorded: Sequence[Record] | None, stack: ExitStack
) -> None:
    """Have all that workers score written as soon as it is there; know what they had scored.

    Args:
        run: where it is written.
        env: what is searched.
        recorded: of the run that goes on; None for a new one.
        stack: ends it.
    """
    own: Any = env.unwrapped
    scored = run.scored() if recorded is not None else []
    ahead = {one.evaluation.keep: one for one in scored}
    for keep in (record.evaluation.keep for record in recorded or ()):
        ahead.pop(keep, None)
    for best in sorted(ahead.values(), key=lambda one: -one.score)[:1]:
        own.problem.remember(best.evaluation)  # refuses what is not of this problem
        now = own.score(own.problem.compress(best.evaluation.keep), best.evaluation.keep)
        if abs(now - best.score) > SAME_SIMILARITY * max(1.0, abs(now)):
            raise ValueError(
                f"the run in {run.path} cannot go on: a strategy that was scored ahead had score "
                f"{best.score:.6f} and has {now:.6f} now, so that the reward has changed, or it is "
                "not of this run"
            )
    for one in ahead.values():
        own.problem.remember(one.evaluation)
        own.remember(one.evaluation.keep, one.score)
    run.begin_scored(list(ahead.values()))
    own.on_scored = run.add_scored
    stack.callback(setattr, own, "on_scored", None)


def _learn(
    factory: AgentFactory,
    env: RecordEvaluations,
    seed: int,
    evaluations: int,
    run: RunFolder | None,
    start: SavedAgent | str,
    logs: Logs,
) -> Agent:
    """Make the agent and let it learn; its exceptions become AgentError."""
    limit = _most_steps(env, evaluations)

    def unfinished() -> bool:
        return len(env.records) < evaluations and env.steps < limit

    def go_on(_locals: dict[str, Any], _globals: dict[str, Any]) -> bool:
        logs.add_losses(losses_of(agent), len(env.records))
        return unfinished()

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for agents that use the global state
    torch.manual_seed(seed)
    action = _allocation(env, run) if start == "allocation" else None
    with agent_errors(lambda: _after(len(env.records), run)):
        agent = factory(env, seed)
        if isinstance(start, SavedAgent):
            load_into(start, agent, env.problem)
            answer(env, agent, sum(budgets_of(env)) / 2)
        elif action is not None:
            env.reset()
            env.step(action)
            begin_at: Any = getattr(agent, "begin_at", None)
            if callable(begin_at):
                begin_at(action)
        if unfinished():
            agent.learn(total_timesteps=limit, callback=go_on)
    return agent


def _allocation(env: RecordEvaluations, run: RunFolder | None) -> NDArray[np.float32] | None:
    """Return the action of the allocation by sensitivities, where one action is a strategy.

    The run keeps the curves that it spends the budget by.
    """
    low, high = budgets_of(env)
    if low < high or env.steps_per_strategy > 1:
        return None
    with shown_progress("sensitivities", "group") as advance:
        weights = sensitivities(env.problem, advance, engine_of(env))
    if run:
        write_problem(run.path, env.problem, weights)
    return env.problem.prune_ratios(allocate(env.problem, high, weights)).astype(np.float32)


def _most_steps(visits: RecordEvaluations, evaluations: int) -> int:
    return STEPS_PER_EVALUATION * evaluations * visits.steps_per_strategy


def _ended(scored: int, visits: RecordEvaluations, evaluations: int) -> str:
    if scored >= evaluations:
        return f"{scored} strategies were scored"
    if visits.steps >= _most_steps(visits, evaluations):
        return f"the agent repeats itself: {scored} distinct strategies in {visits.steps} steps"
    return f"the agent ended it after {scored} strategies"


def _after(evaluations: int, run: RunFolder | None) -> str:
    return f"after {evaluations} evaluations" + (f", which are kept in {run.path}" if run else "")


def _name(factory: AgentFactory) -> str:
    return f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}"
