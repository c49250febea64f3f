"""Which features and outputs are compared: all that feeds an output, and all outputs."""

import copy
import math

import numpy as np
import pytest
import torch
from networks_for_tests import FAMILIES, awake_baseline, images, random_strategy, simple_problem
from torch import nn
from torch.nn import functional as F
from unusual_networks import SEVERAL, Detecting, Forked, joined, made, noise, segmenting

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem
from lfgcl_env.pruning.score.heads import Head, find_heads
from lfgcl_env.pruning.score.output_values import MOST_VALUES, read_output
from lfgcl_env.pruning.score.similarities import agreement, kl, mse
from lfgcl_env.pruning.structure.layers import measure_layers


def heads(network: nn.Module, *shape: int) -> list[tuple[str, bool]]:
    baseline = load_baseline(network.eval(), input_shape=shape)
    layers = measure_layers(baseline.network, torch.zeros(1, *shape))
    return [(head.layer, head.maps) for head in find_heads(baseline, layers)]


def with_one_channel(problem: PruningProblem, group: str) -> np.ndarray:
    return np.where([g.name == group for g in problem.groups], 1, problem.channels)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_with_one_classifier_is_compared_at_its_input_alone(family):
    baseline = awake_baseline(family)
    layers = measure_layers(baseline.network, images(1))
    assert find_heads(baseline, layers) == (Head(layers[-1].name, maps=False),)


@pytest.mark.parametrize("kind", ["joined", *SEVERAL])
def test_every_layer_that_feeds_an_output_is_a_head(kind):
    give = joined if kind == "joined" else SEVERAL[kind][0]
    assert heads(Forked(give), 3, 12, 10) == [("box2", False), ("cls2", False)]


def test_heads_are_found_through_in_place_operations_sums_and_auxiliary_outputs():
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.unused = (nn.Conv2d(3, 4, 1) for _ in range(3))

        def forward(self, x):
            found = self.a(x).relu_()
            found += self.b(x)
            return found.sigmoid_(), found.argmax(1)

    assert heads(Summed(), 3, 6, 6) == [("a", True), ("b", True)]


def test_what_a_head_reads_is_taken_before_another_one_changes_it_in_place():
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 2)

        def forward(self, x):
            x = self.stem(x)
            return self.a(x), self.b(x.relu_())

    torch.manual_seed(0)
    problem = simple_problem(Changing().eval(), noise(16, 6))
    before, after = problem.scorer.targets
    assert float(before.min()) < 0
    assert torch.equal(before.relu(), after)


def test_without_gradients_the_last_layer_is_the_head():
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        @torch.no_grad()
        def forward(self, x):
            return self.b(self.a(x))

    assert heads(Frozen(), 3) == [("b", False)]


@pytest.mark.parametrize("kind", ["joined", *SEVERAL])
@pytest.mark.parametrize("repair", ["none", "least_squares", "sequential"])
def test_a_head_cut_to_one_channel_costs_similarity_whichever_it_is(kind, repair):
    network, inputs = made("two heads" if kind == "joined" else f"two heads, {kind}")
    with torch.no_grad():  # predictions as sharp as those of a trained network
        network.box2.weight *= 100
        network.cls2.weight *= 100
    problem = PruningProblem(network, inputs, budget=0.9, repair=repair)
    for head in ("box1", "cls1"):
        keep = with_one_channel(problem, head)
        # Sequential repair gives most of the head back, and is compared by outputs.
        assert problem.evaluate(keep).similarity < (0.9999 if repair == "sequential" else 0.98)
        assert problem.screen([keep])[0] < 0.98


def test_similarities_of_heads_are_averaged():
    network, inputs = made("two heads, tuple")
    both = simple_problem(network, inputs, similarity="mse")
    keep = random_strategy(both, 3)
    single = [
        mse(target, mine)
        for target, mine in zip(both.scorer.targets, both.features(keep), strict=True)
    ]
    assert len(single) == 2
    assert both.evaluate(keep).similarity == pytest.approx(sum(single) / 2)


def test_features_of_maps_are_averaged_over_cells():
    torch.manual_seed(0)
    problem = simple_problem(segmenting().eval(), noise(4, 3, 16, 16), similarity="mse")
    (target,) = problem.scorer.targets
    read = []
    head = problem.baseline.network[5]
    handle = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.no_grad():
        problem.baseline.network(noise(4, 3, 16, 16))
    handle.remove()
    torch.testing.assert_close(target, F.avg_pool2d(read[0], 2).flatten(1), atol=1e-5, rtol=1e-4)


def test_the_place_output_stands_for_all_outputs():
    network, inputs = made("two heads, nested")
    problem = simple_problem(network, inputs, similarity="mse", features="output")
    assert [tuple(target.shape) for target in problem.scorer.targets] == [(24, 4), (24, 10)]
    keep = with_one_channel(problem, "box1")
    pruned = problem.compress(keep)
    with torch.no_grad():
        before, after = (net(inputs)["found"] for net in (network, pruned))
    expected = (mse(before[0], after[0]) + mse(before[1]["logits"], after[1]["logits"])) / 2
    assert problem.evaluate(keep).similarity == pytest.approx(expected, abs=1e-5)


# Outputs


def test_divergence_of_maps_is_that_of_their_pixels():
    draw = torch.Generator().manual_seed(0)
    baseline, pruned = (torch.randn(3, 4, 5, 6, generator=draw) for _ in range(2))
    pixels = [maps.movedim(1, -1).reshape(-1, 4) for maps in (baseline, pruned)]
    assert kl(baseline, pruned) == pytest.approx(kl(*pixels))
    assert agreement(baseline, pruned) == pytest.approx(agreement(*pixels))
    assert kl(baseline, baseline + torch.randn(3, 1, 5, 6, generator=draw)) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(6, 1), (6, 7, 5), (6, 1, 4, 4)])
def test_outputs_without_classes_are_compared_by_their_relative_error(shape):
    draw = torch.Generator().manual_seed(0)
    baseline, pruned = (torch.randn(*shape, generator=draw) for _ in range(2))
    assert kl(baseline, pruned) == mse(baseline.flatten(1), pruned.flatten(1)) < 1


def test_outputs_are_compared_one_by_one_and_averaged():
    network, inputs = made("two heads, dictionary")
    problem = simple_problem(network, inputs, similarity="kl")
    keep = random_strategy(problem, 2)
    pruned = problem.compress(keep)
    with torch.no_grad():
        before, after = network(inputs), pruned(inputs)
    expected = np.mean([kl(before[name], after[name]) for name in ("boxes", "logits")])
    assert problem.evaluate(keep).similarity == pytest.approx(expected, abs=1e-5)
    assert problem.judge(inputs)(pruned) == pytest.approx(expected, abs=1e-5)


def test_an_output_that_is_not_finite_is_worth_nothing():
    network, inputs = made("two heads, tuple")
    problem = simple_problem(network, inputs, similarity="kl")
    broken = copy.deepcopy(network)
    broken.box2.bias.data[:] = math.nan
    assert problem.score_network(broken, problem.channels) == 0
    assert problem.judge(inputs)(broken) == 0


def test_of_large_maps_every_other_pixel_is_compared():
    large = torch.arange(2 * 5 * 100 * 300, dtype=torch.float32).reshape(2, 5, 100, 300)
    taken = read_output(large, "")
    assert taken.shape[:2] == (2, 5)
    assert taken[0].numel() <= MOST_VALUES
    assert torch.equal(taken, large[:, :, ::2, ::8])
    small = torch.zeros(2, 4, 64, 64)
    assert read_output(small, "") is small
    assert read_output(torch.zeros(2, 50_000), "").shape == (2, 50_000)


@pytest.mark.parametrize("name", ["number", "two heads, tuple", "depth map"])
def test_agreement_needs_classes(name):
    network, inputs = made(name)
    complaint = r"'agreement' is for classes, and .* returns \(.*choose 'kl'"
    if name == "two heads, tuple":  # both are vectors
        assert simple_problem(network, inputs, similarity="agreement").groups
        return
    with pytest.raises(ValueError, match=complaint):
        simple_problem(network, inputs, similarity="agreement")


# Outputs whose number depends on the image


@pytest.mark.parametrize("arguments", [{}, {"repair": "none"}, {"features": ["output"]}])
def test_detections_are_not_compared_and_the_way_out_is_named(arguments):
    with pytest.raises(ValueError, match="as detections have not: give features, the names of"):
        PruningProblem(Detecting().eval(), noise(8, 3, 8, 8), **arguments)


def test_detectors_are_compared_at_features_that_are_named():
    torch.manual_seed(0)
    network, inputs = Detecting().eval(), noise(8, 3, 8, 8)
    problem = PruningProblem(network, inputs, features=["backbone.2"], budget=0.9)
    assert [group.name for group in problem.groups] == ["backbone.0", "backbone.2"]
    keep = with_one_channel(problem, "backbone.0")
    assert problem.evaluate(keep).similarity < 0.98
    assert problem.screen([keep])[0] < 0.98
    pruned = problem.compress(keep)
    assert problem.score_network(pruned, keep) == pytest.approx(problem.evaluate(keep).similarity)
    with pytest.raises(ValueError, match="as detections have not"):
        problem.judge(inputs)


def test_what_cannot_be_cut_is_found_although_nothing_is_returned():
    """Nothing is detected: exactness is checked at the layers that read the channels."""

    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(8, 8, 1) for _ in range(3))
            self.stem = nn.Conv2d(3, 8, 1)

        def forward(self, x):
            x = self.a(self.stem(x))
            x = x.view(-1, 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
            x = self.c(self.b(x)).flatten(1)
            return [{"boxes": one[one > 1e6]} for one in x]

    network = PrunableNetwork(load_baseline(Shuffled().eval(), input_shape=(3, 4, 4)))
    assert "a" not in [group.name for group in network.groups]
    assert "stem" in [group.name for group in network.groups]
