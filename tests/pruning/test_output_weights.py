"""What errors at layers' outputs are worth, and how that orders groups with several consumers."""

import numpy as np
import pytest
import torch
from networks_for_tests import Concatenating, Head, Residual, SqueezeExcite, awaken, images
from torch import nn
from torch.nn import functional as F

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.pruning.criteria.brain_surgeon import consumers_of, eliminate
from lfgcl_env.pruning.moments.output_weights import output_weights


def test_weights_are_the_fisher_information_of_the_classifier():
    network = awaken(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), Head(6)))
    given = images(128)
    found = output_weights(network, ["2.fc"], given)["2.fc"]
    with torch.no_grad():
        predicted = F.softmax(network(given) / 4, dim=1).double()
    expected = (predicted * (1 - predicted)).mean(0)
    assert torch.allclose(found, expected, rtol=0.1)


def test_weights_predict_the_divergence_that_noise_at_an_output_causes():
    network = awaken(Residual())
    given, scale = images(128, 8), 0.02
    weights = output_weights(network, ["stem", "inner", "outer"], given)
    with torch.no_grad():
        target = F.log_softmax(network(given).double() / 4, dim=1)
    for name, weight in weights.items():
        draws = torch.Generator().manual_seed(0)

        def disturb(_, __, output, draws=draws):
            return output + scale * torch.randn(output.shape, generator=draws)

        handle = network.get_submodule(name).register_forward_hook(disturb)
        found = []
        with torch.no_grad():
            for _ in range(20):
                noisy = F.log_softmax(network(given).double() / 4, dim=1)
                found.append(float(F.kl_div(noisy, target, reduction="batchmean", log_target=True)))
        handle.remove()
        # Logits are divided by the temperature once more than the drawn labels' gradients.
        expected = 0.5 * scale**2 * float(weight.sum()) / 16
        assert np.mean(found) == pytest.approx(expected, rel=0.35)


def test_what_no_gradient_comes_through_counts_the_same():
    class Detached(Residual):
        def forward(self, x):
            with torch.inference_mode():
                return super().forward(x)

    found = output_weights(awaken(Detached()), ["inner", "head.fc"], images(4))
    assert all((weights == 1).all() for weights in found.values())


def test_networks_are_not_changed():
    network = awaken(load_baseline("resnet20", "random", shortcut="B").network)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    output_weights(network, ["layer1.0.conv1", "linear"], images(4))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(parameter.grad is not None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


class Lopsided(nn.Module):
    """A stream whose first half feeds what decides, and its second half what hardly matters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.loud = nn.Conv2d(8, 8, 1)
        self.quiet = nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.loud(x)) + 0.01 * F.relu(self.quiet(x)))


def lopsided():
    network = awaken(Lopsided())
    with torch.no_grad():
        network.loud.weight[:, 4:] = 0
        network.quiet.weight[:, :4] = 0
    return network


def test_channels_of_consumers_that_hardly_matter_go_first():
    problem = PruningProblem(lopsided(), images(32), scope="all", budget=1.0)
    stem = next(group for group in problem.groups if group.name == "stem")
    order = problem.eliminations["stem"].order
    assert sorted(order[:4]) == [0, 1, 2, 3]
    unweighted = eliminate(stem, problem.moments)
    assert sorted(unweighted.order[:4]) != [0, 1, 2, 3]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_orders_are_the_same_where_gradients_are_off(mode):
    def problem():
        return PruningProblem(
            lopsided(), images(8), scope="all", budget=1.0, criterion="l1", repair="none"
        )

    without = problem()
    with mode():
        quiet = without.eliminations
    for name, elimination in problem().eliminations.items():
        assert elimination.order.tolist() == quiet[name].order.tolist()


def test_consumers_that_do_not_matter_at_all_order_by_their_own_errors():
    problem = PruningProblem(lopsided(), images(8), scope="all", budget=1.0)
    stem = next(group for group in problem.groups if group.name == "stem")
    none = {name: torch.zeros(8) for name in ("loud", "quiet")}
    dead, alone = (eliminate(stem, problem.moments, weights) for weights in (none, None))
    assert dead.order.tolist() == alone.order.tolist()


def test_groups_with_one_consumer_are_ordered_as_ever():
    problem = PruningProblem(
        load_baseline("resnet20", "random", shortcut="B"), images(8), scope="all"
    )
    for group in problem.groups:
        alone = eliminate(group, problem.moments)
        mine = problem.eliminations[group.name]
        several = len(consumers_of(group, problem.moments)) > 1
        assert several is group.coupled
        assert np.array_equal(alone.errors, mine.errors) is not several


@pytest.mark.parametrize("network", [Residual, Concatenating, SqueezeExcite, Lopsided])
def test_error_curves_fall_from_about_one_for_every_consumer(network):
    problem = PruningProblem(awaken(network()), images(16), scope="all", budget=1.0)
    for group in problem.groups:
        errors = problem.eliminations[group.name].errors
        assert (np.diff(errors) <= 0).all()
        # More than one each by a ridge, as there are few images; less where other inputs stay.
        assert 0 < errors[0] < 2 * len(consumers_of(group, problem.moments))
