"""Whole groups may go: exactly, where a shortcut leads around them, and nowhere else."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from networks_for_tests import (
    Concatenating,
    Head,
    Residual,
    awake_baseline,
    awaken,
    check_exactness,
    images,
    plain,
    simple_problem,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.edge.sealed import sealed
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem, allocate, load_pruned, read_structure
from lfgcl_env.pruning.structure.emptied import Constant, NoChannels
from lfgcl_env.runs import report

INPUTS = images(5, seed=3)
FAMILIES = ("resnet20", "resnet20-B", "resnet18", "mobilenet_v3_small", "mobilenet_v2")


@cache
def network_of(family: str, scope: str = "inner") -> PrunableNetwork:
    return PrunableNetwork(awake_baseline(family), scope=scope, min_channels=0)


@cache
def problem_of(family: str, **arguments) -> PruningProblem:
    return simple_problem(awake_baseline(family), images(8), min_channels=0, **arguments)


def small(network: nn.Module, **arguments) -> PruningProblem:
    return simple_problem(network, images(16), min_channels=0, **arguments)


def strategy_of(network: PrunableNetwork | PruningProblem, seed: int) -> np.ndarray:
    """Any numbers of channels, and half of the groups as small as can be."""
    draws = np.random.default_rng(seed)
    keep = draws.integers(network.lowest, network.channels + 1)
    return np.where(draws.random(len(keep)) < 0.5, network.lowest, keep)


@pytest.mark.parametrize("family", FAMILIES)
def test_cutting_whole_groups_is_hiding_them_and_costs_what_is_counted(family):
    network = network_of(family)
    check_exactness(network, [network.lowest, *(strategy_of(network, seed) for seed in range(2))])


def test_cutting_whole_groups_of_a_trained_network_is_hiding_them():
    network = PrunableNetwork(load_baseline("resnet20", "embedded"), min_channels=0)
    check_exactness(network, [network.lowest, strategy_of(network, 0)])


@pytest.mark.data("resnet20")
def test_cutting_whole_groups_of_a_published_network_is_hiding_them():
    network = PrunableNetwork(load_baseline("resnet20"), min_channels=0)
    check_exactness(network, [network.lowest, strategy_of(network, 0)])


@pytest.mark.parametrize(
    ("family", "stay"),
    [("resnet20", 0), ("vgg16_bn", 15), ("mobilenet_v2", 10), ("densenet", 4)],
)
def test_groups_may_go_where_something_leads_around_them(family, stay):
    network = network_of(family)
    assert network.lowest.sum() == stay
    for group, lowest in zip(network.groups, network.lowest, strict=True):
        block = network.baseline.network.get_submodule(group.name.split(".conv.")[0])
        if family == "mobilenet_v2" and hasattr(block, "residual"):
            assert block.residual == (lowest == 0)


def test_a_residual_stream_stays_and_its_branches_go():
    network = network_of("resnet20-B", "all")
    stay = [g.name for g, lowest in zip(network.groups, network.lowest, strict=True) if lowest]
    assert stay == ["conv1", "layer2.0.conv2", "layer3.0.conv2"]
    check_exactness(network, [network.lowest, strategy_of(network, 0)])


def test_of_two_branches_without_a_shortcut_one_stays():
    problem = small(awaken(Concatenating()))
    assert sorted(problem.lowest[:2]) == [0, 1]
    assert problem.lowest[2] == 1
    check_exactness(problem.network, [problem.lowest])


def test_nothing_goes_whole_unless_that_is_asked_for():
    network = PrunableNetwork(awake_baseline("resnet20"))
    assert network.lowest.tolist() == [1] * 9
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1 can keep 1 to 16 channels, got 0"):
        network.check_strategy([0] * 9)
    with pytest.raises(ValueError, match="group 0 can keep 1 to 8 channels, got 0"):
        small(awaken(plain())).evaluate([0, 3])
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1 can keep 0 to 16 channels, got -1"):
        network_of("resnet20").check_strategy([-1] * 9)


def test_emptied_layers_are_gone_and_consumers_are_constants():
    problem = problem_of("resnet20")
    block = problem.compress(problem.lowest).layer1[0]
    assert [type(module) for module in (block.conv1, block.bn1, block.conv2, block.bn2)] == [
        NoChannels, NoChannels, Constant, nn.BatchNorm2d,
    ]  # fmt: skip
    assert [parameter.shape for parameter in block.conv2.parameters()] == [(16,)]
    assert not any(True for _ in (*block.conv1.parameters(), *block.bn1.buffers()))


def test_a_candidate_keeps_no_trace_of_emptied_layers():
    problem = problem_of("resnet20", repair="least_squares")
    draws = [strategy_of(problem, seed) for seed in range(4)]
    strategies = [*draws, problem.lowest, problem.channels]
    problem.forget()
    scores = [problem.evaluate(keep).similarity for keep in strategies]
    for order in ((5, 0, 4, 1, 5, 3, 2), (4, 5, 4, 3, 0), (2, 1, 0)):
        for index in order:
            problem.forget()
            assert problem.evaluate(strategies[index]).similarity == scores[index]


@pytest.mark.parametrize("repair", ["none", "batchnorm", "least_squares"])
def test_the_compressed_network_is_what_was_scored(repair, tmp_path):
    problem = problem_of("resnet20", repair=repair)
    for seed in range(2):
        keep = strategy_of(problem, seed)
        similarity = problem.evaluate(keep).similarity
        network = problem.compress(keep)
        assert problem.score_network(network, keep) == pytest.approx(similarity, abs=1e-5)
        assert all(bool(torch.isfinite(t).all()) for t in network.state_dict().values())
        loaded = load_pruned(problem.save(tmp_path / "pruned", keep, network), trust=True)
        with torch.no_grad():
            assert torch.equal(loaded(INPUTS), network(INPUTS))
        assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("family", ["mobilenet_v3_small", "densenet"])
def test_other_networks_come_back_from_their_files(family, tmp_path):
    problem = problem_of(family)
    for keep in (problem.lowest, strategy_of(problem, 1)):
        network = problem.compress(keep)
        loaded = load_pruned(problem.save(tmp_path / "pruned", keep, network), trust=True)
        with torch.no_grad():
            assert torch.equal(loaded(INPUTS), network(INPUTS))


def forged(path, layers: dict) -> None:
    """Write other sizes into a file's header, with checksums that fit."""
    structure = read_structure(path)
    del structure["checksum"]
    structure["layers"] |= layers
    save_file(load_file(path), path, metadata={"lfgcl_env": sealed(structure)})


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        ({"layer1.1.conv1": [0, None]}, r"it differs in \['layer1.1.conv1.weight'"),
        ({"layer1.1.conv2": [None, 0]}, r"it differs in \['layer1.1.conv2"),
        ({"layer1.0.conv2": [None, 3]}, "it differs in"),
        ({"layer1.0.conv1": [-1, None]}, "should be greater than or equal to 0"),
        ({"layer1.0.conv2": [5, 0]}, "which its header says is cut to"),
        ({"layer1.0": [0, None]}, "it has no layer"),
    ],
)
def test_forged_emptied_layers_are_refused(layers, complaint, tmp_path):
    problem = problem_of("resnet20")
    keep = problem.channels.copy()
    keep[0] = 0
    path = problem.save(tmp_path / "pruned", keep)
    forged(path, layers)
    with pytest.raises(ValueError, match=complaint):
        load_pruned(path)


def test_least_squares_makes_a_branch_its_mean():
    problem = problem_of("resnet20", repair="least_squares")
    moments = problem.moments["layer1.0.conv2"]
    network = problem.compress(problem.lowest)
    mean = (moments.weights @ moments.mean).float()
    assert torch.allclose(network.layer1[0].conv2.bias, mean, atol=1e-5)
    before = problem.baseline.network.layer1[0].bn2
    assert torch.equal(network.layer1[0].bn2.running_mean, before.running_mean)


def test_reestimated_statistics_make_a_branch_its_shift():
    problem = problem_of("resnet20", repair="batchnorm")
    network = problem.compress(problem.lowest)
    with torch.no_grad():
        branch = network.layer1[0].bn2(network.layer1[0].conv2(torch.zeros(1, 0, 4, 4)))
    shift = network.layer1[0].bn2.bias[:, None, None].expand(-1, 4, 4)
    assert torch.allclose(branch[0], shift, atol=1e-4)


class Preactivated(nn.Module):
    """A branch that ends with a convolution that has neither a bias nor a BatchNorm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 4, 3, stride=1, padding="same", dilation=2)
        self.outer = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.outer(F.relu(self.inner(x)) + 0.5)
        y += x
        return self.head(F.relu_(y))


def test_a_layer_that_may_not_change_its_bias_may_as_a_constant():
    problem = small(awaken(Preactivated()), repair="least_squares")
    assert problem.lowest.tolist() == [0]
    assert problem.eliminations["inner"].errors[0] == pytest.approx(1.0)
    network = problem.compress([0])
    moments = problem.moments["outer"]
    assert torch.allclose(network.outer.bias, (moments.weights @ moments.mean).float(), atol=1e-5)


def test_what_is_added_after_the_producer_belongs_to_what_is_hidden():
    network = small(awaken(Preactivated())).network
    check_exactness(network, [np.array([0]), np.array([2])])


class Shared(nn.Module):
    """A branch that is used twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.branch = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1))
        self.again = self.branch
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.branch(x)
        return self.head(x + self.again(x))


def test_a_shared_layer_is_emptied_everywhere(tmp_path):
    problem = small(awaken(Shared()))
    assert problem.lowest.tolist() == [0]
    check_exactness(problem.network, [problem.lowest])
    network = problem.compress([0])
    loaded = load_pruned(problem.save(tmp_path / "pruned", [0], network), network=Shared)
    with torch.no_grad():
        assert torch.equal(loaded(INPUTS), network(INPUTS))
    assert len(list(loaded.parameters())) == len(list(network.parameters()))


def test_budgets_below_one_channel_a_group_are_within_reach():
    cheap, usual = problem_of("resnet20"), simple_problem(awake_baseline("resnet20"), images())
    assert cheap.lowest_budget == pytest.approx(0.0109, abs=1e-4)
    assert usual.lowest_budget == pytest.approx(0.0477, abs=1e-4)
    keep = cheap.project(np.full(9, 0.5), 0.03)
    assert (keep == 0).any()
    assert cheap.meets(keep, 0.03)
    assert allocate(cheap, 0.03).min() == 0
    assert cheap.project(np.ones(9), cheap.lowest_budget).tolist() == [0] * 9
    assert (cheap.project(np.ones(9), 1.0) == cheap.channels).all()


def test_rounding_and_plain_networks_keep_their_lowest():
    rounded = problem_of("resnet20", round_to=8)
    assert set(rounded.project(np.linspace(0.2, 1, 9), 0.2).tolist()) <= {*range(0, 65, 8)}
    problem = small(awaken(plain()))
    assert problem.lowest.tolist() == [1, 1]
    assert problem.project([1, 1], problem.lowest_budget).tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_a_removed_block_does_not_come_back_for_what_is_left_over(seed):
    """Only a group that no other could use the rest of the budget for does."""
    problem = problem_of("resnet20")
    draws = np.random.default_rng(seed)
    keep = draws.integers(1, problem.channels // 2)
    keep[[1, 4]] = 0
    budget = float(problem.costs(keep)) / int(problem.costs(problem.channels)) + 0.02
    projected = problem.project(1 - keep / problem.channels, budget)
    assert projected[[1, 4]].tolist() == [0, 0]
    assert (projected >= keep).all()


def test_the_report_names_what_is_removed():
    problem = problem_of("resnet20")
    keep = problem.channels.copy()
    keep[3] = 0
    table = report.compare_layers(problem.network, keep, problem.compress(keep))
    page = report.format_page(problem, table, "title", "scored")
    assert "\nremoved: layer2.0.conv1\n" in page
    assert "\nconstant, for want of inputs: layer2.0.conv2\n" in page
    total = table[-1]
    assert total.params[1] == sum(layer.params[1] for layer in table[:-1])
    assert total.macs[1] == sum(layer.macs[1] for layer in table[:-1])


def test_a_network_with_emptied_layers_can_be_traced_copied_and_trained():
    problem = problem_of("resnet20", repair="least_squares")
    network = problem.compress(strategy_of(problem, 3))
    with torch.no_grad():
        expected = network(INPUTS)
        exported = torch.export.export(network, (INPUTS,)).module()
        copies = (torch.fx.symbolic_trace(network), torch.jit.trace(network, INPUTS), exported)
        for other in (*copies, copy.deepcopy(network)):
            assert torch.allclose(other(INPUTS), expected, atol=1e-5)
    network.train()(INPUTS).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters())


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(3, 5, (3, 1), stride=2, padding=(2, 0), dilation=(2, 1)), (3, 9, 8)),
        (nn.Conv2d(3, 5, 4, padding="same"), (3, 9, 8)),
        (nn.Conv1d(3, 5, 3, stride=3), (3, 11)),
        (nn.Conv3d(3, 5, 2, padding=1), (3, 4, 5, 6)),
        (nn.Linear(3, 5), (7, 3)),
        (nn.BatchNorm2d(5), (5, 4, 4)),
        (nn.PReLU(5), (5, 4, 4)),
    ],
)
def test_stand_ins_give_what_the_layer_gives_for_no_inputs(layer, size):
    inputs = torch.zeros(2, *size)
    with torch.no_grad():
        expected = layer.eval()(inputs)
        assert NoChannels(layer)(inputs).numel() == 0
        if not isinstance(layer, (nn.BatchNorm2d, nn.PReLU)):
            assert torch.equal(Constant(layer, layer.bias.detach())(inputs), expected)
    axis = 2 if isinstance(layer, nn.Linear) else 1
    shape = list(expected.shape)
    shape[axis] = 0
    assert list(NoChannels(layer)(inputs).shape) == shape


def test_residual_blocks_of_the_smallest_kind():
    problem = small(awaken(Residual()), scope="all")
    assert dict(zip([g.name for g in problem.groups], problem.lowest, strict=True)) == {
        "stem": 1, "inner": 0,
    }  # fmt: skip
    check_exactness(problem.network, [problem.lowest])


def test_groups_between_emptied_layers_keep_nothing():
    """Squeeze-and-excitation inside a block that is gone."""
    problem = problem_of("mobilenet_v3_small")
    squeezes = {
        index: block
        for index, group in enumerate(problem.groups)
        for block, other in enumerate(problem.groups)
        if ".fc1" in group.name and group.name in other.layers("in") and not problem.lowest[block]
    }
    asked = np.full(len(problem.groups), 0.3)
    asked[list(squeezes.values())] = 1.0
    keep = problem.project(asked, 0.3)
    assert len(squeezes) > 3
    assert not keep[[*squeezes, *squeezes.values()]].any()
    assert problem.project(problem.prune_ratios(keep), 0.3).tolist() == keep.tolist()
