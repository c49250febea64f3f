"""Costs in closed form against counting the compressed network."""

import numpy as np
import pytest
import torch
from networks_for_tests import (
    SCOPED,
    Head,
    awaken,
    images,
    plain,
    random_strategy,
    shared_problem,
    simple_problem,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import DeformConv2d

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning.structure.layers import count_macs, counting_flops, measure_layers
from lfgcl_env.pruning.structure.product_calls import find_products


def counted(network: nn.Module) -> tuple[int, int]:
    """MACs and parameters, by PyTorch."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images(1))
    return counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [
        ("resnet20", 40_551_040, 269_722),
        ("resnet56", 125_485_696, 853_018),
        ("vgg16_bn", 313_725_952, None),
        ("mobilenet_v2", 87_976_448, None),
    ],
)
def test_known_costs_of_baselines(name, macs, params):
    network = load_baseline(name, "random").network
    assert sum(layer.macs for layer in measure_layers(network, images(1))) == macs
    assert count_macs(network, images(3)) == macs
    if params is not None:
        assert sum(parameter.numel() for parameter in network.parameters()) == params


def test_resnet56_costs_what_the_paper_says():
    problem = simple_problem(load_baseline("resnet56", "random"), images(2), repair="none")
    assert problem.baseline_cost.macs == 125_485_696
    assert problem.baseline_cost.params == 853_018
    assert len(problem.groups) == 27


@pytest.mark.parametrize(("family", "scope"), SCOPED)
def test_closed_form_is_what_pytorch_counts_in_the_pruned_network(family, scope):
    problem = shared_problem(family, scope)
    network = problem.baseline.network
    assert problem.baseline_cost == problem.cost(problem.channels)
    assert (problem.baseline_cost.macs, problem.baseline_cost.params) == counted(network)
    for strategy in (random_strategy(problem, 11), np.ones_like(problem.channels)):
        cost = problem.cost(strategy)
        kept = problem.kept_channels(strategy)
        pruned = problem.network.cut(kept)
        assert (cost.macs, cost.params) == counted(pruned)
        assert cost.macs < problem.baseline_cost.macs


def test_cost_of_a_small_network_by_hand():
    problem = simple_problem(awaken(plain()), images(), budget=1.0, repair="none")
    # conv 3->a 3x3 with bias at 32x32, BatchNorm a, conv a->b 3x3 at 16x16, BatchNorm b, b->5
    for a, b in ((8, 6), (1, 1), (5, 2)):
        cost = problem.cost([a, b])
        assert cost.macs == 9 * 3 * a * 32 * 32 + 9 * a * b * 16 * 16 + 5 * b
        assert cost.params == (27 * a + a) + 2 * a + 9 * a * b + 2 * b + (5 * b + 5)


def test_evaluations_carry_the_cost_and_its_ratios():
    problem = shared_problem("resnet20")
    strategy = random_strategy(problem, 4)
    evaluation, cost = problem.evaluate(strategy), problem.cost(strategy)
    assert evaluation.keep == tuple(strategy)
    assert (evaluation.macs, evaluation.params) == (cost.macs, cost.params)
    assert evaluation.macs_ratio == cost.macs / 40_551_040
    assert evaluation.params_ratio == cost.params / 269_722


def test_a_layer_that_is_used_twice_counts_twice_in_macs_and_once_in_params():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.again = nn.Conv2d(8, 8, 1)
            self.fc = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.again(self.again(self.first(x)).relu()).mean((2, 3)))

    problem = simple_problem(Twice().eval(), images(), budget=1.0, scope="all", repair="none")
    for keep in (8, 3):
        cost = problem.cost([keep])
        assert cost.macs == 1024 * (3 * keep + 2 * keep * keep) + 5 * keep
        assert cost.params == 4 * keep + keep * keep + keep + 5 * keep + 5
        assert (cost.macs, cost.params) == counted(problem.compress([keep]))


def test_products_of_attention_count_in_macs_and_go_with_heads():
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 8, stride=8)
            self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.fc = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.fc(self.encoder(tokens).mean(1))

    network = Attending().eval()
    problem = simple_problem(network, images(), budget=1.0, repair="none")
    assert [group.name for group in problem.groups] == ["encoder.self_attn.q", "encoder.linear1"]
    assert problem.baseline_cost.macs == count_macs(network, images(1))
    for keep in ([2, 4], [1, 16], [1, 3]):
        assert problem.cost(keep).macs == count_macs(problem.compress(keep), images(1))
    saved = problem.baseline_cost.macs - problem.cost([1, 4]).macs
    hidden = 12 * 16 * (8 + 8)  # channels x tokens x (in + out)
    head = 4 * 16 * 8 * 4 + 2 * 16 * 16 * 4  # four layers, and two products of tokens
    assert saved == hidden + head


def macs_of(network: nn.Module, *inputs: Tensor) -> int:
    """MACs of a module of any inputs, by what a problem counts with."""
    with counting_flops() as counter:
        network(*inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("bias", [True, False])
def test_bilinear_layers_count_as_the_contractions_that_they_are(bias):
    layer = nn.Bilinear(6, 5, 7, bias=bias)
    left, right = torch.randn(2, 3, 6), torch.randn(2, 3, 5)

    class Contracting(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.einsum("...i,oij,...j->...o", x, layer.weight, y)

    wanted = layer(left, right) - (layer.bias if bias else 0)
    assert torch.allclose(Contracting()(left, right), wanted, atol=1e-5)
    assert macs_of(layer, left, right) == 6 * 7 * 5 * (6 + 1)
    with FlopCounterMode(display=False) as counter:
        Contracting()(left, right)
    assert macs_of(layer, left, right) == counter.get_total_flops() // 2


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_deformable_convolutions_count_as_those_that_are_not(groups, masked):
    arguments = {"stride": 2, "padding": 1, "groups": groups}
    layer, usual = DeformConv2d(4, 6, 3, **arguments), nn.Conv2d(4, 6, 3, **arguments)
    x = torch.randn(2, 4, 9, 9)
    sizes = usual(x).shape[2:]
    mask = [torch.ones(2, 9, *sizes)] if masked else []
    assert macs_of(layer, x, torch.zeros(2, 18, *sizes), *mask) == macs_of(usual, x)


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (torch.mv, [(3, 4), (4,)], 12),
        (torch.addmv, [(3,), (3, 4), (4,)], 12),
        (torch.dot, [(4,), (4,)], 4),
        (torch.vdot, [(4,), (4,)], 4),
        (torch.matmul, [(2, 3, 4), (4,)], 24),
        (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
    ],
)
def test_products_that_pytorchs_counter_leaves_out_are_counted(function, shapes, macs):
    class Calling(nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return function(*inputs)

    assert macs_of(Calling(), *map(torch.ones, shapes)) == macs


class Pairing(nn.Module):
    """Two readings of rows that meet in a bilinear layer, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 8), nn.Linear(6, 5)
        self.pair = nn.Bilinear(8, 5, 7)
        self.after = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.pair(self.left(x).relu(), self.right(x).relu()).relu())


class Deforming(nn.Module):
    """A deformable convolution, and the two convolutions that give its positions and mask."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.where, self.deform = nn.Conv2d(6, 27, 1), DeformConv2d(8, 6, 3, padding=1)
        self.after, self.head = nn.Conv2d(6, 8, 1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu()
        places, mask = self.where(self.inner(x).relu()).split([18, 9], 1)
        return self.head(self.after(self.deform(x, places, mask.sigmoid()).relu()).relu())


@pytest.mark.parametrize(
    ("network", "inputs", "groups", "whole", "why"),
    [
        (Pairing, torch.randn(4, 6), ["after.0"], "left", "Bilinear pair is of a kind that"),
        (Deforming, images(), ["inner", "after"], "enter", "DeformConv2d deform is of a kind that"),
    ],
)
def test_networks_with_such_layers_are_cut_around_them(network, inputs, groups, whole, why):
    torch.manual_seed(0)
    module = network().eval()
    problem = simple_problem(module, inputs, scope="all")
    assert [group.name for group in problem.groups] == groups
    assert why in {left.name: left.reason for left in problem.excluded}[whole]
    layers = sum(layer.macs for layer in problem.network.layers)
    known = {"pair": 7 * 5 * (8 + 1), "deform": 32 * 32 * 9 * 8 * 6}
    assert problem.baseline_cost.macs == layers + sum(
        known.get(n, 0) for n, _ in module.named_children()
    )
    for seed in range(2):
        keep = random_strategy(problem, seed)
        cut = problem.compress(keep)
        cost = problem.cost(keep)
        assert cost.macs == count_macs(cut, inputs[:1])
        assert cost.params == sum(p.numel() for p in cut.parameters())


@pytest.mark.parametrize(("network", "shape"), [(Pairing, (2, 6)), (Deforming, (1, 3, 8, 8))])
def test_their_products_are_taken_for_no_attention(network, shape):
    called = find_products(network().eval(), [torch.ones(shape)], {})
    assert None not in called
    assert {nn.Bilinear, DeformConv2d} & {type(layer) for layer in called}


@pytest.mark.parametrize(
    "strategy",
    [
        [8],
        [8, 6, 1],
        [[8, 6]],
        [0, 6],
        [9, 6],
        [-1, 6],
        [2.5, 6],
        [float("nan"), 6],
        [True, True],
        [4 + 0j, 6],
        [10**30, 6],
        [[8], [6, 1]],
        None,
        {},
        ["8", "6"],
    ],
)
def test_what_is_no_strategy_is_refused(strategy):
    problem = simple_problem(awaken(plain()), images(), budget=1.0, repair="none")
    with problem.count() as counted:
        for use in (problem.cost, problem.evaluate, problem.compress, problem.prune_ratios):
            with pytest.raises(ValueError, match=r"channels"):
                use(strategy)
    assert not counted


def test_parameters_beside_the_weight_have_no_inputs():
    class Gained(nn.Conv2d):
        def __init__(self, into: int, out: int) -> None:
            super().__init__(into, out, 3, padding=1)
            self.gain = nn.Parameter(torch.ones(out, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, self.weight * self.gain, self.bias)

    network = nn.Sequential(Gained(3, 8), nn.ReLU(), Gained(8, 6), nn.ReLU(), Head(6)).eval()
    problem = simple_problem(network, images())
    assert len(problem.groups) == 2
    pruned = problem.compress([3, 4])
    assert pruned[2].gain.shape == (4, 1, 1, 1)
    cost = problem.cost([3, 4])
    assert (cost.macs, cost.params) == counted(pruned)
