import copy

import pytest
import torch
from networks_for_tests import awaken, images
from torch import nn

from lfgcl_env.recovery.centring import recentre


def network():
    return awaken(
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3),
            nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )
    )  # fmt: skip


def displaced():
    """A network whose statistics are not those of its activations, as after a repair."""
    one = network()
    with torch.no_grad():
        one[1].running_mean += 0.7
        one[4].running_var *= 3
        one[4].running_mean -= 0.4
    return one


def test_outputs_in_evaluation_mode_stay():
    one, inputs = displaced(), images(16, 12)
    before = one(inputs)
    assert recentre(one, inputs.split(8)) == 2
    torch.testing.assert_close(one(inputs), before, atol=1e-5, rtol=1e-5)


def test_training_mode_then_gives_what_evaluation_mode_gives():
    inputs = images(64, 12)
    one = displaced()
    other = copy.deepcopy(one)
    expected = one(inputs)
    recentre(one, [inputs])
    spread = expected.std(0).mean()
    assert (one.train()(inputs) - expected).abs().mean() < 0.02 * spread
    assert (other.train()(inputs) - expected).abs().mean() > 0.2 * spread


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6, affine=False), nn.GroupNorm(2, 6)])
def test_norms_that_cannot_absorb_the_difference_are_left_alone(norm):
    one = nn.Sequential(nn.Conv2d(3, 6, 3), norm).eval()
    before = copy.deepcopy(one.state_dict())
    assert recentre(one, [images(4, 8)]) == 0
    assert all(torch.equal(one.state_dict()[key], tensor) for key, tensor in before.items())


def test_a_channel_that_does_not_vary_keeps_its_gain():
    one = network()
    with torch.no_grad():
        one[0].weight[2].zero_()
    gain = one[1].weight[2].item()
    recentre(one, [images(8, 12)])
    assert one[1].weight[2].item() == gain
