"""Fewer channels and fewer bits: networks in float and int8, whole and pruned.

ResNet-56 (published weights) is tested on CIFAR-10's test images; it is pruned by the allocation
and delivered, and quantised, on unlabelled training images. torchvision's MobileNetV2 is pruned,
quantised and compared as in mobilenet.py, on crops of photographs: how often its largest output is
the whole float network's. Times are processor times of ONNX Runtime on one thread, medians of 15
runs in turn. Runs are kept in results/int8.jsonl.

    python benchmarks/int8.py
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import mobilenet
import torch
from deliveries import outputs
from study import Fields, Study, markdown_table, prepare, study_parser
from torch import Tensor, nn

from lfgcl_env.export import OnnxNetwork, compare, export_network, quantize
from lfgcl_env.images import load_images, load_test_set, top1
from lfgcl_env.networks import Baseline, load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.structure.layers import count_macs

RUNS = (("resnet56", 1.0), ("mobilenet_v2", 1.0), ("resnet56", 0.5), ("mobilenet_v2", 0.8))
"""Networks, and the fraction of their MACs that remains."""

CALIBRATION, REPAIR, COMPARED = 256, 1024, 256
"""Images of problems and quantisation, of ResNet-56's delivery, and to compare MobileNetV2 on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    options = study_parser(__doc__).parse_args(arguments)
    runs = [] if options.report else [{"network": n, "budget": b, "seed": 0} for n, b in RUNS]
    study = Study(options.out / "int8.jsonl", runs, measured)
    code = study.run()
    report(study)
    return code


@dataclass(frozen=True)
class Case:
    """A network, its images, and how it is pruned and tested.

    Attributes:
        baseline: the whole network.
        images: to calibrate on.
        others: to compare int8 with float on.
        prune: returns the network of a budget.
        test: measures a network [%].
    """

    baseline: Baseline
    images: Tensor
    others: Tensor
    prune: Callable[[float], nn.Module]
    test: Callable[[nn.Module], float]


def resnet56() -> Case:
    """Return ResNet-56 with training images, tested on test images."""
    baseline = load_baseline("resnet56", "published")
    shape, normalization = baseline.input_shape, baseline.normalization
    images = load_images("CIFAR10", 4096, shape=shape, normalization=normalization, seed=0)
    test_set = load_test_set("CIFAR10", normalization=normalization)

    def prune(budget: float) -> nn.Module:
        problem = PruningProblem(baseline, images[:CALIBRATION], budget=budget)
        return problem.finish(allocate(problem), images[CALIBRATION:][:REPAIR])[0]

    others = images[CALIBRATION + REPAIR :][:2048]
    return Case(baseline, images[:CALIBRATION], others, prune, lambda n: top1(n, test_set))


def mobilenet_v2() -> Case:
    """Return MobileNetV2 with crops of photographs, compared on crops of others."""
    baseline = mobilenet.baseline()
    others = mobilenet.compared()[0][:COMPARED]
    expected = outputs(baseline.network, others, mobilenet.BATCH).argmax(1)

    def agreement(network: nn.Module) -> float:
        found = outputs(network, others, mobilenet.BATCH).argmax(1)
        return 100 * float((found == expected).float().mean())

    return Case(baseline, mobilenet.seen()[:CALIBRATION], others, mobilenet.allocated, agreement)


CASES = {"resnet56": lru_cache(resnet56), "mobilenet_v2": lru_cache(mobilenet_v2)}
"""By name."""


def measured(run: Fields) -> Fields:
    """Prune a network if it is to be, export and quantise it, and measure both files."""
    case = CASES[run["network"]]()
    whole = case.baseline.network
    network = whole if run["budget"] == 1 else case.prune(run["budget"])
    with tempfile.TemporaryDirectory() as folder:
        whole_path, small_path = (Path(folder) / f"{name}.onnx" for name in ("float", "int8"))
        export_network(network, case.others[:8], whole_path)
        started = time.process_time()
        done = quantize(whole_path, case.images, small_path)
        seconds = time.process_time() - started
        found = compare(whole_path, small_path, case.others, time.process_time)
        tested = [case.test(OnnxNetwork(path)) for path in (whole_path, small_path)]
    example = torch.zeros(1, *case.baseline.input_shape)
    kinds = {
        kind: {
            "bytes": found.bytes[place],
            "milliseconds": {
                str(size): round(times[place], 3) for size, times in found.milliseconds.items()
            },
            "tested": round(tested[place], 3),
        }
        for place, kind in enumerate(("float", "int8"))
    }
    return kinds | {
        "macs": count_macs(network, example),
        "macs_ratio": round(count_macs(network, example) / count_macs(whole, example), 4),
        "same_largest": found.agreement,
        "error": round(found.error, 5),
        "calibration": done.calibration,
        "calibration_errors": {name: round(e, 5) for name, e in done.errors.items()},
        "quantised_seconds": round(seconds, 1),
    }


def report(study: Study) -> None:
    """Print a line for every network and kind of numbers."""
    cells = []
    for record in study.records():
        for kind in ("float", "int8"):
            one = record[kind]
            cells.append(
                [
                    record["network"],
                    f"{record['macs_ratio']:.0%}",
                    kind,
                    f"{one['bytes'] / 1e6:.2f}",
                    *(f"{one['milliseconds'][size]:.2f}" for size in ("1", "32")),
                    f"{one['tested']:.2f}",
                    f"{record['same_largest']:.1f} %" if kind == "int8" else "",
                ]
            )
    if cells:
        heads = ["network", "MACs", "numbers", "MB", "1 image [ms]", "32 images [ms]"]
        print(markdown_table([*heads, "top-1 or agreement [%]", "same as float"], cells))
        print(study.write_report({"table": study.records()}))


if __name__ == "__main__":
    prepare()
    sys.exit(main())
