"""Networks with other inputs and outputs: cut is hidden, costs are counted, saved is loaded."""

import copy

import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images, random_strategy, simple_problem
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from unusual_networks import UNTRACEABLE, UNUSUAL, made, noise

from lfgcl_env.networks import load_baseline
from lfgcl_env.networks.outputs import named_outputs
from lfgcl_env.pruning import PruningProblem, load_pruned
from lfgcl_env.pruning.criteria.criterion import CRITERIA
from lfgcl_env.pruning.repair.interface import REPAIRS

EXACT = {"rtol": 0, "atol": 1e-9}


@torch.no_grad()
def outputs(network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    return named_outputs(network(inputs))


def hidden(problem: PruningProblem, kept: list[np.ndarray]) -> nn.Module:
    """The whole network, whose consumers multiply all channels that are not kept with zero."""
    network = copy.deepcopy(problem.baseline.network)
    for group, stay in zip(problem.groups, kept, strict=True):
        for member in group.members:
            if member.side == "in":
                gone = member.positions[~np.isin(member.channels, stay)]
                network.get_submodule(member.layer).weight.data[:, gone] = 0
    return network


def counted(network: nn.Module, inputs: Tensor) -> tuple[int, int]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs[:1])
    return counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", UNUSUAL)
def test_cut_is_hidden_and_costs_are_counted(name):
    network, inputs = made(name)
    problem = simple_problem(network, inputs)
    assert len(problem.groups) >= 2
    assert counted(network, inputs) == (
        problem.baseline_cost.macs,
        problem.baseline_cost.params,
    )
    for seed in range(3):
        keep = random_strategy(problem, seed)
        pruned = problem.compress(keep)
        cost = problem.cost(keep)
        assert counted(pruned, inputs) == (cost.macs, cost.params)
        whole = hidden(problem, problem.kept_channels(keep)).double()
        expected = outputs(whole, inputs.double())
        found = outputs(pruned.double(), inputs.double())
        assert found.keys() == expected.keys()
        for place, values in expected.items():
            torch.testing.assert_close(found[place], values, **EXACT)


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("repair", REPAIRS)
def test_every_repair_leaves_the_whole_network_alone_and_is_that_of_the_network_delivered(
    name, repair
):
    network, inputs = made(name)
    if repair == "batchnorm" and not any(hasattr(m, "running_mean") for m in network.modules()):
        return
    if repair == "sequential" and name in UNTRACEABLE:
        with pytest.raises(ValueError, match=r"torch\.fx can trace"):
            PruningProblem(network, inputs, budget=0.9, repair=repair)
        return
    problem = PruningProblem(network, inputs, budget=0.9, repair=repair, round_to=1)
    whole = problem.evaluate(problem.channels).similarity
    assert whole == pytest.approx(1.0, abs=1e-6 if repair != "batchnorm" else 0.2)
    keep = np.maximum(1, problem.channels // 2)
    score = problem.evaluate(keep).similarity
    assert 0 < score < whole
    pruned = problem.compress(keep)
    assert problem.score_network(pruned, keep) == pytest.approx(score, abs=1e-4)
    assert 0 < problem.judge(noise(16, *inputs.shape[1:], seed=5))(pruned) < 1


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_repair_of_the_finished_network_brings_outputs_nearer(name):
    network, inputs = made(name)
    problem = simple_problem(network, inputs, similarity="kl")
    keep = np.maximum(1, problem.channels // 2)
    before = problem.evaluate(keep).similarity
    repaired, after = problem.finish(keep, noise(64, *inputs.shape[1:], seed=3))
    assert after.similarity > before
    assert counted(repaired, inputs) == (after.macs, after.params)


@pytest.mark.parametrize("name", UNUSUAL)
def test_saved_is_loaded(name, tmp_path):
    network, inputs = made(name)
    problem = simple_problem(network, inputs)
    keep = random_strategy(problem, 1)
    path = problem.save(tmp_path / "pruned.safetensors", keep)
    loaded = load_pruned(path, UNUSUAL[name][0])
    structure = loaded.pruned_structure
    assert structure["input_shape"] == list(inputs.shape[1:])
    assert structure["num_classes"] == problem.baseline.num_classes
    expected = outputs(problem.compress(keep), inputs)
    for place, values in outputs(loaded, inputs).items():
        assert torch.equal(values, expected[place])


@pytest.mark.parametrize("name", ["sound", "volume", "table", "segmentation", "two heads, nested"])
@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"hrank"}))
def test_every_criterion_orders_their_channels(name, criterion):
    network, inputs = made(name)
    if criterion == "bn_scale" and name != "sound":
        return
    try:
        problem = simple_problem(network, inputs, criterion=criterion)
    except ValueError as error:
        assert "BatchNorm" in str(error)  # noqa: PT017 (those without are refused in words)
        return
    assert problem.evaluate(np.maximum(1, problem.channels // 2)).similarity < 1


def test_residual_streams_of_networks_with_several_outputs_are_ordered_by_all_of_them():
    network, inputs = made("two heads, tuple")
    problem = PruningProblem(network, inputs, budget=0.9)
    trunk = [group.name for group in problem.groups].index("trunk.2")
    assert set(problem.groups[trunk].layers("in")) == {"box1", "cls1"}
    # The first channel alone feeds the boxes, and the second one alone the classes.
    fed = copy.deepcopy(network)
    with torch.no_grad():
        fed.box1.weight[:, 1:] *= 1e-3
        fed.cls1.weight[:, :1] *= 1e-3
        fed.cls1.weight[:, 2:] *= 1e-3
    order = PruningProblem(fed, inputs, budget=0.9).kept_channels(
        np.where(np.arange(len(problem.groups)) == trunk, 2, problem.channels)
    )[trunk]
    assert order.tolist() == [0, 1]


def test_a_whole_group_goes_only_where_every_output_still_depends_on_the_images():
    network, inputs = made("two heads, dictionary")
    problem = simple_problem(network, inputs, min_channels=0)
    assert problem.network.lowest.tolist() == [1, 1, 1, 1]


def test_inputs_of_another_shape_are_refused():
    baseline = load_baseline(made("table")[0], input_shape=(20,))
    with pytest.raises(ValueError, match=r"shape \(21,\), and the network takes \(20,\)"):
        PruningProblem(baseline, noise(8, 21))


class Squeezed(nn.Module):
    """Drops the dimension of images where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x).mean((2, 3))).squeeze()


@pytest.mark.parametrize("repair", ["least_squares", "sequential"])
def test_networks_that_squeeze_never_see_one_image_alone(repair):
    problem = PruningProblem(awaken(Squeezed()), images(65), repair=repair, similarity="kl")
    assert 0 < problem.evaluate([4, 3]).similarity < 1
    assert 0 < problem.finish([4, 3], images(65, seed=1))[1].similarity < 1
    assert 0 < problem.judge(images(33, seed=2))(problem.compress([4, 3])) < 1


class Tokens(nn.Module):
    """Residual layers on tokens, whose branch may go whole."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.down(self.up(x).relu()))


@pytest.mark.parametrize("features", [None, "down"])
def test_a_branch_on_tokens_goes_whole_and_is_compared_as_it_is(features):
    torch.manual_seed(0)
    network, inputs = Tokens().eval(), noise(32, 10, 6)
    problem = PruningProblem(
        network, inputs, repair="none", min_channels=0, similarity="mse", features=features
    )
    assert problem.lowest.tolist() == [0]
    score = problem.evaluate([0]).similarity
    small = problem.compress([0])
    assert problem.score_network(small, [0]) == pytest.approx(score)
    if features:
        with torch.no_grad():
            x = network.embed(inputs)
            target = network.down(network.up(x).relu())
            error = (target - small.down.bias).square().sum()
            error = error / (target - target.mean(0)).square().sum()
        assert score == pytest.approx(float(1 / (1 + error)), rel=1e-3)
