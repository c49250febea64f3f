"""What is protected keeps its shape, and so does every group that reaches into it."""

import numpy as np
import pytest
from networks_for_tests import (
    Head,
    awake_baseline,
    awaken,
    images,
    plain,
    simple_problem,
)
from torch import nn

from lfgcl_env.pruning import PrunableNetwork, PruningProblem


def network_of(*protect: str, **arguments) -> PrunableNetwork:
    return PrunableNetwork(awake_baseline("resnet20"), protect=protect, **arguments)


def names(network) -> set[str]:
    return {group.name for group in network.groups}


@pytest.mark.parametrize("member", ["layer2.1.conv1", "layer2.1.bn1", "layer2.1.conv2"])
def test_a_group_with_a_protected_member_on_any_side_is_left_alone_with_the_reason(member):
    left = names(network_of()) - names(network_of(member))
    assert left == {"layer2.1.conv1"}
    reasons = {e.name: e.reason for e in network_of(member).excluded}
    own = "" if member == "layer2.1.conv1" else f"it reaches into {member}, which "
    end = "keeps it as it is" if not own else "keeps as it is"
    assert reasons["layer2.1.conv1"] == f"{own}protect={member!r} {end}"


@pytest.mark.parametrize("pattern", ["layer2", "layer2.*", "layer2.?.conv?", "layer[2]"])
def test_a_module_and_a_pattern_protect_all_inside(pattern):
    network = network_of(pattern)
    assert names(network) == {n for n in names(network_of()) if not n.startswith("layer2")}
    smaller = network.cut([np.arange(1) for _ in network.groups])
    for name, weight in network.baseline.network.named_parameters():
        if name.startswith("layer2"):
            assert smaller.get_parameter(name).shape == weight.shape
    assert len(names(network_of("layer2", "layer3.0", "layer1.0.conv2"))) == 4


def test_one_name_needs_no_list():
    protected = PrunableNetwork(awake_baseline("resnet20"), protect="layer2")
    assert names(protected) == names(network_of("layer2"))


def test_streams_that_reach_into_a_protected_layer_stay_whole():
    base = awake_baseline("resnet20-B")
    stream = next(g for g in PrunableNetwork(base, scope="all").groups if g.coupled)
    for layer in (stream.layers("out")[1], stream.layers("in")[-1]):
        left = PrunableNetwork(base, scope="all", protect=layer)
        assert stream.name not in names(left)
        assert names(left)


def test_a_layer_with_two_names_is_known_by_both():
    shared = nn.Conv2d(8, 8, 3, padding=1)
    parts = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Sequential(shared), nn.Sequential(shared)]
    network = nn.Sequential(*parts, nn.Conv2d(8, 6, 3), nn.ReLU(), Head(6)).eval()
    free = simple_problem(network, images(2))
    assert any(group.layers("in") for group in free.groups if "2.0" in _touched(group))
    for name in ("2", "3.0"):
        kept = simple_problem(network, images(2), protect=name)
        assert not any("2.0" in _touched(group) for group in kept.groups)


def _touched(group) -> set[str]:
    return {member.layer for member in group.members}


@pytest.mark.parametrize("pattern", ["layr2", "layer2.conv1", "resnet20.layer2", ""])
def test_a_pattern_that_matches_no_module_is_refused(pattern):
    with pytest.raises(ValueError, match=f"protect '{pattern}' matches no module") as refused:
        network_of("layer1", pattern)
    assert pattern != "layr2" or "Did you mean 'layer2'?" in str(refused.value)


def test_a_network_all_of_which_is_protected_says_so():
    with pytest.raises(ValueError, match=r"no channels .* can be pruned \(.*protect='\*' keeps"):
        network_of("*")


class TwoBranches(nn.Module):
    """As RepVGG's blocks: an addition couples all that can be pruned."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(into, out, 3, padding=1), nn.Conv2d(into, out, 1)

    def forward(self, x):
        return nn.functional.relu(self.wide(x) + self.narrow(x))


def test_a_network_that_only_the_other_scope_can_prune_names_it():
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    network = nn.Sequential(TwoBranches(3, 16), TwoBranches(16, 32), *pooled).eval()
    with pytest.raises(ValueError, match=r"with scope='inner', since additions .*scope='all'"):
        PruningProblem(network, images(2))
    assert len(PruningProblem(network, images(2), scope="all", criterion="l1").groups) == 2
    with pytest.raises(ValueError, match="can be pruned") as refused:
        PruningProblem(network, images(2), protect="*")
    assert "scope='all'" not in str(refused.value)


def test_layers_that_protect_leaves_free_are_pruned_as_before():
    free = simple_problem(awaken(plain()), images(4))
    problem = simple_problem(awaken(plain()), images(4), protect="6", budget=0.7)
    assert [group.name for group in problem.groups] == ["0"]
    assert problem.evaluate([4]).similarity == pytest.approx(free.evaluate([4, 6]).similarity)
    assert "a budget of 0.01" in str(_refusal(problem, 0.01))
    assert str(_refusal(problem, 0.01)).endswith("or less with less under protect")


def _refusal(problem: PruningProblem, budget: float) -> ValueError:
    with pytest.raises(ValueError, match="cannot be reached") as refused:
        problem.check_budget(budget)
    return refused.value
