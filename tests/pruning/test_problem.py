"""PruningProblem: scores are deterministic, remembered and counted; bad input is refused."""

import inspect
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks_for_tests import (
    Head,
    awake_baseline,
    awaken,
    flattening,
    images,
    plain,
    random_strategy,
    simple_problem,
)
from torch import nn

from lfgcl_env.config import ProblemConfig, defaults
from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import REPAIRS, SCOPES, PruningProblem, allocate


def small(**arguments) -> PruningProblem:
    arguments = {"budget": 1.0, "repair": "none"} | arguments
    return simple_problem(awaken(plain()), images(8), **arguments)


def test_a_strategy_is_scored_once_and_remembered(monkeypatch):
    problem = small()
    passes = []
    compare = problem.scorer.compare
    monkeypatch.setattr(
        problem.scorer, "compare", lambda features: passes.append(features) or compare(features)
    )
    first = problem.evaluate([4, 3])
    assert problem.evaluate((4, 3)) is first
    assert problem.evaluate(np.array([4.0, 3.0])) is first
    assert problem.evaluate(torch.tensor([4, 3])) is first
    assert len(passes) == 1
    problem.evaluate([3, 4])
    assert len(passes) == 2
    assert problem.known([4, 3])
    assert problem.known([3, 4])
    assert not problem.known([1, 1])


def test_counts_are_of_distinct_strategies_looked_up_ones_included():
    problem = small()
    problem.evaluate([4, 3])
    with problem.count() as counted:
        for keep in ([4, 3], [1, 1], [4, 3]):
            problem.evaluate(keep)
        with problem.count() as inner:
            problem.evaluate([8, 6])
            problem.forget()
            problem.evaluate([1, 1])
    problem.evaluate([2, 2])
    assert counted == {(4, 3), (1, 1), (8, 6)}
    assert inner == {(8, 6), (1, 1)}
    assert (1, 1) in counted


def test_equal_counts_end_independently():
    problem = small()
    with problem.count() as outer:
        with problem.count() as inner:
            pass
        problem.evaluate([4, 3])
    assert (len(outer), len(inner)) == (1, 0)


def test_a_count_ends_when_its_block_raises():
    problem = small()
    problem.evaluate([4, 3])
    with pytest.raises(RuntimeError), problem.count() as counted:
        raise RuntimeError
    problem.evaluate([4, 3])
    assert not counted


def test_sensitivities_are_counted():
    problem = PruningProblem(awaken(plain()), images(8))
    with problem.count() as counted:
        allocate(problem)
    assert counted == {(4, 6), (8, 3)}


def test_what_is_forgotten_is_scored_anew_and_alike():
    problem = small()
    first = problem.evaluate([4, 3])
    problem.forget()
    assert not problem.known([4, 3])
    assert problem.evaluate([4, 3]) == first


def test_remembered_evaluations_are_not_made_again_nor_counted():
    scored = small().evaluate([4, 3])
    problem = small()
    kept = replace(scored, similarity=0.123)
    with problem.count() as counted:
        problem.remember(kept)
    assert not counted
    assert problem.known([4, 3])
    assert problem.evaluate([4, 3]) is kept


@pytest.mark.parametrize(
    "similarity", [float("nan"), float("inf"), -float("inf"), 2.0, "0.5", None, True]
)
def test_evaluations_without_a_finite_similarity_are_not_remembered(similarity):
    problem = small()
    evaluation = replace(problem.evaluate([4, 3]), similarity=similarity)
    with pytest.raises(ValueError, match="only an Evaluation with a finite similarity"):
        problem.remember(evaluation)


@pytest.mark.parametrize("evaluation", [None, {"keep": [4, 3]}, (4, 3)])
def test_what_is_no_evaluation_is_not_remembered(evaluation):
    with pytest.raises(ValueError, match="only an Evaluation with a finite similarity"):
        small().remember(evaluation)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"macs": 1}, "is not of this problem: the same strategy has"),
        ({"params": 1}, "is not of this problem: the same strategy has"),
        ({"keep": (9, 3)}, "group 0 can keep 1 to 8 channels, got 9"),
        ({"keep": (4,)}, "one count of kept channels for each of the 2 groups"),
    ],
)
def test_evaluations_of_another_problem_are_not_remembered(change, complaint):
    problem = small()
    evaluation = replace(small().evaluate([4, 3]), **change)
    with pytest.raises(ValueError, match=complaint):
        problem.remember(evaluation)
    assert not problem.known([4, 3])


@pytest.mark.parametrize("repair", REPAIRS)
def test_scores_do_not_depend_on_what_was_scored_before(repair):
    arguments = {"repair": repair, "budget": 1.0}
    strategies = [random_strategy(small(), seed) for seed in range(6)]
    one, other = small(**arguments), small(**arguments)
    forwards = [one.evaluate(keep) for keep in strategies]
    backwards = [other.evaluate(keep) for keep in reversed(strategies)][::-1]
    assert forwards == backwards
    one.compress(strategies[0])
    one.forget()
    assert [one.evaluate(keep) for keep in strategies] == forwards


def test_scores_do_not_touch_the_global_random_state():
    network = awaken(plain())
    torch.manual_seed(3)
    np_state = np.random.get_state()[1].tolist()  # noqa: NPY002 (the global state is the point)
    state = torch.random.get_rng_state()
    problem = simple_problem(network, images(8), repair="least_squares", criterion="random")
    problem.compress([4, 3])
    problem.evaluate([4, 3])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == np_state  # noqa: NPY002


def test_the_unpruned_network_is_most_similar_to_itself():
    problem = small()
    assert problem.evaluate([8, 6]).similarity == pytest.approx(1.0, abs=1e-6)
    assert problem.evaluate([1, 1]).similarity < 0.99


def test_a_pickled_problem_goes_on_scoring_alike():
    problem = small(repair="batchnorm", criterion="random", seed=4)
    problem.evaluate([4, 3])
    copied = pickle.loads(pickle.dumps(problem))
    assert copied.known([4, 3])
    assert copied.evaluate([2, 5]) == problem.evaluate([2, 5])
    assert copied.evaluate([8, 1]) == problem.evaluate([8, 1])


def test_prune_ratios_are_the_share_that_goes():
    assert small().prune_ratios([8, 3]).tolist() == [0.0, 0.5]
    assert small().prune_ratios([2, 6]).dtype == np.float64


def test_channels_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        small().channels[0] = 1


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        (images(8).numpy(), "must be a float tensor .* got ndarray"),
        (images(8).byte(), r"got torch.uint8 of shape \(8, 3, 32, 32\)"),
        (torch.zeros(8), r"got torch.float32 of shape \(8,\)"),
        (images(1), "at least 2 calibration images are needed, got 1"),
        (images(0), "at least 2 calibration images are needed, got 0"),
        (images(8).index_fill(0, torch.tensor([3]), float("nan")), "NaN or infinite"),
        (images(8).index_fill(0, torch.tensor([3]), float("inf")), "NaN or infinite"),
        (images(8)[:, :1], "does not take inputs of shape|images have shape"),
    ],
)
def test_images_that_do_not_fit_are_refused(inputs, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        simple_problem(awaken(plain()), inputs)
    assert "\n" not in str(refused.value)


def test_images_of_another_size_than_a_baselines_are_refused():
    with pytest.raises(
        ValueError, match=r"shape \(3, 16, 16\), and the network takes \(3, 32, 32\)"
    ):
        simple_problem(awake_baseline("resnet20"), images(4, 16))


def test_images_of_another_precision_serve_alike():
    one, other = (
        simple_problem(awaken(plain()), inputs, budget=1.0)
        for inputs in (images(8), images(8).double())
    )
    assert one.evaluate([4, 3]) == other.evaluate([4, 3])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"repair": "batch_norm"}, "unknown repair 'batch_norm'.*Did you mean 'batchnorm'"),
        ({"scope": "outer"}, f"unknown scope 'outer': choose one of {', '.join(SCOPES)}"),
        (
            {"similarity": "l2"},
            "unknown similarity 'l2': choose one of discounted_mse, mse, cosine, cka",
        ),
    ],
)
def test_unknown_choices_name_the_accepted_ones(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        small(**arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            {"budgets": 0.5},
            r"the problem got an unexpected keyword argument 'budgets'. Did you mean 'budget'\?",
        ),
        ({"criterion": 3}, "criterion must be a name, got 3"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4,294,967,295, got -1"),
        ({"features": 3}, "features must be names of modules, or None, got 3"),
        ({"budget": (0.3, 0.6)}, "budget must be a number, got"),
        ({"device": 0}, "device must be a name, got 0"),
        ({"device": "tpu9"}, "device 'tpu9' cannot be used"),
    ],
)
def test_unusable_arguments_are_refused_in_one_sentence(arguments, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        small(**arguments)
    assert "\n" not in str(refused.value)


def test_the_signature_shows_every_argument_and_its_default():
    parameters = inspect.signature(PruningProblem).parameters
    assert list(parameters)[:3] == ["network", "images", "score_images"]
    shown = {name: p.default for name, p in list(parameters.items())[3:]}
    assert shown == defaults(ProblemConfig)
    assert parameters["score_images"].default is None


def test_settings_are_all_that_decides_scores_and_make_the_same_problem():
    chosen = {
        "budget": 0.9, "budget_metric": "params", "criterion": "random", "repair": "batchnorm",
        "similarity": "mse", "features": ["0", "4"], "scope": "all", "round_to": 2,
        "min_channels": 2, "max_prune_ratio": [["0", 0.5], ["*", 0.75]], "protect": ["2"],
        "seed": 5, "latency_runtime": "onnxruntime", "latency_batch": 4, "latency_threads": 2,
        "latency_table": None,
    }  # fmt: skip
    problem = small(**chosen, device="cpu")
    assert problem.settings() == chosen
    settings = json.loads(json.dumps(problem.settings()))
    assert small(**settings).evaluate([4, 4]) == problem.evaluate([4, 4])


@pytest.mark.parametrize("network", [None, "resnet20", nn.Linear(2, 2)])
def test_networks_that_cannot_be_scored_are_refused(network):
    with pytest.raises(ValueError, match=r"must be a torch\.nn\.Module|cannot be run"):
        small().score_network(network, [4, 3])


def test_a_network_with_other_channels_is_not_scored():
    problem = small(features=["3"])
    network = problem.compress([4, 3])
    with pytest.raises(ValueError, match=r"the network has 3 channels at '3', and .* keeps 2"):
        problem.score_network(network, [4, 2])


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_a_strategy_meets_the_budgets_that_it_does_not_exceed(metric):
    problem = small(budget_metric=metric)
    share = getattr(problem.evaluate([4, 3]), f"{metric}_ratio")
    assert problem.meets([4, 3], share)
    assert not problem.meets([4, 3], share - 1e-6)
    assert problem.meets([8, 6])


class Activated(nn.BatchNorm2d):
    """A BatchNorm with an activation, as timm's."""

    def forward(self, x):
        return super().forward(x).relu()


def test_batchnorm_repair_leaves_a_norm_its_own_forward():
    behind = [nn.Conv2d(8, 6, 3, padding=1), Head(6)]
    apart = awaken(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *behind))
    within = nn.Sequential(nn.Conv2d(3, 8, 3), Activated(8), nn.Identity(), *behind).eval()
    within.load_state_dict(apart.state_dict())
    keep = [5, 4]
    scores, outputs = [], []
    for network in (apart, within):
        problem = PruningProblem(network, images(16), repair="batchnorm")
        scores.append(problem.evaluate(keep).similarity)
        scores.append(problem.score_network(problem.compress(keep), keep))
        outputs.append(problem.compress(keep)(images(4, seed=2)))
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-5)
    torch.testing.assert_close(*outputs)


def test_batchnorm_repair_of_a_network_without_batchnorm_names_another():
    with pytest.raises(ValueError, match=r"'batchnorm' needs BatchNorm layers.*use 'none'"):
        simple_problem(awaken(flattening()), images(), repair="batchnorm")


@pytest.mark.data("CIFAR10", "resnet20")
def test_repair_recovers_features_of_a_trained_network():
    from lfgcl_env.images import load_images

    baseline = load_baseline("resnet20")
    inputs = load_images(
        "CIFAR10", 128, shape=baseline.input_shape, normalization=baseline.normalization
    )
    similar = {}
    for repair in REPAIRS:
        problem = simple_problem(baseline, inputs, repair=repair, budget=0.5)
        similar[repair] = problem.evaluate(problem.project(np.full(9, 0.5))).similarity
    assert similar["none"] < similar["batchnorm"] < 1
    assert similar["none"] < similar["least_squares"] < 1
