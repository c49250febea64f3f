"""Ids with flat observations, for scripts that can name an id and nothing else."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

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

    envs = gym.vector.SyncVectorEnv([thunk])
    assert np.array(envs.single_observation_space.shape).prod() == 9 * 22
    envs.reset(seed=1)
    _, rewards, terminated, _, infos = envs.step(np.array([envs.single_action_space.sample()]))
    assert terminated.all()
    assert infos["episode"]["r"] == pytest.approx(rewards)
