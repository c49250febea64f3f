"""PrunableNetwork: groups, costs and surgery of a network, without any images."""

import numpy as np
import pytest
import torch
from networks_for_tests import SCOPED, awake_baseline, awaken, plain, shared_problem

from lfgcl_env.cli.main import main
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork
from lfgcl_env.runs import report


def small() -> PrunableNetwork:
    return PrunableNetwork(load_baseline(awaken(plain()), input_shape=(3, 32, 32)))


@pytest.mark.parametrize(("family", "scope"), SCOPED)
def test_it_finds_what_a_problem_with_images_finds(family, scope):
    network, problem = (
        PrunableNetwork(awake_baseline(family), scope=scope),
        shared_problem(family, scope),
    )
    assert [group.name for group in network.groups] == [group.name for group in problem.groups]
    assert network.excluded == problem.excluded
    assert network.layers == problem.layers
    assert network.channels.tolist() == problem.channels.tolist()
    halves = np.maximum(1, network.channels // 2)
    assert network.cost(halves) == problem.cost(halves)


def test_it_changes_neither_the_baseline_nor_the_random_state():
    baseline = load_baseline(awaken(plain()), input_shape=(3, 32, 32))
    before = {key: tensor.clone() for key, tensor in baseline.network.state_dict().items()}
    state = torch.random.get_rng_state()
    network = PrunableNetwork(baseline)
    network.cut([np.array([0]), np.array([2])])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(t, before[k]) for k, t in baseline.network.state_dict().items())


def test_a_cut_network_keeps_the_named_channels_and_what_was_frozen():
    baseline = load_baseline(awaken(plain()), input_shape=(3, 32, 32))
    baseline.network[0].weight.requires_grad_(False)
    kept = [np.array([1, 4, 6]), np.array([0, 5])]
    smaller = PrunableNetwork(baseline).cut(kept)
    assert torch.equal(smaller[0].weight, baseline.network[0].weight[kept[0]])
    assert torch.equal(smaller[3].weight, baseline.network[3].weight[kept[1]][:, kept[0]])
    trained = [parameter.requires_grad for parameter in baseline.network.parameters()]
    assert [parameter.requires_grad for parameter in smaller.parameters()] == trained


def test_candidates_are_independent_copies():
    network = small()
    first, second = network.candidate(), network.candidate()
    first.install([np.arange(3), np.arange(2)])
    assert first.network[0].out_channels == 3
    assert second.network[0].out_channels == network.baseline.network[0].out_channels == 8


def test_unknown_scopes_are_refused():
    with pytest.raises(ValueError, match=r"unknown scope 'al'.*Did you mean 'all'\?"):
        PrunableNetwork(awake_baseline("resnet20"), scope="al")


def test_the_report_and_inspect_need_no_problem(capsys, monkeypatch):
    network = small()
    pruned = network.cut([np.arange(4), np.arange(3)])
    table = report.compare_layers(network, [4, 3], pruned)
    assert [layer.outputs for layer in table if layer.kind] == [(8, 4), (6, 3), (5, 5)]
    cost = network.cost([4, 3])
    assert table[-1].macs == (network.baseline_cost.macs, cost.macs)
    assert table[-1].params == (network.baseline_cost.params, cost.params)
    monkeypatch.setattr("lfgcl_env.pruning.problem.PruningProblem.__init__", None)
    assert main(["inspect", "resnet20", "--weights", "random"]) == 0
    assert "9 groups" in capsys.readouterr().out
