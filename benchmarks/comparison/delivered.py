"""Delivered networks: the comparison's strategies, repaired as users get them and tested once each.

What a method found does not depend on how it is delivered, so that a better repair asks for no new
searches: compare.py delivers what is not yet delivered with the settings here, and report.py looks
the top-1 of every strategy up. Runs are kept in results/delivered_NETWORK.jsonl.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from study import Fields, newest

from comparison.protocol import shared_protocol
from comparison.records import file_stem
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.search.record_evaluations import problem_of

DELIVERY = {"images": 1024, "rows": 65536, "gauss_newton": 3}
"""Unlabelled images of the repair, and its options where they are not the defaults."""

UNUSED = 0.5
"""A budget for the protocol, which needs one."""

_SHARED = ("network", "weights", "data", "images", "criterion")


def delivered_file(folder: Path, network: str) -> Path:
    """Return the file of the deliveries on a network."""
    return folder / f"delivered_{file_stem(network)}.jsonl"


def deliveries(records: Iterable[Fields]) -> list[Fields]:
    """Return the deliveries that searches ask for: those of their ends first."""
    strategies = [(record, list(record["tested"].values())[::-1]) for record in records]
    found = [delivery(record, tested[0]["keep"]) for record, tested in strategies]
    found += [delivery(r, one["keep"]) for r, tested in strategies for one in tested[1:]]
    return list({_key(run): run for run in found}.values())


def delivery(record: Fields, keep: Sequence[int]) -> Fields:
    """Return the run that delivers a strategy of a search."""
    return {name: record[name] for name in _SHARED} | {"keep": list(keep), "delivery": DELIVERY}


def delivered(run: Fields, **places: Any) -> Fields:
    """Deliver a strategy, and return its top-1 [%].

    Args:
        run: see :func:`delivery`.
        **places: where data are, see :class:`ComparisonProtocol`.
    """
    network, images = run["network"], run["images"]
    shared = shared_protocol(
        network, images, UNUSED, weights=run["weights"], data=run["data"], **places
    )
    problem = problem_of(shared.environment("LFGCL", criterion=run["criterion"]))
    settings = dict(run["delivery"])
    count = settings.pop("images")
    return {"top1": shared.top1(run["keep"], problem, count, SequentialOptions(**settings))}


def with_top1(records: Iterable[Fields], path: Path) -> list[Fields]:
    """Return records with the top-1 of their strategies, without strategies not delivered yet.

    Args:
        records: of searches.
        path: of the deliveries.
    """
    known = {_key(run): run["top1"] for run in newest(path)}
    joined = []
    for record in records:
        found = {
            count: (tested, known.get(_key(delivery(record, tested["keep"]))))
            for count, tested in record["tested"].items()
        }
        tested = {c: one | {"top1": top1} for c, (one, top1) in found.items() if top1 is not None}
        joined.append(record | {"tested": tested})
    return joined


def _key(run: Fields) -> str:
    return json.dumps({name: run[name] for name in (*_SHARED, "keep", "delivery")}, sort_keys=True)
