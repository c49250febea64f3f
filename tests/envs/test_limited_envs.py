"""Protection and limits of single layers hold in every environment, run and leaderboard."""

import gymnasium as gym
import numpy as np
import pytest
from networks_for_tests import awaken, images, plain

from lfgcl_env.envs import AMCEnv, LFGCLEnv
from lfgcl_env.leaderboard import Entry
from lfgcl_env.leaderboard.from_run import entry_of_run
from lfgcl_env.leaderboard.replaying import replay
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.run_search import run_search

QUICK = {"weights": "random", "images": "random", "num_images": 4, "criterion": "l1",
         "repair": "none", "reward": "similarity", "budget": 0.8}  # fmt: skip
LIMITED = {"protect": ["layer2", "layer3.0.conv2"], "max_prune_ratio": {"layer1.*": 0.3, "*": 0.7}}
FEWEST = [12, 12, 12, 20, 20]


def finished(env: gym.Env, ratio: float) -> np.ndarray:
    """Play one episode that asks for the same everywhere; return the strategy."""
    env.reset(seed=0, options={"budget": env.unwrapped.problem.lowest_budget})
    ended = False
    while not ended:
        action = np.full(env.action_space.shape, ratio, np.float32)
        _, _, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
    return info["keep"]


@pytest.mark.parametrize("env_id", ["LFGCL-ResNet20-v0", "AMC-ResNet20-v0"])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_an_episode_at_the_lowest_budget_keeps_the_fewest_channels_allowed(env_id, ratio):
    env = gym.make(env_id, **QUICK, **LIMITED)
    assert [group.name[:6] for group in env.unwrapped.problem.groups] == 3 * ["layer1"] + 2 * [
        "layer3"
    ]
    assert finished(env, ratio).tolist() == FEWEST


def test_amcs_bound_holds_where_no_pattern_matches():
    arguments = {"network": awaken(plain()), "images": images(4), "num_images": None,
                 "criterion": "l1", "repair": "none", "reward": "similarity", "budget": 0.9,
                 "max_prune_ratio": {"0": 0.25}}  # fmt: skip
    assert AMCEnv(**arguments).problem.lowest.tolist() == [6, 2]
    assert LFGCLEnv(**arguments).problem.lowest.tolist() == [6, 1]


def test_a_random_agent_stays_within_limits_and_a_run_records_them_in_order(tmp_path):
    env = gym.make("LFGCL-ResNet20-v0", **QUICK, **LIMITED)
    result = run_search(env, "random", 5, shortlist=0, out=tmp_path / "run")
    for record in result.records:
        assert (np.array(record.evaluation.keep) >= FEWEST).all()
    asked = RunFolder(tmp_path / "run").asked()
    assert asked["max_prune_ratio"] == [["layer1.*", 0.3], ["*", 0.7]]
    assert asked["protect"] == LIMITED["protect"]


def test_a_run_goes_on_with_the_same_limits_only_however_they_are_written(tmp_path):
    limits = {"layer1.0": 0.3, "layer1": 0.5}
    written = {"max_prune_ratio": limits, "protect": "layer2"}
    run_search(
        gym.make("LFGCL-ResNet20-v0", **QUICK, **written),
        "random",
        2,
        shortlist=0,
        out=tmp_path / "run",
    )
    same = {"max_prune_ratio": [*map(list, limits.items())], "protect": ["layer2"]}
    env = gym.make("LFGCL-ResNet20-v0", **QUICK, **same)
    assert (
        len(run_search(env, "random", 3, shortlist=0, out=tmp_path / "run", resume=True).records)
        == 3
    )
    for other in ({"max_prune_ratio": {"layer1.0": 0.3, "layer1": 0.4}}, {"protect": "layer3"}):
        env = gym.make("LFGCL-ResNet20-v0", **QUICK, **(same | other))
        with pytest.raises(ValueError, match=next(iter(other))):
            run_search(env, "random", 4, shortlist=0, out=tmp_path / "run", resume=True)


def test_an_entry_that_breaks_the_limits_of_its_problem_does_not_hold():
    env = gym.make("LFGCL-ResNet20-v0", **QUICK, **LIMITED)
    problem: PruningProblem = env.unwrapped.problem
    for keep, holds in ((FEWEST, True), ([11, *FEWEST[1:]], False)):
        found = problem.evaluate(keep)
        names = [group.name for group in problem.groups]
        entry = Entry("mine", "me", 1, QUICK | LIMITED, dict(zip(names, keep, strict=True)),
                      found.macs, found.similarity)  # fmt: skip
        assert (replay(entry, problem, None, None).faults == ()) == holds


@pytest.mark.parametrize(("given", "kept"), [({}, 1.0), ({"max_prune_ratio": 0.7}, 0.7)])
def test_amcs_own_bound_is_no_part_of_an_entrys_problem(given, kept, tmp_path):
    env = gym.make("AMC-ResNet20-v0", **QUICK, **given)
    run_search(env, "random", 2, shortlist=0, out=tmp_path / "run")
    assert entry_of_run(tmp_path / "run", "me").problem["max_prune_ratio"] == kept
