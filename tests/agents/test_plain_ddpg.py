"""Plain DDPG: what it stores, how its targets follow, that it learns, and what it saves."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from lfgcl_env.agents.plain_ddpg import Arguments, PlainDDPG, make

import lfgcl_env
from lfgcl_env.search.run_search import run_search

QUICK = Arguments(hidden=(32, 32), updates=2, warm_up=4, batch_size=8)


class Corner(gym.Env):
    """A one-step episode: the nearer the action to a corner, the higher the reward."""

    observation_space = gym.spaces.Box(-1, 1, (3, 2), np.float32)
    action_space = gym.spaces.Box(0, 1, (3,), np.float32)
    corner = np.array([0, 1, 0])

    def __init__(self, scale=1.0):
        self.scale = scale
        self.rewards, self.actions = [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full((3, 2), 0.5, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        reward = -self.scale * float(np.abs(action - self.corner).sum())
        self.rewards.append(reward)
        self.actions.append(action)
        return np.full((3, 2), 0.25, np.float32), reward, True, False, {}


@pytest.fixture(scope="module")
def env():
    assert lfgcl_env
    return gym.make("LFGCL-v0", network="resnet20", weights="random", images="random", num_images=4)


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_it_gets_better_than_its_first_action(scale):
    problem = Corner(scale)
    learns = replace(QUICK, updates=10, actor_learning_rate=1e-4)
    agent = PlainDDPG(problem, 0, learns)

    def reward():
        return -scale * np.abs(agent.predict(problem.reset()[0])[0] - problem.corner).mean()

    first = reward()
    agent.learn(100)
    assert reward() > first + 0.1
    assert all(np.isfinite(loss) for loss in agent.losses.values())


def test_the_first_action_is_about_a_half_in_every_group(env):
    observation, _ = env.reset()
    action, state = make(env, 0).predict(observation, deterministic=True)
    assert state is None
    np.testing.assert_allclose(action, 0.5, atol=0.02)


def test_predict_answers_one_observation_and_several(env):
    agent = PlainDDPG(env, 0, QUICK)
    observation, _ = env.reset()
    action, _ = agent.predict(observation)
    assert env.action_space.contains(action)
    several, _ = agent.predict(np.stack([observation, observation]))
    np.testing.assert_allclose(several, np.stack([action, action]), atol=1e-6)


def test_the_replay_holds_requested_actions_and_the_reward_as_it_is():
    problem = Corner(scale=-100.0)
    agent = PlainDDPG(problem, 0, QUICK)
    agent.learn(6)
    observations, actions, rewards, following, ends = map(
        torch.stack, zip(*agent.replay.steps, strict=True)
    )
    np.testing.assert_array_equal(actions, problem.actions)
    np.testing.assert_allclose(rewards, problem.rewards, rtol=1e-6)
    assert set(observations.flatten().tolist()) == {0.5}
    assert set(following.flatten().tolist()) == {0.25}
    assert ends.tolist() == [1.0] * 6


def test_in_a_longer_episode_only_the_last_step_ends_it():
    several = gym.make(
        "LFGCL-v0",
        network="resnet20",
        weights="random",
        images="random",
        num_images=4,
        horizon=2,
    )
    agent = PlainDDPG(several, 0, QUICK)
    agent.learn(4)
    assert [float(step[-1]) for step in agent.replay.steps] == [0, 1, 0, 1]


def test_targets_follow_the_networks_by_tau():
    agent = PlainDDPG(Corner(), 0, replace(QUICK, tau=0.25, updates=1))
    agent.learn(3)
    before = [p.clone() for p in agent.target_actor.parameters()]
    agent.learn(1)
    assert any(
        not torch.equal(b, now) for b, now in zip(before, agent.actor.parameters(), strict=True)
    )
    for old, now, target in zip(
        before, agent.actor.parameters(), agent.target_actor.parameters(), strict=True
    ):
        torch.testing.assert_close(target, 0.75 * old + 0.25 * now)


def test_noise_anneals():
    problem = Corner()
    still = replace(QUICK, warm_up=1000, noise=0.3, last_noise=0.01, anneal=50)
    PlainDDPG(problem, 0, still).learn(100)
    away = np.abs(np.array(problem.actions) - 0.5)
    assert away[50:].mean() < 0.1 * away[:20].mean()


def test_it_searches_and_its_seed_alone_decides(env):
    def visited(seed):
        torch.manual_seed(17 * seed + 1)
        found = run_search(env, lambda env, seed: PlainDDPG(env, seed, QUICK), 10, agent_seed=seed)
        return [record.evaluation.keep for record in found.records]

    assert visited(0) == visited(0)
    assert visited(0) != visited(1)
    assert len(visited(0)) == 10


def test_loaded_it_goes_on_as_if_it_had_not_stopped(tmp_path):
    straight, stopped = PlainDDPG(Corner(), 3, QUICK), PlainDDPG(Corner(), 3, QUICK)
    straight.learn(12)
    stopped.learn(7)
    stopped.save(tmp_path / "agent")
    again = PlainDDPG.load(tmp_path / "agent", Corner())
    assert again.arguments == QUICK
    again.learn(5)
    for one, other in zip(straight.replay.steps, again.replay.steps, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    observation, _ = Corner().reset()
    np.testing.assert_array_equal(straight.predict(observation)[0], again.predict(observation)[0])


def test_another_agent_takes_over_the_networks_if_the_groups_are_as_many(env, tmp_path):
    agent, other = PlainDDPG(Corner(), 0, QUICK), PlainDDPG(Corner(), 1, QUICK)
    agent.learn(8)
    agent.save(tmp_path / "agent")
    other.set_parameters(tmp_path / "agent")
    observation, _ = Corner().reset()
    np.testing.assert_array_equal(agent.predict(observation)[0], other.predict(observation)[0])
    assert other.replay.steps == []
    with pytest.raises(ValueError, match="size mismatch"):
        PlainDDPG(env, 0, QUICK).set_parameters(tmp_path / "agent")


def test_files_of_other_agents_are_refused(tmp_path):
    torch.save({"agent": "lfgcl"}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="not a file of the agent 'plain_ddpg'"):
        PlainDDPG.load(tmp_path / "foreign", Corner())
