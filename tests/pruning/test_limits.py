"""Limits of single layers hold in projections, lowest budgets, allocations and all methods."""

import json
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lfgcl_env.baselines import uniform_ratios
from lfgcl_env.baselines.eagleeye import candidates
from lfgcl_env.baselines.global_threshold import l1
from networks_for_tests import (
    awake_baseline,
    awaken,
    images,
    plain,
    shared_problem,
    simple_problem,
)

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PrunableNetwork, PruningProblem, allocate
from lfgcl_env.pruning.sensitivities import sensitivities

LIMITS = {
    "max_prune_ratio": {"layer1.*": 0.3, "*": 0.9},
    "min_channels": {"layer2.0": 10, "layer?.2": 5},
    "round_to": {"layer3": 8, "layer2.*.conv1": 3},
}


def allowed(name: str, full: int) -> list[int]:
    """Counts within LIMITS, written down by hand."""
    least = max(math.ceil((0.7 if name.startswith("layer1") else 0.1) * full - 1e-9), 1)
    least = max(least, 10 if name.startswith("layer2.0") else 1)
    least = max(least, 5 if ".2." in name and not name.startswith("layer2.0") else 1)
    step = 8 if name.startswith("layer3") else 3 if name.startswith("layer2") else 1
    return [k for k in range(full) if k >= least and k % step == 0] + [full]


@cache
def limited() -> PruningProblem:
    return simple_problem(awake_baseline("resnet20"), images(4), **LIMITS)


def holds(keep) -> bool:
    groups = limited().groups
    return all(k in allowed(g.name, g.channels) for k, g in zip(keep, groups, strict=True))


def test_the_lowest_budget_is_that_of_the_fewest_channels_allowed():
    problem = limited()
    fewest = [allowed(group.name, group.channels)[0] for group in problem.groups]
    assert fewest == [12, 12, 12, 12, 6, 6, 8, 8, 8]
    assert problem.lowest.tolist() == fewest
    share = problem.cost(fewest).macs / problem.baseline_cost.macs
    assert problem.lowest_budget == pytest.approx(share, abs=1e-12)
    assert problem.project(np.ones(9), problem.lowest_budget).tolist() == fewest
    with pytest.raises(ValueError, match=r"a lower min_channels or a lower round_to or a higher"):
        problem.check_budget(share - 1e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1), extreme=st.booleans())
def test_every_projection_is_within_all_limits_and_on_the_budget(seed, share, extreme):
    problem = limited()
    ratios = np.random.default_rng(seed).uniform(size=9)
    budget = problem.lowest_budget + share * (1 - problem.lowest_budget)
    keep = problem.project(ratios.round() if extreme else ratios, min(budget, 1.0))
    assert holds(keep)
    assert problem.meets(keep, budget)


def test_numbers_for_all_and_the_same_numbers_by_patterns_are_one_problem():
    numbers = {"max_prune_ratio": 0.6, "min_channels": 3, "round_to": 4}
    by_patterns = {name: {"layer1": number, "*": number} for name, number in numbers.items()}
    one, other = (PrunableNetwork(awake_baseline("resnet20"), **a) for a in (numbers, by_patterns))
    assert one.rounding.fewest.tolist() == other.rounding.fewest.tolist()
    draws = np.random.default_rng(0)
    for ratios in draws.uniform(size=(20, 9)):
        keeps = [network.projection("macs")(ratios, 0.5).tolist() for network in (one, other)]
        assert keeps[0] == keeps[1]


def test_the_first_match_counts_and_what_nothing_matches_has_the_default():
    base = awake_baseline("resnet20")
    ratios = {"layer1.0": 0.25, "layer1": 0.5}
    fewest = PrunableNetwork(base, max_prune_ratio=ratios).rounding.fewest
    assert fewest.tolist() == [12, 8, 8, *[1] * 6]


def test_of_a_groups_layers_the_strictest_limit_holds():
    base = shared_problem("resnet18", "all").baseline
    groups = shared_problem("resnet18", "all").groups
    index = next(i for i, group in enumerate(groups) if len(group.layers("out")) > 1)
    first, second = groups[index].layers("out")[:2]
    network = PrunableNetwork(
        base, scope="all", max_prune_ratio={first: 0.9, second: 0.25, "*": 0.5},
        min_channels={second: 2, first: 3, "*": 1}, round_to={first: 4, second: 6, "*": 1},
    )  # fmt: skip
    full = groups[index].channels
    counts = network.rounding.counts(index).tolist()
    assert counts[0] == math.ceil(0.75 * full / 12) * 12
    assert all(count % 12 == 0 for count in counts[:-1])


def test_whole_groups_go_only_where_the_limit_is_0():
    base = awake_baseline("resnet20")
    everywhere = PrunableNetwork(base, min_channels=0)
    assert (everywhere.lowest == 0).sum() > 2
    some = PrunableNetwork(base, min_channels={"layer2": 0})
    inside = np.array([group.name.startswith("layer2") for group in some.groups])
    assert (some.lowest[~inside] == 1).all()
    assert (some.lowest[inside] == everywhere.lowest[inside]).all()
    bounded = PrunableNetwork(base, min_channels=0, max_prune_ratio=0.9)
    assert (bounded.lowest == 1).all()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"max_prune_ratio": {"layr1": 0.3}}, "'layr1' matches no layer.*Did you mean 'layer1'"),
        ({"min_channels": {"layer1.0.conv2": 3}}, "matches no layer that produces channels"),
        ({"round_to": {"*": 2, "layer1": 4}}, "'layer1' decides nothing: patterns before it"),
        ({"min_channels": {"layer1": 2, "layer1.*": 4}}, "'layer1.*' decides nothing"),
        ({"max_prune_ratio": {"layer1": 0}}, "or a mapping of patterns to such numbers, got"),
        ({"max_prune_ratio": {"layer1": "0.3"}}, "max_prune_ratio must be a number above 0"),
        ({"max_prune_ratio": [["layer1", 2]]}, "max_prune_ratio of 'layer1' must be a number"),
        ({"min_channels": {"layer1": -1}}, "min_channels must be a whole number from 0"),
        ({"round_to": {"layer1": 1.5}}, "round_to must be a whole number from 1"),
        ({"round_to": [["layer1", 2, 3]]}, "a pattern and a number for each"),
        ({"round_to": [[2, "layer1"]]}, "a pattern and a number for each"),
        ({"protect": "layer1", "min_channels": {"layer1": 4}}, "'layer1' matches no layer"),
    ],
)  # fmt: skip
def test_limits_that_cannot_be_are_refused_in_one_sentence(arguments, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        PrunableNetwork(awake_baseline("resnet20"), **arguments)
    assert "\n" not in str(refused.value)


def test_a_last_pattern_for_the_rest_may_be_left_with_nothing():
    PrunableNetwork(awake_baseline("resnet20"), min_channels={"layer?": 2, "*": 1})


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({}, ""),
        ({"min_channels": {"*": 0}, "max_prune_ratio": {"0": 1.0}, "round_to": {"0": 1}}, ""),
        ({"min_channels": {"0": 2}}, "a lower min_channels"),
        ({"max_prune_ratio": {"3": 0.5}}, "a higher max_prune_ratio"),
        ({"max_prune_ratio": 0.99}, ""),  # one channel stays in any case
        ({"max_prune_ratio": 0.99, "min_channels": 0}, "a higher max_prune_ratio"),
        ({"min_channels": 2, "round_to": {"3": 3}}, "a lower min_channels or a lower round_to"),
        ({"protect": "6"}, "less under protect"),
    ],
)
def test_a_budget_out_of_reach_names_the_limits_that_hold_groups_back(arguments, advice):
    network = PrunableNetwork(load_baseline(awaken(plain())), **arguments)
    assert _advice(network) == advice


@pytest.mark.parametrize("scope", ["inner", "all"])
def test_what_is_protected_and_cannot_be_pruned_anyway_gives_no_advice(scope):
    base = awake_baseline("resnet20")
    assert _advice(PrunableNetwork(base, scope=scope, protect="conv1")) == ""
    assert _advice(PrunableNetwork(base, scope=scope, protect="layer1")) == "less under protect"


def _advice(network: PrunableNetwork) -> str:
    with pytest.raises(ValueError, match="cannot be reached") as refused:
        network.projection("macs").check_budget(1e-6)
    return str(refused.value).partition(", or less with ")[2]


def test_a_depthwise_convolution_is_limited_as_what_gives_it_its_channels():
    base = awake_baseline("mobilenet_v2")
    expand, depthwise = (f"features.3.conv.{i}.0" for i in (0, 1))
    names = [group.name for group in PrunableNetwork(base).groups]
    index = names.index(expand)
    for limit in ({depthwise: 0.5}, {depthwise: 0.5, "*": 0.25}, {expand: 0.5, "*": 0.25}):
        network = PrunableNetwork(base, max_prune_ratio=limit)
        assert network.rounding.fewest[index] == network.channels[index] // 2
    with pytest.raises(ValueError, match=f"'{expand}' decides nothing: patterns before it"):
        PrunableNetwork(base, max_prune_ratio={depthwise: 0.5, expand: 0.25})


def test_allocations_and_their_measurements_stay_within_limits(monkeypatch):
    limits = {"max_prune_ratio": {"0": 0.25}, "criterion": "obs", "similarity": "mse"}
    problem = simple_problem(awaken(plain()), images(8), budget=0.6, **limits)
    with problem.count() as measured:
        weights = sensitivities(problem)
    assert measured == {(6, 6), (8, 3)}
    keep = allocate(problem, weights=weights)
    assert keep[0] >= 6
    assert problem.meets(keep)
    lowest = allocate(problem, problem.lowest_budget, weights)
    assert lowest.tolist() == problem.lowest.tolist() == [6, 1]


def test_a_group_that_may_not_be_pruned_at_all_hinders_no_allocation():
    limits = {"min_channels": {"0": 8}, "criterion": "obs", "similarity": "mse"}
    problem = simple_problem(awaken(plain()), images(8), budget=0.8, **limits)
    assert problem.lowest.tolist() == [8, 1]
    keep = allocate(problem)
    assert keep[0] == 8
    assert problem.meets(keep)


def test_baselines_stay_within_limits():
    problem = limited()
    lowest = problem.lowest_budget
    for budget in (lowest, (1 + lowest) / 2):
        assert holds(uniform_ratios.strategy(problem, budget))
        assert holds(l1(problem, budget))
        drawn = candidates(problem, budget, np.random.default_rng(0))
        assert holds(problem.project(next(drawn), budget))


def test_limits_are_settings_that_json_keeps_in_order():
    settings = json.loads(json.dumps(limited().settings(), sort_keys=True))
    assert settings["max_prune_ratio"] == [["layer1.*", 0.3], ["*", 0.9]]
    assert settings["min_channels"] == [["layer2.0", 10], ["layer?.2", 5], ["*", 1]]
    again = simple_problem(awake_baseline("resnet20"), images(4), **settings)
    assert again.lowest.tolist() == limited().lowest.tolist()
