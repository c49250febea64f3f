"""Calls are timed in turn, and summarised by median and quartiles."""

import pytest

from lfgcl_env.latency.timing import Timing, take_turns


class Clock:
    """Counts the seconds that calls say they take."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def call(self, name, *seconds):
        left = list(seconds)

        def run():
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_the_first_round_warms_up_and_does_not_count():
    clock = Clock()
    calls = [clock.call("a", 100.0, 1.0), clock.call("b", 2.0)]
    assert take_turns(calls, 0.0, rounds=(3, 9), clock=clock) == [[1.0] * 3, [2.0] * 3]


def test_calls_take_turns_in_both_directions():
    clock = Clock()
    take_turns([clock.call(name, 1.0) for name in "abc"], 0.0, rounds=(2, 2), clock=clock)
    assert "".join(clock.log) == "cbaabccba"


def test_rounds_go_on_until_the_time_is_up():
    clock = Clock()
    times = take_turns([clock.call("a", 1.0)], 10.0, rounds=(1, 1000), clock=clock)
    assert len(times[0]) == 9  # and one that did not count
    times = take_turns([clock.call("a", 1.0)], 1e9, rounds=(1, 5), clock=clock)
    assert len(times[0]) == 5


def test_what_is_called_again_counts_the_last_time():
    clock = Clock()
    call = clock.call("a", *[5.0, 1.0] * 3, 1.0)
    assert take_turns([call], 0.0, rounds=(2, 2), again=2, clock=clock) == [[1.0, 1.0]]


def test_waiting_for_the_device_counts():
    clock = Clock()
    times = take_turns(
        [clock.call("a", 1.0)], 0.0, rounds=(1, 1), idle=clock.call("i", 2.0), clock=clock
    )
    assert times == [[3.0]]


def test_quartiles_are_in_milliseconds():
    timing = Timing.of([0.001, 0.002, 0.003])
    assert (timing.low, timing.median, timing.high) == pytest.approx((1.5, 2.0, 2.5))
    assert timing.rounds == 3
