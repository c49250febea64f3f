r"""Data-free against label-free: images made from the network alone, or real ones without labels.

Uniform ratios and searched ones, both repaired on the same images throughout, for the moments, the
search and the repair: sequentially, and as ``lfgcl prune`` repairs what it keeps, with
gauss_newton. The 10,000 test images appear in the last column alone. Runs are kept in
results/data_free_NETWORK.jsonl; --report only makes the table. Synthetic images are cached in the
user's folder.

Networks that were not trained for CIFAR-10's classes, and random weights, have no top-1. For them
the last column is how similar the outputs stay on 1,000 of the test images: 1 / (1 + e) with the
squared error e relative to the outputs' variance [%].

    python benchmarks/data_free.py
    python benchmarks/data_free.py --network resnet56 --budgets 0.5 --counts 256
    python benchmarks/data_free.py --network torchvision:resnet18 --weights random --size 64 \
        --budgets 0.5 --counts 64 --evaluations 100 --seeds 0
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from comparison.methods import STRATEGIES, version
from study import Fields, Study, markdown_table, prepare, study_parser
from torch import Tensor, nn

from lfgcl_env.images import LabelledImages, load_images, load_test_set, synthetic_pixels, top1
from lfgcl_env.images.datasets import read_dataset
from lfgcl_env.images.pixels import to_inputs
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.pruning.score.similarities import mse
from lfgcl_env.search.record_evaluations import problem_of
from lfgcl_env.search.run_search import run_search

AGENT = "lfgcl"
REPAIRS = {
    "sequential": SequentialOptions(rows=65536, gauss_newton=0),
    "alternating": SequentialOptions(rows=65536, positions=2**20),
}
KINDS = ("synthetic", "real")
METHODS = ("uniform", "searched")
OTHERS = 1000
TOP1, OUTPUTS = "top1", "similarity_of_outputs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--weights", default="published")
    parser.add_argument("--size", type=int, help="of an input's side, where there is a choice")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.35, 0.65])
    parser.add_argument("--counts", type=int, nargs="+", default=[256, 64, 1024], help="images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=250)
    options = parser.parse_args(arguments)
    name = options.network.replace(":", "_")
    path = options.out / f"data_free_{name}.jsonl"
    runs = [] if options.report else list(grid(options))
    study = Study(path, runs, measured, name=title)
    code = study.run()
    report(name, study)
    return code


def grid(options: argparse.Namespace) -> Iterator[Fields]:
    """Yield all of the first seed, then of the others."""
    size = options.size
    shape = [3, size, size] if size else None
    network = Network(options.network, options.weights, tuple(shape) if shape else None)
    versions = {
        "uniform": version("uniform"),
        "searched": version(AGENT),
    }
    parts = (options.seeds, options.counts, KINDS, options.budgets, METHODS)
    for seed, count, kind, budget, method in product(*parts):
        yield {
            "network": options.network,
            "weights": options.weights,
            "input_shape": list(network.baseline.input_shape),
            "budget": budget,
            "images": kind,
            "count": count,
            "method": method,
            "agent_version": versions[method],
            "seed": seed,
            "evaluations": options.evaluations if method == "searched" else None,
        }


def title(run: Fields) -> str:
    """Name a run in messages."""
    where = f"{run['network']} {run['budget']:.0%} {run['count']} {run['images']} images"
    return f"{where} {run['method']} seed {run['seed']}"


class Network:
    """A network, and how what is left of it is tested.

    Args:
        name: of the network.
        weights: see :func:`lfgcl_env.networks.load_baseline`.
        shape: of its inputs, where there is a choice.

    Attributes:
        baseline: the network.
        score: the name of its test.
    """

    def __init__(self, name: str, weights: str, shape: tuple[int, ...] | None) -> None:
        self.baseline = load_baseline(name, weights, input_shape=shape)
        known = (self.baseline.input_shape, self.baseline.num_classes) == ((3, 32, 32), 10)
        self.score = TOP1 if known and self.baseline.weights != "random" else OUTPUTS

    def test(self, network: nn.Module) -> float:
        """Return top-1 of a pruned network, or how similar its outputs are [%]."""
        if self.score == TOP1:
            return round(top1(network, self._test), 2)
        outputs = []
        for module in (self.baseline.network, network):
            with torch.inference_mode():
                outputs.append(
                    torch.cat([module.eval()(x) for x in torch.split(self._others, 100)])
                )
        return round(100 * mse(*outputs), 2)

    @cached_property
    def _test(self) -> LabelledImages:
        return load_test_set("CIFAR10", normalization=self.baseline.normalization)

    @cached_property
    def _others(self) -> Tensor:
        pixels = read_dataset("CIFAR10", train=False).pixels[:OTHERS]
        return to_inputs(pixels, self.baseline.normalization, self.baseline.input_shape)


network_of = lru_cache(maxsize=1)(Network)
"""The last network, which all runs share."""


@lru_cache(maxsize=1)
def images_of(
    name: str, weights: str, shape: tuple[int, ...], kind: str, count: int, seed: int
) -> Tensor:
    """Return images as a network takes them; fewer images are the first of more."""
    baseline = network_of(name, weights, shape).baseline
    source = synthetic_pixels(baseline, count, seed=seed) if kind == "synthetic" else None
    return load_images(
        "CIFAR10" if source is None else source,
        count,
        shape=baseline.input_shape,
        normalization=baseline.normalization,
        seed=seed,
    )


def measured(run: Fields) -> Fields:
    """Find a strategy, and repair and test its network in every way."""
    where = (run["network"], run["weights"], tuple(run["input_shape"]))
    network = network_of(*where)
    images = images_of(*where, run["images"], run["count"], run["seed"])
    env = gym.make(
        "LFGCL-v0", network=network.baseline, images=images, num_images=None, budget=run["budget"]
    )
    problem = problem_of(env)
    began = time.time()
    keep: Any
    if run["method"] == "searched":
        found = run_search(env, AGENT, run["evaluations"], agent_seed=run["seed"])
        keep = max(found.records, key=lambda record: record.reward).evaluation.keep
    else:
        keep = STRATEGIES["uniform"](problem, run["budget"])
    seconds, repaired = time.time() - began, {}
    for repair, options in REPAIRS.items():
        began = time.time()
        module, evaluation = problem.finish(keep, images, options)
        repaired[repair] = {
            "similarity": round(evaluation.similarity, 5),
            "seconds": round(time.time() - began, 1),
            network.score: network.test(module),
        }
    return {
        "keep": np.asarray(keep).tolist(),
        "search_seconds": round(seconds, 1),
        "repaired": repaired,
    }


def report(network: str, study: Study) -> None:
    """Write results/data_free_NETWORK.json and print it as Markdown."""
    records = sorted(study.records(), key=lambda record: record["seed"])
    first = next(iter(records[0]["repaired"].values()))
    score = TOP1 if TOP1 in first else OUTPUTS
    groups: dict[tuple[float, int, str, str], dict[str, dict[str, float]]] = {}
    for record in records:
        for repair, made in record["repaired"].items():
            key = (record["budget"], record["count"], record["method"], repair)
            line = groups.setdefault(key, {kind: {} for kind in KINDS})
            line[record["images"]][str(record["seed"])] = made[score]
    order = list(REPAIRS)
    table: list[Fields] = []
    for key in sorted(groups, key=lambda key: (*key[:3], order.index(key[3]))):
        scores = groups[key]
        heads = zip(("budget", "images", "method", "repair"), key, strict=True)
        line_of: Fields = {**dict(heads), **scores}
        both = sorted(set(scores["synthetic"]) & set(scores["real"]))
        if both:  # the same seeds, or the difference would be that of the seeds
            means = [float(np.mean([scores[kind][seed] for seed in both])) for kind in KINDS]
            line_of["difference"] = round(means[0] - means[1], 2)
        table.append(line_of)
    cells = [
        [
            f"{line['budget']:.0%}",
            str(line["images"]),
            line["method"],
            line["repair"],
            *(_cell(line[kind]) for kind in KINDS),
            f"{line['difference']:+.2f}" if "difference" in line else "",
        ]
        for line in table
    ]
    print(markdown_table(["MACs kept", "images", "method", "repair", *KINDS, "difference"], cells))
    print(f"({score} [%])")
    study.write_report({"network": network, "score": score, "table": table})


def _cell(scores: dict[str, float]) -> str:
    """Return the mean, and every seed's score."""
    if not scores:
        return ""
    each = ", ".join(f"{score:.2f}" for score in scores.values())
    return f"{np.mean(list(scores.values())):.2f} ({each})"


if __name__ == "__main__":
    prepare()
    sys.exit(main())
