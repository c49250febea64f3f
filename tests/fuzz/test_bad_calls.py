"""Wrong arguments of every kind: only ValueError, OSError or ImportError comes out."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images, plain, simple_problem

import lfgcl_env  # noqa: F401 - registers the environments
from lfgcl_env.leaderboard import add_entries, entry_of_run, read_entries
from lfgcl_env.networks import build_network, load_baseline
from lfgcl_env.pruning import Evaluation, PruningProblem, load_pruned
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.protocol import find_agent

pytestmark = pytest.mark.slow

ACCEPTED = (ValueError, OSError, ImportError)

VALUES = [
    None, True, -1, 0, 3, 2**31, 2**64, 10**30, 0.5, math.nan, math.inf, -1e300, 1j, "", "x", "cpu",
    "cuda:99", "cpu:x", "\x00", "../..", "os:rmdir", "nowhere:nothing", "::", "a" * 5000, b"x", [],
    {}, (), [1], [[1], [2, 3]], ["a"], {"a": 1}, {1: 2}, object(), int, len,
    np.float64("nan"), np.zeros(3), np.array(["a"]), np.array([None]), np.zeros((2, 3, 32, 32)),
    torch.zeros(0), torch.zeros(3, dtype=torch.complex64), torch.full((4, 3, 32, 32), math.nan),
    torch.zeros(4, 3, 32, 32, dtype=torch.int64), torch.zeros(4, 3, 8, 8), torch.zeros(2, 2),
    Evaluation((3, 4), math.nan, 1, 1, 1.0, 1.0), Evaluation((), 0.5, 1, 1, 0.5, 0.5),
    Evaluation(None, None, None, None, None, None),
]  # fmt: skip

NETWORK = awaken(plain())
IMAGES = images()
PROBLEM = simple_problem(NETWORK, IMAGES)


def make(**arguments):
    base = {"network": NETWORK, "images": IMAGES, "criterion": "l1", "repair": "none"}
    gym.make("LFGCL-v0", **(base | arguments))


CALLS = {
    "seed": lambda value: make(seed=value),
    "device": lambda value: make(device=value),
    "images": lambda value: make(images=value),
    "num_images": lambda value: make(num_images=value),
    "budget": lambda value: make(budget=value),
    "input_shape": lambda value: make(input_shape=value),
    "normalization": lambda value: make(normalization=value),
    "features": lambda value: make(features=value),
    "problem": lambda value: PruningProblem(NETWORK, value, criterion="l1", repair="none"),
    "round_to": lambda value: PruningProblem(NETWORK, IMAGES, criterion="l1", round_to=value),
    "protect": lambda value: make(protect=value),
    "max_prune_ratio": lambda value: make(max_prune_ratio=value),
    "min_channels": lambda value: make(min_channels=value),
    "min_channels_of": lambda value: make(min_channels={"0": value}),
    "pattern": lambda value: make(round_to=[[value, 2]]),
    "weights": lambda value: load_baseline("resnet20", value),
    "network": lambda value: load_baseline(value, "random"),
    "num_classes": lambda value: build_network("resnet20", num_classes=value),
    "project": PROBLEM.project,
    "cost": PROBLEM.cost,
    "evaluate": PROBLEM.evaluate,
    "compress": PROBLEM.compress,
    "remember": PROBLEM.remember,
    "score_network": lambda value: PROBLEM.score_network(value, [3, 4]),
    "score_strategy": lambda value: PROBLEM.score_network(NETWORK, value),
    "finish": lambda value: PROBLEM.finish([3, 4], value),
    "find_agent": find_agent,
    "load_pruned": load_pruned,
    "architecture": lambda value: load_pruned(SAVED[0], value),
    "read_entries": read_entries,
    "add_entries": lambda value: add_entries(SAVED[0], value),
    "entry_of_run": lambda value: entry_of_run(value, "me"),
    "run_folder": lambda value: RunFolder(value).asked(),
    "begin": lambda value: RunFolder(SAVED[1]).begin({"environment": "x", "agent": value}),
}
SAVED = []


@pytest.fixture(scope="module", autouse=True)
def saved(tmp_path_factory):
    """A pruned network's file, and a folder for runs."""
    folder = tmp_path_factory.mktemp("saved")
    SAVED[:] = [PROBLEM.save(folder / "pruned", [3, 4]), folder / "run"]


@pytest.mark.parametrize("call", CALLS)
def test_wrong_arguments_are_refused_in_one_sentence(call):
    foreign = []
    for value in VALUES:
        said = ""
        try:
            CALLS[call](value)
        except ACCEPTED as error:
            said = str(error)
        except Exception as error:
            foreign.append((value, error))
        assert "\n" not in said.strip()
    assert foreign == []
