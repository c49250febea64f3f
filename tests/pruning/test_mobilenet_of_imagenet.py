"""A network that people use: torchvision's MobileNetV2 for ImageNet, at 224 pixels."""

import pytest
import torch
from deliveries import distances, outputs
from mobilenet import BATCH, LAST, baseline
from photographs import CALIBRATION, HELD_OUT, crops
from torch import nn

from lfgcl_env.pruning import PrunableNetwork, PruningProblem, allocate, load_pruned
from lfgcl_env.pruning.repair.profiles import SequentialOptions
from lfgcl_env.pruning.structure.layers import count_macs

pytestmark = pytest.mark.data("MobileNetV2 and photographs")

SEEN, REPAIRED, COMPARED = 12, 32, 24
"""Crops that the strategy is made for, that it is repaired on, and of other photographs."""


def test_what_it_costs_and_what_can_be_pruned_is_known():
    network = PrunableNetwork(baseline(), protect=LAST)
    assert network.baseline_cost.macs == 300_774_272
    assert network.baseline_cost.params == 3_504_872
    depthwise = {layer.name for layer in network.layers if layer.kind == "depthwise"}
    assert len(depthwise) == 17
    whole = [g.name for g in network.groups if depthwise.isdisjoint(g.layers("through"))]
    # All others are the stem's and the wide ones of blocks 2 to 16, with a depthwise layer each.
    assert (len(network.groups), whole) == (17, ["features.1.conv.1"])
    assert any(isinstance(module, nn.ReLU6) for module in network.baseline.network.modules())


@pytest.mark.slow
def test_a_repair_on_a_few_photographs_brings_it_nearer_on_crops_of_others(tmp_path):
    mine, others = crops(CALIBRATION, SEEN + REPAIRED), crops(HELD_OUT, COMPARED, seed=1)
    problem = PruningProblem(baseline(), mine[:SEEN], budget=0.8, criterion="l1", protect=LAST)
    keep = allocate(problem)
    assert 0.79 < problem.cost(keep).macs / problem.baseline_cost.macs <= 0.8
    options = SequentialOptions(rows=16384, gauss_newton=0)
    (repaired,) = problem.repair_all([keep], mine[SEEN:], options)
    assert count_macs(repaired, mine[:1]) == problem.cost(keep).macs

    networks = baseline().network, problem.cut(keep), repaired
    whole, cut, after = (outputs(network, others, BATCH) for network in networks)
    assert len(whole.argmax(1).unique()) > 4  # it sees different things there
    before, now = distances(whole, cut), distances(whole, after)
    for name in ("kl1", "logits"):
        assert now[name] < before[name] / 2
    assert now["disagreement"] < before["disagreement"] - 0.2

    loaded = load_pruned(problem.save(tmp_path / "pruned", keep, repaired))
    assert torch.equal(outputs(loaded, others[:4], BATCH), outputs(repaired, others[:4], BATCH))
    assert loaded.pruned_structure["input_shape"] == [3, 224, 224]
