"""Similarities: hand-computed values, what they are blind to, and their ranges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks_for_tests import awaken, images, plain, simple_problem
from torch import Tensor, nn

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import SIMILARITIES, PruningProblem
from lfgcl_env.pruning.score.similarities import (
    agreement,
    cka,
    cosine,
    discounted_mse,
    kl,
    mse,
    relative_error,
)

BLIND_ONE = pytest.approx(1.0, abs=1e-9)


def features(seed: int, images: int = 12, size: int = 7) -> Tensor:
    return torch.randn(images, size, generator=torch.Generator().manual_seed(seed))


def rotation(size: int = 7) -> Tensor:
    return torch.linalg.qr(features(99, size, size).double())[0]


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_features_have_similarity_one(name, dtype):
    same = features(0).to(dtype)
    assert SIMILARITIES[name](same, same.clone()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_every_similarity_is_a_float_and_has_a_worst_value(name):
    assert type(SIMILARITIES[name](features(0), features(1))) is float
    assert SIMILARITIES[name](features(0), features(1)) > SIMILARITIES[name].worst


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(SIMILARITIES)),
    st.integers(0, 10**6),
    st.floats(0.01, 100),
    st.floats(-10, 10),
)
def test_values_stay_in_their_range(name, seed, scale, shift):
    value = SIMILARITIES[name](features(seed), features(seed + 1) * scale + shift)
    assert SIMILARITIES[name].worst - 1e-12 <= value <= 1 + 1e-12


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["cosine", "cka", "mse", "discounted_mse"]), st.integers(0, 10**6))
def test_more_noise_is_less_similar(name, seed):
    clean, noise = features(seed, 64, 32), features(seed + 1, 64, 32)
    values = [SIMILARITIES[name](clean, clean + level * noise) for level in (0, 0.1, 0.5, 3)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.8


def test_cosine_by_hand():
    baseline = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    pruned = torch.tensor([[0.0, 2.0], [6.0, 8.0]])
    assert cosine(baseline, pruned) == pytest.approx((0 + 1) / 2)
    assert cosine(baseline, -baseline) == pytest.approx(-1)


def test_cosine_is_blind_to_the_scale_of_every_image_and_to_rotations_but_not_to_shifts():
    baseline, pruned = features(0).double(), features(0).double() + 0.3 * features(1)
    scales = torch.rand(12, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    assert cosine(baseline, baseline * scales) == BLIND_ONE
    turned = cosine(baseline @ rotation(), pruned @ rotation())
    assert turned == pytest.approx(cosine(baseline, pruned))
    assert cosine(baseline, baseline + 1) < 0.9
    assert cosine(baseline, baseline @ rotation()) < 0.9


def test_cka_is_blind_to_rotation_scale_and_shift_of_the_features():
    baseline = features(0).double()
    assert cka(baseline, baseline @ rotation() * 3.7 + 5) == BLIND_ONE
    assert cka(baseline, baseline @ torch.diag(torch.linspace(0.1, 5, 7).double())) < 0.99


def test_cka_by_hand():
    """Three images on a line against the same with the last two exchanged."""
    baseline = torch.tensor([[-1.0], [0.0], [1.0]])
    pruned = torch.tensor([[-1.0], [1.0], [0.0]])
    # Centred already: (x . y)^2 / (x . x)(y . y) = 1 / (2 * 2)
    assert cka(baseline, pruned) == pytest.approx(0.25)


def test_cka_is_the_formula_of_kornblith_et_al():
    x, y = features(0).double(), features(1).double()
    x, y = x - x.mean(0), y - y.mean(0)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert cka(features(0) + 2, features(1) - 3) == pytest.approx(float(expected))


def test_mse_by_hand():
    baseline = torch.tensor([[0.0, 0.0], [2.0, 0.0]])  # variance: 1 + 1 = 2
    pruned = torch.tensor([[0.0, 1.0], [2.0, 1.0]])  # squared error: 1 + 1 = 2
    assert mse(baseline, pruned) == pytest.approx(0.5)
    mean = baseline.mean(0).expand(2, 2)
    assert mse(baseline, mean) == pytest.approx(0.5)  # the best constant
    assert mse(baseline, baseline * 100) < 0.01


def test_mse_is_relative_to_the_features_scale():
    baseline, pruned = features(0).double(), features(1).double()
    assert mse(baseline * 50, pruned * 50) == pytest.approx(mse(baseline, pruned))


def test_kl_by_hand():
    baseline = torch.tensor([[0.0, 0.0]])
    pruned = torch.tensor([[4.0 * math.log(3.0), 0.0]])  # softened: 3/4, 1/4
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kl(baseline, pruned) == pytest.approx(math.exp(-divergence))


def test_kl_is_blind_to_a_shift_of_all_logits_but_not_to_their_scale():
    logits = features(0)
    assert kl(logits, logits + 7) == pytest.approx(1.0, abs=1e-6)
    assert kl(logits, logits * 2) < 0.99


def test_kl_of_a_single_output_is_its_squared_error():
    values, others = features(0)[:, :1], features(1)[:, :1]
    assert kl(values, others) == mse(values, others) < 1


def test_kl_averages_over_images_and_not_over_classes():
    one = torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([[1.0, 0.0, 2.0]])
    many = [logits.repeat(5, 1) for logits in one]
    assert kl(*many) == pytest.approx(kl(*one))


def test_agreement_by_hand():
    baseline = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 5.0]])
    pruned = torch.tensor([[9.0, 8.0], [0.0, 0.1], [1.0, 2.0], [7.0, 5.0]])
    assert agreement(baseline, pruned) == 0.5


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_is_worst(name, value):
    network = awaken(plain())
    problem = simple_problem(network, images(), budget=1.0, repair="none", similarity=name)
    order = problem.kept_channels([8, 1])[1]
    with torch.no_grad():
        # The candidate of the next problem blows up, the baseline's features were fine.
        problem.candidate._originals["4"]["weight"].fill_(value)
    assert len(order) == 1
    evaluation = problem.evaluate([8, 1])
    assert evaluation.similarity == SIMILARITIES[name].worst
    assert math.isfinite(evaluation.similarity)


@pytest.mark.parametrize("name", ["kl", "agreement"])
def test_similarities_of_outputs_refuse_other_features(name):
    with pytest.raises(ValueError, match=f"{name!r} compares outputs, and no other features"):
        simple_problem(awaken(plain()), images(), similarity=name, features=["0"])


def test_an_unknown_similarity_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown similarity 'cosin'.*Did you mean 'cosine'\?"):
        simple_problem(nn.Identity(), images(), similarity="cosin")


def test_discounted_mse_is_mse_where_all_error_is_upstream_and_lower_where_less_is():
    clean = features(0, 64, 32)
    noisy = clean + 0.3 * features(1, 64, 32)
    plain, error = mse(clean, noisy), relative_error(clean, noisy)
    assert discounted_mse(clean, noisy) == pytest.approx(plain)
    values = [
        discounted_mse(clean, noisy, upstream_error) for upstream_error in (0.0, 0.1, 0.5, 1.0)
    ]
    assert (
        discounted_mse(clean, noisy, 7.0)
        == discounted_mse(clean, noisy, float("inf"))
        == values[-1]
    )
    assert values == sorted(values)
    assert values[-1] == pytest.approx(plain)
    assert values[1] == pytest.approx(1 / (1 + error * (1.03 / 0.13) ** 0.6))
    assert discounted_mse(clean, clean, 0.0) == 1.0


def test_of_two_strategies_as_far_from_the_baseline_the_one_broken_early_is_preferred():
    network = load_baseline("resnet20", "random")
    problem = PruningProblem(network, images(16, 32), similarity="discounted_mse", repair="none")
    simple = PruningProblem(network, images(16, 32), similarity="mse", repair="none")
    early, late = problem.channels.copy(), problem.channels.copy()
    early[1] //= 2
    late[-1] //= 2
    quotients = [
        (1 / problem.evaluate(keep).similarity - 1) / (1 / simple.evaluate(keep).similarity - 1)
        for keep in (early, late)
    ]
    assert quotients[0] < quotients[1] == pytest.approx((1.03 / 0.03) ** 0.6, rel=1e-4)


def test_networks_whose_every_channel_may_go_are_compared_as_by_mse():
    found = [
        simple_problem(awaken(plain()), images(8), similarity=name).evaluate([4, 4])
        for name in ("discounted_mse", "mse")
    ]
    assert found[0].similarity == found[1].similarity < 1


def test_features_named_by_the_user_are_those_that_are_returned():
    network = load_baseline("resnet20", "random")
    problem = PruningProblem(network, images(4, 32), similarity="discounted_mse", repair="none")
    (penultimate,) = problem.features(problem.channels)
    assert penultimate.shape == (4, 64)
