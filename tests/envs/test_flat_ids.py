"""Ids with flat observations, which CleanRL and RLlib need, and ids that are made of these."""

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from lfgcl_env.engine import Processes
from lfgcl_env.envs.registration import EMBEDDED, FLAT_IDS

QUICK = {"weights": "random", "images": "random", "num_images": 4, "repair": "none"}
SMALL = "LFGCL-ResNet20-Flat-v0"


def test_every_network_in_the_package_has_a_flat_id():
    assert sorted(FLAT_IDS.values()) == sorted(EMBEDDED)
    assert SMALL in FLAT_IDS


def test_observations_are_those_of_the_plain_id_in_one_row():
    flat, plain = gym.make(SMALL, **QUICK), gym.make(SMALL.replace("Flat-", ""), **QUICK)
    assert flat.observation_space.shape == (9 * 22,)
    seen, rows = flat.reset(seed=0)[0], plain.reset(seed=0)[0]
    assert (seen == rows.reshape(-1)).all()
    action = np.full(9, 0.3, np.float32)
    assert flat.step(action)[1] == plain.step(action)[1]


@pytest.mark.filterwarnings("ignore")
def test_it_keeps_gymnasiums_contract():
    check_env(gym.make(SMALL, **QUICK).unwrapped, skip_render_check=True)


def test_cleanrls_way_to_make_environments_takes_it():
    def thunk():
        env = gym.make(SMALL, **QUICK)  # CleanRL gives no arguments
        return gym.wrappers.RecordEpisodeStatistics(env)

    envs = SyncVectorEnv([thunk])
    assert np.array(envs.single_observation_space.shape).prod() == 9 * 22
    envs.reset(seed=1)
    _, rewards, terminated, _, infos = envs.step(np.array([envs.single_action_space.sample()]))
    assert terminated.all()
    assert infos["episode"]["r"] == pytest.approx(rewards)


def test_a_script_that_keeps_gymnasiums_default_mode_scores_in_every_second_step():
    envs = SyncVectorEnv([lambda: gym.make(f"lfgcl_env:{SMALL}", **QUICK)])
    envs.reset(seed=1)
    ended = [bool(envs.step(envs.action_space.sample())[2][0]) for _ in range(4)]
    assert ended == [True, False, True, False]


def test_a_vector_environment_that_resets_in_the_same_step_scores_in_every_step():
    envs = SyncVectorEnv(
        [lambda: gym.make(SMALL, **QUICK)] * 2,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    first, _ = envs.reset(seed=1)
    for _ in range(2):
        observation, rewards, terminated, _, infos = envs.step(envs.action_space.sample())
        assert terminated.all()
        assert (rewards > 0).all()
        assert (observation == first).all()
        assert infos["final_info"]["keep"].shape == (2, 9)


def together(env_id, **arguments):
    envs = gym.make_vec(
        env_id, num_envs=2, vectorization_mode="vector_entry_point", **(QUICK | arguments)
    )
    envs.action_space.seed(0)
    return envs


@pytest.mark.parametrize("horizon", [1, 2])
def test_its_vector_environment_is_the_plain_one_in_rows(horizon):
    flat = together(SMALL, horizon=horizon, budget=(0.4, 0.9))
    plain = together(SMALL.replace("Flat-", ""), horizon=horizon, budget=(0.4, 0.9))
    assert flat.single_observation_space.shape == (9 * 22,)
    assert flat.observation_space.shape == (2, 9 * 22)
    assert flat.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    seen, rows = flat.reset(seed=3)[0], plain.reset(seed=3)[0]
    assert (seen == rows.reshape(2, -1)).all()
    for _ in range(2 * horizon):
        action = flat.action_space.sample()
        one, other = flat.step(action), plain.step(action)
        assert one[0] in flat.observation_space
        assert (one[0] == other[0].reshape(2, -1)).all()
        for mine, its in zip(one[1:4], other[1:4], strict=True):
            assert (mine == its).all()
    assert one[4]["final_obs"][0].shape == (9 * 22,)
    assert data_equivalence(one[4]["final_info"], other[4]["final_info"], exact=True)


def test_its_vector_environment_does_what_single_ones_do():
    with Processes(2) as workers:
        envs = together(SMALL, engine=workers)
        actions = [envs.action_space.sample() for _ in range(3)]
        seen = [envs.reset(seed=3), *map(envs.step, actions)]
    singles = SyncVectorEnv(
        [lambda: gym.make(SMALL, **QUICK)] * 2, autoreset_mode=AutoresetMode.SAME_STEP
    )
    assert data_equivalence(seen, [singles.reset(seed=3), *map(singles.step, actions)], exact=True)


def test_gymnasium_takes_its_vector_environment_where_no_mode_is_asked_for():
    envs = gym.make_vec(SMALL, num_envs=2, **QUICK)
    assert len(set(envs.get_attr("problem"))) == 1


@pytest.fixture
def module_of_the_page(tmp_path, monkeypatch):
    """The module that docs/start_agent.md shows, where Python finds it."""
    page = (Path(__file__).parents[2] / "docs/start_agent.md").read_text(encoding="utf-8")
    [shown] = [b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Quick-v0" in b]
    (tmp_path / "my_envs.py").write_text(shown, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_envs"
    gym.registry.pop("Quick-v0", None)


def test_an_id_of_ones_own_has_arguments_and_wrappers_that_a_script_cannot_give(
    module_of_the_page,
):
    env = gym.make(f"{module_of_the_page}:Quick-v0", **QUICK)
    assert env.observation_space.shape == (9 * 22,)
    assert env.action_space == gym.spaces.Box(-1, 1, (9,), np.float32)
    assert gym.spec("Quick-v0").kwargs["repair"] == "least_squares"
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[2]
