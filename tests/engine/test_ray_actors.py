"""Workers on a Ray cluster: they answer as processes do, and are replaced when they die."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from deadly import Deadly
from networks_for_tests import awaken, images, plain, random_strategy, simple_problem
from torch import Tensor
from torch_in_worker import has_torch, threads_of_torch

import lfgcl_env
from lfgcl_env.engine import RayActors, Shared, WorkerDied, check_gpus, open_engine, spread
from lfgcl_env.engine.ray_actors import _versions
from lfgcl_env.pruning import REPAIRS, PruningProblem

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def own_ray():
    """A Ray that the user has initialised."""
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def pair(own_ray):
    with RayActors(2) as executor:
        yield executor
    assert own_ray.is_initialized()


def small(**arguments) -> PruningProblem:
    return simple_problem(awaken(plain()), images(8), **arguments)


def pid_of(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        die(None)
    return "done"


def fail(kind: type[Exception], *arguments: object) -> None:
    raise kind(*arguments)


@pytest.mark.slow
def test_results_come_in_order_from_actors_that_stay(pair):
    assert list(pair.map(divmod, range(8), [3] * 8)) == [divmod(i, 3) for i in range(8)]
    pids = set(pair.map(pid_of, [0.2] * 8))
    assert len(pids) <= 2
    assert os.getpid() not in pids
    assert len(pids | set(pair.map(pid_of, [0.0] * 8))) <= 2
    assert pair.submit(torch.get_num_threads).result() == 1


@pytest.mark.slow
def test_an_error_arrives_with_its_message_and_the_actor_goes_on(pair):
    with pytest.raises(ValueError, match="there are 3 of 4") as caught:
        pair.submit(fail, ValueError, "there are 3 of 4").result()
    assert "in a worker" in caught.value.__notes__[0]
    with pytest.raises(SystemExit):
        pair.submit(fail, SystemExit, 3).result()
    with pytest.raises(Exception, match="pickle"):
        pair.submit(next, iter([(number for number in range(3))])).result()
    assert pair.submit(abs, -1).result() == 1


@pytest.mark.slow
@pytest.mark.parametrize("repair", REPAIRS)
def test_every_repair_scores_in_actors_as_here(pair, repair):
    problem = small(repair=repair, similarity=None)
    asked = [random_strategy(problem, seed) for seed in range(6)]
    there = problem.evaluate_many(asked, pair)
    screened = problem.screen(asked, pair)
    problem.forget()
    assert there == [problem.evaluate(strategy) for strategy in asked]
    assert (screened == small(repair=repair, similarity=None).screen(asked)).all()


@pytest.mark.slow
def test_a_trained_network_scores_in_actors_as_here(pair):
    env = gym.make("LFGCL-ResNet20-v0", num_images=16, weights="embedded", scope="all")
    problem = env.unwrapped.problem
    asked = [random_strategy(problem, seed) for seed in range(3)]
    there = problem.evaluate_many(asked, pair)
    problem.forget()
    assert there == problem.evaluate_many(asked)


def loads(shared: dict[str, Tensor], _item: int) -> tuple[int, int]:
    return os.getpid(), shared["ones"].data_ptr()


@pytest.mark.slow
def test_actors_take_a_shared_object_from_the_store_once_and_without_its_file(pair, monkeypatch):
    shared = Shared({"ones": torch.ones(1000)})
    put = []
    monkeypatch.setattr(pair._ray, "put", lambda value, put_=ray.put: put.append(1) or put_(value))
    found = set()
    spread(pair, loads, shared, range(12), lambda _, one: found.add(one))
    shared.path.unlink()
    spread(pair, loads, shared, range(12), lambda _, one: found.add(one))
    assert len(dict(found)) == len(found)
    assert len(put) == 1


@pytest.mark.slow
def test_actors_import_pytorch_with_the_first_task_that_needs_it(own_ray):
    found = []
    with RayActors(1, threads=3, resources={"CPU": 1}) as executor:
        for item, function in enumerate((has_torch, threads_of_torch, has_torch)):
            shared = Shared({"seconds": 0.5})
            spread(executor, function, shared, [item], lambda _, one: found.append(one))
    before, (threads, asked), after = found
    assert (before, after) == (False, True)
    assert 1 <= threads <= int(asked) == 3  # no more than there are cores


def test_versions_are_those_that_pytorch_has_without_importing_it():
    assert _versions() == (lfgcl_env.__version__, torch.__version__)


@pytest.mark.slow
def test_an_actor_that_dies_is_replaced_and_its_task_done_again(pair, tmp_path):
    assert pair.submit(die_once, tmp_path / "marker").result() == "done"
    assert list(pair.map(abs, range(4))) == list(range(4))


@pytest.mark.slow
def test_a_deadly_strategy_is_named_and_the_others_are_remembered(pair):
    network = awaken(plain())
    network.insert(6, Deadly(5))
    problem = simple_problem(network, images(8))
    with pytest.raises(WorkerDied, match=r"scoring \(3, 5\) ended 2 worker processes \(its worker"):
        problem.evaluate_many([[3, 4], [3, 5], [3, 3]], pair)
    assert problem.known([3, 4])
    assert not problem.known([3, 5])
    assert problem.evaluate_many([[3, 3], [3, 4]], pair) == small().evaluate_many([[3, 3], [3, 4]])


@pytest.mark.slow
def test_tasks_can_be_given_up_and_others_done_after_them(pair):
    list(pair.map(pid_of, [0.2] * 4))
    futures = [pair.submit(time.sleep, 100) for _ in range(2)]
    time.sleep(0.5)
    pair.interrupt()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(60)
    assert pair.submit(abs, -1).result() == 1


@pytest.mark.slow
def test_an_actor_that_does_not_start_says_why(own_ray, monkeypatch):
    monkeypatch.setattr("lfgcl_env.engine.ray_actors._versions", lambda: ("0.0", "1.0"))
    with RayActors(1) as executor:
        with pytest.raises(WorkerDied, match=r"end while they start: .*lfgcl-env 0.0 with PyTorch"):
            executor.submit(abs, -1).result()


@pytest.mark.slow
def test_no_more_actors_work_than_the_cluster_has_places_for(own_ray, caplog, monkeypatch):
    monkeypatch.setattr("lfgcl_env.engine.ray_actors._PATIENCE", 0.2)
    with RayActors(3, resources={"CPU": 2}) as executor:
        assert len(set(executor.map(pid_of, [0.2] * 6))) <= 2
    with RayActors(1, resources={"unheard_of": 1}) as executor:
        future = executor.submit(abs, -1)
        with pytest.raises(TimeoutError):
            future.result(1)
        executor.kill()
        with pytest.raises(CancelledError):
            future.result(10)
    assert "'unheard_of': 1" in caplog.text


ALONE = """
import os, sys, time
from lfgcl_env.engine import RayActors

def pid():
    return os.getpid()

executor = RayActors(1)
executor.submit(pid).result()
try:
    print(executor.submit(pid).result(), os.getpid(), flush=True)
    if sys.argv[1:] == ["die"]:
        executor.submit(os.kill, executor.submit(pid).result(), 9).exception()
    else:
        executor.submit(time.sleep, 100).result()
except KeyboardInterrupt:
    executor.kill()
executor.shutdown()
import ray
assert not ray.is_initialized()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_a_ray_that_was_started_ends_with_its_driver_and_prints_nothing(how, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(ALONE)
    command = [sys.executable, str(script), *["die"][: how is None]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen(command, **pipes, start_new_session=True)
    pids = {int(pid) for pid in driver.stdout.readline().split()}
    if how == signal.SIGINT:
        os.killpg(driver.pid, how)  # as Ctrl-C in a terminal
    elif how is not None:
        os.kill(driver.pid, how)
    printed = driver.communicate(timeout=200)
    assert printed == ("", "")
    assert driver.returncode == (-how if how in (signal.SIGKILL, signal.SIGTERM) else 0)
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/stat").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}/stat").exists() for pid in pids)


def test_wrong_arguments_are_refused_at_once():
    with pytest.raises(ValueError, match="whole number"):
        open_engine("ray", 0)
    with pytest.raises(ValueError, match="mapping of names to numbers"):
        open_engine("ray", 2, ray_resources={"CPU": -1})
    for address in (
        "nonsense",
        ":",
        ":6379",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "http://a:1",
    ):
        with pytest.raises(ValueError, match="'auto', 'local', 'HOST:PORT' or 'ray://HOST:PORT'"):
            open_engine("ray", 2, ray_address=address)
    with pytest.raises(ValueError, match="Did you mean 'ray'"):
        open_engine("rya", 2)
    for address in ("auto", "local", "10.0.0.1:6379", "[::1]:6379", "ray://head:10001"):
        assert isinstance(open_engine(None, 1, ray_address=address), RayActors)


def test_a_problem_on_a_gpu_needs_a_part_of_one_for_every_actor(monkeypatch):
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda count, device=None: ones(count))  # as with a GPU
    arguments = {"weights": "random", "images": "random", "num_images": 2, "engine": "ray"}
    for resources in (None, {"CPU": 1}, {"GPU": 0}):
        with pytest.raises(ValueError, match=r"device 'cuda:0'.*ray_resources=\{\"GPU\": 0.25\}"):
            gym.make("LFGCL-ResNet20-v0", device="cuda:0", ray_resources=resources, **arguments)
    check_gpus(RayActors(resources={"GPU": 0.25}), "cuda")
    check_gpus(RayActors(), "cpu")


def test_the_extra_is_named_where_ray_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install lfgcl-env\[ray\]"):
        open_engine("ray", 2)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://localhost:1"])
def test_a_cluster_that_is_not_there_is_refused_before_anything_is_searched(address, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    arguments = {"weights": "random", "images": "random", "num_images": 4}
    with pytest.raises(ConnectionError, match=rf"connect to Ray at '{address}' .*ray start --head"):
        gym.make("LFGCL-ResNet20-v0", ray_address=address, **arguments)


@pytest.mark.parametrize("asked", [{"ray_resources": {"CPU": 0.5}}, {"ray_address": "local"}])
def test_a_vector_environment_on_ray_has_a_worker_for_each_of_its_own(own_ray, asked):
    arguments = {"weights": "random", "images": "random", "num_images": 2} | asked
    envs = gym.make_vec(
        "LFGCL-ResNet20-v0", 4, vectorization_mode="vector_entry_point", **arguments
    )
    assert envs.envs[0].workers == 4
    envs.close()
