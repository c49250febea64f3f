"""Schema of ``sweep.json``, and reading it."""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import MaxLen
from pydantic import ConfigDict, Field, JsonValue

from lfgcl_env.edge.bounds import Budget, Count, Name
from lfgcl_env.edge.schema import STRICT, Schema, read_text
from lfgcl_env.edge.sealed import Sealed, parse_sealed
from lfgcl_env.pruning.delivered_network import Delivery
from lfgcl_env.pruning.structure.header import StoredEvaluation
from lfgcl_env.runs.best import PredictedTimes, StoredCandidate
from lfgcl_env.runs.delivered_times import StoredTimes

SWEEP = "sweep.json"


class StoredPoint(Schema):
    """A :class:`~lfgcl_env.search.budget_sweep.Point`; its network has a file of its own."""

    budget: Budget
    predicted: StoredEvaluation
    origin: Name
    reward: float
    searched: StoredEvaluation
    repaired: StoredEvaluation | None
    delivery: Delivery
    shortlist: Annotated[list[StoredCandidate], MaxLen(10_000)]
    evaluations: Count
    file: Name
    predicted_ms: PredictedTimes | None
    measured_ms: StoredTimes | None


class StoredSweep(Sealed):
    """``sweep.json``: facts of the search, its budgets, and the points finished so far."""

    model_config = ConfigDict(**{**STRICT, "extra": "allow"})
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    budgets: Annotated[list[Budget], MaxLen(1000)]
    points: Annotated[list[StoredPoint], MaxLen(1000)]


def read_sweep(run: Path) -> dict[str, Any] | None:
    """Read ``sweep.json`` of a run: facts, ``budgets``, and the ``points`` finished so far.

    Returns:
        None if there is no such file.

    Raises:
        ValueError: if it is damaged or was edited.
    """
    path = run / SWEEP
    if not path.exists():
        return None
    found = parse_sealed(StoredSweep, read_text(path), f"{path} is damaged")
    return found.model_dump(exclude={"checksum"})
