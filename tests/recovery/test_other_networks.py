"""Recovery works for whatever can be pruned."""

from dataclasses import replace

import pytest
import torch
from networks_for_tests import Residual, awaken, images, plain, simple_problem
from torch import Tensor, nn
from torch.nn import functional as F

from lfgcl_env.networks.copying import copy_network
from lfgcl_env.recovery import RecoveryOptions, recover
from lfgcl_env.recovery.learned_outputs import find_learned

FEW = RecoveryOptions(epochs=2, epoch_images=64, batch_size=16, learning_rate=0.005, ema=0.9)
TRAIN, WATCHED = images(64, 16, seed=1), images(64, 16, seed=2)


class Viewing(nn.Module):
    """Flattens with ``view``, which refuses channels_last."""

    def __init__(self, drop=0.0):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(drop)
        self.fc = nn.Linear(8 * 16 * 16, 3)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        return self.fc(self.drop(x.view(len(x), -1)))


class WithAuxiliary(Viewing):
    """Returns more in training."""

    def __init__(self):
        super().__init__()
        self.aux = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        found = self.fc(x.reshape(len(x), -1))
        return (found, self.aux(x).mean((2, 3))) if self.training else found


class Remembering(Viewing):
    """Keeps, in evaluation mode, what it computed from its weights."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.kept = {}

    def train(self, mode=True):
        if mode:
            self.kept = {}
        return super().train(mode)

    def forward(self, x):
        scale = self.kept.get("scale", self.gain.square())
        if not self.training:
            self.kept["scale"] = scale
        return super().forward(x) * scale


class Detecting(Viewing):
    """Finds so many boxes in an image as its first number says; those of all images are one list.

    Args:
        more: boxes that are found besides.
    """

    def __init__(self, more: int = 0) -> None:
        super().__init__()
        self.more = more

    def forward(self, x):
        boxes = int(x[:, 0, 0, 0].clamp(0, 9).round().sum()) + self.more
        return super().forward(x), x.new_zeros(boxes, 4)


class Sharing(nn.Module):
    """Uses one layer twice, under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = self.second
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = self.third(self.second(self.first(x).relu()).relu())
        return self.fc(x.mean((2, 3)))


def recovered(network, options=FEW, **arguments):
    baseline = network.eval()
    start = copy_network(baseline)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    problem = simple_problem(baseline, images(16, 16))
    return problem, start, problem.recover(start, TRAIN, options, watched=WATCHED, **arguments)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", [Viewing, WithAuxiliary, Remembering, Sharing])
def test_outputs_come_nearer(kind):
    problem, _, done = recovered(kind())
    assert done.after > done.before
    fresh = copy_network(done.network)  # as it is loaded from a file
    assert problem.judge(WATCHED)(fresh) == pytest.approx(done.after, abs=1e-9)


def test_boxes_are_not_taken_for_images():
    example = images(3, 16)
    example[:, 0, 0, 0] = torch.tensor([0.0, 1.0, 2.0])  # as many boxes as images
    assert find_learned(Detecting().eval(), Detecting(more=1).eval(), example) == ["0"]


def test_nothing_is_left_out_at_random_and_every_step_is_reproducible():
    network = Viewing(drop=0.9)
    first, second = (recovered(network)[2] for _ in range(2))
    assert first.epochs == second.epochs
    assert first.after > first.before


def test_what_a_network_draws_leaves_no_trace():
    class Dropping(Viewing):
        def forward(self, x):
            return super().forward(F.dropout(x, 0.2, self.training))

    network = Dropping().eval()
    problem = simple_problem(network, images(16, 16))
    before = torch.get_rng_state()
    done = [problem.recover(network, TRAIN, FEW, watched=WATCHED) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert done[0].epochs == done[1].epochs


def test_frozen_norms_stay_as_they_are():
    baseline = Viewing().eval()
    problem = simple_problem(baseline, images(16, 16))
    network = copy_network(baseline)
    network.norm.requires_grad_(False)
    with torch.no_grad():
        network.fc.weight += 0.05
    before = {key: value.clone() for key, value in network.norm.state_dict().items()}
    after = problem.recover(network, TRAIN, FEW, watched=WATCHED).network.norm.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_emptied_layers_stay_empty():
    problem = simple_problem(awaken(Residual()), images(16, 16), min_channels=0)
    network = problem.compress([0])
    done = problem.recover(network, TRAIN, FEW, watched=WATCHED)
    assert {k: v.shape for k, v in done.network.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }


class Two(nn.Module):
    """Takes two inputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(6, 16), nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, left, right):
        return self.out((self.left(left) + self.right(right)).relu())


def test_several_inputs_are_learned_from():
    given = torch.randn(256, 6), torch.randn(256, 4)
    problem = simple_problem(Two().eval(), given, scope="all")
    network = problem.compress([8])
    done = problem.recover(network, given, FEW)
    assert done.after > done.before
    assert done.network(*given).shape == (256, 3)


def test_a_score_of_ones_own_gets_several_inputs_as_they_were_given():
    given = torch.randn(256, 6), torch.randn(256, 4)
    problem = simple_problem(Two().eval(), given, scope="all")

    def small(network, inputs):
        left, right = inputs
        return -float(network(left, right).detach().abs().mean())

    watched = torch.randn(32, 6), torch.randn(32, 4)
    network = problem.compress([8])
    done = problem.recover(network, given, FEW, watched=watched, score=small)
    assert done.before == pytest.approx(small(network, watched))
    assert (done.after > done.before) == done.better


def test_few_images_make_a_whole_epoch():
    problem = simple_problem(awaken(plain()), images(16, 16))
    network = problem.compress(problem.channels // 2)
    steps = []
    problem.recover(
        network, TRAIN[:8], FEW, watched=WATCHED, progress=lambda now: steps.append(now.steps)
    )
    assert steps[-1] == len(steps) == 2 * 64 // 16


def test_images_take_the_type_of_the_network_and_other_networks_are_refused():
    problem = simple_problem(awaken(plain()), images(16, 16))
    network = problem.compress(problem.channels // 2)
    baseline = problem.baseline.network
    done = recover(baseline, network, TRAIN.double(), lambda _: 0.0, replace(FEW, epochs=1))
    assert not done.better
    with pytest.raises(ValueError, match=r"the network is of torch\.float64"):
        recover(baseline, copy_network(network).double(), TRAIN, lambda _: 0.0, FEW)
    network.requires_grad_(False)
    with pytest.raises(ValueError, match="all parameters of the network are frozen"):
        recover(baseline, network, TRAIN, lambda _: 0.0, FEW)


def returning(classes: int, colours: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(colours, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = returning(5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.inner(x), "aux": self.inner(x)}


@pytest.mark.parametrize(
    ("baseline", "network", "message"),
    [
        (returning(7), returning(5), r"it returns \(5,\), and the baseline \(7,\)"),
        (returning(1), returning(5), r"it returns \(5,\), and the baseline \(1,\)"),
        (Twice(), returning(5), r"it returns \(5,\), and the baseline out \(5,\), aux \(5,\)"),
        (returning(5), Twice(), r"it returns out \(5,\), aux \(5,\), and the baseline \(5,\)"),
        (
            returning(5, 1),
            returning(5),
            r"the baseline does not take images of shape \(3, 16, 16\)",
        ),
        (returning(5), returning(5, 1), r"the network does not take images of shape \(3, 16, 16\)"),
    ],
)
def test_a_network_of_another_baseline_is_refused(baseline, network, message):
    with pytest.raises(ValueError, match=message):
        recover(baseline.eval(), network.eval(), TRAIN, lambda _: 0.0, FEW)


def test_labels_are_learned_whatever_the_baseline_returns():
    labels = torch.arange(len(TRAIN)) % 5
    done = recover(returning(7), returning(5), TRAIN, lambda _: 0.0, FEW, labels=labels)
    assert done.mapped is None
    with pytest.raises(ValueError, match="the network does not take images of shape"):
        recover(returning(5), returning(5, 1), TRAIN, lambda _: 0.0, FEW, labels=labels)


def test_a_network_that_is_never_trained_says_so():
    class Deployed(Viewing):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    baseline = Deployed().eval()
    with pytest.raises(ValueError, match=r"computes them under torch\.no_grad"):
        recover(baseline, copy_network(baseline), TRAIN, lambda _: 0.0, FEW)
