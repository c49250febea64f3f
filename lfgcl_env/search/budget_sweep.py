"""A budget sweep: ask one agent for every budget of a range, and make a network for each.

An agent that learns on a range of budgets sees the budget of every episode, so it can be asked for
any. :func:`lfgcl_env.search.run_search.run_search` does so at the end of a search over a range;
these are its parts, for programs::

    env = gym.make("LFGCL-ResNet20-v0", budget=(0.3, 0.8))
    images = env.unwrapped.repair_images()
    budgets = spaced(0.3, 0.8, 6)
    with env.unwrapped.problem.count() as counted:
        result = run_search(env, "ddpg", 800, shortlist=0)
        predicted = ask(env, result.agent, budgets)  # what the agent predicts by itself
        points = list(sweep(env, budgets, predicted, result.records, images, counted=counted))

A point of the sweep is the best of three, by reward: the agent's prediction for the budget, what
the search visited within it (on whichever budget), and the allocation by sensitivities.
"""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor, nn

from lfgcl_env.pruning import Evaluation
from lfgcl_env.pruning.delivered_network import Delivery
from lfgcl_env.runs.delivered_times import DeliveredTimes
from lfgcl_env.runs.record import Record
from lfgcl_env.search.protocol import Agent
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.shortlist import Shortlisted, choose, without_harm
from lfgcl_env.search.strategy_reward import Rewarded, best_first, rewarded


@dataclass(frozen=True)
class Point:
    """One budget of a sweep.

    Attributes:
        budget: fraction of the baseline's cost that may remain.
        predicted: the agent's prediction.
        origin: of what was kept: ``"prediction"``, ``"search"`` or ``"allocation"``.
        reward: of what was kept, after the problem's own repair.
        searched: the evaluation of what was kept, after the problem's own repair.
        repaired: the evaluation of what is handed over, after a shortlist, or where the repair did
            harm; else None: it is the network that was scored.
        delivery: which network is handed over, one of
            :data:`~lfgcl_env.pruning.delivered_network.DELIVERIES`.
        shortlist: what was repaired and compared, from the best to the worst.
        evaluations: distinct strategies scored until this point was finished: those of the search,
            all predictions, and the allocation's.
        network: the network, as it is saved.
        times: of the network in a run folder, measured whole, with a budget of latency; else None.
    """

    budget: float
    predicted: Evaluation
    origin: str
    reward: float
    searched: Evaluation
    repaired: Evaluation | None
    delivery: Delivery
    shortlist: tuple[Shortlisted, ...]
    evaluations: int
    network: nn.Module = field(compare=False, repr=False)
    times: DeliveredTimes | None = field(default=None, compare=False)


def spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return budgets at equal distances, both ends included.

    Args:
        low: the first.
        high: the last.
        count: how many, at least 2.

    Raises:
        ValueError: if there are fewer.

    >>> spaced(0.3, 0.8, 6)
    (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        raise ValueError(f"a sweep has a whole number of at least 2 budgets, got {count!r}")
    between = np.linspace(low, high, count)[1:-1].round(6).tolist()
    return (low, *between, high)


def ask(env: gym.Env[Any, Any], agent: Agent, budgets: Sequence[float]) -> tuple[Evaluation, ...]:
    """Ask an agent for a strategy on every budget, without exploration, and score it.

    The prediction of an agent that does not look at the budget is projected onto each.

    Args:
        env: the environment that the agent was made for.
        agent: see :class:`~lfgcl_env.search.protocol.Agent`.
        budgets: fractions of the baseline's cost, in the agent's range or outside it.

    Returns:
        The evaluation of each prediction.

    Raises:
        ValueError: if a budget cannot be reached, or the agent's prediction is no action.
    """
    problem = problem_of(env)
    for budget in budgets:
        problem.check_budget(budget)
    return tuple(problem.evaluate(answer(env, agent, budget)) for budget in budgets)


def answer(env: gym.Env[Any, Any], agent: Agent, budget: float) -> tuple[int, ...]:
    """Let an agent play one episode on a budget without exploration; return its last strategy."""
    vectorised = getattr(agent, "get_env", None)
    if vectorised is not None:
        return _vectorised_answer(vectorised(), agent, budget)
    own = getattr(agent, "env", None)
    view: gym.Env[Any, Any] = own if isinstance(own, gym.Env) else env
    observation, info = view.reset(options={"budget": budget})
    over = False
    while not over:
        action, _ = agent.predict(observation, deterministic=True)
        observation, _, terminated, truncated, info = view.step(action)
        over = terminated or truncated
    return _strategy(info)


def _vectorised_answer(envs: Any, agent: Any, budget: float) -> tuple[int, ...]:
    """Do the same for Stable-Baselines3, whose agents see vectorised environments only."""
    envs.set_options({"budget": budget})
    observations, state = envs.reset(), None
    while True:
        actions, state = agent.predict(observations, state=state, deterministic=True)
        observations, _, over, infos = envs.step(actions)
        if over[0]:
            return _strategy(infos[0])


def _strategy(info: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(count) for count in info["keep"])


def sweep(
    env: gym.Env[Any, Any],
    budgets: Sequence[float],
    predicted: Sequence[Evaluation],
    records: Sequence[Record | Rewarded],
    images: Tensor | None = None,
    *,
    counted: Sized,
    size: int = 4,
) -> Iterator[Point]:
    """Make the best network for every budget, one after the other.

    Args:
        env: what was searched, with the wrappers that the agent's rewards came through.
        budgets: fractions of the baseline's cost.
        predicted: the agent's prediction for each, from :func:`ask`.
        records: what the search visited, on any budget.
        images: other unlabelled images, to repair on, see
            :func:`~lfgcl_env.search.shortlist.choose`; None keeps the best as it was scored.
        counted: the strategies evaluated so far, from ``problem.count()``, which the points report.
        size: how many strategies are repaired and compared for a budget.

    Yields:
        The points in the order of ``budgets``, each as soon as it is finished.

    Raises:
        ValueError: if no strategy meets a budget.
    """
    problem = problem_of(env)
    for budget, own in zip(budgets, predicted, strict=True):
        within = [r for r in records if problem.meets(r.evaluation.keep, budget)]
        if images is not None:
            network, listed = choose(env, within, images, size=size, budget=budget, predicted=own)
            first = listed[0]
            assert first.delivery
            yield Point(
                budget, own, first.origin, first.reward, first.searched, first.repaired,
                first.delivery, tuple(listed), len(counted), network,
            )  # fmt: skip
            continue
        strategies = [Rewarded(r.evaluation, r.reward, r.budget) for r in within]
        if mine := rewarded(env, own.keep, budget, "prediction"):
            strategies = [mine, *strategies]  # before its own record, if there is one
        if not strategies:
            raise ValueError(f"no strategy to choose from meets the budget of {budget:g}")
        best = best_first(strategies)[0]
        kept = without_harm(env, best.evaluation.keep)
        bare = None if kept.delivery == "scored" else kept.evaluation
        yield Point(
            budget, own, best.origin, best.reward, best.evaluation, bare, kept.delivery, (),
            len(counted), kept.network,
        )  # fmt: skip
