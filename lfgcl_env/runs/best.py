"""What a search on one budget leaves in its run folder: the network, a report, ``best.json``."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MaxLen, MinLen
from pydantic import ConfigDict, Field, JsonValue
from torch import nn

from lfgcl_env.edge.bounds import LONGEST_LIST, Cost, Count, Kept, Milliseconds, Name, Ratio
from lfgcl_env.edge.files import write_text
from lfgcl_env.edge.schema import STRICT, Schema, read_text
from lfgcl_env.edge.sealed import Sealed, parse_sealed, sealed
from lfgcl_env.pruning import Evaluation, PruningProblem
from lfgcl_env.pruning.delivered_network import Delivery
from lfgcl_env.pruning.structure.header import StoredEvaluation
from lfgcl_env.runs import report
from lfgcl_env.runs.delivered_times import DeliveredTimes, StoredTimes
from lfgcl_env.runs.exports import StoredExport
from lfgcl_env.runs.recoveries import StoredRecovery
from lfgcl_env.runs.run_folder import PRUNED

BEST = "best.json"

_log = logging.getLogger(__name__)
_OPEN = ConfigDict(**{**STRICT, "extra": "allow"})
PredictedTimes = Annotated[list[Milliseconds], MinLen(2), MaxLen(2)]
_Pair = Annotated[list[Cost], MinLen(2), MaxLen(2)]


class StoredCandidate(Schema):
    """A strategy of the shortlist, see :class:`~lfgcl_env.search.shortlist.Shortlisted`."""

    model_config = _OPEN
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    origin: Name
    reward: float
    searched: StoredEvaluation
    repaired: StoredEvaluation | None
    score: float | None
    delivery: Delivery | None


class StoredGroup(Schema):
    """A group, and how many of its channels are kept."""

    name: Name
    channels: Count
    keep: Kept
    prune_ratio: Ratio


class StoredLayer(Schema):
    """A :class:`~lfgcl_env.runs.report.LayerChange` in a file; every pair is [before, after]."""

    name: Name
    kind: Annotated[str, MaxLen(20)]
    inputs: _Pair | None
    outputs: _Pair | None
    macs: _Pair
    params: _Pair


class Best(StoredEvaluation, Sealed):
    """``best.json``: what is kept, and how it was found.

    Attributes:
        reward: of what is kept, as the search ranked it.
        evaluations: distinct strategies that the search scored.
        evaluations_asked: how many it might score.
        evaluations_with_shortlist: those of the shortlist's allocation included.
        settings: of the problem.
        delivery: which network is handed over, one of
            :data:`~lfgcl_env.pruning.delivered_network.DELIVERIES`.
        shortlist: what was repaired and compared, from the best to the worst.
        groups: in the order of ``keep``.
        layers: before and after, see :func:`~lfgcl_env.runs.report.compare_layers`.
        predicted_ms: times of the baseline and of what is kept [ms], see
            :func:`~lfgcl_env.runs.report.predict_latency`; None without a budget of latency.
        measured_ms: likewise, of both networks measured whole, see
            :class:`~lfgcl_env.runs.delivered_times.DeliveredTimes`.
        measured: what ``lfgcl measure`` found of the network, see
            :class:`~lfgcl_env.runs.measured.Measured`; None before.
        recoveries: what ``lfgcl recover`` made of it, and of what came out.
        exports: what ``lfgcl export`` made of all these.
    """

    model_config = _OPEN
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    reward: float
    evaluations: Count
    evaluations_asked: Count
    evaluations_with_shortlist: Count
    settings: dict[Name, JsonValue]
    delivery: Delivery
    shortlist: Annotated[list[StoredCandidate], MaxLen(LONGEST_LIST)]
    groups: Annotated[list[StoredGroup], MinLen(1), MaxLen(LONGEST_LIST)]
    layers: Annotated[list[StoredLayer], MaxLen(LONGEST_LIST)]
    predicted_ms: PredictedTimes | None = None
    measured_ms: StoredTimes | None = None
    measured: dict[Name, JsonValue] | None = None
    recoveries: Annotated[list[StoredRecovery], MaxLen(LONGEST_LIST)] = Field(default_factory=list)
    exports: Annotated[list[StoredExport], MaxLen(LONGEST_LIST)] = Field(default_factory=list)


def write_best(
    folder: Path,
    problem: PruningProblem,
    best: Evaluation,
    repaired: Evaluation | None,
    network: nn.Module,
    delivery: Delivery,
    shortlist: Sequence[Any],
    facts: Mapping[str, Any],
    times: DeliveredTimes | None = None,
) -> None:
    """Write the network of a search on one budget, what changed in it, and how it was found.

    Args:
        folder: the run folder.
        problem: what was searched.
        best: the evaluation of what is kept, as it was searched.
        repaired: the network's own, if it is another one than was searched.
        network: the network, compressed and repaired.
        delivery: which one it is of those that were made.
        shortlist: what it was chosen from, from the best to the worst, see
            :class:`~lfgcl_env.search.shortlist.Shortlisted`; empty without one.
        facts: of the search, for ``best.json``: ``reward`` of what is kept, ``evaluations``,
            ``evaluations_with_shortlist``, and any others that are JSON-able.
        times: of the baseline and the network, with a budget of latency.

    Raises:
        OSError: if a file cannot be written.
    """
    problem.save(
        folder / PRUNED, best.keep, network, repaired=asdict(repaired) if repaired else None
    )
    table = report.compare_layers(problem.network, best.keep, network)
    title = report.format_headline(problem, best, repaired, times)
    write_text(folder / "report.txt", report.format_page(problem, table, title, delivery))
    if report.draw_layers(table, folder / "report.png", title) is None:
        _log.warning("no report.png: run `pip install lfgcl-env[plots]` to get one")
    ratios = problem.prune_ratios(best.keep).tolist()
    described = {
        **asdict(best),
        **facts,
        "settings": problem.settings(),
        "delivery": delivery,
        "shortlist": [asdict(candidate) for candidate in shortlist],
        "groups": [
            {"name": group.name, "channels": group.channels, "keep": kept, "prune_ratio": ratio}
            for group, kept, ratio in zip(problem.groups, best.keep, ratios, strict=True)
        ],
        "layers": [asdict(layer) for layer in table],
        "predicted_ms": report.predict_latency(problem, best),
        "measured_ms": times and times.stored(),
    }
    text = sealed(described, indent=2)
    parse_sealed(Best, text, "the best strategy cannot be recorded")
    write_text(folder / BEST, f"{text}\n")


def read_best(folder: Path) -> Best:
    """Read ``best.json``.

    Raises:
        FileNotFoundError: if the run has not ended.
        ValueError: if the file is damaged or was edited.
    """
    path = folder / BEST
    if not path.exists():
        raise FileNotFoundError(f"the run in {folder} has no {BEST}: it has not ended")
    return parse_sealed(Best, read_text(path), f"{path} is damaged")
