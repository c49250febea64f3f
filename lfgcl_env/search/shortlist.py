"""The last step of a search: the best few strategies, repaired, and the best of these kept."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from lfgcl_env.pruning import Evaluation, PruningProblem, allocate
from lfgcl_env.pruning.repair.sequential import SequentialOptions

QUICK = SequentialOptions(rows=16384, relu_aware=1)
"""Repair of all strategies on the shortlist, to compare them."""

QUICK_IMAGES = 256

THOROUGH = SequentialOptions(relu_aware=1, gauss_newton=3)
"""Repair of the one that is kept."""


@dataclass(frozen=True)
class Shortlisted:
    """One strategy of a shortlist.

    Attributes:
        origin: ``"search"``, ``"prediction"`` for the agent's own answer for a budget, or
            ``"allocation"`` for one that is neither.
        searched: its evaluation with the problem's cheap repair, as in the search.
        repaired: its evaluation after sequential repair, with :data:`QUICK` for all but the winner.
    """

    origin: str
    searched: Evaluation
    repaired: Evaluation


def choose(
    problem: PruningProblem,
    evaluations: Sequence[Evaluation],
    images: Tensor,
    *,
    size: int = 8,
    budget: float | None = None,
    predicted: Evaluation | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[nn.Module, list[Shortlisted]]:
    """Repair the best strategies sequentially, compare them, and repair the winner thoroughly.

    The allocation by sensitivities (:func:`~lfgcl_env.pruning.allocate`) takes the last place: a
    search on the cheap repair can miss it although it is as good or better after repair. It takes
    one evaluation per group and one more, which the problem counts. What the agent predicts for
    this budget has a place too, if there are more than two.

    Args:
        problem: what was searched; its own images score the repaired networks.
        evaluations: of the strategies to choose from, those that the search scored.
        images: other unlabelled images, to repair on; the first 256 for the comparison.
        size: how many strategies are compared.
        budget: instead of the problem's own, for the allocation; ``evaluations`` must meet it.
        predicted: of the agent's answer for this budget, if it was asked for one.
        say: is told how it goes.

    Returns:
        The winner's network, on the CPU, and the shortlist from the best to the worst.

    Raises:
        ValueError: if ``size`` is below 1, or ``torch.fx`` cannot trace the network.
    """
    if size < 1:
        raise ValueError(f"a shortlist holds at least 1 strategy, got {size}")
    origins = {e.keep: "search" for e in evaluations}
    first = []
    if predicted is not None:
        evaluations = [*evaluations, predicted]
        origins[predicted.keep] = "prediction"
        first = [predicted] * (size > 2)
    ranked = sorted(evaluations, key=lambda e: (-e.similarity, e.macs))
    listed: dict[tuple[int, ...], Evaluation] = {}
    _fill(listed, [*first, *ranked], max(1, size - 1))
    if size > 1:
        allocated = problem.evaluate(allocate(problem, budget))
        _fill(listed, [allocated, *ranked], size)
    compared = []
    for place, evaluation in enumerate(listed.values(), start=1):
        _, repaired = problem.finish(evaluation.keep, images[:QUICK_IMAGES], QUICK)
        origin = origins.get(evaluation.keep, "allocation")
        compared.append(Shortlisted(origin, evaluation, repaired))
        say(
            f"shortlist {place}/{len(listed)}: {problem.similarity} {evaluation.similarity:.4f}, "
            f"{repaired.similarity:.4f} after sequential repair ({origin})"
        )
    compared.sort(key=lambda s: -s.repaired.similarity)
    network, final = problem.finish(compared[0].searched.keep, images, THOROUGH)
    return network, [replace(compared[0], repaired=final), *compared[1:]]


def _fill(
    listed: dict[tuple[int, ...], Evaluation], evaluations: Iterable[Evaluation], size: int
) -> None:
    """Add evaluations until there are ``size`` distinct strategies."""
    for evaluation in evaluations:
        if len(listed) < size:
            listed.setdefault(evaluation.keep, evaluation)
