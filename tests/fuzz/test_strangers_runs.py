"""A stranger's run folder runs no code, whatever is done with it."""

import base64
import io
import json
import os
import pickle
import sys
import zipfile

import gymnasium as gym
import pytest
import torch
from safetensors.torch import load_file, save_file

from lfgcl_env import zoo
from lfgcl_env.cli.main import main
from lfgcl_env.edge.sealed import sealed
from lfgcl_env.pruning import read_structure
from lfgcl_env.runs.run_folder import AGENT, RunFolder
from lfgcl_env.search.protocol import find_agent
from lfgcl_env.search.run_search import run_search
from lfgcl_env.search.warm_start import find_saved_agent, load_into

NOISE = {"weights": "random", "images": "random", "num_images": 4}


class Bomb:
    """Leaves a file when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("ran",))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, in which a module is planted that leaves a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted.py").write_text("open('ran', 'w')\ndef make(*_): open('ran', 'w')\n")
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    yield tmp_path
    assert not (tmp_path / "ran").exists()
    assert "planted" not in sys.modules


@pytest.fixture
def run(here):
    """A finished run in the current folder."""
    env = gym.make("LFGCL-ResNet20-v0", **NOISE)
    run_search(env, "random", 2, out=here / "run", shortlist=0)
    return RunFolder(here / "run")


def forged(run, **changes):
    described = run.described()
    described["arguments"] |= changes
    (run.path / "arguments.json").write_text(sealed(described))


@pytest.mark.parametrize(
    "change",
    [
        {"agent": "planted:make"},
        {"environment": "planted:Env-v0"},
        {"environment": "LFGCL-v0", "network": "planted:make"},
        {"environment": "LFGCL-v0", "network": "os:rmdir", "network_arguments": {"path": "run"}},
        {"reward": "planted:make"},
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["prune", "--resume", "--out", "run"],
        ["validate", "board.jsonl", "--add", "run"],
        ["evaluate", "run", "--data", "CIFAR10", "--data-root", "none"],
    ],
)
def test_no_code_that_a_run_names_is_run(run, change, command):
    forged(run, **change)
    only_a_name = command[0] == "validate" and change.keys() <= {"agent", "reward"}
    assert main(command) == (0 if only_a_name else 2)
    assert run.path.is_dir()


def test_a_forged_network_in_a_run_is_refused(run, capsys):
    path = run.path / "pruned.safetensors"
    structure = read_structure(path)
    del structure["checksum"]
    text = sealed(structure | {"network": "planted:make", "arguments": {}})
    save_file(load_file(path), path, metadata={"lfgcl_env": text})
    assert main(["evaluate", "run", "--data", "CIFAR10", "--data-root", "none"]) == 2
    assert "somebody's code" in capsys.readouterr().err


def with_pickles(path, name):
    """An agent of Stable-Baselines3 in which everything that could be unpickled is a bomb."""
    bomb = io.BytesIO()
    torch.save({"x": Bomb()}, bomb)
    text = base64.b64encode(pickle.dumps(Bomb())).decode()
    data = {"policy_class": {":type:": "<class>", ":serialized:": text}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(data))
        archive.writestr(f"{name}.pth", bomb.getvalue())


@pytest.mark.parametrize("agent", ["ddpg", "ppo", "lfgcl", "cross_entropy"])
def test_a_saved_agent_is_never_unpickled(run, agent):
    pytest.importorskip("stable_baselines3")
    forged(run, agent=agent)
    env = gym.make("LFGCL-ResNet20-v0", **NOISE)
    made = zoo.make(agent, env, 0) if agent in zoo.ALGORITHMS else find_agent(agent)(env, 0)
    for write in (
        lambda path: with_pickles(path, "policy"),
        lambda path: torch.save({"x": Bomb()}, path),
        lambda path: path.write_bytes(pickle.dumps(Bomb())),
    ):
        write(run.path / AGENT)
        with pytest.raises(ValueError, match="does not fit here"):
            load_into(find_saved_agent(run.path, agent), made, env.unwrapped.problem)


def test_links_in_a_run_are_not_written_through(run, capsys):
    victim = run.path.parent / "victim"
    victim.mkdir()
    (victim / "events.out.tfevents.1").write_text("precious")
    board = run.path / "tensorboard"
    if board.exists():
        for path in board.iterdir():
            path.unlink()
        board.rmdir()
    board.symlink_to(victim)
    assert main(["prune", "--resume", "--out", "run", "--evaluations", "3"]) == 2
    assert "is a link out of run" in capsys.readouterr().err
    assert [path.name for path in victim.iterdir()] == ["events.out.tfevents.1"]
