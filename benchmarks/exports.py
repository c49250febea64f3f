"""Do exported networks compute in other runtimes what they compute in PyTorch?

Networks of torchvision and timm in zoo_networks.py are built with random weights, stirred so that
all layers matter, pruned to half of their MACs, and exported to ONNX, pt2 and TorchScript. Each
file is run on batches of 1, 3 and 8 images by its runtime. Runs are kept in results/exports.jsonl.

    python benchmarks/exports.py
    python benchmarks/exports.py --only resnet18 timm:ghostnet_100
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from study import Fields, Study, markdown_table, prepare, study_parser
from zoo import BUDGET, IMAGES, ORDER, attempt, stir
from zoo_networks import NETWORKS, build

from lfgcl_env.export import FORMATS, export_network
from lfgcl_env.pruning import PruningProblem

_NAMES = """
squeezenet1_1 mobilenet_v3_small mobilenet_v2 shufflenet_v2_x1_0 resnet18 efficientnet_b0 alexnet
regnet_y_400mf googlenet vgg11_bn vit_b_16 swin_t densenet121 convnext_tiny
segmentation.lraspp_mobilenet_v3_large timm:mobilenetv4_conv_small timm:ghostnet_100
timm:repvgg_a0 timm:vit_tiny_patch16_224 timm:seresnext26d_32x4d timm:convnextv2_atto
"""

EXPORTED = _NAMES.split()
"""The networks that are exported where no others are asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=EXPORTED)
    options = parser.parse_args(arguments)
    runs = [] if options.report else [{"network": name} for name in options.only]
    study = Study(
        options.out / "exports.jsonl", runs, measured, name=lambda run: str(run["network"])
    )
    code = study.run(isolated=True)
    report(study)
    return code


def measured(run: Fields) -> Fields:
    """Build and prune a network, and export it to every format."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, shape = build(run["network"])
    draw = torch.Generator().manual_seed(0)
    images, more = (torch.randn(IMAGES, *shape, generator=draw) for _ in range(2))
    stir(network, more)
    problem = PruningProblem(network, images, budget=BUDGET, criterion=ORDER, repair="none")
    keep = problem.project(np.full(len(problem.groups), 0.5))
    cut, cost = problem.compress(keep), problem.cost(keep)
    found: Fields = {"macs": cost.macs, "macs_ratio": cost.macs / problem.baseline_cost.macs}
    with tempfile.TemporaryDirectory() as folder:
        for name in FORMATS:
            started = time.process_time()

            def export(name: str = name) -> Fields:
                done = export_network(cut, images, Path(folder) / "network", name)
                return {"error": done.error, "bytes": done.bytes, "batches": list(done.batches)}

            outcome = attempt(export)
            outcome = {"refused": outcome} if isinstance(outcome, str) else outcome
            found[name] = outcome | {"seconds": round(time.process_time() - started, 1)}
    return found


def report(study: Study) -> None:
    """Print one line per network, and how many are equal in all runtimes."""
    order = list(NETWORKS)
    records = sorted(study.records(), key=lambda record: order.index(record["network"]))
    cells = [
        [
            record["network"],
            f"{record['macs'] / 1e6:.1f}",
            *(
                f"{done['error']:.0e}" if "error" in (done := record[name]) else "refused"
                for name in FORMATS
            ),
            f"{record['onnx'].get('bytes', 0) / 1e6:.2f}",
        ]
        for record in records
    ]
    if not records:
        return
    runtimes = [one.runtime for one in FORMATS.values()]
    print(markdown_table(["network", "M MACs", *runtimes, "ONNX file [MB]"], cells))
    summary = {
        "networks": len(records),
        **{name: sum("error" in record[name] for record in records) for name in FORMATS},
    }
    print(summary)
    print(study.write_report(summary))


if __name__ == "__main__":
    prepare()
    sys.exit(main())
