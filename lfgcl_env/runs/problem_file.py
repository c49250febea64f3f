"""``problem.json``: what a run prunes, known from its beginning on."""

from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from annotated_types import Ge, MaxLen, MinLen
from numpy.typing import NDArray
from pydantic import model_validator

from lfgcl_env.edge.bounds import LONGEST_LIST, Cost, Count, Kept, Name, Text
from lfgcl_env.edge.files import write_text
from lfgcl_env.edge.schema import Schema, read_text
from lfgcl_env.edge.sealed import Sealed, parse_sealed, sealed
from lfgcl_env.pruning import PruningProblem

PROBLEM = "problem.json"

_POINTS = 64
"""Points of a curve that are kept at most."""


class StoredCurve(Schema):
    """What a group's removal costs, see :mod:`lfgcl_env.pruning.sensitivities`.

    Attributes:
        keep: channels kept, rising.
        losses: the similarity that is lost at each, as estimated from one score.
    """

    keep: Annotated[list[Kept], MinLen(1), MaxLen(_POINTS + 1)]
    losses: Annotated[list[Annotated[float, Ge(0)]], MinLen(1), MaxLen(_POINTS + 1)]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.keep) != len(self.losses):
            raise ValueError("'keep' and 'losses' should be equally long")
        return self


class PrunedGroup(Schema):
    """A group of channels, and its curve if it was measured."""

    name: Name
    channels: Count
    curve: StoredCurve | None


class StoredProblem(Sealed):
    """``problem.json``.

    Attributes:
        network: title of the baseline.
        weights: where its weights are from.
        macs: of the baseline.
        params: of the baseline.
        similarity: by which features or outputs are compared.
        groups: in the order of ``keep`` in ``evaluations.jsonl``.
    """

    network: Text
    weights: Text
    macs: Cost
    params: Cost
    similarity: Name
    groups: Annotated[list[PrunedGroup], MinLen(1), MaxLen(LONGEST_LIST)]


def write_problem(
    folder: Path, problem: PruningProblem, weights: NDArray[np.float64] | None = None
) -> None:
    """Write what is pruned.

    Args:
        folder: the run folder.
        problem: what is searched.
        weights: of the groups' error curves, from :func:`~lfgcl_env.pruning.sensitivities`; None
            leaves the curves out.

    Raises:
        OSError: if the file cannot be written.
    """
    text = sealed(_fields(problem, weights), indent=2)
    parse_sealed(StoredProblem, text, "what is pruned cannot be recorded")
    write_text(folder / PROBLEM, f"{text}\n")


def has_problem(folder: Path, problem: PruningProblem) -> bool:
    """Whether what is pruned is written already, with curves or without."""
    try:
        stored = read_problem(folder)
    except (OSError, ValueError):
        return False
    if stored is None:
        return False
    fields = stored.model_dump(exclude={"checksum"})
    fields["groups"] = [group | {"curve": None} for group in fields["groups"]]
    return fields == _fields(problem, None)


def _fields(problem: PruningProblem, weights: NDArray[np.float64] | None) -> dict[str, Any]:
    cost = problem.baseline_cost
    groups = [
        {
            "name": group.name,
            "channels": group.channels,
            "curve": None
            if weights is None
            else _curve(weights[index] * problem.eliminations[group.name].errors),
        }
        for index, group in enumerate(problem.groups)
    ]
    return {
        "network": problem.baseline.title,
        "weights": problem.baseline.weights,
        "macs": cost.macs,
        "params": cost.params,
        "similarity": problem.similarity,
        "groups": groups,
    }


def read_problem(folder: Path) -> StoredProblem | None:
    """Read ``problem.json``; None if there is none.

    Raises:
        ValueError: if it is damaged or was edited.
    """
    path = folder / PROBLEM
    if not path.exists():
        return None
    return parse_sealed(StoredProblem, read_text(path), f"{path} is damaged")


def _curve(losses: NDArray[np.float64]) -> dict[str, list[int] | list[float]]:
    """Thin a curve out, both ends included."""
    last = len(losses) - 1
    keep = np.unique(np.linspace(0, last, min(last, _POINTS) + 1).round().astype(np.int64))
    return {"keep": keep.tolist(), "losses": np.maximum(losses[keep], 0.0).tolist()}
