"""``lfgcl recover`` judges by the run's own reward, so that nobody's score becomes worse."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from command_for_tests import prune, said

from lfgcl_env import load_pruned
from lfgcl_env.cli.main import main
from lfgcl_env.cli.recovery_score import find_score
from lfgcl_env.page import write_page
from lfgcl_env.runs.best import read_best

SHORT = [
    *["--num-images", "64", "--epochs", "2", "--epoch-images", "64", "--batch-size", "32"],
    *["--learning-rate", "0.0005", "--ema", "0.5"],
]
REWARDS = """
from pathlib import Path

Path("ran").touch()
START = {}

def stay(network, images):
    now = [tensor.clone() for tensor in network.parameters()]
    start = START.setdefault("weights", now)
    return -sum(float((a - b).square().sum()) for a, b in zip(now, start)) - len(images)

def go(network, images):
    return -stay(network, images)
"""


@pytest.fixture
def here(run, tmp_path, monkeypatch):
    """A current folder with rewards in it, which were not imported."""
    (tmp_path / "own_rewards.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop("own_rewards", None)


def test_training_that_the_runs_reward_dislikes_is_not_used(here, capsys):
    assert prune("run", "--reward", "own_rewards:stay", evaluations=1) == 0
    file = Path("run/recovered.safetensors")
    forget()
    assert main(["recover", "run", *SHORT]) == 2
    assert "give --reward own_rewards:stay, or --trust" in said(capsys)
    assert not Path("ran").exists()
    assert main(["recover", "run", *SHORT, "--trust", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score"] == "own_rewards:stay"
    assert found["before"] == -128  # 16 views of each of the 8 images that were watched
    assert found["after"] < found["before"]
    assert not found["used"]
    assert not file.exists()
    (stored,) = read_best(Path("run")).recoveries
    assert (stored.used, stored.before, stored.after) == (False, -128, found["after"])
    assert ", so it was not used" in Path("run/report.txt").read_text()
    assert "not written: not better" in write_page("run").read_text()
    forget()
    assert main(["recover", "run", *SHORT, "--reward", "own_rewards:go"]) == 0
    assert "no labels: own_rewards:go 128 -> " in capsys.readouterr().out
    assert load_pruned(file).pruned_structure["recovered"]["used"]
    (stored,) = read_best(Path("run")).recoveries  # in place of the one into the same file
    assert (stored.used, stored.score) == (True, "own_rewards:go")


def forget():
    """Let the rewards be imported anew."""
    del sys.modules["own_rewards"]
    os.remove("ran")


def test_training_on_labels_is_judged_by_the_reward_where_it_is_ones_own():
    arguments = {"reward": None, "labels": True, "trust": True}
    assert find_score(arguments, {"reward": "builtins:max"}, Path("run")).name == "builtins:max"
    assert find_score(arguments, {"reward": "similarity"}, Path("run")).name == "top-1"
    given = arguments | {"reward": "similarity"}
    assert find_score(given, {"reward": "builtins:max"}, Path("run")).name == "outputs"
    with pytest.raises(ValueError, match=r"was an object \(function\) and is not kept: give"):
        find_score(arguments, {"reward": "function"}, Path("run"))


def test_a_reward_that_is_unknown_or_needs_labels_is_refused(run, here, capsys):
    own = shutil.copytree(run, here / "copy")
    assert main(["recover", str(own), *SHORT, "--reward", "acuracy"]) == 2
    assert "Did you mean 'accuracy'?" in said(capsys)
    assert main(["recover", str(own), *SHORT, "--reward", "accuracy"]) == 2
    assert "reward 'accuracy' needs a data set that has labels" in said(capsys)


@pytest.mark.data
def test_accuracy_is_measured_on_held_out_labels_without_training_on_any(run, here, capsys):
    own = shutil.copytree(run, here / "copy")
    asked = ["--reward", "accuracy", "--images", "CIFAR10", "--json"]
    assert main(["recover", str(own), *SHORT, *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["score"], found["labels"], found["num_images"]) == ("top-1", False, 56)
    assert found["before"] in [12.5 * right for right in range(9)]
