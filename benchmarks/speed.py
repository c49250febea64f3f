"""Time of construction and of one evaluation, with its parts; medians of distinct strategies.

python benchmarks/speed.py --network resnet56 --images 256
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import checkout  # noqa: F401 - baselines are found by it
import gymnasium as gym
import numpy as np
import torch
from lfgcl_env.baselines import uniform_ratios as uniform
from provenance import write

from lfgcl_env.images import load_images
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.repair.batchnorm import run_plain
from lfgcl_env.pruning.structure.surgery import cut


def main() -> None:
    """Measure, print and write results/speed_NETWORK.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--strategies", type=int, default=10)
    options = parser.parse_args()
    result: dict[str, Any] = {"network": options.network, "images": options.images}

    # The first construction also imports torchvision; the second is what a second one costs.
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        gym.make(
            "LFGCL-v0",
            network=options.network,
            weights="published",
            images="CIFAR10",
            num_images=512,
        )
        seconds.append(time.perf_counter() - started)
    result["construction_512_images"] = {"first": seconds[0], "then": float(np.median(seconds[1:]))}

    baseline = load_baseline(options.network, "published")
    images = load_images(
        "CIFAR10",
        options.images,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
    )
    problem = PruningProblem(baseline, images)
    rng = np.random.default_rng(0)
    for label, evaluated in (("first_visit", False), ("cached_repair", True)):
        parts: dict[str, list[float]] = {"projection": [], "cut_and_repair": [], "forward": []}
        parts |= {"comparison": [], "whole_step": []}
        for _ in range(options.strategies):
            ratios = rng.random(len(problem.groups))
            started = time.perf_counter()
            keep = problem.project(ratios)
            parts["projection"].append(time.perf_counter() - started)
            if evaluated:
                problem._candidate.install(problem.kept_channels(keep))
                problem._candidate._installed.clear()
            kept = problem.kept_channels(keep)
            parts["cut_and_repair"].append(timed(lambda k=kept: problem._candidate.install(k)))
            started = time.perf_counter()
            found = run_plain(problem._candidate.network, problem._reader, problem._batches)
            parts["forward"].append(time.perf_counter() - started)
            mask = problem.plan.mask(kept)
            parts["comparison"].append(
                timed(lambda f=found, m=mask: problem._compared(problem._reader.joined(f, m)))
            )
            parts["whole_step"].append(sum(parts[name][-1] for name in list(parts)[:4]))
        medians = {name: float(np.median(values)) for name, values in parts.items()}
        medians["forward_share"] = medians["forward"] / medians["whole_step"]
        result[label] = medians

    kept = problem.kept_channels(uniform.strategy(problem))
    module, parts_of = baseline.network, problem._parts
    surgery = [timed(lambda: cut(module, problem.groups, kept, parts_of)) for _ in range(5)]
    result["surgery_instead_of_a_cut"] = float(np.median(surgery))
    for key, value in result.items():
        print(f"{key}: {value}")
    print(write(f"speed_{options.network}", result))


def timed(action: Callable[[], Any]) -> float:
    """Seconds that an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
