"""Sequential repair: its time, its memory, and what augmented or more images bring in top-1.

The strategy is the allocation by sensitivities. Repair sees unlabelled training images; the 10,000
test images appear in the last column alone. Every repair runs in a process of its own, so that
its peak memory is its own. Results are written after every row.

    python benchmarks/repair.py --network resnet20
    python benchmarks/repair.py --network resnet56 --only-sequential
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from provenance import write

from lfgcl_env.images import load_images, load_test_set, top1
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.repair.sequential import SequentialOptions

SEARCH_IMAGES = 256
PLAIN = SequentialOptions(relu_aware=1)
REPAIRS = {"sequential": PLAIN, "alternating": replace(PLAIN, gauss_newton=3)}
AUGMENTED = {
    "none": {},
    "flips": {"flips": True},
    "crops and flips": {"flips": True, "crops": 4},
    "crops and flips, 4 copies": {"flips": True, "crops": 4, "copies": 4},
}
TIMED = 1024
"""Images of the plain repair that is timed several times; more are not augmented."""


def main() -> None:
    """Measure, print and write results/repair_NETWORK.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--images", type=int, nargs="+", default=[1024, 256])
    parser.add_argument("--runs", type=int, default=3, help="of the timed repair")
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    parser.add_argument(
        "--only-sequential", action="store_true", help="augment without gauss_newton"
    )
    options = parser.parse_args()
    problem, _ = made(options.network, options.budget, options.seed, max(options.images))
    keep = allocate(problem)
    result: dict[str, Any] = {
        "network": options.network,
        "budget": options.budget,
        "seed": options.seed,
        "keep": keep.tolist(),
        "rows": [],
    }
    for images, repair, augmentation, runs in conditions(options):
        asked = (options.network, options.budget, options.seed, keep, images)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            measured = pool.submit(measure, *asked, repair, augmentation, runs).result()
        row = {"images": images, "repair": repair, "augmentation": augmentation, **measured}
        result["rows"].append(row)
        print(row, flush=True)
        path = write(f"repair_{options.network}", result)
    print(path)


def conditions(options: argparse.Namespace) -> Iterator[tuple[int, str, str, int]]:
    """Images, repair, augmentation and runs of every row."""
    for images in options.images:
        for repair in REPAIRS:
            timed = images == TIMED and repair == "sequential"
            yield images, repair, "none", options.runs if timed else 1
            if images <= TIMED and (repair == "sequential" or not options.only_sequential):
                for augmentation in list(AUGMENTED)[1:]:
                    yield images, repair, augmentation, 1


def measure(
    network: str,
    budget: float,
    seed: int,
    keep: Any,
    images: int,
    repair: str,
    augmentation: str,
    runs: int,
) -> dict[str, Any]:
    """Repair ``runs`` times, in this process, and test the last result.

    Returns:
        Medians of wall clock and processor time [s], how much the peak memory of the process rose
        [MiB], and top-1 [%] on the test set.
    """
    torch.set_num_threads(1)
    problem, drawn = made(network, budget, seed, images)
    options = replace(REPAIRS[repair], **AUGMENTED[augmentation])
    problem.compress(keep)
    before = peak_memory()
    wall, processor = [], []
    for _ in range(runs):
        started = time.perf_counter(), time.process_time()
        repaired, evaluation = problem.finish(keep, drawn, options)
        wall.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    peak = peak_memory() - before
    test = load_test_set("CIFAR10", normalization=problem.baseline.normalization)
    return {
        "runs": runs,
        "seconds": round(float(np.median(wall)), 1),
        "processor_seconds": round(float(np.median(processor)), 1),
        "memory": round(peak),
        "similarity": round(evaluation.similarity, 4),
        "top1": round(top1(repaired, test), 2),
    }


def made(network: str, budget: float, seed: int, images: int) -> tuple[PruningProblem, Any]:
    """The problem on the first images of a draw, and the next ones to repair on."""
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
    """The most memory that this process has held so far [MiB]; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
