"""The result of a search: what it found, the finished networks, and their files."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from torch import Tensor, nn

from lfgcl_env.edge.files import write_beside
from lfgcl_env.pruning import Evaluation
from lfgcl_env.pruning.delivered_network import Delivery
from lfgcl_env.runs.best import write_best
from lfgcl_env.runs.delivered_times import DeliveredTimes, measure_delivered
from lfgcl_env.runs.findings import show_findings
from lfgcl_env.runs.record import Record
from lfgcl_env.runs.run_folder import AGENT, RunFolder
from lfgcl_env.search.budget_sweep import Point, ask, sweep
from lfgcl_env.search.protocol import Agent, AgentError, agent_errors
from lfgcl_env.search.record_evaluations import budgets_of, problem_of
from lfgcl_env.search.shortlist import Shortlisted, choose, without_harm
from lfgcl_env.search.strategy_reward import Rewarded, best_first, rewarded
from lfgcl_env.search.sweep_files import SweepFiles


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        best: the strategy with the highest reward, of equal ones that with fewer MACs; with a
            shortlist its winner, which may be the allocation by sensitivities instead. After a
            search over a range of budgets, that of the sweep's last point, at the highest budget:
            rewards on different budgets cannot be compared.
        reward: of ``best``, as in the search.
        records: of all distinct strategies, in the order in which they were scored.
        steps: of the environment, repeated strategies included.
        screened: distinct strategies that were scored cheaply during the search, those for its
            start included.
        ended: why the search ended.
        agent: as it was at the end.
        folder: the run folder, if there is one.
        shortlist: what was repaired sequentially, from the best to the worst.
        network: the winner of the shortlist, repaired; None without a shortlist.
        delivery: which network is handed over, one of
            :data:`~lfgcl_env.pruning.delivered_network.DELIVERIES`; None without a shortlist and a
            run folder, where none is made, and for a sweep.
        times: of the network in the run folder, measured whole; None without one, or without a
            budget of latency.
        sweep: the points of a search over a range of budgets, from the lowest to the highest; empty
            for one budget. They have networks and shortlists of their own.
    """

    best: Evaluation
    reward: float
    records: tuple[Record, ...]
    steps: int
    screened: int
    ended: str
    agent: Agent
    folder: Path | None
    shortlist: tuple[Shortlisted, ...] = ()
    network: nn.Module | None = None
    delivery: Delivery | None = None
    times: DeliveredTimes | None = None
    sweep: tuple[Point, ...] = ()


def best_of(records: Sequence[Record]) -> Record:
    """Return the record with the highest reward; of equal ones that with fewer MACs."""
    return best_first(records)[0]


def with_shortlist(
    result: SearchResult,
    env: gym.Env[Any, Any],
    images: Tensor | None,
    size: int,
    counted: Sized,
) -> SearchResult:
    """Repair the best strategies of a search on one budget, keep one, and write it.

    Args:
        result: of the search so far.
        env: what was searched.
        images: to repair on; None keeps the best as it was scored.
        size: of the shortlist.
        counted: the strategies evaluated so far, from ``problem.count()``.
    """
    problem = problem_of(env)
    if images is not None:
        network, listed = choose(env, result.records, images, size=size)
        winner = listed[0]
        result = replace(
            result, best=winner.searched, reward=winner.reward, shortlist=tuple(listed),
            network=network, delivery=winner.delivery,
        )  # fmt: skip
    if result.folder:
        if result.network is None:
            kept = without_harm(env, result.best.keep)
            network, delivery = kept.network, kept.delivery
            repaired = None if delivery == "scored" else kept.evaluation
        else:
            network, repaired = result.network, result.shortlist[0].repaired
            assert result.delivery
            delivery = result.delivery
        facts = _facts(result, env) | {
            "reward": result.reward,
            "evaluations_asked": RunFolder(result.folder).asked()["evaluations"],
            "evaluations_with_shortlist": len(counted),
        }
        if images is not None:
            facts["repair_images"] = len(images)
        times = measure_delivered(problem, network)
        write_best(
            result.folder,
            problem,
            result.best,
            repaired,
            network,
            delivery,
            result.shortlist,
            facts,
            times,
        )
        show_findings(result.folder)
        result = replace(result, delivery=delivery, times=times)
    return result


def with_sweep(
    result: SearchResult,
    env: gym.Env[Any, Any],
    budgets: Sequence[float],
    images: Tensor | None,
    size: int,
    counted: Sized,
) -> SearchResult:
    """Ask the agent for every budget and make a sweep; points finished before are kept.

    Args:
        result: of the search so far.
        env: what was searched.
        budgets: those that get a network.
        images: to repair on; None keeps the best as they were scored.
        size: of the shortlists.
        counted: the strategies evaluated so far, from ``problem.count()``.
    """
    problem = problem_of(env)
    with agent_errors("when it was asked for a budget"):
        predicted = ask(env, result.agent, budgets)
    points: list[Point] = []
    files: SweepFiles | None = None
    if result.folder:
        files = SweepFiles(result.folder, problem)
        settings = problem.settings() | {"budget": list(budgets_of(env))}
        facts = {"budgets": budgets, "shortlist": size, "settings": settings}
        facts["repair_images"] = None if images is None else len(images)
        points = files.begin(_facts(result, env) | facts)
    for point in points:
        for listed in point.shortlist:
            problem.remember(listed.searched)
            problem.evaluate(listed.searched.keep)  # looked up, so that it is counted
    pairs = list(zip(budgets, predicted, strict=True))
    answers = [rewarded(env, own.keep, budget, "prediction") for budget, own in pairs]
    strategies: list[Record | Rewarded] = [*result.records, *(one for one in answers if one)]
    finished = {point.budget for point in points}
    left = [pair for pair in pairs if pair[0] not in finished]
    for point in sweep(
        env,
        [budget for budget, _ in left],
        [own for _, own in left],
        strategies,
        images,
        counted=counted,
        size=size,
    ):
        if files:
            point = replace(point, times=measure_delivered(problem, point.network))
            files.add(point)
        points.append(point)
    if files:
        files.draw([record.evaluation for record in result.records])
    points.sort(key=lambda point: point.budget)
    last = points[-1]
    return replace(result, best=last.searched, reward=last.reward, sweep=tuple(points))


def save_agent(agent: Agent, folder: Path) -> None:
    """Save an agent that can be saved.

    Raises:
        AgentError: if it fails to.
        OSError: if the file cannot be written.
    """
    save = getattr(agent, "save", None)
    if callable(save):
        try:
            write_beside(folder / AGENT, save)
        except OSError:
            raise
        except Exception as error:
            raise AgentError(f"the agent cannot be saved in {folder}") from error


def _facts(result: SearchResult, env: gym.Env[Any, Any]) -> dict[str, Any]:
    own: Any = env.unwrapped
    return {
        "evaluations": len(result.records),
        "steps": result.steps,
        "ended": result.ended,
        "reward_name": own.reward_name,
        "screened": result.screened,
    }
