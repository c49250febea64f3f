"""Rounding: one rule says which counts a group may keep, for projections and for AMC alike."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from networks_for_tests import awaken, images, plain, simple_problem

from lfgcl_env.envs.amc_bound import ActionBound
from lfgcl_env.pruning.budget.rounding import Rounding

sizes = st.lists(st.integers(1, 70), min_size=1, max_size=4)
step = st.integers(1, 80)
fewest = st.integers(0, 80)


def allowed(full: int, round_to: int, min_channels: int) -> list[int]:
    """Written down independently: multiples of round_to from min_channels on, or all."""
    multiples = (k for k in range(full) if k % round_to == 0 and k >= min_channels)
    return [*multiples, full]


@given(sizes, step, fewest)
def test_counts_are_multiples_or_the_whole_group(channels, round_to, min_channels):
    rounding = Rounding(channels, round_to, min_channels)
    for group, full in enumerate(channels):
        assert rounding.counts(group).tolist() == allowed(full, round_to, min_channels)
        assert rounding.fewest[group] == rounding.counts(group)[0]


@given(sizes, step, fewest, st.floats(0, 1))
def test_the_nearest_count_is_nearest_and_the_next_is_next(channels, round_to, min_channels, share):
    rounding = Rounding(channels, round_to, min_channels)
    wanted = share * rounding.full
    nearest, above = rounding.nearest(wanted), rounding.next_above(rounding.nearest(wanted))
    for group, full in enumerate(channels):
        counts = allowed(full, round_to, min_channels)
        distances = [abs(count - wanted[group]) for count in counts]
        assert abs(nearest[group] - wanted[group]) == min(distances)
        following = [count for count in counts if count > nearest[group]]
        assert above[group] == (following[0] if following else full)


def test_numbers_beyond_every_group_keep_all():
    assert Rounding([8, 6], 10**30, 1).fewest.tolist() == [8, 6]
    assert Rounding([8, 6], 1, 10**30).fewest.tolist() == [8, 6]


def test_projections_and_the_layerwise_bound_allow_the_same_counts():
    problem = simple_problem(awaken(plain()), images(2), round_to=3, min_channels=2)
    rounding = Rounding(problem.channels.tolist(), 3, 2)
    bound = ActionBound(problem, rounding, spend_budget=False)
    assert problem.lowest.tolist() == rounding.fewest.tolist()
    for share in np.linspace(0, 1, 15):
        count = bound(problem.channels, 0, 1 - share, 1.0)
        assert count in rounding.counts(0)
        projected = problem.project(np.full(2, 1 - share), problem.lowest_budget)
        assert all(projected[group] in rounding.counts(group) for group in range(2))
