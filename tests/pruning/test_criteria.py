"""Criteria: which channels go first."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks_for_tests import (
    Concatenating,
    Head,
    Residual,
    SqueezeExcite,
    awake_baseline,
    awaken,
    flattening,
    images,
    plain,
)
from torch import nn

from lfgcl_env.pruning import CRITERIA, PruningProblem
from lfgcl_env.pruning.criteria.criterion import Context, order_channels, score_channels
from lfgcl_env.pruning.structure.tracing import find_groups


def context_of(network: nn.Module, seed: int = 0) -> Context:
    """For criteria that look at weights only."""
    return Context(network, images(2), dict, dict, seed)


def order_of(criterion: str, network: nn.Module, seed: int = 0) -> list[int]:
    """Of the first group."""
    groups = find_groups(network, images(2)).groups[:1]
    return order_channels(criterion, context_of(network, seed), groups)[0].tolist()


def two_layers(filters: list[list[float]]) -> nn.Module:
    """1x1 convolutions, of which the first has the given filters; no BatchNorm."""
    network = nn.Sequential(
        nn.Conv2d(3, len(filters), 1, bias=False),
        nn.Conv2d(len(filters), 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    network[0].weight.data = torch.tensor(filters).reshape(len(filters), 3, 1, 1)
    return network


FILTERS = [
    [1.0, 1.0, 1.0],  # L1 3.0, L2 1.73
    [-2.5, 0.0, 0.0],  # L1 2.5, L2 2.50
    [0.0, 2.0, 0.0],  # L1 2.0, L2 2.00
    [0.5, -1.5, 0.0],  # L1 2.0, L2 1.58
]


def test_l1_keeps_the_largest_sum_of_absolute_weights_and_ties_keep_channel_order():
    assert order_of("l1", two_layers(FILTERS)) == [0, 1, 2, 3]


def test_l2_keeps_the_largest_norm():
    assert order_of("l2", two_layers(FILTERS)) == [1, 2, 0, 3]


def test_fpgm_drops_what_lies_in_the_middle_however_large_it_is():
    # Sums of distances: 2+1+5+10, 2+1+7+8, 1+1+6+9, 5+7+6+15, 10+8+9+15
    filters = [[size, 0.0, 0.0] for size in (10.0, 12.0, 11.0, 5.0, 20.0)]
    assert order_of("fpgm", two_layers(filters)) == [4, 3, 0, 1, 2]
    assert order_of("l2", two_layers(filters)) == [4, 1, 2, 0, 3]


def test_bn_scale_keeps_the_largest_absolute_scale():
    network = awaken(plain())
    network[1].weight.data = torch.tensor([0.1, -3.0, 2.0, 0.0, 0.5, -0.4, 1.0, 0.3])
    assert order_of("bn_scale", network) == [1, 2, 6, 4, 5, 7, 0, 3]


def test_bn_scale_without_a_batchnorm_names_the_group_and_a_way_out():
    with pytest.raises(
        ValueError, match=r"'bn_scale' needs a BatchNorm.*group, and 0 has none.*'l1'"
    ):
        order_of("bn_scale", two_layers(FILTERS))


def test_bn_scale_without_scales_is_refused():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 5, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip
    with pytest.raises(ValueError, match="bn_scale"):
        order_of("bn_scale", network)


def test_random_depends_on_the_seed_and_the_group_alone():
    network = awaken(plain())
    first, second = (
        order_channels("random", context_of(network, seed), find_groups(network, images(2)).groups)
        for seed in (0, 1)
    )
    assert first[0].tolist() != second[0].tolist()
    again = order_channels(
        "random", context_of(awaken(plain(), 5)), find_groups(network, images(2)).groups
    )
    assert [order.tolist() for order in again] == [order.tolist() for order in first]
    alone = order_channels(
        "random", context_of(network), find_groups(network, images(2)).groups[1:]
    )
    assert alone[0].tolist() == first[1].tolist()


def test_coupled_producers_count_alike_whatever_their_scale():
    network = awaken(Residual())
    with torch.no_grad():
        for layer, norms in (
            (network.stem, [1, 2, 3, 4, 5, 6]),
            (network.outer, [6, 2, 1, 1, 1, 1]),
        ):
            layer.weight /= layer.weight.abs().sum((1, 2, 3), keepdim=True)
            layer.weight *= torch.tensor(norms, dtype=torch.float32).reshape(-1, 1, 1, 1)
        network.outer.weight *= 1e-6
    # Relative to their means 3.5 and 2: 0.29 + 3, 0.57 + 1, 0.86 + 0.5, 1.14 + 0.5, 1.43 + 0.5, ...
    assert order_of("l1", network) == [0, 5, 4, 3, 1, 2]


def test_zero_filters_go_first_and_nothing_is_divided_by_zero():
    filters = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    with np.errstate(all="raise"):
        for criterion in ("l1", "l2"):
            assert order_of(criterion, two_layers(filters)) == [1, 0, 2]
            dead = [[0.0, 0.0, 0.0]] * 3
            assert order_of(criterion, two_layers(dead)) == [0, 1, 2]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_orders_every_channel_once_and_always_alike(criterion):
    first, second = (
        PruningProblem(awake_baseline("resnet20"), images(8), criterion=criterion, repair="none")
        for _ in range(2)
    )
    assert first.criterion == criterion
    for group, order, again in zip(
        first.groups, first._ranking.orders, second._ranking.orders, strict=True
    ):
        assert sorted(order.tolist()) == list(range(group.channels))
        assert order.dtype == np.int64
        assert order.tolist() == again.tolist()


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - {"bn_scale", "hrank"}))
@pytest.mark.parametrize("network", [flattening, Residual, Concatenating, SqueezeExcite])
def test_criteria_serve_coupled_concatenated_gated_and_flattened_channels(criterion, network):
    problem = PruningProblem(
        awaken(network()), images(8), budget=1.0, criterion=criterion, repair="none", scope="all"
    )
    for group, order in zip(problem.groups, problem._ranking.orders, strict=True):
        assert sorted(order.tolist()) == list(range(group.channels))


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm", "bn_scale"])
def test_an_order_moves_with_the_channels(criterion):
    """Permuting a group's channels permutes its order and nothing else."""
    network, shuffled = awaken(plain()), awaken(plain())
    permutation = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    shuffled.load_state_dict(network.state_dict())
    for key in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        shuffled.state_dict()[key].copy_(network.state_dict()[key][permutation])
    shuffled[3].weight.data = network[3].weight.data[:, permutation].contiguous()
    moved = permutation[torch.tensor(order_of(criterion, shuffled))]
    assert moved.tolist() == order_of(criterion, network)


def test_hrank_prefers_maps_of_full_rank_and_needs_maps():
    network = nn.Sequential(
        nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    network[0].weight.data = torch.eye(3).reshape(3, 3, 1, 1)
    noise = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise[:, 0] = noise[:, 0, :1]  # rank 1: all rows alike
    noise[:, 1, 4:] = noise[:, 1, :4]  # rank 4
    context = Context(network, noise, dict, dict, 0)
    assert order_channels("hrank", context, find_groups(network, noise[:2]).groups)[0].tolist() == [
        2,
        1,
        0,
    ]
    with pytest.raises(ValueError, match=r"'hrank' needs feature maps.*consumes 0 in such"):
        PruningProblem(awaken(flattening()), images(), criterion="hrank", repair="none")


class Twofold(nn.Module):
    """A residual stream that two convolutions read, before and after an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.branch = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 3, 1)
        self.head = Head(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        return self.head(self.last(torch.relu(x + self.branch(x))))


def test_hrank_looks_at_a_residual_stream_wherever_it_is_read():
    network = awaken(Twofold())
    context = Context(network, images(), dict, dict, 0)
    stream = find_groups(network, images(2)).groups[0]
    readers = stream.layers("in")
    assert readers == ("branch", "last")
    alone = [
        replace(stream, members=tuple(m for m in stream.members if m.layer == reader))
        for reader in readers
    ]
    first, second = score_channels("hrank", context, alone)
    assert (first != second).any()
    (both,) = score_channels("hrank", context, [stream])
    assert both == pytest.approx((first + second) / 2)


def test_orders_decide_what_stays():
    problem = PruningProblem(awake_baseline("resnet20"), images(), criterion="l1", repair="none")
    weight = awake_baseline("resnet20").network.get_submodule("layer1.0.conv1").weight
    norms = weight.detach().abs().sum((1, 2, 3))
    kept = problem.kept_channels([5] + [8] * 8)[0]
    assert kept.tolist() == sorted(norms.topk(5).indices.tolist())
    pruned = problem.compress([5] + [8] * 8).get_submodule("layer1.0.conv1").weight
    assert torch.equal(pruned, weight[kept])


def test_an_unknown_criterion_names_the_choices_and_the_nearest():
    choices = ", ".join(CRITERIA)
    with pytest.raises(ValueError, match=f"unknown criterion 'fpmg': choose one of {choices}"):
        PruningProblem(awaken(plain()), images(), criterion="fpmg")
    with pytest.raises(ValueError, match=r"Did you mean 'fpgm'\?$"):
        PruningProblem(awaken(plain()), images(), criterion="fpmg")


def test_ranks_need_maps_of_two_dimensions():
    network = nn.Sequential(
        nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1),
        nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    with pytest.raises(ValueError, match="'hrank' needs feature maps"):
        PruningProblem(network, torch.randn(8, 3, 20), criterion="hrank", repair="none")
