"""Layers that mix channels in groups lose whole groups, and norms of all kinds are cut exactly."""

import numpy as np
import pytest
import torch
from networks_for_tests import (
    Head,
    awaken,
    check_exactness,
    drawn,
    images,
    random_strategy,
    simple_problem,
)
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from lfgcl_env.envs.rendering import table
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem, load_pruned, read_structure
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.saved_form import save_again
from lfgcl_env.runs.report import list_bundles


def stack(between: nn.Module, into: int = 8, out: int = 8) -> nn.Module:
    """Two convolutions around a layer, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, into, 3, padding=1),
        nn.ReLU(),
        between,
        nn.ReLU(),
        nn.Conv2d(out, 6, 3, padding=1),
        nn.ReLU(),
        Head(6),
    )


def lively(norm: nn.Module) -> nn.Module:
    """A norm with uneven scales and statistics."""
    draw = torch.Generator().manual_seed(0)
    for key, tensor in norm.state_dict().items():
        if tensor.is_floating_point():
            low = 0.5 if key in ("weight", "running_var") else -0.5
            tensor.copy_(torch.rand(tensor.shape, generator=draw) + low)
    return norm


class Two(nn.Module):
    """Two producers side by side before a grouped convolution, whose groups straddle them."""

    def __init__(self, groups: int, left: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, left, 3, padding=1)
        self.right = nn.Conv2d(3, 12 - left, 3, padding=1)
        self.mixed = nn.Conv2d(12, 24, 3, padding=1, groups=groups)
        self.head = Head(24)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        return self.head(self.mixed(joined).relu())


def test_reports_and_tables_say_where_strategies_count_bundles():
    problem = simple_problem(awaken(stack(nn.Conv2d(8, 8, 3, padding=1, groups=4))), images())
    assert [group.bundle for group in problem.groups] == [2, 1]
    line = list_bundles(problem)
    assert line == "counted in bundles of channels in best.json and evaluations: 0 (of 2)\n"
    shown = table(problem, np.array([3, 4]), None).splitlines()
    assert [" ".join(row.split()[1:4]) for row in shown[1:3]] == ["6 / 8", "4 / 6"]
    assert not list_bundles(simple_problem(awaken(stack(nn.Identity())), images()))


NORMS = {
    "batch": lambda: nn.BatchNorm2d(8),
    "batch, plain": lambda: nn.BatchNorm2d(8, affine=False),
    "batch, of each batch": lambda: nn.BatchNorm2d(8, affine=False, track_running_stats=False),
    "synchronised": lambda: nn.SyncBatchNorm(8),
    "frozen": lambda: FrozenBatchNorm2d(8),
    "instance": lambda: nn.InstanceNorm2d(8),
    "instance, affine": lambda: nn.InstanceNorm2d(8, affine=True),
    "instance, running": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "group": lambda: nn.GroupNorm(4, 8),
    "group, plain": lambda: nn.GroupNorm(4, 8, affine=False),
}

GROUPED = {
    "two groups": lambda: nn.Conv2d(8, 8, 3, padding=1, groups=2),
    "four groups": lambda: nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
    "narrowing": lambda: nn.Conv2d(16, 8, 1, groups=4),
    "widening": lambda: nn.Conv2d(4, 8, 1, groups=2),
    "multiplied depthwise": lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(8, 8, 3, 2, padding=1, output_padding=1, groups=4),
    "transposed, narrowing": lambda: nn.ConvTranspose2d(16, 8, 2, 2, groups=4, bias=False),
    "transposed, widening": lambda: nn.ConvTranspose2d(4, 8, 3, dilation=2, groups=2),
    "transposed, depthwise": lambda: nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8),
    "transposed, multiplied": lambda: nn.ConvTranspose2d(4, 8, 2, stride=2, groups=4),
}


def network_of(layer: nn.Module) -> nn.Module:
    convolves = isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    torch.manual_seed(0)
    network = stack(layer, layer.in_channels if convolves else 8).eval()
    return awaken(network) if convolves else network


def problem_of(network: nn.Module, **arguments) -> PruningProblem:
    return simple_problem(network.eval(), images(8), **arguments)


@pytest.mark.parametrize("min_channels", [1, 0])
@pytest.mark.parametrize("name", [*NORMS, *GROUPED])
def test_cut_is_hidden(name, min_channels):
    layer = (NORMS | GROUPED)[name]()
    network = network_of(layer if name in GROUPED else lively(layer))
    baseline = load_baseline(network, input_shape=(3, 32, 32))
    prunable = PrunableNetwork(baseline, scope="all", min_channels=min_channels)
    assert [group.name for group in prunable.groups] == ["0", "4"]
    strategies = [
        np.random.default_rng(seed).integers(1, prunable.channels + 1) for seed in range(3)
    ]
    # A batch's own statistics blow rounding up where a channel hardly varies.
    tolerance = 1e-3 if name == "batch, of each batch" else 1e-5
    check_exactness(prunable, [*strategies, prunable.lowest], tolerance)


@pytest.mark.parametrize("repair", ["none", "batchnorm", "least_squares", "sequential"])
@pytest.mark.parametrize("name", [*NORMS, *GROUPED])
def test_networks_are_repaired_saved_and_loaded(name, repair, tmp_path):
    layer = (NORMS | GROUPED)[name]()
    build = lambda: network_of(layer if name in GROUPED else lively(layer))  # noqa: E731
    network = build()
    if repair == "batchnorm" and not isinstance(layer, (nn.BatchNorm2d, nn.SyncBatchNorm)):
        with pytest.raises(ValueError, match="needs BatchNorm layers"):
            problem_of(network, repair=repair)
        return
    problem = problem_of(network, repair=repair)
    if repair != "batchnorm":
        assert problem.evaluate(problem.channels).similarity == pytest.approx(1, abs=1e-5)
    strategy = random_strategy(problem, 2)
    smaller = problem.compress(strategy)
    path = problem.save(tmp_path / "pruned", strategy, smaller)
    loaded = load_pruned(path, build())
    with torch.no_grad():
        assert torch.equal(loaded(images(3, seed=5)), smaller(images(3, seed=5)))
    for one, other in zip(loaded.modules(), smaller.modules(), strict=True):
        assert one.extra_repr() == other.extra_repr()
        assert {type(p) for p in one.parameters()} == {type(p) for p in other.parameters()}


def test_a_least_squares_repair_is_no_worse_than_none():
    network = network_of(GROUPED["four groups"]())
    scores = [
        problem_of(network, repair=repair, similarity="mse").evaluate([2, 6]).similarity
        for repair in ("none", "least_squares")
    ]
    assert scores[1] >= scores[0]


@pytest.mark.parametrize(
    ("name", "channels", "sizes"),
    [
        ("four groups", 4, {"in_channels": 6, "out_channels": 6, "groups": 3}),
        ("narrowing", 4, {"in_channels": 12, "out_channels": 6, "groups": 3}),
        ("multiplied depthwise", 4, {"in_channels": 3, "out_channels": 6, "groups": 3}),
        ("transposed", 4, {"in_channels": 6, "out_channels": 6, "groups": 3}),
        ("transposed, narrowing", 4, {"in_channels": 12, "out_channels": 6, "groups": 3}),
        ("transposed, widening", 2, {"in_channels": 2, "out_channels": 4, "groups": 1}),
        ("transposed, depthwise", 8, {"in_channels": 3, "out_channels": 3, "groups": 3}),
        ("transposed, multiplied", 4, {"in_channels": 3, "out_channels": 6, "groups": 3}),
        ("group", 4, {"num_channels": 6, "num_groups": 3}),
        ("instance", 8, {"num_features": 3}),
        ("synchronised", 8, {"num_features": 3}),
    ],
)
def test_a_strategy_counts_bundles_and_the_layers_say_what_they_have_left(name, channels, sizes):
    problem = problem_of(network_of((NORMS | GROUPED)[name]()))
    assert problem.channels.tolist() == [channels, 6]
    assert problem.groups[0].bundle == problem.baseline.network[0].out_channels // channels
    keep = min(3, channels - 1)
    smaller = problem.compress([keep, 6])
    assert {key: getattr(smaller[2], key) for key in sizes} == sizes
    assert smaller[4].in_channels == keep * 8 // channels


@pytest.mark.parametrize(
    ("groups", "left", "channels"),
    [(6, 4, None), (2, 6, None), (3, 6, None), (1, 4, [4, 8, 24])],
)
def test_bundles_across_concatenations_are_exact_or_left_out(groups, left, channels):
    network = awaken(nn.Sequential(Two(groups, left), nn.ReLU(), nn.Linear(5, 8), nn.ReLU()))
    network.append(nn.Linear(8, 5))
    prunable = PrunableNetwork(load_baseline(network, input_shape=(3, 32, 32)), scope="all")
    assert (channels is None) == ("0.left" in {e.name for e in prunable.excluded})
    check_exactness(prunable, [np.maximum(1, prunable.channels // 2)])


@pytest.mark.parametrize("order", ["obs", "thinet", "fpgm", "l1", "l2", "random"])
def test_bundles_can_be_ordered_by_every_criterion(order):
    problem = problem_of(network_of(GROUPED["four groups"]()), criterion=order)
    assert sorted(problem.kept_channels([4, 6])[0]) == [0, 1, 2, 3]
    assert problem.evaluate([2, 3]).similarity < 1


def test_a_candidate_gets_back_the_groups_that_it_lost():
    """A transposed convolution of one group has its outputs elsewhere in its weight."""
    problem = problem_of(network_of(GROUPED["transposed, narrowing"]()))
    candidate = problem.network.candidate()
    for keep in ([1, 6], [4, 6], [2, 3], [1, 1], [3, 2]):
        kept = drawn(problem.network, np.array(keep))
        candidate.install(kept)
        with torch.no_grad():
            found = candidate.network(images(2)), problem.network.cut(kept)(images(2))
        assert torch.allclose(*found, atol=1e-6)


@pytest.mark.parametrize("rows", [4, 5])
def test_a_file_whose_weight_has_other_rows_than_its_header_says_is_refused(rows, tmp_path):
    problem = problem_of(network_of(GROUPED["transposed, narrowing"]()))
    path = problem.save(tmp_path / "pruned", [2, 6])  # 8 of 16 inputs, 4 of 8 outputs
    network = problem.compress([2, 6])
    network.pruned_structure = read_structure(path)
    network[2].weight = nn.Parameter(network[2].weight[:rows])
    with pytest.raises(ValueError, match="which its header says is cut to"):
        load_pruned(save_again(path, network), network_of(GROUPED["transposed, narrowing"]()))


@pytest.mark.parametrize("name", ["resnext50_32x4d", "regnet_y_400mf", "shufflenet_v2_x1_0"])
def test_grouped_networks_reach_half_of_their_macs_exactly(name):
    baseline = load_baseline(f"torchvision:{name}", "random", input_shape=(3, 32, 32))
    awaken(baseline.network)
    prunable = PrunableNetwork(baseline)
    lowest = prunable.cost(np.ones_like(prunable.channels))
    assert lowest.macs < 0.5 * prunable.baseline_cost.macs
    check_exactness(prunable, [np.maximum(1, prunable.channels // 3)])


def test_a_candidate_keeps_parameters_that_modules_share():
    network = stack(nn.Conv2d(8, 8, 1))
    network[2].bias = network[0].bias
    copied = Candidate(network, PrunableNetwork(load_baseline(network)).plan).network
    assert copied[2].bias is copied[0].bias


class SamePadded(nn.Conv2d):
    """A convolution that pads by itself, as TensorFlow's do, and scales its weights."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(x, (0, 2, 0, 2))
        return nn.functional.conv2d(x, 2 * self.weight, self.bias)


@pytest.mark.parametrize("repair", ["none", "least_squares", "sequential"])
@pytest.mark.parametrize("criterion", ["obs", "thinet"])
def test_convolutions_that_do_more_than_convolve_are_cut_and_keep_their_weights(repair, criterion):
    network = awaken(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), SamePadded(8, 6, 3), nn.ReLU(), Head(6)
        )
    )
    problem = simple_problem(network, images(8), repair=repair, criterion=criterion)
    (stay, _) = problem.kept_channels([4, 6])
    finished, _ = problem.finish([4, 6], images(8))
    for smaller in (problem.compress([4, 6]), finished):
        assert torch.equal(smaller[2].weight, network[2].weight[:, stay])


def test_a_bundled_group_is_named_by_its_producer_whatever_the_order_of_modules():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = Head(6)
            self.mixed = nn.Conv2d(8, 6, 1, groups=2)
            self.first = nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.mixed(self.first(x).relu()).relu())

    problem = problem_of(Backwards())
    assert [(group.name, group.bundle) for group in problem.groups] == [("first", 4)]
    assert problem.scorer.read(problem.compress([1]), problem.kept_channels([1]))


class Added(nn.Module):
    """A grouped convolution, added to another layer: 4, 2 and 2 channels go together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mixed = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 1, groups=4)
        self.other, self.head = nn.Conv2d(3, 8, 3, padding=1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.mixed(self.first(x).relu()) + self.other(x)).relu())


@pytest.mark.parametrize(
    ("limits", "counts"),
    [
        ({"min_channels": {"other": 4}}, [2, 3, 4]),
        ({"min_channels": {"first": 4}}, [1, 2, 3, 4]),
        ({"min_channels": 5}, [3, 4]),
        ({"min_channels": {"mixed": 8}}, [4]),
        ({"round_to": 4}, [2, 4]),
        ({"round_to": {"first": 8, "mixed": 2}}, [2, 4]),
        ({"round_to": {"mixed": 6}}, [3, 4]),
        ({"round_to": 8}, [4]),
        ({"max_prune_ratio": {"mixed": 0.5}}, [2, 3, 4]),
        ({"max_prune_ratio": {"mixed": 0.5, "first": 0.25}}, [3, 4]),
    ],
)
def test_limits_hold_in_every_layer_of_a_bundle(limits, counts):
    baseline = load_baseline(awaken(Added()), input_shape=(3, 32, 32))
    network = PrunableNetwork(baseline, scope="all", **limits)
    assert [group.name for group in network.groups] == ["first"]
    assert network.rounding.counts(0).tolist() == counts
    pruned = network.cut([np.arange(counts[0])])
    sizes = [getattr(pruned, name).out_channels for name in ("first", "mixed", "other")]
    assert sizes == [4 * counts[0], 2 * counts[0], 2 * counts[0]]


def test_a_saved_network_names_the_channels_that_stayed_not_the_bundles(tmp_path):
    network = network_of(GROUPED["four groups"]())
    problem = problem_of(network, repair="none")
    (bundles, rest) = problem.kept_channels([2, 3])
    structure = read_structure(problem.save(tmp_path / "pruned", [2, 3]))
    stayed = structure["kept_channels"]["0"]
    assert stayed == [2 * bundle + channel for bundle in bundles.tolist() for channel in (0, 1)]
    assert torch.equal(problem.compress([2, 3])[0].weight, network[0].weight[stayed])
    assert structure["kept_channels"]["4"] == rest.tolist()


def test_a_strategy_out_of_range_is_told_what_is_counted():
    problem = problem_of(network_of(GROUPED["four groups"]()))
    with pytest.raises(ValueError, match="group 0 can keep 1 to 4 bundles of 2 channels, got 5"):
        problem.cost([5, 6])
    with pytest.raises(ValueError, match="group 4 can keep 1 to 6 channels, got 7"):
        problem.cost([4, 7])


def test_a_depthwise_convolution_with_a_multiplier_has_limits_of_its_own():
    network = network_of(GROUPED["multiplied depthwise"]())
    problem = problem_of(network, round_to={"2": 4}, min_channels={"2": 3})
    assert problem.network.rounding.counts(0).tolist() == [2, 4]


def test_limits_of_norms_are_refused():
    with pytest.raises(ValueError, match="'2' matches no layer that produces channels"):
        problem_of(network_of(NORMS["group"]()), max_prune_ratio={"2": 0.5})


def test_limits_count_channels_where_they_go_in_bundles():
    grouped = nn.Conv2d(12, 12, 3, padding=1, groups=6)
    limits = {"min_channels": {"0": 3}, "round_to": {"0": 4}}
    problem = simple_problem(awaken(stack(grouped, 12, 12)), images(4), **limits)
    (group,) = (group for group in problem.groups if group.name == "0")
    assert (group.channels, group.bundle) == (6, 2)
    index = problem.groups.index(group)
    assert problem.network.rounding.counts(index).tolist() == [2, 4, 6]  # 4, 8 and 12 channels
