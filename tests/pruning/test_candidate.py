"""Candidates: slicing gives what surgery gives, leaves no trace, and is what gets scored."""

import copy
import itertools

import numpy as np
import pytest
import torch
from networks_for_tests import (
    SCOPED,
    Concatenating,
    SqueezeExcite,
    awake_baseline,
    awaken,
    flattening,
    images,
    plain,
    random_strategy,
    shared_problem,
    simple_problem,
)
from torch import Tensor, nn

from lfgcl_env.pruning import SIMILARITIES, PruningProblem
from lfgcl_env.pruning.structure.candidate import Candidate, fastest_layout
from lfgcl_env.pruning.structure.dependencies import dependency_graph
from lfgcl_env.pruning.structure.group_search import pruning_group
from lfgcl_env.pruning.structure.tracing import find_groups

SMALL = {"plain": plain, "flattening": flattening, "concat": Concatenating, "se": SqueezeExcite}
INPUTS = images(6, seed=7)


def candidate_of(problem: PruningProblem) -> Candidate:
    return problem.network.candidate()


def small_problem(name: str, **arguments) -> PruningProblem:
    torch.manual_seed(0)
    arguments = {"budget": 1.0, "repair": "none"} | arguments
    return simple_problem(awaken(SMALL[name]()), images(), **arguments)


@torch.no_grad()
def outputs(network: nn.Module, inputs: Tensor = INPUTS) -> Tensor:
    return network(inputs)


def surgically_cut(problem: PruningProblem, strategy) -> nn.Module:
    """By Torch-Pruning alone: nothing of the candidate goes in but which channels stay."""
    kept = problem.kept_channels(strategy)
    smaller = copy.deepcopy(problem.baseline.network)
    parts = find_groups(smaller, images(2)).parts
    for part, inputs in parts.items():
        graph = dependency_graph(smaller.get_submodule(part), inputs)
        for group, stay in zip(problem.groups, kept, strict=True):
            removed = np.setdiff1d(np.arange(group.channels), stay).tolist()
            if group.part == part and removed:
                pruning_group(graph, smaller.get_submodule(group.name), removed).prune()
    return smaller


@pytest.mark.parametrize(("family", "scope"), SCOPED)
def test_a_sliced_candidate_computes_what_the_surgically_pruned_network_does(family, scope):
    problem = shared_problem(family, scope)
    candidate = candidate_of(problem)
    whole = outputs(problem.baseline.network)
    scale = float(whole.abs().max())
    assert 0.1 < scale < 1e3
    assert float(whole.std(dim=0).max()) > 0.05 * scale  # images are told apart
    for seed in range(2):
        strategy = random_strategy(problem, seed)
        candidate.install(problem.kept_channels(strategy))
        sliced = outputs(candidate.network)
        pruned = outputs(surgically_cut(problem, strategy))
        assert float((sliced - pruned).abs().max()) <= 1e-5 * float(pruned.abs().max())
        assert float((pruned - whole).abs().max()) > 0.05 * scale  # the cut is felt


@pytest.mark.parametrize("family", ["resnet20-B", "mobilenet_v2", "densenet"])
def test_a_sliced_candidate_has_the_pruned_networks_tensors_and_sizes(family):
    problem = shared_problem(family, "all")
    strategy = random_strategy(problem, 3)
    candidate = candidate_of(problem)
    candidate.install(problem.kept_channels(strategy))
    pruned = surgically_cut(problem, strategy)
    sliced = candidate.network.state_dict()
    assert sliced.keys() == pruned.state_dict().keys()
    assert all(torch.equal(sliced[key], tensor) for key, tensor in pruned.state_dict().items())
    for (name, mine), (_, theirs) in zip(
        candidate.network.named_modules(), pruned.named_modules(), strict=True
    ):
        for size in ("in_channels", "out_channels", "groups", "num_features", "in_features"):
            assert getattr(mine, size, None) == getattr(theirs, size, None), (name, size)


@pytest.mark.parametrize("name", SMALL)
def test_the_order_in_which_strategies_are_installed_does_not_matter(name):
    problem = small_problem(name, scope="all")
    strategies = [random_strategy(problem, seed) for seed in range(4)] + [problem.channels]
    fresh = []
    for strategy in strategies:
        candidate = candidate_of(problem)
        candidate.install(problem.kept_channels(strategy))
        fresh.append(outputs(candidate.network))
    candidate = candidate_of(problem)
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 7):
        for index in order:
            candidate.install(problem.kept_channels(strategies[index]))
            assert torch.equal(outputs(candidate.network), fresh[index])


def test_a_depthwise_convolution_comes_back_from_a_single_channel():
    problem = shared_problem("mobilenet_v2", "all")
    strategies = [np.ones_like(problem.channels), random_strategy(problem, 1), problem.channels]
    candidate = candidate_of(problem)
    for strategy in strategies:
        fresh = candidate_of(problem)
        for each in (candidate, fresh):
            each.install(problem.kept_channels(strategy))
        assert torch.equal(outputs(candidate.network), outputs(fresh.network))


def test_keeping_everything_is_the_baseline():
    problem = shared_problem("resnet20-B", "all")
    candidate = candidate_of(problem)
    candidate.install(problem.kept_channels(random_strategy(problem, 0)))
    candidate.install(problem.kept_channels(problem.channels))
    whole = outputs(problem.baseline.network)
    assert torch.allclose(outputs(candidate.network), whole, atol=1e-5)
    compressed = problem.compress(problem.channels)
    assert torch.equal(outputs(compressed), whole)


@pytest.mark.parametrize("repair", ["none", "batchnorm", "least_squares"])
def test_the_baseline_is_never_changed(repair):
    network = awaken(plain())
    network[0].weight.requires_grad_(False)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    tensors = {key: tensor.data_ptr() for key, tensor in network.state_dict().items()}
    trained = [parameter.requires_grad for parameter in network.parameters()]
    problem = simple_problem(network, images(), budget=1.0, repair=repair, criterion="obs")
    for seed in range(3):
        problem.evaluate(random_strategy(problem, seed))
        compressed = problem.compress(random_strategy(problem, seed))
        assert [parameter.requires_grad for parameter in compressed.parameters()] == trained
        for parameter in compressed.parameters():
            parameter.data.zero_()
    assert problem.baseline.network is not network
    after = network.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert {key: tensor.data_ptr() for key, tensor in after.items()} == tensors
    assert [parameter.requires_grad for parameter in network.parameters()] == trained
    assert not any(module.training for module in network.modules())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in network.modules()
    )


def features_of(network: nn.Module, classifier: str, inputs: Tensor) -> Tensor:
    found: list[Tensor] = []
    handle = network.get_submodule(classifier).register_forward_pre_hook(
        lambda _, arguments: found.append(arguments[0])
    )
    outputs(network, inputs)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("similarity", ["cosine", "cka", "mse", "kl"])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("repair", ["none", "batchnorm", "least_squares"])
def test_the_compressed_network_is_what_was_scored(repair, batched, similarity, monkeypatch):
    if batched:  # 22 images in batches of 8, 8 and 6
        monkeypatch.setattr("lfgcl_env.pruning.checks._PLAIN_BATCH_VALUES", 1)
        monkeypatch.setattr("lfgcl_env.pruning.checks._LARGE_BATCH_VALUES", 1)
    calibration = images(22, seed=2)
    problem = simple_problem(
        awake_baseline("resnet20"), calibration, budget=1.0, repair=repair, similarity=similarity
    )
    assert len(problem.batches) == (3 if batched else 1)
    strategy = random_strategy(problem, 5)
    evaluation = problem.evaluate(strategy)
    compressed = problem.compress(strategy)
    # Hidden layers only are cut in inner scope, so that features keep their shape.
    pair = [
        outputs(network, calibration)
        if similarity == "kl"
        else features_of(network, "linear", calibration)
        for network in (problem.baseline.network, compressed)
    ]
    assert SIMILARITIES[similarity](*pair) == pytest.approx(evaluation.similarity, abs=1e-5)
    assert evaluation.similarity < 0.998


def test_repairs_differ_in_what_they_change():
    strategy = random_strategy(shared_problem("resnet20"), 5)
    compressed = {
        repair: simple_problem(
            awake_baseline("resnet20"), images(16), budget=1.0, repair=repair
        ).compress(strategy)
        for repair in ("none", "batchnorm", "least_squares")
    }
    block = "layer1.0.conv2.weight"
    weights = {repair: network.state_dict()[block] for repair, network in compressed.items()}
    assert torch.equal(weights["none"], weights["batchnorm"])
    assert not torch.allclose(weights["none"], weights["least_squares"])
    means = {
        r: network.state_dict()["layer1.0.bn2.running_mean"] for r, network in compressed.items()
    }
    assert not torch.allclose(means["none"], means["batchnorm"])


def test_several_batches_pool_to_the_statistics_of_all_images(monkeypatch):
    """The first BatchNorm sees the same inputs either way; later ones see earlier ones' batches."""
    calibration = images(22, seed=2)
    arguments = {"budget": 1.0, "repair": "batchnorm"}
    whole = simple_problem(awake_baseline("resnet20"), calibration, **arguments)
    monkeypatch.setattr("lfgcl_env.pruning.checks._LARGE_BATCH_VALUES", 1)
    split = simple_problem(awake_baseline("resnet20"), calibration, **arguments)
    strategy = random_strategy(whole, 1)
    one, many = (problem.compress(strategy).state_dict() for problem in (whole, split))
    inputs = (
        outputs(awake_baseline("resnet20").network.conv1, calibration).transpose(0, 1).flatten(1)
    )
    for statistics in (one, many):
        assert torch.allclose(statistics["bn1.running_mean"], inputs.mean(1), atol=1e-5)
        assert torch.allclose(
            statistics["bn1.running_var"], inputs.var(1, unbiased=False), rtol=1e-4
        )


@pytest.mark.parametrize("repair", ["none", "batchnorm"])
def test_batchnorms_that_keep_no_statistics_are_left_to_their_batches(repair):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip
    problem = simple_problem(network, images(8), budget=1.0, repair=repair)
    compressed = problem.compress([4])
    candidate = candidate_of(problem)
    candidate.install(problem.kept_channels([4]))
    assert torch.allclose(outputs(compressed), outputs(candidate.network), atol=1e-5)
    assert compressed[1].running_mean is None


def test_channels_that_stay_are_the_first_of_the_order():
    problem = shared_problem("resnet20")
    strategy = random_strategy(problem, 2)
    more = np.minimum(strategy + 3, problem.channels)
    for few, many, count in zip(
        problem.kept_channels(strategy), problem.kept_channels(more), strategy, strict=True
    ):
        assert len(few) == count
        assert set(few) <= set(many)
        assert (np.diff(few) > 0).all()


class Viewing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 30 * 30, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).view(len(x), -1))


@pytest.mark.parametrize(
    ("network", "layout"),
    [(plain, torch.channels_last), (Viewing, torch.contiguous_format)],
)
def test_the_fastest_layout_is_one_that_the_network_runs_in(network, layout):
    assert fastest_layout(network().eval(), images(2)) is layout
