"""Tables grow with every channel, and are interpolated between what was measured."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lfgcl_env.latency.grid import choose_knots, fill, isotonic

GRIDS = arrays(
    np.float64, array_shapes(min_dims=1, max_dims=2, max_side=6), elements=st.floats(0, 1e6)
)


@given(GRIDS)
def test_isotonic_times_grow_along_every_axis(times):
    grown = isotonic(times)
    assert all((np.diff(grown, axis=axis) >= 0).all() for axis in range(times.ndim))


@given(GRIDS)
def test_times_that_grow_already_stay(times):
    grown = isotonic(times)
    assert np.array_equal(isotonic(grown), grown)


def test_no_growing_times_are_nearer():
    assert isotonic(np.array([5.0, 1.0, 9.0])).tolist() == [3.0, 3.0, 9.0]


def test_between_knots_lie_straight_lines_in_both_directions():
    times = np.array([[10.0, 30.0], [20.0, 60.0]])
    filled = fill(times, [[1, 3], [2, 4]], [3, 4])
    assert filled.shape == (4, 5)
    assert filled[2, 3] == 30.0  # the mean of all four
    assert [filled[a, b] for a, b in product((1, 3), (2, 4))] == times.reshape(-1).tolist()


def test_without_channels_nothing_takes_time():
    filled = fill(np.ones((2, 2)), [[1, 3], [2, 4]], [3, 4])
    assert not filled[0].any()
    assert not filled[:, 0].any()
    assert filled[1:, 1:].all()


@given(st.integers(1, 4000), st.integers(1, 32), st.integers(8, 24))
def test_knots_are_allowed_counts_with_both_ends(full, step, most):
    allowed = sorted({*range(step, full, step), full})
    knots = choose_knots(allowed, most)
    assert set(knots) <= set(allowed)
    assert (knots[0], knots[-1]) == (allowed[0], allowed[-1])
    assert len(knots) <= most
    assert list(knots) == sorted(set(knots))
