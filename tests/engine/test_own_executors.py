"""Executors of other packages: they score as this process does, and searches go through them."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import pytest
from networks_for_tests import awaken, images, plain, random_strategy, simple_problem

from lfgcl_env.engine import InFlight, Shared, spread
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.search.run_search import run_search

pytestmark = pytest.mark.slow

WORKERS = 2


@pytest.fixture(scope="module")
def dask():
    """The executor of a Dask client with worker processes."""
    distributed = pytest.importorskip("distributed", reason="needs Dask: pip install distributed")
    with (
        distributed.LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


@pytest.fixture(scope="module")
def submitit_jobs(tmp_path_factory):
    """Submitit's executor on this machine: every job is a process of its own."""
    submitit = pytest.importorskip("submitit", reason="needs submitit: pip install submitit")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the tests' networks are
        jobs = submitit.AutoExecutor(tmp_path_factory.mktemp("jobs"), cluster="local")
        jobs.update_parameters(timeout_min=30)
        yield jobs


@pytest.fixture
def submitit_debug(tmp_path):
    """Submitit's executor for debugging, whose jobs run in this process."""
    submitit = pytest.importorskip("submitit", reason="needs submitit: pip install submitit")
    return submitit.AutoExecutor(tmp_path, cluster="debug")


@pytest.fixture(params=["dask", "submitit_jobs", "submitit_debug"])
def executor(request):
    return request.getfixturevalue(request.param)


def small(**arguments) -> PruningProblem:
    return simple_problem(awaken(plain()), images(8), **arguments)


def test_strategies_score_as_in_this_process(executor):
    problem = small(repair="sequential", similarity=None)
    asked = [random_strategy(problem, seed) for seed in range(2)]
    there = problem.evaluate_many(asked, executor)
    problem.forget()
    assert there == [problem.evaluate(strategy) for strategy in asked]


def search(engine) -> list:
    env = gym.make(
        "LFGCL-v0",
        network=awaken(plain()),
        images=images(8),
        num_images=None,
        criterion="l1",
        repair="least_squares",
        workers=WORKERS,
        engine=engine,
    )
    result = run_search(env, "random", 2, shortlist=0)
    return [(record.reward, record.evaluation) for record in result.records]


def test_a_search_ends_as_with_other_workers(executor):
    with ThreadPoolExecutor(WORKERS) as threads:
        expected = search(threads)
    assert search(executor) == expected


def own_function(_shared: None, item: int) -> int:
    if item == 1:
        raise ValueError("no result for 1")
    return item


@pytest.mark.parametrize("name", ["dask", "submitit_jobs"])  # the other one debugs it
def test_a_failure_is_raised_and_what_was_done_before_is_kept(name, request):
    executor, arrived = request.getfixturevalue(name), []
    with pytest.raises(Exception, match="no result for 1"):
        spread(executor, own_function, Shared(None), [0, 1], lambda *one: arrived.append(one))
    assert arrived == [(0, 0)]


@pytest.mark.parametrize("name", ["dask", "submitit_debug"])
def test_what_was_begun_can_be_given_up(name, request):
    executor, arrived = request.getfixturevalue(name), []
    flight = InFlight(executor, own_function, Shared(None), lambda *one: arrived.append(one))
    flight.begin([2, 3])
    flight.give_up()
    assert 2 not in flight
    spread(executor, own_function, Shared(None), [4], lambda *one: arrived.append(one))
    assert arrived[-1] == (4, 4)
