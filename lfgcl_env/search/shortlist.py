"""The last step of a search: repair the best few strategies, compare them, and keep the best.

Finished networks are compared by the environment's own reward, ``env.unwrapped.score``. A wrapper
that changes rewards cannot be asked about a network: where one does, the strategy with the highest
reward is kept and repaired without a comparison, and a warning says so.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
from torch import Tensor, nn

from lfgcl_env.pruning import Evaluation, allocate
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.repair.sequential import SequentialOptions
from lfgcl_env.runs.record import Record
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.strategy_reward import Rewarded, best_first, rewarded, rewards_are_scores

_logger = logging.getLogger(__name__)

QUICK = SequentialOptions(rows=16384, relu_aware=1)
"""Repair of all strategies on the shortlist, to compare them."""

QUICK_IMAGES = 256

THOROUGH = SequentialOptions(relu_aware=1, gauss_newton=3)
"""Repair of the one that is kept."""


@dataclass(frozen=True)
class Shortlisted:
    """One strategy of a shortlist.

    Attributes:
        origin: ``"search"``, ``"prediction"`` for the agent's own prediction for a budget, or
            ``"allocation"`` for the allocation by sensitivities if it is neither.
        reward: as in the search, with the problem's cheap repair.
        searched: its evaluation with the problem's cheap repair.
        repaired: its evaluation after sequential repair, with :data:`QUICK` for all but the winner.
        score: ``env.unwrapped.score`` of the repaired network; None where a wrapper changes rewards
            and nothing was compared.
    """

    origin: str
    reward: float
    searched: Evaluation
    repaired: Evaluation
    score: float | None


def choose(
    env: gym.Env[Any, Any],
    records: Sequence[Record | Rewarded],
    images: Tensor,
    *,
    size: int = 8,
    budget: float | None = None,
    predicted: Evaluation | None = None,
) -> tuple[nn.Module, list[Shortlisted]]:
    """Repair the best strategies sequentially, compare them, and repair the winner thoroughly.

    The allocation by sensitivities (:func:`~lfgcl_env.pruning.allocate`) takes the last place, if
    the environment's actions lead to it: a search on the cheap repair can miss it although it is as
    good or better after repair. It takes one evaluation per group and one more. The agent's
    prediction for this budget has a place too, if there are more than two.

    Args:
        env: what was searched, with the wrappers that the agent's rewards came through.
        records: of the strategies to choose from.
        images: other unlabelled images, to repair on; the first 256 for the comparison.
        size: how many strategies are compared.
        budget: instead of the problem's own; ``records`` must meet it.
        predicted: the agent's prediction for this budget, if there is one.

    Returns:
        The winner's network, on the CPU, and the shortlist from the best to the worst.

    Raises:
        ValueError: if ``size`` is below 1, no strategy is left to choose from, or ``torch.fx``
            cannot trace the network.
    """
    if size < 1:
        raise ValueError(f"a shortlist holds at least 1 strategy, got {size}")
    problem = problem_of(env)
    listed = _list_candidates(
        env, records, size, problem.budget if budget is None else budget, predicted
    )
    if not listed:
        raise ValueError("there is no strategy to choose from")
    if not rewards_are_scores(env, listed):
        best = best_first(listed)[0]
        _logger.warning(
            "a wrapper changes this environment's rewards, or they have changed since, so repaired "
            "networks cannot be scored by them: the strategy with the highest reward is repaired "
            "without a comparison"
        )
        network, final = problem.finish(best.evaluation.keep, images, THOROUGH)
        return network, [Shortlisted(best.origin, best.reward, best.evaluation, final, None)]
    compared: list[tuple[float, Shortlisted]] = []
    where = "" if budget is None else f"budget {label(budget)}, "
    for place, one in enumerate(listed, start=1):
        network, repaired = problem.finish(one.evaluation.keep, images[:QUICK_IMAGES], QUICK)
        score = _score(env, network, one.evaluation)
        shown = Shortlisted(one.origin, one.reward, one.evaluation, repaired, score)
        compared.append((score, shown))
        _logger.info(
            "%sshortlist %d/%d: reward %.4f, %.4f after sequential repair (%s)",
            where, place, len(listed), one.reward, score, one.origin,
        )  # fmt: skip
    compared.sort(key=lambda pair: -pair[0])
    winner, *others = (one for _, one in compared)
    network, final = problem.finish(winner.searched.keep, images, THOROUGH)
    score = _score(env, network, winner.searched)
    return network, [replace(winner, repaired=final, score=score), *others]


def _list_candidates(
    env: gym.Env[Any, Any],
    records: Sequence[Record | Rewarded],
    size: int,
    budget: float,
    predicted: Evaluation | None,
) -> list[Rewarded]:
    """Return the strategies to repair, by reward, with room for prediction and allocation."""
    strategies = [Rewarded(r.evaluation, r.reward, r.budget) for r in records]
    first = []
    if predicted and (own := rewarded(env, predicted.keep, budget, "prediction")):
        strategies = [own, *strategies]  # before its own record, if there is one
        first = [own] * (size > 2)
    ranked = best_first(strategies)
    listed: dict[tuple[int, ...], Rewarded] = {}
    _fill(listed, [*first, *ranked], max(1, size - 1))
    if size > 1:
        allocated = tuple(allocate(problem_of(env), budget).tolist())
        known = {one.evaluation.keep: one for one in reversed(ranked)}
        last = known.get(allocated) or rewarded(env, allocated, budget, "allocation")
        _fill(listed, [*([last] if last else []), *ranked], size)
    return list(listed.values())


def _fill(
    listed: dict[tuple[int, ...], Rewarded], strategies: Iterable[Rewarded], size: int
) -> None:
    """Add strategies until there are ``size`` distinct ones."""
    for one in strategies:
        if len(listed) < size:
            listed.setdefault(one.evaluation.keep, one)


def _score(env: gym.Env[Any, Any], network: nn.Module, evaluation: Evaluation) -> float:
    """Return the environment's own reward of a finished network."""
    own: Any = env.unwrapped
    score = own.score(network.to(own.problem.device), evaluation.keep)
    network.cpu()
    return float(score)
