"""Times of several calls, taken in turn so that a busy machine slows all of them alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lfgcl_env.latency.kept_memory import kept_memory

Call = Callable[[], object]
Clock = Callable[[], float]

FEWEST_ROUNDS = 3
MOST_ROUNDS = 1000


@dataclass(frozen=True)
class Timing:
    """How long a call takes [ms].

    Attributes:
        median: of all rounds.
        low: the lower quartile.
        high: the upper quartile.
        rounds: how many there were.
    """

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Summarise the times of one call.

        >>> Timing.of([0.004, 0.001, 0.002, 0.003, 0.005])
        Timing(median=3.0, low=2.0, high=4.0, rounds=5)
        """
        low, median, high = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)) * 1e3)
        return cls(median, low, high, len(seconds))


@kept_memory()
def take_turns(
    calls: Sequence[Call],
    seconds: float,
    *,
    rounds: tuple[int, int] = (FEWEST_ROUNDS, MOST_ROUNDS),
    idle: Call = lambda: None,
    again: int = 1,
    clock: Clock = time.perf_counter,
    until: Clock | None = None,
) -> list[list[float]]:
    """Time calls in turn, round after round, until the time is up.

    Memory is kept meanwhile, see :func:`~lfgcl_env.latency.kept_memory.kept_memory`.
    The first round warms caches and allocators up and does not count. Every other round goes
    through the calls in the opposite direction, so that none always follows the same one.

    Args:
        calls: without arguments.
        seconds: after which no round is begun; the fewest are made all the same.
        rounds: fewest and most that count.
        idle: waits until what a call began has ended, for devices that compute on the side.
        again: calls in a row at every turn, of which the last counts: more than 1 measures what
            finds its data in the caches.
        clock: returns seconds.
        until: the clock by which the time is up; None for the same one.

    Returns:
        The times of every call [s], in the order of the rounds.
    """
    times: list[list[float]] = [[] for _ in calls]
    until = until or clock
    end = until() + seconds
    order = list(range(len(calls)))
    for number in range(rounds[1] + 1):
        if number > rounds[0] and until() >= end:
            break
        for place in order if number % 2 else reversed(order):
            for _ in range(again):
                begun = clock()
                calls[place]()
                idle()
                took = clock() - begun
            if number:
                times[place].append(took)
    return times
