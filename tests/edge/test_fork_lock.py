"""A process that was forked while a thread held a lock of the package goes on."""

import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from lfgcl_env.edge.fork_lock import ForkLock


@pytest.mark.usefixtures("frequent_switches")
def test_threads_wait_for_each_other():
    lock, counts = ForkLock(), [0]

    def add(_):
        for _ in range(500):
            with lock, lock:
                before = counts[0]
                sum(range(50))  # where another thread may come between
                counts[0] = before + 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(4)))
    assert counts == [2000]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows forks nothing")
def test_a_forked_process_does_not_wait_for_a_thread_that_is_not_there():
    lock, held, done = ForkLock(), Event(), Event()

    def hold():
        with lock:
            held.set()
            assert done.wait(60)

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(hold)
        assert held.wait(60)
        with warnings.catch_warnings(action="ignore"):  # forking beside threads is deprecated
            child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            signal.alarm(30)  # which ends it, if it waits
            with lock:
                os._exit(7)
        _, status = os.waitpid(child, 0)
        done.set()
        holding.result()
    assert os.waitstatus_to_exitcode(status) == 7
