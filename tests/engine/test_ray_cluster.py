"""A search on a Ray cluster ends as on one machine, whatever happens to nodes."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import gymnasium as gym
import pytest
from networks_for_tests import images
from searches_for_tests import own_network
from torch import Tensor, nn

from lfgcl_env.cli.main import main
from lfgcl_env.engine import RayActors
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.run_search import run_search

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def slow_reward(network: nn.Module, inputs: Tensor) -> float:
    """Take long enough for a node to be removed meanwhile."""
    time.sleep(0.2)
    return float(network(inputs)[0, 0])


def search(engine, workers: int):
    env = gym.make(
        "LFGCL-v0",
        network=own_network(),
        images=images(8, 8),
        num_images=None,
        input_shape=(3, 8, 8),
        criterion="l1",
        reward=slow_reward,
        workers=workers,
        engine=engine,
    )
    result = run_search(env, "cross_entropy", evaluations=60)
    return [(record.reward, record.evaluation) for record in result.records]


def node_of(seconds: float) -> str:
    time.sleep(seconds)
    return ray.get_runtime_context().get_node_id()


class AtTask:
    """Gives tasks to an executor, and does something in the background at one of them."""

    def __init__(self, executor: RayActors, number: int, action: Callable[[], None]) -> None:
        self._submit, self._left, self._action = executor.submit, number, action

    def __call__(self, *task):
        self._left -= 1
        if self._left == 0:
            threading.Timer(0.1, self._action).start()
        return self._submit(*task)


def remove(cluster, node) -> Callable[[], None]:
    return partial(cluster.remove_node, node, allow_graceful=False)


def test_a_search_ends_as_an_undisturbed_one_though_a_node_is_killed(monkeypatch):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=2)
        with RayActors(3, address=cluster.address) as executor:
            assert ray_nodes(executor, 3) == 2
            monkeypatch.setattr(executor, "submit", AtTask(executor, 20, remove(cluster, lost)))
            found = search(executor, workers=3)
            assert lost not in cluster.list_all_nodes()
            assert ray_nodes(executor, 1) == 1
        assert not ray.is_initialized()
    finally:
        cluster.shutdown()
    assert found == search("processes", workers=3)


def ray_nodes(executor: RayActors, workers: int) -> int:
    """Return how many nodes have workers, once there are so many."""
    list(executor.map(node_of, [0.5] * workers))
    end = time.monotonic() + 120
    while len(executor._idle) < workers and time.monotonic() < end:
        time.sleep(0.1)
    return len(set(executor.map(node_of, [0.5] * workers)))


def arguments(out: Path, evaluations: int, *options: str) -> list[str]:
    quick = ["--weights", "random", "--images", "random", "--num-images", "4", "-q"]
    quick += ["--workers", "2", "--agent", "random", "--shortlist", "0"]
    quick += ["--evaluations", str(evaluations), "--out", str(out), *options]
    return ["prune", "LFGCL-ResNet20-v0", *quick]


def prune(out: Path, evaluations: int, *options: str) -> int:
    return main(arguments(out, evaluations, *options))


def test_a_run_of_ray_ends_like_one_of_processes_and_goes_on_with_them(tmp_path, capfd):
    assert prune(tmp_path / "whole", 8, "--engine", "ray") == 0
    assert prune(tmp_path / "part", 4, "--engine", "ray", "--ray-resources", "CPU=0.5") == 0
    assert not ray.is_initialized()
    assert capfd.readouterr().err == ""
    assert prune(tmp_path / "part", 8, "--engine", "processes", "--resume") == 0
    assert prune(tmp_path / "processes", 8) == 0
    runs = [RunFolder(tmp_path / name) for name in ("whole", "part", "processes")]
    assert len(runs[0].records()) == 8
    found = [[(one.reward, one.evaluation) for one in run.records()] for run in runs]
    assert found[0] == found[1] == found[2]
    networks = [(run.path / "pruned.safetensors").read_bytes() for run in runs]
    assert networks[0] == networks[1] == networks[2]


@contextmanager
def ray_start(variables: dict[str, str], *options: str) -> Iterator[None]:
    """Run ``ray start`` in a session of its own, which ends with the block.

    ``ray stop`` would end every Ray of this machine.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
    node = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=variables, start_new_session=True
    )
    try:
        yield
        assert node.poll() is None
    finally:
        node.terminate()
        with suppress(subprocess.TimeoutExpired):
            node.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_cluster_of_ray_start_with_a_token_scores_as_processes_do(tmp_path):
    (tmp_path / "token").write_text(secrets.token_hex(32))
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    variables = os.environ | token | {"RAY_USAGE_STATS_ENABLED": "0"}
    port = free_port()
    address = f"127.0.0.1:{port}"
    quick = ("--num-cpus=1", "--node-ip-address=127.0.0.1")
    with ExitStack() as machines:
        machines.enter_context(
            ray_start(variables, "--head", f"--port={port}", "--include-dashboard=false", *quick)
        )
        end = time.monotonic() + 200
        while not reachable(port) and time.monotonic() < end:
            time.sleep(0.2)
        machines.enter_context(ray_start(variables, f"--address={address}", *quick))
        command = arguments(tmp_path / "cluster", 4, "--engine", "ray", "--ray-address", address)
        run = [sys.executable, "-m", "lfgcl_env.cli.main", *command]
        subprocess.run(run, check=True, env=variables, timeout=400)
        run[-len(command) :] = arguments(tmp_path / "without", 4, *command[-4:])
        without = variables | {"RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(run, env=without, timeout=400, capture_output=True, text=True)
        assert done.returncode == 2
        assert "one with a token needs RAY_AUTH_MODE=token" in done.stderr
    assert not reachable(port)
    assert prune(tmp_path / "processes", 4) == 0
    runs = [RunFolder(tmp_path / name) for name in ("cluster", "processes")]
    found = [[(one.reward, one.evaluation) for one in run.records()] for run in runs]
    assert found[0] == found[1]
