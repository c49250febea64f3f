import itertools

import numpy as np
import pytest
import torch
from networks_for_tests import awake_baseline, awaken, images, plain

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.criteria import brain_surgeon as obs_module
from lfgcl_env.pruning.moments.second_moments import ridge_of


@pytest.fixture(scope="module")
def problem():
    baseline = load_baseline("resnet20", weights="random")
    awaken(baseline.network)
    return PruningProblem(baseline, images(16), criterion="obs")


def refit_error(moments, kept):
    """Relative output error of the best weights for some channels, with the elimination's ridge."""
    columns = torch.cat([moments.reader.columns(kept), torch.tensor([moments.reader.features - 1])])
    damped = moments.gram + torch.diag(ridge_of(moments.gram, moments.ridge))
    best = torch.linalg.solve(damped[columns][:, columns], damped[columns] @ moments.weights.T).T
    difference = moments.weights.clone()
    difference[:, columns] -= best
    return float(((difference @ damped) * difference).sum()) / moments.energy


def test_cost_of_removing_one_channel_is_the_brute_force_refit_error(problem):
    group = problem.groups[0]
    moments = problem.moments[group.layers("in")[0]]
    elimination = problem.eliminations[group.name]
    errors = [
        refit_error(moments, torch.tensor([c for c in range(group.channels) if c != removed]))
        for removed in range(group.channels)
    ]
    assert int(np.argmin(errors)) == elimination.order[-1]
    assert elimination.errors[group.channels - 1] == pytest.approx(min(errors), rel=1e-6)


def test_error_curve_is_the_refit_error_at_every_count(problem):
    for group in problem.groups[::4]:
        moments = problem.moments[group.layers("in")[0]]
        elimination = problem.eliminations[group.name]
        for keep in (1, group.channels // 2, group.channels - 2):
            kept = torch.from_numpy(np.sort(elimination.order[:keep]))
            assert elimination.errors[keep] == pytest.approx(refit_error(moments, kept), rel=1e-5)


def test_error_curves_fall_to_zero_and_orders_are_permutations(problem):
    for group in problem.groups:
        elimination = problem.eliminations[group.name]
        assert elimination.errors.shape == (group.channels + 1,)
        assert elimination.errors[-1] == 0
        assert (np.diff(elimination.errors) <= 0).all()
        assert sorted(elimination.order) == list(range(group.channels))


def test_backward_elimination_is_near_the_best_subset(problem):
    group = problem.groups[0]
    moments = problem.moments[group.layers("in")[0]]
    pairs = [
        refit_error(moments, torch.tensor([c for c in range(16) if c not in gone]))
        for gone in itertools.combinations(range(16), 2)
    ]
    assert problem.eliminations[group.name].errors[14] <= 1.05 * min(pairs)


def test_large_groups_lose_several_channels_at_once_with_the_same_total(problem, monkeypatch):
    group = problem.groups[-1]
    moments = {n: problem.moments[n] for n in group.layers("in")}
    one_by_one = obs_module.eliminate(group, moments)
    monkeypatch.setattr(obs_module, "_AT_ONCE", 8)
    together = obs_module.eliminate(group, moments)
    assert together.errors[0] == pytest.approx(one_by_one.errors[0], rel=1e-6)
    assert sorted(together.order) == list(range(group.channels))
    half = group.channels // 2
    assert together.errors[half] <= 1.2 * one_by_one.errors[half]


@pytest.mark.parametrize("family", ["densenet", "mobilenet_v3_small"])
def test_groups_with_several_consumers_are_ordered_over_all_of_them(family):
    problem = PruningProblem(awake_baseline(family), images(4), criterion="obs", budget=0.7)
    several = [g for g in problem.groups if len(g.layers("in")) > 1]
    assert several
    keep = problem.project(np.full(len(problem.groups), 0.3))
    assert np.isfinite(problem.evaluate(keep).similarity)


@pytest.mark.parametrize("criterion", ["thinet", "hrank"])
def test_activation_criteria_order_every_group(criterion):
    baseline = load_baseline("resnet20", weights="random")
    awaken(baseline.network)
    problem = PruningProblem(baseline, images(8), criterion=criterion)
    for group, order in zip(problem.groups, problem._ranking.orders, strict=True):
        assert sorted(order.tolist()) == list(range(group.channels))


def test_allocation_meets_the_budget_and_beats_uniform_and_random_ratios(problem):
    for budget in (0.3, 0.5, 0.8):
        keep = allocate(problem, budget)
        assert problem.cost(keep).macs <= budget * problem.baseline_cost.macs
        assert (problem.project(problem.prune_ratios(keep), budget) == keep).all()

    def similarity(ratios):
        return problem.evaluate(problem.project(ratios, 0.5)).similarity

    allocated = problem.evaluate(allocate(problem, 0.5)).similarity
    groups = len(problem.groups)
    drawn = np.random.default_rng(0).uniform(size=(8, groups))
    assert allocated > max(similarity(ratios) for ratios in (np.full(groups, 0.5), *drawn))


def test_activations_that_are_not_finite_are_told():
    given = images(8)
    given[5] = 3e38  # finite itself
    with pytest.raises(ValueError, match="activations on these images are not finite"):
        PruningProblem(awaken(plain()), given, budget=0.5)
