"""Prune as an entry of a leaderboard says, and measure what it claims."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lfgcl_env.edge.choices import closest
from lfgcl_env.images import LabelledImages, top1
from lfgcl_env.leaderboard.entry import Entry, sequential_options
from lfgcl_env.pruning import PruningProblem

SIMILARITY_TOLERANCE = 1e-4
TOP1_TOLERANCE = 0.1
"""Points of top-1 by which other machines and versions may differ: 10 of 10,000 images."""


@dataclass(frozen=True)
class Replay:
    """What was measured of an entry's strategy.

    Attributes:
        entry: the entry.
        macs: multiply-accumulates for one input.
        similarity: as in :class:`Entry`.
        top1: likewise; None if it was not measured.
        faults: what does not hold, one phrase each; empty for an entry that holds.
    """

    entry: Entry
    macs: int | None
    similarity: float | None
    top1: float | None
    faults: tuple[str, ...]


def replay(
    entry: Entry,
    problem: PruningProblem,
    repair_images: Tensor | None,
    test_set: LabelledImages | None,
) -> Replay:
    """Measure what an entry claims.

    Args:
        entry: the entry.
        problem: made from ``entry.problem``; its budget may be another.
        repair_images: for the entry's sequential repair; None if there is none.
        test_set: for ``top1``; None leaves it unmeasured.
    """
    if fault := _not_of(entry.keep, problem):
        return Replay(entry, None, None, None, (fault,))
    keep = np.array([entry.keep[group.name] for group in problem.groups])
    evaluation = problem.evaluate(keep)
    faults = []
    if evaluation.macs != entry.macs:
        faults.append(f"MACs are {evaluation.macs:,}, not {entry.macs:,}")
    budget = entry.problem["budget"]
    if not problem.meets(keep, budget):
        faults.append(f"exceeds its budget of {budget:g} of the {problem.budget_metric}")
    if abs(evaluation.similarity - entry.similarity) > SIMILARITY_TOLERANCE:
        faults.append(f"similarity is {evaluation.similarity:.5f}, not {entry.similarity:.5f}")
    measured = None
    if entry.top1 is not None and test_set is not None:
        if entry.sequential is None:
            network = problem.compress(keep)
        else:
            assert repair_images is not None
            network, _ = problem.finish(keep, repair_images, sequential_options(entry.sequential))
        measured = top1(network, test_set, device="cpu")
        if abs(measured - entry.top1) > TOP1_TOLERANCE + 1e-9:
            faults.append(f"top-1 is {measured:.2f} %, not {entry.top1:.2f} %")
    return Replay(entry, evaluation.macs, evaluation.similarity, measured, tuple(faults))


def _not_of(keep: Mapping[str, int], problem: PruningProblem) -> str | None:
    """Return why a strategy does not belong to this problem; None if it does."""
    channels = {group.name: group.channels for group in problem.groups}
    rounding = problem.network.rounding
    counts = {name: rounding.counts(group) for group, name in enumerate(channels)}
    for name in keep:
        if name not in channels:
            return f"keeps channels of {name!r}, which is no group of this network" + closest(
                name, channels
            )
    for name, all_of_them in channels.items():
        if name not in keep:
            return f"does not say how many channels of {name!r} are kept"
        if keep[name] not in counts[name]:
            return f"keeps {keep[name]} of the {all_of_them} channels of {name!r}"
    return None
