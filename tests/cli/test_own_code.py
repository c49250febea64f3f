"""Code that the user or a file names: it runs if the user says so, and its faults are told."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from command_for_tests import prune, said

from lfgcl_env.cli.main import main
from lfgcl_env.images import LabelledImages
from lfgcl_env.pruning import load_pruned
from lfgcl_env.runs.run_folder import RunFolder

NETWORK = """
from pathlib import Path
from torch import nn

Path("ran").touch()

def build(width=6):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 4, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )
"""
AGENT = """
import sys
from lfgcl_env.agents.random import RandomAgent

class Fragile(RandomAgent):
    def learn(self, total_timesteps, callback=None):
        super().learn(2, callback)
        {}
        return super().learn(total_timesteps, callback)

make = Fragile
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; modules that are imported from it are forgotten afterwards."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    yield tmp_path
    forget(known)


def forget(known):
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) == os.path.abspath(f"{name}.py"):
            del sys.modules[name]


@pytest.fixture
def own_run(here):
    """A run on a network of one's own, whose module was not imported since."""
    (here / "own_network.py").write_text(NETWORK)
    arguments = ["--network-arguments", "width=8"]
    assert prune("run", *arguments, target="own_network:build", evaluations=2) == 0
    del sys.modules["own_network"]
    (here / "ran").unlink()
    return Path("run")


def test_a_run_that_names_code_goes_on_only_if_it_is_named_again_or_trusted(own_run, capsys):
    resume = ["prune", "--resume", "--out", "run", "--evaluations"]
    assert main([*resume, "3"]) == 2
    error = said(capsys)
    assert "give ENV_OR_NETWORK own_network:build again, or --trust" in error
    assert not Path("ran").exists()
    assert main([*resume, "3", "own_network:build"]) == 0
    assert main([*resume, "4", "--trust"]) == 0
    assert len(RunFolder("run").records()) == 4


def test_an_unpruned_network_of_another_architecture_is_refused(own_run, here, capsys):
    (here / "other_network.py").write_text(NETWORK.replace("nn.Linear(4, 10)", "nn.Linear(4, 7)"))
    named = ["--network", "other_network:build", "--network-arguments", "width=8"]
    assert main(["recover", "run", *named, "--num-images", "64"]) == 2
    assert "its 7.weight is [10, 4], which is not cut from [7, 4]" in said(capsys)


@pytest.mark.parametrize("option", ["agent", "reward"])
def test_agents_and_rewards_of_a_record_are_code_too(option, here, capsys):
    (here / "own_code.py").write_text(
        "from pathlib import Path\n"
        "from lfgcl_env.agents.random import make\n"
        "Path('ran').touch()\n"
        "def bias(network, images):\n"
        "    return float(network(images).mean())\n"
    )
    given = {"agent": "own_code:make", "reward": "own_code:bias"}[option]
    options = [f"--{option}", given]
    assert prune("run", *options, evaluations=1) == 0
    name = {"agent": "kl similarity", "reward": "own_code:bias"}[option]
    assert f"the best has {name} " in capsys.readouterr().out
    del sys.modules["own_code"]
    (here / "ran").unlink()
    resume = ["prune", "--resume", "--out", "run", "--evaluations", "2"]
    assert main(resume) == 2
    assert f"give --{option} {given} again, or --trust" in said(capsys)
    assert not Path("ran").exists()
    assert main([*resume, *options]) == 0


def test_evaluate_builds_a_network_that_a_file_names_only_if_told_to(own_run, monkeypatch, capsys):
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labelled = LabelledImages(images, torch.arange(20) % 10, "CIFAR10 test")
    monkeypatch.setattr("lfgcl_env.cli.evaluate.load_test_set", lambda *_, **__: labelled)
    for path in ("run", "run/pruned.safetensors"):
        evaluate = ["evaluate", path, "--data", "CIFAR10"]
        assert main(evaluate) == 2
        assert "give --network own_network:build, or --trust" in said(capsys)
        assert main([*evaluate, "--network", "own_network:build"]) == 2
        assert "give --network-arguments '{\"width\": 8}', or --trust" in said(capsys)
        assert not Path("ran").exists() or "own_network" in sys.modules
        named = ["--network", "own_network:build", "--network-arguments", "width=8"]
        assert main([*evaluate, *named]) == 0
        assert main([*evaluate, "--trust"]) == 0


def test_the_current_folder_is_importable_for_named_code_only(here):
    (here / "own_agent.py").write_text(
        AGENT.format("assert '' not in sys.path and sys.path == self.path")
        + "\nimport os\nassert os.getcwd() in sys.path\n"
        + f"Fragile.path = {sys.path!r}\n"
    )
    before = list(sys.path)
    assert prune("run", agent="own_agent:make") == 0
    assert sys.path == before


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def make(:", "SyntaxError"),
        ("import sys; sys.exit('no')", "SystemExit: no"),
        ("import not_there", "ModuleNotFoundError"),
        ("make = 3", "is not callable"),
        ("mak = dict", "has no 'make'. Did you mean 'mak'?"),
    ],
)
def test_an_own_module_that_fails_is_one_sentence(code, reason, here, capsys):
    (here / "own_module.py").write_text(code)
    assert prune("run", agent="own_module:make") == 2
    assert reason in said(capsys)
    assert not Path("run").exists()
    assert main(["inspect", "own_module:make"]) == 2
    assert reason in said(capsys)


@pytest.mark.parametrize("fault", ["1 / 0", "sys.exit(3)"])
def test_an_own_agent_that_raises_is_one_sentence_and_can_be_mended(fault, here, capsys):
    (here / "fragile_agent.py").write_text(AGENT.format(fault))
    assert prune("run", agent="fragile_agent:make") == 1
    kind = "ZeroDivisionError" if fault == "1 / 0" else "SystemExit"
    assert kind in said(capsys)
    assert len(RunFolder("run").records()) == 3  # the allocation, and what the agent scored
    (here / "fragile_agent.py").write_text(AGENT.format("pass # mended"))
    del sys.modules["fragile_agent"]
    again = ["prune", "--resume", "--out", "run", "--agent", "fragile_agent:make"]
    assert main([*again, "--evaluations", "4"]) == 0
    assert len(RunFolder("run").records()) == 4


def test_verbose_shows_the_traceback(here, capsys):
    (here / "fragile_agent.py").write_text(AGENT.format("1 / 0"))
    assert prune("run", "-v", agent="fragile_agent:make") == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert 'fragile_agent.py", line' in error
    assert "after 3 evaluations, which are kept in run" in error.splitlines()[-1]


REWARD = """
def score(network, images):
    return float(network[0].out_channels)
"""


UNTOUCHED = """
from torch import nn

def build():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )
    for place in (0, 2, 6):
        nn.init.constant_(network[place].bias, 0.125)
    return network

def score(network, images):
    return -sum(float((network[place].bias - 0.125).abs().sum()) for place in (0, 2, 6))
"""


def test_a_reward_decides_what_is_handed_over_and_the_command_says_so(here, capsys):
    (here / "untouched.py").write_text(UNTOUCHED)
    options = ["--reward", "untouched:score", "--input-shape", "12", "--budget", "0.6"]
    options += ["--shortlist", "2", "--repair-images", "16"]
    assert prune("run", *options, target="untouched:build") == 0
    found = capsys.readouterr()
    assert "\nhanded over: the network merely cut: every repair that was tried" in found.out
    assert "every repair made the network worse" in found.err
    best = json.loads(Path("run/best.json").read_text())
    assert best["delivery"] == "cut"
    network = load_pruned("run/pruned.safetensors", sys.modules["untouched"].build())
    assert sys.modules["untouched"].score(network, None) == 0 > best["reward"]
    again = ["untouched:build", "--reward", "untouched:score", "--resume", "--out", "run"]
    assert main(["prune", *again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["delivery"] == "cut"


def test_workers_find_a_reward_in_the_current_folder(here, capsys):
    (here / "mine.py").write_text(REWARD)
    (here / "own_net.py").write_text(NETWORK)
    arguments = ["--agent", "random", "--evaluations", "3", "--workers", "2", "--quiet"]
    asked = ["own_net:build", "--weights", "random", "--reward", "mine:score", "--out", "run"]
    more = ["--images", "random", "--num-images", "4", "--shortlist", "0"]
    assert main(["prune", *asked, *arguments, *more]) == 0, said(capsys)
    assert len(RunFolder("run").records()) == 3
