"""Strategies scored by workers: the same results, and nothing finished is lost."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from copy import deepcopy
from functools import partial
from multiprocessing import get_context

import gymnasium as gym
import numpy as np
import pytest
import torch
from deadly import Deadly
from networks_for_tests import awaken, images, plain, random_strategy, simple_problem
from torch import nn

from lfgcl_env.engine import InFlight, Processes, Shared, WorkerDied, spread
from lfgcl_env.pruning import REPAIRS, SIMILARITIES, PruningProblem
from lfgcl_env.pruning.score.screen import Screen
from lfgcl_env.pruning.sensitivities import sensitivities


@pytest.fixture(scope="module")
def workers():
    with Processes(2) as executor:
        yield executor


def small(**arguments) -> PruningProblem:
    return simple_problem(awaken(plain()), images(8), **arguments)


def strategies(problem: PruningProblem, count: int = 6) -> list[np.ndarray]:
    return [random_strategy(problem, seed) for seed in range(count)]


def deadly(channels: int) -> PruningProblem:
    network = awaken(plain())
    network.insert(6, Deadly(channels))
    return simple_problem(network, images(8))


@pytest.mark.parametrize("repair", REPAIRS)
def test_every_repair_scores_in_workers_as_here(workers, repair):
    problem = small(repair=repair, similarity=None)
    asked = strategies(problem)
    there = problem.evaluate_many(asked, workers)
    problem.forget()
    assert there == [problem.evaluate(strategy) for strategy in asked]


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_every_similarity_is_the_same_in_workers_as_here(workers, similarity):
    problem = small(similarity=similarity)
    asked = strategies(problem)
    there = problem.evaluate_many(asked, workers)
    assert there == small(similarity=similarity).evaluate_many(asked)


@pytest.mark.parametrize("repair", ["sequential", "least_squares"])  # by cheap scores, and not
def test_sensitivities_by_workers_are_those_of_this_process(workers, repair, monkeypatch):
    expected = sensitivities(small(repair=repair))
    problem, done = small(repair=repair), []
    problem.shared  # noqa: B018 - computes what workers take
    monkeypatch.setattr(problem._memory, "_score", None)  # nothing is scored here any more
    monkeypatch.setattr(Screen, "__call__", lambda screen, keep, _: screen.known(tuple(keep)))
    with problem.count() as counted:
        found = sensitivities(problem, lambda *numbers: done.append(numbers), workers)
    assert (found == expected).all()
    assert len(counted) == (0 if problem.screens else len(problem.groups))
    assert done[-1] == (len(problem.groups),) * 2


@pytest.mark.slow
@pytest.mark.parametrize("repair", REPAIRS)
def test_a_trained_network_scores_in_workers_as_here(workers, repair):
    env = gym.make("LFGCL-ResNet20-v0", repair=repair, num_images=16, scope="all")
    problem = env.unwrapped.problem
    asked = strategies(problem, 4)
    there = problem.evaluate_many(asked, workers)
    screened = problem.screen(asked, workers)
    problem.forget()
    assert there == problem.evaluate_many(asked)
    assert (screened == problem.screen(asked)).all()


@pytest.mark.gpu
@pytest.mark.parametrize("repair", ["least_squares", "sequential"])
def test_workers_share_a_gpu_and_score_on_it_as_this_process_does(workers, repair):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    problem = small(repair=repair, device="cuda")
    asked = strategies(problem)
    there = [one.similarity for one in problem.evaluate_many(asked, workers)]
    problem.forget()
    here = [problem.evaluate(strategy).similarity for strategy in asked]
    assert there == pytest.approx(here, abs=1e-5)


def test_cheap_scores_are_the_same_in_workers_as_here(workers):
    problem = small()
    asked = strategies(problem)
    there = problem.screen(asked, workers)
    assert (there == small().screen(asked)).all()
    assert problem.screened == len({tuple(strategy) for strategy in asked})


def test_what_is_remembered_is_not_scored_again(monkeypatch, workers):
    problem = small()
    found = problem.evaluate_many([[4, 3], [2, 2]], workers)
    monkeypatch.setattr(workers, "submit", None)
    with problem.count() as counted:
        assert problem.evaluate_many([[2, 2], (4, 3), [2, 2]], workers) == [*found[::-1], found[1]]
    assert counted == {(4, 3), (2, 2)}


def test_what_is_fetched_counts_when_it_is_asked_for(workers):
    problem = small()
    with problem.count() as counted:
        problem.prefetch([[4, 3], [2, 2]], workers)
        assert problem.known([4, 3])
        assert not counted
        problem.evaluate([2, 2])
    assert counted == {(2, 2)}


def test_no_strategy_at_all_is_fine(workers):
    assert small().evaluate_many([], workers) == []


def test_what_is_no_strategy_is_refused_before_anything_is_scored(workers):
    problem = small()
    with pytest.raises(ValueError, match="9"):
        problem.evaluate_many([[4, 3], [9, 3]], workers)
    assert not problem.known([4, 3])


def test_a_deadly_strategy_is_named_and_the_others_are_remembered(workers):
    problem = deadly(5)
    with pytest.raises(WorkerDied, match=r"scoring \(3, 5\) ended 2 worker processes"):
        problem.evaluate_many([[3, 4], [3, 5], [3, 3]], workers)
    assert problem.known([3, 4])
    assert not problem.known([3, 5])
    assert problem.evaluate_many([[3, 3], [3, 4]], workers) == small().evaluate_many(
        [[3, 3], [3, 4]]
    )


@pytest.mark.slow
def test_workers_that_are_killed_at_any_moment_change_nothing(workers):
    problem = small(repair="sequential", similarity=None)
    asked = [[one, two] for one in range(1, 9) for two in range(1, 7)]
    done = threading.Event()

    def kill_now_and_then() -> None:
        draws = np.random.default_rng(0)
        while not done.wait(draws.uniform(0.05, 0.2)):
            for worker in list(workers._all)[:1]:
                worker.process.kill()

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    found = []
    try:
        while len(found) < len(asked):
            try:
                found = problem.evaluate_many(asked, workers)
            except WorkerDied:  # killed twice in a row; what is done is remembered
                continue
    finally:
        done.set()
        killer.join()
    assert found == small(repair="sequential", similarity=None).evaluate_many(asked)


def test_a_users_own_executors_fit():
    asked = [[4, 3], [2, 2], [8, 6], [1, 1]]
    expected = small().evaluate_many(asked)
    with ThreadPoolExecutor(2) as executor:
        assert small().evaluate_many(asked, executor) == expected
    with ProcessPoolExecutor(2, get_context("forkserver")) as executor:
        assert small().evaluate_many(asked, executor) == expected
        with pytest.raises(BrokenProcessPool):
            deadly(5).evaluate_many([[3, 5]], executor)


FORKING = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from lfgcl_env import PruningProblem

torch.set_num_threads(2)
torch.relu(torch.randn(10**6))  # starts OpenMP's threads, which a fork lacks
layers = [torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3)]
layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10)]
problem = PruningProblem(torch.nn.Sequential(*layers), torch.randn(64, 3, 16, 16))
with ProcessPoolExecutor(2, get_context("fork")) as executor:
    print(len(problem.evaluate_many([[4, 4], [5, 5], [6, 6]], executor)))
"""


def test_a_pool_that_forks_a_process_with_several_threads_scores(tmp_path):
    (tmp_path / "forking.py").write_text(FORKING)
    command = [sys.executable, str(tmp_path / "forking.py")]
    environment = {name: v for name, v in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    try:
        assert done.communicate(timeout=120)[0] == "3\n"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(done.pid, signal.SIGKILL)


def cancelled(_shared, item):
    if item == 1:
        raise CancelledError
    return item


def test_a_task_that_somebody_else_cancels_is_not_left_out_silently():
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(CancelledError):
            spread(executor, cancelled, Shared(None), [0, 1, 2], ignored)


def ignored(_item, _result) -> None: ...


class Full(ThreadPoolExecutor):
    """Takes three tasks."""

    taken = 0

    def submit(self, *task):
        self.taken += 1
        if self.taken > 3:
            raise RuntimeError("no more")
        return super().submit(*task)


def test_tasks_that_were_given_are_taken_back_where_another_is_not_taken():
    begun = []

    def slow(_shared, item):
        begun.append(item)
        time.sleep(0.3)

    with Full(1) as executor, pytest.raises(RuntimeError, match="no more"):
        spread(executor, slow, Shared(None), range(4), ignored)
    assert len(begun) <= 1


@pytest.fixture
def flying():
    """A flight on threads of which item 0 waits to be released, and what arrived."""
    arrived, released = [], threading.Event()

    def flies(_shared, item):
        if item == 0:
            assert released.wait(60)
        if item < 0:
            raise KeyError(item)
        return item

    with ThreadPoolExecutor(2) as executor:
        yield (
            InFlight(executor, flies, Shared(None), lambda *pair: arrived.append(pair)),
            arrived,
            released,
        )
        released.set()


def test_results_arrive_as_they_come(flying):
    flight, arrived, released = flying
    flight.begin([0, 1, 2, 1])
    flight.wait(2)
    assert arrived == [(1, 1), (2, 2)]
    assert 0 in flight
    released.set()
    flight.wait(0)
    flight.wait(0)
    assert arrived[2:] == [(0, 0)]
    assert 0 not in flight


def test_a_failure_is_raised_when_its_item_is_waited_for(flying):
    flight, arrived, released = flying
    flight.begin([0, -1, 1])
    flight.wait(1)
    assert arrived == [(1, 1)]
    released.set()
    with pytest.raises(KeyError):
        flight.wait(-1)
    assert sorted(arrived) == [(0, 0), (1, 1)]
    flight.begin([-1, 3])  # may be tried again
    flight.wait(3)
    with pytest.raises(KeyError):
        flight.wait(-1)


def test_what_is_done_at_an_interrupt_still_arrives(flying):
    flight, arrived, released = flying
    flight.begin([1])
    flight.wait(1)
    flight.begin([0, 2, 3])
    ctrl_c = partial(signal.pthread_kill, threading.main_thread().ident, signal.SIGINT)
    threading.Timer(0.5, ctrl_c).start()
    threading.Timer(1.5, released.set).start()  # a pool of threads cannot be interrupted
    with pytest.raises(KeyboardInterrupt):
        flight.wait(0)
    assert sorted(arrived) == [(1, 1), (2, 2), (3, 3)]
    assert 0 not in flight


class Submitting:
    """What submitit's executors have of ``concurrent.futures``: ``submit``, jobs with results."""

    def submit(self, function, *arguments):
        return Job(function, arguments)


class Job:
    def __init__(self, function, arguments) -> None:
        self._task = pickle.dumps((function, arguments))

    def result(self):
        function, arguments = pickle.loads(self._task)
        return function(*arguments)

    def cancel(self) -> None: ...


def test_an_executor_needs_no_more_than_submit():
    assert small().evaluate_many([[4, 3]], Submitting()) == small().evaluate_many([[4, 3]])


def test_a_problem_that_cannot_be_sent_says_why(workers):
    problem = small()
    problem.baseline.network.handle = threading.Lock()
    with pytest.raises(ValueError, match=r"PruningProblem cannot be sent to workers .*lock"):
        problem.evaluate_many([[4, 3]], workers)


def test_classes_of_the_main_program_reach_workers(workers):
    class Local(nn.ReLU):
        pass

    network = awaken(plain())
    network[2] = Local()
    problem = simple_problem(network, images(8))
    assert problem.evaluate_many([[4, 3]], workers) == small().evaluate_many([[4, 3]])


def test_copies_of_a_problem_have_workers_copies_of_their_own(workers):
    problem = small()
    problem.evaluate_many([[4, 3]], workers)
    for copied in (deepcopy(problem), pickle.loads(pickle.dumps(problem))):
        assert copied.shared.path != problem.shared.path
        assert copied.evaluate_many([[2, 2]], workers) == problem.evaluate_many([[2, 2]])


def test_a_shared_object_leaves_no_file_behind(workers):
    shared = Shared(torch.arange(3.0))
    folder = shared.path.parent
    assert shared.get() is shared.get()
    found = {}
    spread(workers, torch.Tensor.__getitem__, shared, [2, 0], found.__setitem__)
    assert found == {2: 2.0, 0: 0.0}
    assert folder.exists()
    del shared
    assert not folder.exists()


def test_objects_of_many_problems_are_not_all_held():
    kept = [Shared([number]) for number in range(9)]
    first = kept[0].get()
    for shared in kept:
        assert shared.get() == [kept.index(shared)]
    assert kept[0].get() is not first


def test_what_is_forgotten_is_scored_anew_by_workers_too():
    with ThreadPoolExecutor(1) as executor:
        problem = small()
        found = problem.evaluate_many([[4, 3]], executor)
        loaded = executor.submit(problem.shared.get).result()
        assert not loaded.known([4, 3])
        first = problem.shared.path
        problem.forget()
        assert problem.evaluate_many([[4, 3]], executor) == found
        assert problem.shared.path != first
