"""The last step of a search: compare the best few strategies once repaired, and keep the best.

Finished networks are compared by ``env.unwrapped.judge``, on images that neither the search nor the
repair has seen, where there are so many. A wrapper that changes rewards cannot be asked about a
network: where one does, the strategy with the highest reward is kept and repaired without a
comparison of strategies, and a warning says so.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium as gym
from torch import Tensor, nn

from lfgcl_env.edge.progress import progress
from lfgcl_env.pruning import Evaluation, allocate
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.delivered_network import Delivered, Delivery
from lfgcl_env.pruning.repair.profiles import SCORING
from lfgcl_env.pruning.sensitivities import sensitivities
from lfgcl_env.runs.record import Record
from lfgcl_env.search.record_evaluations import engine_of, problem_of
from lfgcl_env.search.strategy_reward import Rewarded, best_first, rewarded, rewards_are_scores

_logger = logging.getLogger(__name__)

COMPARED_IMAGES = 256
"""Images that the strategies on a shortlist are repaired on, to compare them."""

TOGETHER = 4
"""Strategies that are repaired in step: they share the baseline, and memory holds them all."""

_HARMFUL: dict[Delivery, str] = {
    "quick": "the thorough repair",
    "scored": "a repair on other images",
    "cut": "every repair",
}
"""What made the network worse, where another than the thoroughly repaired one is handed over."""


@dataclass(frozen=True)
class Shortlisted:
    """One strategy of a shortlist.

    Attributes:
        origin: ``"search"``, ``"prediction"`` for the agent's own prediction for a budget, or
            ``"allocation"`` for the allocation by sensitivities, whoever came upon it.
        reward: as in the search, after the problem's own repair.
        searched: its evaluation after the problem's own repair.
        repaired: the winner's evaluation as it is handed over, after sequential repair under
            :data:`~lfgcl_env.pruning.repair.profiles.DELIVERING`, unless that made it worse; None
            for the others.
        score: ``env.unwrapped.judge`` of the repaired network; None where a wrapper changes rewards
            and nothing was compared.
        delivery: which network of the winner is handed over, one of
            :data:`~lfgcl_env.pruning.delivered_network.DELIVERIES`; None for the others.
    """

    origin: str
    reward: float
    searched: Evaluation
    repaired: Evaluation | None
    score: float | None
    delivery: Delivery | None = None


def choose(
    env: gym.Env[Any, Any],
    records: Sequence[Record | Rewarded],
    images: Tensor,
    *,
    size: int = 4,
    budget: float | None = None,
    predicted: Evaluation | None = None,
) -> tuple[nn.Module, list[Shortlisted]]:
    """Compare the best strategies, repaired sequentially, and repair the winner thoroughly.

    Where scores take a costly repair, on enough images, and are not what compares here, networks
    are compared as they were scored; else they are repaired for the comparison.

    The allocation by sensitivities (:func:`~lfgcl_env.pruning.allocate`) takes the last place, if
    the environment's actions lead to it: a search can miss it although it is as good or better once
    delivered. It takes one score per group and one evaluation more. The agent's
    prediction for this budget has a place too, if there are more than two.

    Args:
        env: what was searched, with the wrappers that the agent's rewards came through.
        records: of the strategies to choose from.
        images: other unlabelled images, to repair on; the first 256 for a comparison.
        size: how many strategies are compared.
        budget: instead of the problem's own; ``records`` must meet it.
        predicted: the agent's prediction for this budget, if there is one.

    Returns:
        The winner's network, on the CPU, and the shortlist from the best to the worst.

    Raises:
        ValueError: if ``size`` is below 1, or no strategy is left to choose from.
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
        keep = best.evaluation.keep
        with progress("repairing the winner") as advance:
            (repaired,) = problem.repair_all([keep], images, progress=advance)
        own = partial(env.unwrapped.score, keep=keep)  # type: ignore[attr-defined]
        kept = problem.keep_better(repaired, keep, own if _has_own_reward(env) else None)
        return kept.network, [
            Shortlisted(
                best.origin, best.reward, best.evaluation, kept.evaluation, None, kept.delivery
            )
        ]
    where = "" if budget is None else f"budget {label(budget)}, "
    as_scored = _as_scored_will_do(env)
    networks = (_as_scored if as_scored else _repaired)(env, listed, images, where)
    compared = _compare(env, networks, len(listed), where)
    (network, winner), *others = sorted(compared, key=lambda one: -_judged(one[1]))
    network, winner = _deliver(env, network, winner, images, where, as_scored=as_scored)
    return network, [winner, *(one for _, one in others)]


def without_harm(env: gym.Env[Any, Any], keep: tuple[int, ...]) -> Delivered:
    """Return a strategy's network as it was scored, or merely cut where that scores higher."""
    problem, own = problem_of(env), env.unwrapped
    network = problem.compress(keep)
    cut = problem.cut(keep)
    score, bare = (float(own.score(one, keep)) for one in (network, cut))  # type: ignore[attr-defined]
    known = problem.evaluate(keep)
    if not bare > score:
        return Delivered(network, known, "scored")
    _warn("", "the repair", score, bare)
    return Delivered(cut, replace(known, similarity=problem.score_network(cut, keep)), "cut")


def _deliver(
    env: gym.Env[Any, Any],
    compared: nn.Module,
    winner: Shortlisted,
    images: Tensor,
    where: str,
    *,
    as_scored: bool,
) -> tuple[nn.Module, Shortlisted]:
    """Repair the winner thoroughly, unless that or any repair makes it worse.

    ``as_scored`` says that networks were compared as they were scored.
    """
    problem, keep = problem_of(env), winner.searched.keep
    with progress(f"{where}repairing the winner") as advance:
        (network,) = problem.repair_all([keep], images, progress=advance)
    score = best = _judge(env, network, keep)
    delivery: Delivery = "thorough"
    if _judged(winner) > best:
        network, best = compared, _judged(winner)
        delivery = "scored" if as_scored else "quick"
    if not as_scored:
        scored = problem.compress(keep)
        if (own := _judge(env, scored, keep)) > best:
            network, best, delivery = scored, own, "scored"
    cut = problem.cut(keep)
    if (own := _judge(env, cut, keep)) > best:
        network, best, delivery = cut, own, "cut"
    if delivery in _HARMFUL:
        _warn(where, _HARMFUL[delivery], score, best)
    final = replace(winner.searched, similarity=problem.score_network(network, keep))
    return network, replace(winner, repaired=final, score=best, delivery=delivery)


def _warn(where: str, what: str, score: float, best: float) -> None:
    _logger.warning(
        "%s%s made the network worse (%.6f, %.6f without), so it was not used",
        where, what, score, best,
    )  # fmt: skip


def _compare(
    env: gym.Env[Any, Any], repaired: Iterable[tuple[Rewarded, nn.Module]], count: int, where: str
) -> Iterator[tuple[nn.Module, Shortlisted]]:
    """Judge the strategies' networks, and yield each with its entry."""
    for place, (one, network) in enumerate(repaired, start=1):
        score = _judge(env, network, one.evaluation.keep)
        _logger.info(
            "%sshortlist %d/%d: reward %.4f, outputs %.5f once repaired (%s)",
            where, place, count, one.reward, score, one.origin,
        )  # fmt: skip
        yield network, Shortlisted(one.origin, one.reward, one.evaluation, None, score)


def _as_scored_will_do(env: gym.Env[Any, Any]) -> bool:
    """Whether networks as they were scored can be compared.

    They were repaired as they would be here, on as many images, and are judged by others than they
    were scored on: a reward of one's own would say again what it said.
    """
    problem = problem_of(env)
    judged = not _has_own_reward(env) and bool(problem.baseline.outputs)
    return problem.screens and judged and problem.images >= COMPARED_IMAGES


def _as_scored(
    env: gym.Env[Any, Any], listed: Sequence[Rewarded], images: Tensor, where: str
) -> Iterator[tuple[Rewarded, nn.Module]]:
    """Yield networks as they were scored: the repair was one to compare them by."""
    with progress(f"{where}comparing the shortlist", "network") as advance:
        for place, one in enumerate(listed, start=1):
            yield one, problem_of(env).compress(one.evaluation.keep)
            advance(place, len(listed))


def _repaired(
    env: gym.Env[Any, Any], listed: Sequence[Rewarded], images: Tensor, where: str
) -> Iterator[tuple[Rewarded, nn.Module]]:
    """Repair strategies quickly, some in step, and yield their networks."""
    for start in range(0, len(listed), TOGETHER):
        some = listed[start : start + TOGETHER]
        keeps = [one.evaluation.keep for one in some]
        with progress(f"{where}repairing the shortlist") as advance:
            repaired = problem_of(env).repair_all(keeps, images[:COMPARED_IMAGES], SCORING, advance)
        yield from zip(some, repaired, strict=True)


def _judged(one: Shortlisted) -> float:
    assert one.score is not None
    return one.score


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
        problem = problem_of(env)
        weights = sensitivities(problem, engine=engine_of(env))
        allocated = tuple(allocate(problem, budget, weights).tolist())
        known = {one.evaluation.keep: one for one in reversed(ranked)}
        if allocated in known:
            last: Rewarded | None = replace(known[allocated], origin="allocation")
        else:
            last = rewarded(env, allocated, budget, "allocation")
        if allocated in listed and last:
            listed[allocated] = last
        _fill(listed, [*([last] if last else []), *ranked], size)
    return list(listed.values())


def _fill(
    listed: dict[tuple[int, ...], Rewarded], strategies: Iterable[Rewarded], size: int
) -> None:
    """Add strategies until there are ``size`` distinct ones."""
    for one in strategies:
        if len(listed) < size:
            listed.setdefault(one.evaluation.keep, one)


def _has_own_reward(env: gym.Env[Any, Any]) -> bool:
    """Whether networks are rewarded by anything but the similarity of features."""
    return str(env.unwrapped.reward_name) != "similarity"  # type: ignore[attr-defined]


def _judge(env: gym.Env[Any, Any], network: nn.Module, keep: Sequence[int]) -> float:
    """Return what the environment's judge says of a finished network."""
    own: Any = env.unwrapped
    return float(own.judge(network, keep))
