"""Which architectures can be pruned, how far, and is everything that is said of them exact?

The networks of torchvision and timm in zoo_networks.py are built with random weights, stirred so
that all layers matter, and pruned to half of their MACs, or as far as they go. Checked is whether
the cut network gives what the whole one gives with these channels hidden, whether its MACs and
parameters are those that PyTorch counts, whether repairs make its score better, what ``finish``
hands over, and whether it can be saved and loaded, trained and exported. Runs are kept in
results/zoo.jsonl, the table in results/zoo.md.

    python benchmarks/zoo.py
    python benchmarks/zoo.py --only resnet18 timm:ghostnet_100
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from study import Fields, Study, markdown_table, prepare, study_parser
from torch import Tensor, nn
from zoo_hiding import hide
from zoo_networks import NETWORKS, build

from lfgcl_env import PruningProblem, load_pruned
from lfgcl_env.edge.files import write_text
from lfgcl_env.networks.copying import copy_network
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.pruning.structure.layers import BATCH_NORMS, count_macs, layer_kind

IMAGES = 32
"""Random images that the closed form goes by; as many others are for deliveries and scores each."""

ORDER = "l1"
"""The criterion; what is checked does not depend on it, and Optimal Brain Surgeon takes minutes."""

BUDGET = 0.5
"""Of the MACs; where it cannot be reached, a little more than the lowest that can."""

CLOSE = 1e-3
"""Differences of outputs that count as rounding, relative to the largest output."""

DELIVERY = SequentialOptions(rows=8192, gauss_newton=1, positions=32768)
"""Of the sequential repair."""

NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)
"""What keeps what layers compute near mean 0 and variance 1."""

COLUMNS = (
    "network", "groups", "excluded", "lowest", "cut = hidden", "counted",
    "none", "closed form", "sequential", "handed over", "saved", "trains, exports",
)  # fmt: skip
"""Of the table."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, then report; return 1 if a run failed."""
    parser = study_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args(arguments)
    runs = [] if options.report else [{"network": name} for name in options.only]
    study = Study(
        options.out / "zoo.jsonl",
        runs,
        measured,
        name=lambda run: run["network"],
        summary=lambda r: r.get("refused", f"lowest budget {r.get('lowest')}"),
    )
    code = study.run(isolated=True)
    report(study)
    return code


def measured(run: Fields) -> Fields:
    """Build, prune and check one network."""
    warnings.simplefilter("ignore")
    started = time.process_time()
    torch.manual_seed(0)
    network, shape = build(run["network"])
    draw = torch.Generator().manual_seed(0)
    images, more, others = (torch.randn(IMAGES, *shape, generator=draw) for _ in range(3))
    stir(network, more)
    scope = "inner"
    try:
        try:
            plain = problem_of(network, images, others, scope, repair="none")
        except ValueError as error:
            if "choose scope='all'" not in str(error):
                raise
            scope = "all"
            plain = problem_of(network, images, others, scope, repair="none")
    except ValueError as error:
        return {"refused": str(error)}
    budget = max(BUDGET, min(1.0, 1.02 * plain.lowest_budget))
    found: Fields = {
        "scope": scope,
        "groups": len(plain.groups),
        "excluded": {item.name: item.reason for item in plain.excluded},
        "lowest": round(plain.lowest_budget, 4),
        "macs": plain.baseline_cost.macs,
        "budget": round(budget, 4),
    }
    keep = plain.project(np.full(len(plain.groups), 0.5), budget)
    evaluation = plain.evaluate(keep)
    cut = plain.compress(keep)
    found["hidden"] = far(cut, hide(plain.network, plain.kept_channels(keep)), images)
    found["counted"] = (evaluation.macs, evaluation.params) == (
        count_macs(cut, images[:1]),
        sum(p.numel() for p in cut.parameters()),
    )
    found |= {
        "attempts": {
            "none": evaluation.similarity,
            **attempts(problem_of(network, images, others, scope), more, keep),
        },
        "saved": attempt(lambda: reloaded(plain, keep, cut, network, images)),
        "trains": attempt(lambda: trained(cut, images)),
        "exports": attempt(lambda: bool(torch.export.export(cut, (images[:2],)))),
        "seconds": round(time.process_time() - started, 1),
    }
    return found


def problem_of(
    network: nn.Module, images: Tensor, others: Tensor, scope: str, **config: Any
) -> PruningProblem:
    """Return a problem that any strategy is allowed in."""
    return PruningProblem(
        network, images, others, budget=1.0, criterion=ORDER, scope=scope, **config
    )


def attempts(problem: PruningProblem, more: Tensor, keep: NDArray[np.int64]) -> Fields:
    """Return the scores after the closed-form and the sequential repair, and as handed over."""
    return {
        "least_squares": problem.evaluate(keep).similarity,
        "sequential": attempt(lambda: sequential(problem, more, keep)),
        "finish": attempt(lambda: finished(problem, more, keep)),
    }


def sequential(problem: PruningProblem, more: Tensor, keep: NDArray[np.int64]) -> float:
    """Return the score after sequential repair alone."""
    (repaired,) = problem.repair_all([keep], more, DELIVERY)
    return problem.score_network(repaired, keep)


def finished(problem: PruningProblem, more: Tensor, keep: NDArray[np.int64]) -> float:
    """Return the score of what a user gets: the best of what repairs and cutting give."""
    network, _ = problem.finish(keep, more, DELIVERY)
    return problem.score_network(network, keep)


def attempt(what: Callable[[], Any]) -> Any:
    """Return a result, or what went wrong in one line."""
    try:
        return what()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def stir(network: nn.Module, images: Tensor) -> None:
    """Give gains, biases and running statistics values that make every layer matter, in place.

    Gains that begin as zeros would hide what their layers do with pruned channels.
    """
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            last = name.rpartition(".")[2]
            gains = last != "weight" and sum(size > 1 for size in parameter.shape) <= 1
            if parameter.dim() == 1 or gains:
                noise = torch.rand(parameter.shape, generator=draw)
                parameter.copy_(0.2 * noise - 0.1 if last == "bias" else 0.5 + noise)
            elif not parameter.any() and parameter.dim() == 2:  # as in the last layer of a ViT
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / parameter.shape[1])
            elif not parameter.any():
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=draw))
        if not any(isinstance(module, NORMS) for module in network.modules()):
            standardise(network, images)
        norms = [module for module in network.modules() if isinstance(module, BATCH_NORMS)]
        momenta = [norm.momentum for norm in norms]
        network.eval()
        for norm in norms:
            norm.momentum = None
            norm.reset_running_stats()
            norm.train()
        for batch in torch.split(images, 16):
            network(batch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()


def standardise(network: nn.Module, images: Tensor) -> None:
    """Give the outputs of all layers mean 0 and variance 1 over the images, channel by channel.

    Without a norm what random layers compute hardly depends on the image: biases outweigh it.
    """
    handles = []

    def standardised(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        channels = output.dim() - 1 if isinstance(layer, nn.Linear) else 1
        axes = [axis for axis in range(output.dim()) if axis != channels]
        deviation, mean = torch.std_mean(output, dim=axes)
        layer.weight /= deviation.view(-1, *[1] * (layer.weight.dim() - 1))
        layer.bias.copy_((layer.bias - mean) / deviation)
        return layer.forward(*inputs)

    for module in network.modules():
        if layer_kind(module):
            handles.append(module.register_forward_hook(standardised))
    network.eval()(images)
    for handle in handles:
        handle.remove()


def far(one: nn.Module, other: nn.Module, images: Tensor) -> float:
    """Return the largest difference of outputs, relative to the largest output."""
    with torch.inference_mode():
        mine, others = named_outputs(one(images)), named_outputs(other(images))
    return max(
        float((mine[name] - b).abs().max() / b.abs().max().clamp(min=1e-12))
        for name, b in others.items()
    )


def reloaded(
    problem: PruningProblem,
    keep: NDArray[np.int64],
    cut: nn.Module,
    network: nn.Module,
    images: Tensor,
) -> float:
    """Save and load a network, and return how far outputs are then."""
    with tempfile.TemporaryDirectory() as folder:
        path = problem.save(Path(folder) / "pruned.safetensors", keep, cut)
        return far(load_pruned(path, copy_network(network)), cut, images)


def trained(cut: nn.Module, images: Tensor) -> bool:
    """Take one step of training; return whether outputs changed and are finite."""
    network = copy_network(cut).train().requires_grad_(True)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-4)
    outputs = named_outputs(network(images)).values()
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    optimiser.step()
    with torch.inference_mode():
        found = named_outputs(network.eval()(images)).values()
    return all(bool(torch.isfinite(one).all()) for one in found) and far(network, cut, images) > 0


def report(study: Study) -> None:
    """Print and write a table of a line per network, and what they come to."""
    order = list(NETWORKS)
    records = sorted(study.records(), key=lambda record: order.index(record["network"]))
    if not records:
        return
    table = markdown_table(COLUMNS, [_row(record) for record in records])
    print(table)
    built = [record for record in records if "refused" not in record]
    summary = {
        "networks": len(records),
        "built": len(built),
        "exact": sum(r["hidden"] <= CLOSE and r["counted"] for r in built),
        "half": sum(r["lowest"] <= BUDGET for r in built),
        "handed_over": sum("finish" in r["attempts"] for r in built),
        "worse": sorted(r["network"] for r in built if worse(r["attempts"])),
        "repaired": {
            name: sum(_improved(r["attempts"], name) for r in built)
            for name in ("least_squares", "sequential")
        },
        "not measured": [name for name in order if name not in {r["network"] for r in records}],
    }
    print(summary)
    write_text(study.path.with_suffix(".md"), table + "\n")
    print(study.write_report(summary))


def _row(record: Fields) -> list[str]:
    if "refused" in record:
        return [record["network"], f"refused: {record['refused']}", *[""] * (len(COLUMNS) - 2)]
    scores = record["attempts"]
    return [
        record["network"],
        str(record["groups"]),
        str(len(record["excluded"])),
        f"{record['lowest']:.1%}",
        _yes(record["hidden"] <= CLOSE, f"{record['hidden']:.0e}"),
        _yes(record["counted"]),
        f"{scores['none']:.3f}",
        *(_score(scores.get(name)) for name in ("least_squares", "sequential", "finish")),
        _yes(isinstance(record["saved"], float) and record["saved"] <= CLOSE),
        _yes(record["trains"] is True and record["exports"] is True),
    ]


def _improved(scores: Fields, name: str) -> bool:
    found = scores.get(name)
    return isinstance(found, float) and found > scores["none"]


def worse(scores: Fields) -> bool:
    """Return whether what is handed over is worse than the network merely cut."""
    if "finish" not in scores:  # of a record before it was measured
        return False
    return not isinstance(scores["finish"], float) or scores["finish"] < scores["none"]


def _score(found: float | str | None) -> str:
    if found is None:
        return ""
    return f"{found:.3f}" if isinstance(found, float) else "fails"


def _yes(good: bool, otherwise: str = "no") -> str:
    return "yes" if good else otherwise


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepare()
    sys.exit(main())
