"""What is left alone and why, what is cut right, and the check that tells them apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks_for_tests import (
    Head,
    Residual,
    Shuffling,
    ZeroPadded,
    awaken,
    check_exactness,
    images,
    plain,
    random_strategy,
    shared_problem,
    simple_problem,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import LayerNorm2d

from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.structure import group_search
from lfgcl_env.pruning.structure.groups import Exclusion, Member
from lfgcl_env.pruning.structure.layers import count_macs
from lfgcl_env.pruning.structure.tracing import find_groups
from lfgcl_env.pruning.structure.verification import WRONG, split_exact


class Chain(nn.Module):
    """conv ``a``, something, conv ``b``, conv ``c``, head: a place for whatever may be tricky."""

    def __init__(self, between: nn.Module, into: int = 8, behind: nn.Module | None = None) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.between = between
        self.behind = behind or nn.Identity()
        self.b = nn.Conv2d(into, 6, 3, padding=1)
        self.c = nn.Conv2d(6, 6, 3, padding=1)
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(self.behind(self.between(self.a(x)))))
        return self.head(F.relu(self.c(x)))


class Do(nn.Module):
    """Any function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Scale(nn.Module):
    """A number for every channel, as a parameter or as a buffer that tracing does not see."""

    def __init__(self, *, trained: bool) -> None:
        super().__init__()
        factors = torch.linspace(0.5, 2.0, 8).reshape(1, 8, 1, 1)
        if trained:
            self.factors = nn.Parameter(factors)
        else:
            self.register_buffer("factors", factors)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors


class Counting(nn.LayerNorm):
    """A norm of maps that divides by a number of channels of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.count = channels

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.sum(1, True) / self.count
        x = x / (x.square().sum(1, True) / self.count + self.eps).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class Reshaping(nn.LayerNorm):
    """A norm that makes tokens of maps."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(2).transpose(1, 2))


class Paired(nn.LayerNorm):
    """A norm that returns what it was given too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


class Conditioned(nn.LayerNorm):
    """A norm with a second input."""

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        return super().forward(x) + shift


class Normed(nn.Module):
    """Calls a norm of the last axis on maps."""

    def __init__(self, norm: nn.Module, call) -> None:
        super().__init__()
        self.norm, self.call = norm, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.norm, x.movedim(1, -1)).movedim(-1, 1)


def as_tokens() -> nn.Module:
    unflatten = Do(lambda x: x.transpose(1, 2).unflatten(2, (32, 32)))
    return Chain(Reshaping(8), behind=unflatten)


class ConvNeXtLike(nn.Module):
    """LayerNorm over channels, and linear layers on channels-last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.widen = nn.Linear(8, 12)
        self.narrow = nn.Linear(12, 8)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x).permute(0, 2, 3, 1))
        return self.head(self.narrow(F.relu(self.widen(x))).permute(0, 3, 1, 2))


class Reusing(nn.Module):
    """One convolution that is used twice, on its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 6, 3, padding=1)
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.again(F.relu(self.again(F.relu(self.stem(x))))))
        return self.head(F.relu(self.last(x)))


def problem_of(network: nn.Module, scope: str = "all") -> PruningProblem:
    return simple_problem(awaken(network), images(), budget=1.0, scope=scope, repair="none")


def reasons(problem: PruningProblem) -> dict[str, str]:
    return {exclusion.name: exclusion.reason for exclusion in problem.excluded}


@pytest.mark.parametrize(
    ("network", "groups", "left_out", "reason"),
    [
        (Shuffling, ["after", "last"], "before", WRONG),
        (ZeroPadded, ["inner"], "stem", WRONG),
        (lambda: Chain(Do(lambda x: x.flip(1))), ["b", "c"], "a", WRONG),
        (lambda: Chain(Do(lambda x: x.softmax(1))), ["b", "c"], "a", WRONG),
        (
            lambda: Chain(Do(lambda x: torch.cat([x, x.mean(1, True)], 1)), 9),
            ["b", "c"],
            "a",
            WRONG,
        ),
        (
            lambda: Chain(nn.LayerNorm((8, 32, 32))),
            ["b", "c"],
            "a",
            "LayerNorm between normalises over channels and positions together",
        ),
        (lambda: Chain(Counting(8)), ["b", "c"], "a", WRONG),
        (as_tokens, ["b", "c"], "a", WRONG),
        (lambda: Chain(Normed(Paired(8), lambda n, x: n(x)[0])), ["b", "c"], "a", WRONG),
        (lambda: Chain(Normed(Conditioned(8), lambda n, x: n(x, x))), ["b", "c"], "a", WRONG),
        (
            lambda: Chain(nn.Conv2d(8, 8, 3, padding=1, groups=2), behind=Scale(trained=True)),
            ["b", "c"],
            "a",
            "Conv2d between ties it to channels that stay: a free parameter",
        ),
        (
            lambda: Chain(nn.ConvTranspose2d(8, 4, 2, 2, groups=4), 4),
            ["b", "c"],
            "a",
            "between gives one channel for several, which is not followed",
        ),
        (
            lambda: Chain(nn.Conv2d(8, 4, 1, groups=4), 4),
            ["b", "c"],
            "a",
            "between gives one channel for several, which is not followed",
        ),
        (lambda: Chain(Scale(trained=True)), ["b", "c"], "a", "a free parameter"),
        (lambda: Chain(Scale(trained=False)), ["b", "c"], "a", "fails without its channels"),
        (
            lambda: Chain(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))),
            ["b", "c"],
            "a",
            "between is computed from others: torch.nn.utils.parametrize.remove_parametrizations",
        ),
    ],
)
def test_what_cannot_be_cut_is_excluded_by_name_and_reason_and_the_rest_works(
    network, groups, left_out, reason
):
    torch.manual_seed(0)
    problem = problem_of(network())
    assert [group.name for group in problem.groups] == groups
    assert reason in reasons(problem)[left_out]
    halves = np.maximum(1, problem.channels // 2)
    smaller = problem.compress(halves)
    assert count_macs(smaller, images(1)) == problem.cost(halves).macs
    assert problem.evaluate(problem.channels).similarity == pytest.approx(1, abs=1e-5)
    assert problem.evaluate(halves).similarity < 1 - 1e-6


@pytest.mark.parametrize(
    ("network", "groups"),
    [
        (lambda: Chain(nn.PReLU()), ["a", "b", "c"]),
        (lambda: Chain(nn.PReLU(8, init=0.1)), ["a", "b", "c"]),
        (lambda: Chain(nn.InstanceNorm2d(8)), ["a", "b", "c"]),
        (lambda: Chain(nn.BatchNorm2d(8)), ["a", "b", "c"]),
        (lambda: Chain(nn.GroupNorm(1, 8)), ["a", "b", "c"]),
        (lambda: Chain(nn.GroupNorm(1, 8, affine=False)), ["a", "b", "c"]),
        (lambda: Chain(LayerNorm2d(8)), ["a", "b", "c"]),
        (lambda: Chain(Normed(nn.LayerNorm(8), lambda n, x: n(input=x))), ["a", "b", "c"]),
        (ConvNeXtLike, ["stem", "widen", "narrow"]),
        (lambda: Chain(nn.Conv2d(8, 8, 3, padding=1, groups=8)), ["a", "b", "c"]),
        (lambda: Chain(Do(lambda x: F.pad(x, (1, 1, 1, 1)))), ["a", "b", "c"]),
        (
            lambda: Chain(
                Do(lambda x: torch.cat([x, x.new_zeros(len(x), 4, *x.shape[2:])], 1)), 12
            ),
            ["a", "b", "c"],
        ),
        (Reusing, ["stem", "last"]),
    ],
)
def test_what_can_be_cut_is_cut_right(network, groups):
    torch.manual_seed(0)
    problem = problem_of(network())
    assert [group.name for group in problem.groups] == groups
    strategies = [random_strategy(problem, seed) for seed in range(3)]
    check_exactness(problem.network, strategies)


def test_shufflenet_is_traced_in_parts_and_says_what_was_left_out():
    problem = shared_problem("shufflenet_v2_x0_5", "all")
    why = reasons(problem)
    assert why["ShuffleNetV2"].startswith("Torch-Pruning cannot trace it")
    assert {f"stage{stage}" for stage in (2, 3, 4)} <= why.keys()
    assert why["stage2.0.branch1.2"] == "its channels leave stage2.0, which was traced alone"
    assert len(problem.groups) == 16
    assert all(group.part for group in problem.groups)


@pytest.mark.parametrize(
    "network", [lambda: nn.Flatten(), lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 5))]
)
def test_a_network_in_which_nothing_can_be_pruned_is_refused(network):
    with pytest.raises(ValueError, match="no channels of this network can be pruned"):
        simple_problem(network().eval(), images(), repair="none")


def swapped(member: Member) -> Member:
    return replace(member, channels=member.channels[::-1].copy())


@pytest.mark.parametrize("side", ["out", "in", "through"])
def test_the_check_catches_a_member_whose_channels_are_permuted(side):
    network = awaken(plain())
    groups = find_groups(network, images(2)).groups
    assert split_exact(network, groups, images(2)) == (list(groups), [])
    members = [swapped(m) if m.side == side else m for m in groups[0].members]
    wrong = replace(groups[0], members=tuple(members))
    right, excluded = split_exact(network, [wrong, *groups[1:]], images(2))
    assert right == list(groups[1:])
    assert excluded == [Exclusion("0", 8, WRONG)]


@pytest.mark.parametrize("missing", ["out", "in", "through"])
def test_the_check_catches_a_group_without_one_of_its_members(missing):
    network = awaken(plain())
    groups = find_groups(network, images(2)).groups
    members = tuple(m for m in groups[0].members if m.side != missing)
    right, excluded = split_exact(
        network, [replace(groups[0], members=members), *groups[1:]], images(2)
    )
    assert right == list(groups[1:])
    assert excluded[0].name == "0"


@pytest.mark.parametrize("norm", [nn.Identity, lambda: LayerNorm2d(3), lambda: nn.GroupNorm(1, 3)])
@pytest.mark.parametrize("place", range(5))
def test_three_channels_that_are_turned_round_are_found(place, norm):
    """The middle one stays where it is, and a norm over one channel gives the same for any."""
    torch.manual_seed(0)
    between = [nn.Sequential(nn.ReLU(), norm()) for _ in range(5)]
    between[place].insert(0, Do(lambda x: x.flip(1)))
    layers = [one for other in between for one in (nn.Conv2d(3, 3, 3, padding=1), other)]
    problem = problem_of(nn.Sequential(*layers, Head(3)))
    assert reasons(problem)[str(2 * place)] == WRONG
    assert [group.name for group in problem.groups] == [str(2 * i) for i in range(5) if i != place]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("side", ["out", "in", "through"])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, LayerNorm2d])
def test_the_check_catches_permuted_members_of_narrow_groups(norm, side, channels):
    """Of one channel nothing can be permuted, and in front of a norm over two none can go."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, channels, 3, padding=1), norm(channels), nn.Conv2d(channels, 6, 1))
    network = awaken(nn.Sequential(*layers, Head(6)))
    with torch.no_grad():
        network[1].weight.uniform_(0.5, 1.5)
        network[1].bias.uniform_(-0.5, 0.5)
    groups = find_groups(network, images(2)).groups
    members = [swapped(m) if m.side == side else m for m in groups[0].members]
    wrong = replace(groups[0], members=tuple(members))
    right, _ = split_exact(network, [wrong, *groups[1:]], images(2))
    fewest = 2 if norm is LayerNorm2d else 1
    assert ("0" in [group.name for group in right]) == (channels <= fewest)


def test_finding_and_checking_groups_change_nothing_in_the_network():
    network = awaken(Residual())
    network.stem.weight.requires_grad_(False)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    trained = [parameter.requires_grad for parameter in network.parameters()]
    split_exact(network, find_groups(network, images(2)).groups, images(2))
    assert all(torch.equal(network.state_dict()[key], before[key]) for key in before)
    assert [parameter.requires_grad for parameter in network.parameters()] == trained
    assert not any(module.training for module in network.modules())


def test_a_network_in_which_additions_couple_everything_says_which_scope_prunes_it():
    class Parallel(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(into, out, 3, padding=1), nn.Conv2d(into, out, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.a(x) + self.b(x))

    network = nn.Sequential(Parallel(3, 8), Parallel(8, 6), Head(6)).eval()
    with pytest.raises(ValueError, match=r"additions couple all that can: choose scope='all'"):
        simple_problem(network, images())
    assert len(simple_problem(network, images(), scope="all").groups) == 2


@pytest.mark.parametrize("limit", ["MOST_POSITIONS", "MOST_IN_A_GROUP"])
def test_channels_that_reshapes_spread_over_too_many_positions_are_left_alone(limit, monkeypatch):
    """In attention Torch-Pruning multiplies them, until the memory is full."""
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 1024, 4),
    )
    problem = PruningProblem(awaken(network), images(4))
    assert [group.name for group in problem.groups] == ["0", "2"]
    monkeypatch.setattr(group_search, limit, 5000)
    problem = PruningProblem(awaken(network), images(4))
    assert [group.name for group in problem.groups] == ["0"]
    (reason,) = [left.reason for left in problem.excluded if left.name == "2"]
    assert "reshapes spread them over more than 5,000 positions" in reason


class Inferring(nn.Sequential):
    """A network whose forward is never trained."""

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize(
    "network", [nn.Sequential(nn.ReLU(), nn.Flatten()), Inferring(*plain())], ids=["none", "hidden"]
)
def test_a_network_without_layers_that_are_seen_says_so(network):
    with pytest.raises(ValueError, match="there are none, or they run under"):
        simple_problem(network, images(4))


class Unread(nn.Module):
    """A last block whose stream nothing reads, as that of a WaveNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.stream, self.skip = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1)
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        inside = self.conv(x).tanh()
        x = x + self.stream(inside).relu_()
        return self.head(self.skip(inside).relu())


def test_layers_that_nothing_reads_are_cut_along_with_what_they_read():
    torch.manual_seed(0)
    problem = simple_problem(Unread().eval(), images(4))
    assert [group.name for group in problem.groups] == ["conv", "skip"]
    assert ("stream", "in") in {(m.layer, m.side) for m in problem.groups[0].members}
    reasons = {exclusion.name: exclusion.reason for exclusion in problem.excluded}
    assert reasons["stream"] == "no gradient of the outputs comes to its channels"
    check_exactness(problem.network, [random_strategy(problem, seed) for seed in range(3)])


def test_channels_in_front_of_a_local_response_norm_stay():
    """Their neighbours count in it, however weakly where activations are small, as here."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(3)]
    network = nn.Sequential(*layers, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), Head(8)).eval()
    problem = PruningProblem(network, images(4))
    assert [group.name for group in problem.groups] == ["3"]
    assert {left.name for left in problem.excluded} == {"0", "5.fc"}
