"""Projection: on the budget, as near to it as one channel allows, and onto itself."""

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks_for_tests import (
    Concatenating,
    Residual,
    awaken,
    flattening,
    images,
    plain,
    shared_problem,
    simple_problem,
)

from lfgcl_env.pruning import PrunableNetwork, PruningProblem
from lfgcl_env.pruning.budget.projection import Projection
from lfgcl_env.pruning.budget.rounding import Rounding

SMALL = {"plain": plain, "flattening": flattening, "concat": Concatenating, "residual": Residual}
LARGE = {
    "resnet20": "inner",
    "mobilenet_v3_small": "inner",
    "resnet20-B": "all",
    "mobilenet_v2": "all",
}

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def problem_of(name: str) -> PruningProblem:
    if name in LARGE:
        return shared_problem(name, LARGE[name])
    return simple_problem(awaken(SMALL[name]()), images(2), budget=1.0, scope="all", repair="none")


@cache
def lowest_of(name: str) -> np.ndarray:
    """Fewest channels that every group can keep, where whole groups may go."""
    return PrunableNetwork(
        problem_of(name).baseline, scope=LARGE.get(name, "all"), min_channels=0
    ).lowest


class Case:
    """A projection on a network, with what its result is held against."""

    def __init__(self, name: str, metric: str, round_to: int, min_channels: int) -> None:
        self.problem = problem_of(name)
        self.full = self.problem.channels
        fewest = np.maximum(lowest_of(name), min_channels)
        self.metric = metric
        self.project = Projection(
            Rounding(self.full.tolist(), round_to, fewest.tolist()),
            self.problem.network.cost_model,
            metric=metric,
        )
        # Written down independently: multiples of round_to from the fewest on, or all.
        self.allowed = [
            [k for k in range(full) if k % round_to == 0 and k >= least] + [int(full)]
            for full, least in zip(self.full, fewest, strict=True)
        ]

    def cost(self, keep) -> int:
        return getattr(self.problem.network.cost_model(np.asarray(keep)), self.metric)

    @property
    def whole(self) -> int:
        return getattr(self.problem.baseline_cost, self.metric)

    def budget(self, share: float) -> float:
        """A reachable budget: the lowest at 0, everything at 1."""
        lowest = self.project.lowest
        return min(1.0, lowest + share * (1 - lowest))

    def ratios(self, keep) -> np.ndarray:
        return 1.0 - keep / self.full


ratio = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1), st.integers(0, 8).map(lambda n: n / 8)
)


@st.composite
def cases(draw, names=(*SMALL, *LARGE)):
    case = Case(
        draw(st.sampled_from(names)),
        draw(st.sampled_from(["macs", "params"])),
        draw(st.integers(1, 9)),
        draw(st.integers(0, 9)),
    )
    size = len(case.full)
    ratios = draw(
        st.one_of(arrays(np.float64, size, elements=ratio), ratio.map(lambda r: np.full(size, r)))
    )
    return case, ratios, case.budget(draw(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0]))))


@QUICK
@given(cases())
def test_the_result_is_allowed_on_the_budget_and_maximal(example):
    case, ratios, budget = example
    keep = case.project(ratios, case.project.check_budget(budget))
    assert keep.dtype == np.int64
    assert all(k in allowed for k, allowed in zip(keep.tolist(), case.allowed, strict=True))
    assert case.cost(keep) <= budget * case.whole * (1 + 1e-9)
    for group, allowed in enumerate(case.allowed):
        more = keep.copy()
        following = [k for k in allowed if k > keep[group]]
        if following:
            more[group] = following[0]
            free = case.cost(more) == case.cost(keep)  # between layers that are gone
            assert case.cost(more) > budget * case.whole or (free and keep.min() == 0)


@QUICK
@given(cases())
def test_a_projected_strategy_projects_onto_itself(example):
    case, ratios, budget = example
    keep = case.project(ratios, budget)
    assert case.project(case.ratios(keep), budget).tolist() == keep.tolist()
    # As actions, which are float32.
    again = case.project(case.ratios(keep).astype(np.float32), budget)
    assert again.tolist() == keep.tolist()


@QUICK
@given(cases(), st.floats(0, 1))
def test_a_smaller_budget_keeps_less_but_for_a_channel(example, share):
    """Both results are maximal, so that they can only overlap by what one channel costs."""
    case, ratios, budget = example
    smaller = case.budget(share)
    assume(smaller < budget)
    less, more = case.project(ratios, smaller), case.project(ratios, budget)
    steps = []
    for group, allowed in enumerate(case.allowed):
        following = [k for k in allowed if k > more[group]]
        if following:
            topped = more.copy()
            topped[group] = following[0]
            steps.append(case.cost(topped) - case.cost(more))
    assert case.cost(less) < case.cost(more) + min(steps, default=1)


@QUICK
@given(cases())
def test_the_lowest_budget_keeps_the_fewest_and_the_highest_keeps_all(example):
    case, ratios, _ = example
    lowest = case.project(ratios, case.project.check_budget(case.budget(0.0)))
    fewest = [allowed[0] for allowed in case.allowed]
    assert case.project.lowest * case.whole == pytest.approx(case.cost(fewest))
    assert case.cost(lowest) == case.cost(fewest)
    assert case.project(ratios, 1.0).tolist() == case.full.tolist() or (ratios > 0).any()
    assert case.cost(case.project(ratios, 1.0)) == case.whole


@QUICK
@given(cases())
def test_of_groups_alike_the_one_asked_for_less_loses_less(example):
    """But for one step of rounding, which the top-up gives to whoever it fits."""
    case, ratios, budget = example
    keep = case.project(ratios, budget)
    places = [a.index(k) for a, k in zip(case.allowed, keep.tolist(), strict=True)]
    for first, second in itertools.permutations(range(len(ratios)), 2):
        if case.full[first] == case.full[second] and ratios[first] < ratios[second]:
            assert places[first] >= places[second] - 1


@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("budget", [0.9, 0.5, 0.2])
def test_the_problem_projects_to_its_own_budget(metric, budget):
    problem = simple_problem(
        awaken(plain()), images(2), budget=budget, budget_metric=metric, repair="none"
    )
    assert problem.budget == budget
    assert problem.budget_metric == metric
    keep = problem.project([0.5, 0.5])
    assert getattr(problem.cost(keep), metric) <= budget * getattr(problem.baseline_cost, metric)
    assert problem.project([0.5, 0.5], budget=1.0).tolist() == [8, 6]
    assert problem.project(problem.prune_ratios(keep)).tolist() == keep.tolist()


def test_equal_ratios_keep_equal_shares():
    keep = shared_problem("resnet20").project(np.full(9, 0.3), budget=0.5)
    shares = keep / shared_problem("resnet20").channels
    assert shares.max() - shares.min() <= 1 / 16 + 1e-9
    assert 0.4 < shares.mean() < 0.6


def test_what_counts_is_how_ratios_differ():
    problem = shared_problem("resnet20")
    ratios = np.linspace(0.1, 0.9, 9)
    shares = problem.project(ratios, budget=0.5) / problem.channels
    assert (np.diff(shares) <= 1 / 16).all()
    assert shares[0] > 0.8 > 0.3 > shares[-1]


@pytest.mark.parametrize(
    ("ratios", "complaint"),
    [
        ([0.5], r"shape \(2,\).*got \(1,\)"),
        ([[0.5, 0.5]], r"shape \(2,\).*got \(1, 2\)"),
        (0.5, r"shape \(2,\).*got \(\)"),
        ([0.5, float("nan")], "entry 1 is nan"),
        ([float("inf"), 0.5], "entry 0 is inf"),
        ([-0.1, 0.5], r"lie in \[0, 1\], got -0.1"),
        ([0.5, 1.1], r"lie in \[0, 1\], got 0.5 to 1.1"),
    ],
)
def test_ratios_that_are_none_are_refused_in_one_sentence(ratios, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        problem_of("plain").project(ratios)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("slip", [-1e-7, 1 + 1e-7])
def test_a_rounding_error_beyond_the_range_is_forgiven(slip):
    problem = problem_of("plain")
    kept = problem.project([slip, 0.5], budget=0.5)
    assert kept.tolist() == problem.project([round(slip), 0.5], budget=0.5).tolist()


@pytest.mark.parametrize("budget", [0, -0.5, 1.0001, float("nan"), float("inf")])
def test_budgets_outside_zero_to_one_are_refused(budget):
    for use in (
        lambda: problem_of("plain").project([0.5, 0.5], budget=budget),
        lambda: simple_problem(awaken(plain()), images(2), budget=budget),
    ):
        with pytest.raises(ValueError, match="a number above 0 and at most 1"):
            use()


@pytest.mark.parametrize("budget", ["half", [0.5, 0.6], None, {}])
def test_budgets_that_are_no_numbers_are_refused(budget):
    with pytest.raises(ValueError, match="budget must be a number, got"):
        problem_of("plain").check_budget(budget)


def test_an_unreachable_budget_names_the_range_that_is_reachable():
    problem = shared_problem("resnet20")
    assert problem.lowest_budget == pytest.approx(0.0477, abs=1e-4)
    with pytest.raises(ValueError, match=r"0\.04 of the macs cannot be reached.*0\.0477 to 1 can"):
        problem.check_budget(0.04)
    with pytest.raises(ValueError, match="cannot be reached"):
        simple_problem(awaken(plain()), images(2), budget=0.5, min_channels=6)
    assert problem.check_budget(problem.lowest_budget) == problem.lowest_budget


@pytest.mark.parametrize(("name", "least"), [("round_to", 1), ("min_channels", 0)])
@pytest.mark.parametrize("value", ["less", -1, 1.5, True, "2", None])
def test_counts_below_the_least_are_refused(name, least, value):
    value = least - 1 if value == "less" else value
    with pytest.raises(ValueError, match=f"{name} must be a whole number from {least}"):
        simple_problem(awaken(plain()), images(2), **{name: value})


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(ValueError, match=r"choose one of macs, params.*Did you mean 'params'"):
        simple_problem(awaken(plain()), images(2), budget_metric="param")
