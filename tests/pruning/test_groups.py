"""Groups: what can only be removed together."""

import numpy as np
import pytest
import torch
from networks_for_tests import (
    FAMILIES,
    Concatenating,
    Head,
    Residual,
    SqueezeExcite,
    awaken,
    flattening,
    images,
    shared_problem,
    simple_problem,
)
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.pruning import Group, PruningProblem
from lfgcl_env.pruning.structure.scope import COUPLED


class Viewing(nn.Module):
    """Flattens with view, which images in channels_last layout refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.hidden = nn.Linear(24, 10)
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(F.relu(self.conv(x)), 2)
        return self.fc(F.relu(self.hidden(x.view(x.size(0), -1))))


class TwoTwins(nn.Module):
    """Two producers whose outputs are multiplied: neither can lose a channel alone."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(3, 8, 3, padding=1)
        self.after = nn.Conv2d(8, 6, 3, padding=1)
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.after(self.value(x) * torch.sigmoid(self.gate(x)))))


def problem_of(network: nn.Module, scope: str = "all") -> PruningProblem:
    return simple_problem(awaken(network), images(), budget=1.0, scope=scope, repair="none")


def sizes(problem: PruningProblem) -> dict[str, int]:
    return {group.name: group.channels for group in problem.groups}


def reasons(problem: PruningProblem) -> dict[str, str]:
    return {exclusion.name: exclusion.reason for exclusion in problem.excluded}


def group_of(problem: PruningProblem, name: str) -> Group:
    return next(group for group in problem.groups if group.name == name)


def parts(group: Group) -> set[tuple[str, str]]:
    return {(member.layer, member.side) for member in group.members}


@pytest.mark.parametrize("family", ["resnet20", "resnet20-B"])
def test_inner_groups_of_resnet20_are_the_first_convolutions_of_its_nine_blocks(family):
    problem = shared_problem(family, "inner")
    blocks = [(stage, block) for stage in (1, 2, 3) for block in range(3)]
    assert sizes(problem) == {f"layer{s}.{b}.conv1": 8 * 2**s for s, b in blocks}
    for group in problem.groups:
        block = group.name.removesuffix(".conv1")
        assert not group.coupled
        assert parts(group) == {
            (f"{block}.conv1", "out"),
            (f"{block}.bn1", "through"),
            (f"{block}.conv2", "in"),
        }


def test_zero_padded_shortcuts_exclude_the_residual_stream_of_resnet20_by_name_and_reason():
    problem = shared_problem("resnet20", "all")
    assert sizes(problem) == sizes(shared_problem("resnet20", "inner"))
    assert set(reasons(problem)) == {"conv1", "linear"}
    assert reasons(problem)["linear"] == "its channels are the network's output"
    assert "cut" in reasons(problem)["conv1"] or "without its channels" in reasons(problem)["conv1"]


def test_projection_shortcuts_let_all_twelve_groups_of_resnet20_be_pruned():
    problem = shared_problem("resnet20-B", "all")
    coupled = {group.name: group.channels for group in problem.groups if group.coupled}
    assert len(problem.groups) == 12
    assert sorted(coupled.values()) == [16, 32, 64]
    assert set(reasons(problem)) == {"linear"}
    stream = group_of(problem, "conv1")
    assert {"conv1", "layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2"} == set(
        stream.layers("out")
    )
    assert {"layer1.0.conv1", "layer2.0.conv1"} <= set(stream.layers("in"))


def test_what_an_addition_couples_is_out_of_inner_scope_and_says_how_to_include_it():
    problem = shared_problem("resnet20-B", "inner")
    left = {e.name: e for e in problem.excluded if "addition" in e.reason}
    assert {e.channels for e in left.values()} == {16, 32, 64}
    assert {e.reason for e in left.values()} == {COUPLED}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_accounted_for_and_no_position_is_claimed_twice(family):
    problem = shared_problem(family, "all")
    claimed: dict[tuple[str, str], np.ndarray] = {}
    for group in problem.groups:
        assert group.layers("out")
        assert group.layers("in")
        for member in group.members:
            counts = np.bincount(member.channels, minlength=group.channels)
            assert (counts == counts[0]).all()
            key = (member.layer, member.side)
            taken = np.bincount(member.positions, minlength=len(claimed.get(key, [])))
            before = claimed.get(key, np.zeros(0, dtype=int))
            taken[: len(before)] += before
            assert taken.max() == 1
            claimed[key] = taken
    named = {name for group in problem.groups for name in group.layers("out")}
    named |= {exclusion.name for exclusion in problem.excluded}
    covered = [
        layer.name
        for layer in problem.layers
        if layer.kind != "depthwise" and layer.name not in named
    ]
    # The producers that share an exclusion's channels are named by the first of them.
    assert family == "resnet20" or not covered
    assert all(e.reason and "\n" not in e.reason for e in problem.excluded)


def test_depthwise_convolutions_follow_the_group_before_them():
    problem = shared_problem("mobilenet_v2", "inner")
    depthwise = {layer.name for layer in problem.layers if layer.kind == "depthwise"}
    through = {name for group in problem.groups for name in group.layers("through")}
    assert len(depthwise) == 17
    assert depthwise <= through
    assert not depthwise & {group.name for group in problem.groups}


def test_concatenated_channels_are_positions_of_one_consumer():
    problem = problem_of(Concatenating())
    assert sizes(problem) == {"left": 4, "right": 6, "join": 8}
    into = {
        name: next(m for m in group_of(problem, name).members if m.layer == "join")
        for name in ("left", "right")
    }
    assert into["left"].positions.tolist() == [0, 1, 2, 3]
    assert into["right"].positions.tolist() == [4, 5, 6, 7, 8, 9]


def test_a_dense_block_feeds_every_later_layer():
    problem = shared_problem("densenet", "all")
    group = group_of(problem, "features.denseblock1.denselayer1.conv2")
    assert group.channels == 8
    assert len(group.layers("in")) == 6  # five more layers, and the transition
    assert not reasons(problem).keys() - {"classifier"}


def test_squeeze_and_excitation_moves_with_the_channels_it_gates():
    problem = problem_of(SqueezeExcite())
    assert sizes(problem) == {"conv": 8, "squeeze": 4}
    assert {("conv", "out"), ("squeeze", "in"), ("excite", "out"), ("head.fc", "in")} == parts(
        group_of(problem, "conv")
    )


def test_multiplied_producers_lose_channels_together():
    problem = problem_of(TwoTwins())
    assert sizes(problem) == {"value": 8, "after": 6}
    assert set(group_of(problem, "value").layers("out")) == {"value", "gate"}


def test_a_flattened_channel_owns_all_its_positions():
    problem = problem_of(flattening())
    assert sizes(problem) == {"0": 6, "4": 10}
    member = next(m for m in group_of(problem, "0").members if m.side == "in")
    assert member.positions.tolist() == list(range(24))
    assert member.channels.tolist() == [channel for channel in range(6) for _ in range(4)]


def test_networks_that_flatten_with_view_can_be_pruned():
    problem = problem_of(Viewing())
    assert sizes(problem) == {"conv": 6, "hidden": 10}
    assert problem.evaluate([3, 5]).similarity < 1
    assert problem.compress([3, 5])(images()).shape == (4, 5)


def test_residual_stream_is_one_coupled_group():
    problem = problem_of(Residual())
    assert [(g.name, g.coupled) for g in problem.groups] == [("stem", True), ("inner", False)]
    assert set(group_of(problem, "stem").layers("out")) == {"stem", "outer"}
    assert list(sizes(problem_of(Residual(), "inner"))) == ["inner"]
