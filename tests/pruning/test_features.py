"""Features are read where they are named, and removed channels count as zeros there."""

import numpy as np
import pytest
import torch
from networks_for_tests import Head, awake_baseline, awaken, images, plain, simple_problem
from torch import Tensor, nn

from lfgcl_env.pruning.score.similarities import cosine


def small(**arguments):
    return simple_problem(awaken(plain()), images(8), budget=1.0, repair="none", **arguments)


@torch.no_grad()
def recorded(network: nn.Module, place: str, inputs: Tensor) -> Tensor:
    """What a module gives, before anything changes it in place."""
    found: list[Tensor] = []
    module = network.get_submodule(place)
    handle = module.register_forward_hook(lambda _, __, output: found.append(output.clone()))
    network(inputs)
    handle.remove()
    return found[0].flatten(1)


@pytest.mark.parametrize("place", ["0", "1", "3", "4", "6.fc"])
def test_features_at_named_modules_are_what_they_give_with_zeros_for_removed_channels(place):
    problem = small(features=[place])
    keep = [4, 3]
    whole = recorded(problem.baseline.network, place, images(8))
    compressed = problem.compress(keep)
    cut = recorded(compressed, place, images(8))
    kept = {"0": 0, "1": 0, "3": 1, "4": 1, "6.fc": None}[place]
    if kept is not None:
        positions = problem.kept_channels(keep)[kept]
        back = whole.reshape(8, problem.channels[kept], -1).clone().zero_()
        back[:, positions] = cut.reshape(8, len(positions), -1)
        cut = back.flatten(1)
    assert problem.evaluate(keep).similarity == pytest.approx(cosine(whole, cut), abs=1e-6)


def test_several_places_are_averaged():
    single = [small(features=[place]).evaluate([4, 3]).similarity for place in ("0", "6.fc")]
    assert small(features=["0", "6.fc"]).evaluate([4, 3]).similarity == pytest.approx(
        np.mean(single)
    )
    assert abs(single[0] - single[1]) > 1e-3


def test_output_and_blocks_and_a_single_name_can_be_named():
    def similarity(features):
        return (
            simple_problem(awake_baseline("resnet20"), images(8), repair="none", features=features)
            .evaluate([5] * 9)
            .similarity
        )

    assert similarity(["output"]) == pytest.approx(similarity(["linear"]))
    assert similarity("layer1") == similarity(["layer1"])
    assert similarity(["layer1", "layer3.2"]) != similarity(None)


def test_the_default_features_are_the_classifiers_input_pooled_over_positions():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    problem = simple_problem(network, images(8), budget=1.0, repair="none")
    maps = recorded(network, "1", images(8)).reshape(8, 8, -1).mean(2)
    pruned = torch.zeros_like(maps)
    kept = problem.kept_channels([3])[0]
    pruned[:, kept] = maps[:, kept]
    assert problem.evaluate([3]).similarity == pytest.approx(cosine(maps, pruned), abs=1e-6)


def test_a_linear_layer_on_tokens_has_its_channels_last():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 8, stride=8)
            self.mix = nn.Linear(8, 12)
            self.fc = nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.mix(self.patches(x).flatten(2).transpose(1, 2)).relu()).mean(1)

    arguments = {"budget": 1.0, "repair": "none"}
    default = simple_problem(Tokens().eval(), images(), **arguments)
    assert [group.name for group in default.groups] == ["patches", "mix"]
    assert default.evaluate([8, 12]).similarity == pytest.approx(1)
    named = simple_problem(Tokens().eval(), images(), features=["mix"], **arguments)
    assert named.evaluate([8, 12]).similarity == pytest.approx(1)
    assert named.evaluate([8, 1]).similarity < 0.95


class Awkward(nn.Module):
    """A ReLU in place behind a BatchNorm, a module nobody uses, and one that gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.unused = nn.Conv2d(3, 3, 1)
        self.pair = Pair()
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        x.relu_()
        return self.head(self.pair(x)[0])


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_features_are_taken_before_anything_changes_them_in_place():
    problem = simple_problem(awaken(Awkward()), images(8), budget=1.0, features=["norm"])
    assert float(problem.scorer.targets[0].min()) < -0.1


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (["unused"], "module 'unused' is not used: it has no features"),
        (["pair"], "a Pair gives a tuple, not one tensor"),
        (["nrm"], r"no module 'nrm' to take features at. Did you mean 'norm'\?"),
        ([], "features names no module"),
    ],
)
def test_places_without_features_are_refused(features, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        simple_problem(awaken(Awkward()), images(8), budget=1.0, features=features)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", ["2", "5"])
def test_places_whose_channels_cannot_be_matched_are_refused(place):
    with pytest.raises(ValueError, match="name a convolution, linear or BatchNorm layer instead"):
        small(features=[place])
