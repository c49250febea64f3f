r"""Data-free against label-free: images made from the network alone, or real ones without labels.

Uniform ratios and searched ones, both repaired on the same images throughout, for the moments, the
search and the repair: sequentially, and as ``lfgcl prune`` repairs what it keeps, with
gauss_newton. The 10,000 test images appear in the last column alone. Every row is kept in
results/data_free_NETWORK.jsonl as soon as it is there, so that the script can be stopped and
started again; --report only makes the table. Synthetic images wait in the user's cache.

Networks that do not tell CIFAR-10's classes apart, and random weights, have no top-1. For them the
last column is how similar the outputs stay on 1,000 of the test images: 1 / (1 + e) with the
squared error e relative to the outputs' variance [%].

    python benchmarks/data_free.py
    python benchmarks/data_free.py --network resnet56 --budgets 0.5 --counts 256
    python benchmarks/data_free.py --network torchvision:resnet18 --weights random --size 64 \
        --budgets 0.5 --counts 64 --evaluations 100 --seeds 0
"""

import argparse
import json
import time
from collections.abc import Iterable
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import checkout  # noqa: F401 - baselines are found by it
import gymnasium as gym
import numpy as np
import torch
from lfgcl_env.baselines import uniform_ratios as uniform
from provenance import RESULTS, provenance, write
from rows import Row, lines
from torch import Tensor, nn

from lfgcl_env.images import LabelledImages, load_images, load_test_set, synthetic_pixels, top1
from lfgcl_env.images.datasets import read_dataset
from lfgcl_env.images.pixels import to_inputs
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning.repair.sequential import SequentialOptions
from lfgcl_env.pruning.score.similarities import mse
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.run_search import run_search
from lfgcl_env.search.shortlist import THOROUGH

AGENT = "lfgcl"
REPAIRS = {"sequential": SequentialOptions(relu_aware=1), "alternating": THOROUGH}
KINDS = ("synthetic", "real")
METHODS = ("uniform", "searched")
OTHERS = 1000
OUTPUTS = "similarity_of_outputs"
IDENTITY = ("budget", "images", "count", "method", "seed")
GROUND = ("weights", "input_shape", "evaluations")
"""What else rows that are compared have in common; ``evaluations`` is the number asked for."""


def main() -> None:
    """Measure what is missing, or report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--weights", default="published")
    parser.add_argument("--size", type=int, help="of an input's side, where there is a choice")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.35, 0.65])
    parser.add_argument("--counts", type=int, nargs="+", default=[256, 64, 1024], help="images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=250)
    parser.add_argument("--report", action="store_true", help="only make the table")
    options = parser.parse_args()
    name = options.network.replace(":", "_")
    path = RESULTS / f"data_free_{name}.jsonl"
    if not options.report:
        Measurement(options, path).run()
    report(name, newest(lines(path)))


class Measurement:
    """Appends a line for every budget, images, method and seed that has none yet."""

    def __init__(self, options: argparse.Namespace, path: Path) -> None:
        self._options, self._path = options, path
        size = options.size
        self._baseline = load_baseline(
            options.network, options.weights, input_shape=(3, size, size) if size else None
        )
        self._score, self._test_of = (
            ("top1", self._top1) if self._has_top1() else (OUTPUTS, self._similarity)
        )
        self._ground = {
            "weights": options.weights,
            "input_shape": list(self._baseline.input_shape),
            "evaluations": options.evaluations,
        }
        rows = newest(lines(path))
        if any({name: row[name] for name in GROUND} != self._ground for row in rows):
            raise SystemExit(f"{path} has rows that differ in {', '.join(GROUND)}: move it away")
        self._known = {identity(row): row for row in rows}
        self._commit = provenance()["commit"]

    def _has_top1(self) -> bool:
        known = (self._baseline.input_shape, self._baseline.num_classes) == ((3, 32, 32), 10)
        return known and self._baseline.weights != "random"

    @cached_property
    def _test(self) -> LabelledImages:
        return load_test_set("CIFAR10", normalization=self._baseline.normalization)

    def _top1(self, network: nn.Module) -> float:
        return round(top1(network, self._test), 2)

    @cached_property
    def _others(self) -> Tensor:
        pixels = read_dataset("CIFAR10", train=False).pixels[:OTHERS]
        return to_inputs(pixels, self._baseline.normalization, self._baseline.input_shape)

    def _similarity(self, network: nn.Module) -> float:
        outputs = []
        for module in (self._baseline.network, network):
            with torch.inference_mode():
                outputs.append(torch.cat([module.eval()(x) for x in self._others.split(100)]))
        return round(100 * mse(*outputs), 2)

    def run(self) -> None:
        """All of the first seed, then of the others."""
        for seed in self._options.seeds:
            for count in self._options.counts:
                for kind in KINDS:
                    missing = [
                        (budget, method)
                        for budget in self._options.budgets
                        for method in METHODS
                        if not self._complete((budget, kind, count, method, seed))
                    ]
                    images = self._images(kind, count, seed) if missing else torch.empty(0)
                    for budget, method in missing:
                        row = dict(zip(IDENTITY, (budget, kind, count, method, seed), strict=True))
                        self._add(row | self._measured(images, row))

    def _complete(self, asked: tuple[Any, ...]) -> bool:
        return all(named(self._score, repair) in self._known.get(asked, {}) for repair in REPAIRS)

    def _images(self, kind: str, count: int, seed: int) -> Tensor:
        """Images as the network takes them; of more images, fewer are the first."""
        source = synthetic_pixels(self._baseline, count, seed=seed) if kind == "synthetic" else None
        return load_images(
            "CIFAR10" if source is None else source,
            count,
            shape=self._baseline.input_shape,
            normalization=self._baseline.normalization,
            seed=seed,
        )

    def _measured(self, images: Tensor, row: Row) -> Row:
        """What a row lacks; a strategy that is known is not searched again."""
        budget, method, seed = row["budget"], row["method"], row["seed"]
        known = self._known.get(identity(row), {})
        env = gym.make(
            "LFGCL-v0", network=self._baseline, images=images, num_images=None, budget=budget
        )
        problem = problem_of(env)
        started = time.time()
        if known:
            keep = np.array(known["keep"])
        elif method == "searched":
            keep = np.array(run_search(env, AGENT, self._options.evaluations, seed=seed).best.keep)
        else:
            keep = uniform.strategy(problem, budget)
        searched = time.time()
        found = self._ground | {"search_seconds": round(searched - started, 1)} | known
        found["keep"] = keep.tolist()
        for repair, options in REPAIRS.items():
            if named(self._score, repair) in found:
                continue
            began = time.time()
            network, evaluation = problem.finish(keep, images, options)
            found |= {
                named("similarity", repair): round(evaluation.similarity, 5),
                named("repair_seconds", repair): round(time.time() - began, 1),
                named(self._score, repair): self._test_of(network),
            }
        return found

    def _add(self, row: Row) -> None:
        print(json.dumps({k: v for k, v in row.items() if k != "keep"}), flush=True)
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(row | {"commit": self._commit}) + "\n")


def named(what: str, repair: str) -> str:
    """A row's column; the plain name is that of sequential repair."""
    return what if repair == "sequential" else f"{what}_{repair}"


def identity(row: Row) -> tuple[Any, ...]:
    """What tells a row from others."""
    return tuple(row[name] for name in IDENTITY)


def newest(rows: Iterable[Row]) -> list[Row]:
    """Rows as they were written last."""
    return list({identity(row): row for row in rows}.values())


def report(network: str, rows: list[Row]) -> None:
    """Write results/data_free_NETWORK.json and print it as Markdown."""
    table: list[dict[str, Any]] = []
    score = "top1" if "top1" in rows[0] else OUTPUTS
    heads = sorted({(r["budget"], r["count"], r["method"]) for r in rows})
    for (budget, count, method), repair in product(heads, REPAIRS):
        line: dict[str, Any] = {"budget": budget, "images": count, "method": method}
        line["repair"] = repair
        for kind in KINDS:
            wanted = (budget, kind, count, method)
            line[kind] = {
                str(r["seed"]): r[named(score, repair)]
                for r in sorted(rows, key=lambda r: r["seed"])
                if identity(r)[:4] == wanted and named(score, repair) in r
            }
        both = sorted(set(line["synthetic"]) & set(line["real"]))
        if both:  # the same seeds, or the difference would be that of the seeds
            means = [float(np.mean([line[kind][seed] for seed in both])) for kind in KINDS]
            line["difference"] = round(means[0] - means[1], 2)
        table.append(line)
    print("| MACs kept | images | method | repair | synthetic | real | difference |")
    print("|---" * 7 + "|")
    for line in table:
        cells = [_cell(line[kind]) for kind in KINDS]
        difference = f"{line['difference']:+.2f}" if "difference" in line else ""
        head = f"| {line['budget']:.0%} | {line['images']} | {line['method']} | {line['repair']} | "
        print(head + " | ".join([*cells, difference]) + " |")
    print(f"({score} [%])")
    write(f"data_free_{network}", {"network": network, "score": score, "table": table})


def _cell(scores: dict[str, float]) -> str:
    """Mean, and every seed's."""
    if not scores:
        return ""
    each = ", ".join(f"{score:.2f}" for score in scores.values())
    return f"{np.mean(list(scores.values())):.2f} ({each})"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
