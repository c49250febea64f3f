"""Charts draw every point inside their frame, whatever the numbers are."""

import math
import re

from hypothesis import example, given
from hypothesis import strategies as some

from lfgcl_env.page.charts import DIGIT, TITLE, Line, chart, ticks

NUMBERS = some.floats(-1e6, 1e6)


@given(some.lists(some.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30), some.booleans())
def test_every_point_lies_inside_the_frame(points, logarithmic):
    drawn = chart([Line("a", points, "dots"), Line("b", points)], "x", "y", logarithmic=logarithmic)
    shown = [p for p in points if p[1] > 0] if logarithmic else points
    assert drawn.count("<circle") == len(shown)
    for x, y in re.findall(r'cx="([^"]+)" cy="([^"]+)"', drawn):
        assert 0 <= float(x) <= 520
        assert 0 <= float(y) <= 290


@given(some.lists(some.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30), some.booleans())
@example([(1, 0.0001), (2, 1.0)], True)
def test_labels_of_the_vertical_axis_do_not_reach_into_its_title(points, logarithmic):
    drawn = chart([Line("a", points)], "x", "y", logarithmic=logarithmic)
    labels = re.findall(r'<text x="([^"]+)" y="[^"]+" text-anchor="end">([^<]+)<', drawn)
    assert labels or drawn.count('class="grid"') == 0
    assert all(float(x) - DIGIT * len(label) >= TITLE - 0.1 for x, label in labels)


@given(NUMBERS, NUMBERS)
@example(0.0, 5e-324)
def test_ticks_are_few_and_in_range(a, b):
    low, high = sorted((a, b))
    found = ticks(low, high)
    assert len(found) <= 7
    room = 1e-6 * max(abs(low), abs(high), 1e-300)
    assert all(low - room <= tick <= high + room for tick in found)
    assert all(math.isfinite(tick) for tick in found)


def test_what_cannot_be_drawn_is_left_out():
    drawn = chart([Line("a", [(1, -1e308), (2, 0.5), (3, 1e308)], "dots")], "x", "y")
    assert drawn.count("<circle") == 1


def test_no_points_give_no_chart():
    assert chart([Line("a", [])], "x", "y") == ""
    assert chart([Line("a", [(1, 0.0)])], "x", "y", logarithmic=True) == ""
