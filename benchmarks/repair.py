"""Sequential repair: its time, its memory, and what more images bring in top-1.

The strategy is the allocation by sensitivities. Repair sees unlabelled training images; the 10,000
test images appear in the last column alone. Every run has a process of its own, so that its peak
memory is its own. Runs are kept in results/repair_NETWORK.jsonl.

    python benchmarks/repair.py --network resnet20
    python benchmarks/repair.py --network resnet56 --images 1024 256 64
"""

import resource
import sys
import time
from collections.abc import Sequence

import numpy as np
from study import Fields, Study, markdown_table, prepare, study_parser
from torch import Tensor

from lfgcl_env.images import load_images, load_test_set, top1
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.repair.profiles import SequentialOptions

SEARCH_IMAGES = 256
REPAIRS = {
    "sequential": SequentialOptions(rows=65536, gauss_newton=0),
    "alternating": SequentialOptions(rows=65536, positions=2**20),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--images", type=int, nargs="+", default=[1024, 256])
    parser.add_argument("--times", type=int, default=1, help="repairs, of which the median counts")
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    options = parser.parse_args(arguments)
    runs = [
        {
            "network": options.network,
            "budget": options.budget,
            "seed": options.seed,
            "images": images,
            "repair": repair,
            "times": options.times,
        }
        for images in options.images
        for repair in REPAIRS
    ]
    study = Study(options.out / f"repair_{options.network}.jsonl", runs, measured, name=name)
    code = 0 if options.report else study.run(isolated=True)
    report(study)
    return code


def name(run: Fields) -> str:
    """Name a run in messages."""
    return f"{run['network']} {run['budget']:.0%} {run['images']} images {run['repair']}"


def measured(run: Fields) -> Fields:
    """Repair a strategy several times, and test the last result.

    Returns:
        Medians of wall clock and processor time [s], how much the peak memory of the process rose
        [MiB], similarity, top-1 [%] on the test set, and the strategy.
    """
    problem, drawn = made(run["network"], run["budget"], run["seed"], run["images"])
    keep = allocate(problem)
    problem.compress(keep)
    before = peak_memory()
    wall, processor = [], []
    for _ in range(run["times"]):
        started = time.perf_counter(), time.process_time()
        repaired, evaluation = problem.finish(keep, drawn, REPAIRS[run["repair"]])
        wall.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    peak = peak_memory() - before
    test = load_test_set("CIFAR10", normalization=problem.baseline.normalization)
    return {
        "seconds": round(float(np.median(wall)), 1),
        "processor_seconds": round(float(np.median(processor)), 1),
        "memory": round(peak),
        "similarity": round(evaluation.similarity, 4),
        "top1": round(top1(repaired, test), 2),
        "keep": keep.tolist(),
    }


def made(network: str, budget: float, seed: int, images: int) -> tuple[PruningProblem, Tensor]:
    """Return the problem on the first images of a draw, and the next ones to repair on."""
    baseline = load_baseline(network, "published")
    drawn = load_images(
        "CIFAR10",
        SEARCH_IMAGES + images,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
        seed=seed,
    )
    problem = PruningProblem(baseline, drawn[:SEARCH_IMAGES], budget=budget)
    return problem, drawn[SEARCH_IMAGES:]


def peak_memory() -> float:
    """Return the most memory that this process has held so far [MiB]; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(study: Study) -> None:
    """Print a Markdown table."""
    heads = ["network", "MACs", "images", "repair", "seconds", "memory [MiB]", "top-1"]
    cells = [
        [
            record["network"],
            f"{record['budget']:.0%}",
            str(record["images"]),
            record["repair"],
            f"{record['seconds']:.1f}",
            str(record["memory"]),
            f"{record['top1']:.2f}",
        ]
        for record in study.records()
    ]
    print(markdown_table(heads, cells))


if __name__ == "__main__":
    prepare()
    sys.exit(main())
