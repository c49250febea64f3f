"""AMC's agent: its noise, what it stores, its baseline of returns, and its updates."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from lfgcl_env.baselines import amc
from lfgcl_env.baselines.amc import AMCAgent, Arguments, Transition, truncated_normal
from networks_for_tests import awaken, images, plain

import lfgcl_env  # noqa: F401 - registers the environments
from lfgcl_env.search.protocol import AgentError, find_agent
from lfgcl_env.search.run_search import run_search

QUICK = Arguments(hidden=16, batch_size=8, warm_up=2, memory=3)


class Corridor(gym.Env):
    """Three steps, as the state tells, of which 0.2, 0.5, 0.8 are best; executed in tenths."""

    observation_space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)

    def __init__(self):
        self.asked = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_index, self.lost = 0, 0.0
        return self.state(), {}

    def step(self, action):
        self.asked.append(action)
        executed = round(float(action[0]), 1)
        self.lost += abs(executed - (0.2, 0.5, 0.8)[self.step_index])
        self.step_index += 1
        over = self.step_index == 3
        return self.state(), 1 - self.lost if over else 0.0, over, False, {
            "executed_action": executed
        }  # fmt: skip

    def state(self):
        return np.array([self.step_index / 3, 1.0], np.float32)


def trained(steps: int, seed: int = 0, arguments: Arguments = QUICK) -> AMCAgent:
    return AMCAgent(Corridor(), seed, arguments).learn(steps)


def filled(agent: AMCAgent, transition: Transition) -> AMCAgent:
    agent.memory = [transition] * 20
    return agent


STEP = Transition(
    np.array([0.1, 1], np.float32), np.array([0.3], np.float32), 0.6,
    np.array([0.5, 1], np.float32), False,
)  # fmt: skip


def test_the_settings_are_the_published_ones():
    a = Arguments()
    assert (a.hidden, a.actor_learning_rate, a.critic_learning_rate) == (300, 1e-4, 1e-3)
    assert (a.batch_size, a.discount, a.tau) == (64, 1.0, 0.01)
    assert (a.warm_up, a.noise, a.noise_decay, a.memory) == (100, 0.5, 0.95, 100)
    assert a.store == "requested"


def test_noise_begins_at_one_half_after_100_random_episodes_and_decays_with_each():
    agent = amc.make(Corridor(), 0)
    deviations = []
    for episode in (100, 101, 110, 150):
        agent.episodes = episode
        deviations.append(agent.deviation())
    assert deviations == pytest.approx([0.5, 0.475, 0.5 * 0.95**10, 0.5 * 0.95**50])


def test_the_first_episodes_are_uniform_and_the_next_follow_the_actor():
    agent = amc.make(Corridor(), 0)
    state = np.array([0.0, 1.0], np.float32)
    agent.episodes = 99
    first = np.array([agent.explore(state) for _ in range(4000)])
    assert np.quantile(first, [0.1, 0.5, 0.9]).tolist() == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    agent.episodes = 200  # the deviation is 0.003 by now
    later = np.array([agent.explore(state) for _ in range(100)])
    assert later == pytest.approx(agent.predict(state)[0][0], abs=0.02)


@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 0.5), (0.05, 0.3), (0.99, 0.1)])
def test_the_noise_is_a_normal_distribution_cut_off_outside_0_and_1(mean, deviation):
    draws = np.random.default_rng(0)
    ours = truncated_normal(np.full(50_000, mean, np.float32), deviation, draws)
    normal = draws.normal(mean, deviation, 400_000)
    kept = normal[(normal >= 0) & (normal <= 1)]
    levels = np.linspace(0.05, 0.95, 7)
    assert np.quantile(ours, levels) == pytest.approx(np.quantile(kept, levels), abs=0.01)
    assert ours.min() >= 0
    assert ours.max() <= 1


@pytest.mark.parametrize("mean", [0.0, 1e-30, 1.0])
def test_the_noise_stays_finite_at_the_ends(mean):
    draws = np.random.default_rng(0)
    for deviation in (0.5, 1e-3, 1e-12):
        drawn = truncated_normal(np.full(1000, mean, np.float32), deviation, draws)
        assert np.isfinite(drawn).all()
        assert np.abs(drawn - mean).max() <= min(1, 6 * deviation)


def test_every_transition_gets_the_return_of_its_episode():
    agent = trained(6)
    assert agent.episodes == 2
    rewards = [step.reward for step in agent.memory]
    assert len(set(rewards[:3])) == len(set(rewards[3:])) == 1
    assert rewards[0] != rewards[3]
    asked = np.array(agent.env.asked).reshape(2, 3).astype(float).round(1)
    expected = 1 - np.abs(asked - [0.2, 0.5, 0.8]).sum(axis=1)
    assert rewards[::3] == pytest.approx(expected.tolist(), abs=1e-6)
    assert [step.over for step in agent.memory] == [False, False, True] * 2
    states = [float(step.state[0]) for step in agent.memory[:3]]
    assert states == pytest.approx([0, 1 / 3, 2 / 3])
    assert [float(step.following[0]) for step in agent.memory[:3]] == pytest.approx(
        [1 / 3, 2 / 3, 1]
    )


def test_rewards_before_the_end_of_an_episode_count_too():
    class Paying(Corridor):
        def step(self, action):
            observation, reward, over, truncated, info = super().step(action)
            return observation, reward + self.step_index, over, truncated, info

    env = Paying()
    agent = AMCAgent(env, 0, QUICK).learn(3)
    lost = np.abs(np.array(env.asked).ravel().round(1) - [0.2, 0.5, 0.8]).sum()
    assert [step.reward for step in agent.memory] == pytest.approx([1 - lost + 1 + 2 + 3] * 3)


def test_the_transitions_of_the_last_episodes_are_kept():
    agent = trained(3 * 8)
    assert len(agent.memory) == 3 * QUICK.memory
    asked = [float(action[0]) for action in agent.env.asked[-9:]]
    assert [float(step.action[0]) for step in agent.memory] == asked


def test_requested_or_executed_actions_are_stored():
    requested = trained(6)
    executed = trained(6, arguments=replace(QUICK, store="executed"))
    asked = np.array([action[0] for action in requested.env.asked])
    assert [step.action[0] for step in requested.memory] == asked.tolist()
    tenths = asked.astype(float).round(1)
    assert [step.action[0] for step in executed.memory] == pytest.approx(tenths.tolist())
    assert np.abs(asked - tenths).max() > 0.01
    assert amc.make_executed(Corridor(), 0).arguments.store == "executed"
    with pytest.raises(ValueError, match="Did you mean 'executed'"):
        AMCAgent(Corridor(), 0, Arguments(store="executd"))


def test_updates_begin_after_the_random_episodes_one_for_each_transition(monkeypatch):
    updates = []
    monkeypatch.setattr(AMCAgent, "update", lambda agent: updates.append(len(agent.memory)))
    trained(3 * QUICK.warm_up)
    assert updates == []
    trained(3 * (QUICK.warm_up + 1))
    assert updates == [7, 8, 9]


def test_the_baseline_is_a_moving_average_of_the_batches_mean_rewards():
    agent = AMCAgent(Corridor(), 0, QUICK)
    averages = []
    for reward in (0.6, 0.8, 0.8, 0.2):
        filled(agent, STEP._replace(reward=reward)).update()
        averages.append(agent.moving_average)
    assert averages == pytest.approx([0.6, 0.7, 0.75, 0.475])


@pytest.mark.parametrize("over", [False, True])
def test_the_critic_aims_at_reward_less_baseline_plus_the_undiscounted_value_that_follows(over):
    agent = filled(AMCAgent(Corridor(), 0, QUICK), STEP._replace(over=over))
    agent.moving_average = 0.4  # and 0.5 with the batch, whose rewards are all 0.6
    state, action, following = (torch.from_numpy(x)[None] for x in (STEP[0], STEP[1], STEP[3]))
    with torch.no_grad():
        value = float(agent.critic(state, action))
        next_value = float(agent.target_critic(following, agent.target_actor(following)))
        before = agent.critic.last.bias.clone()
        target_before = agent.target_critic.last.bias.clone()
    agent.update()
    aim = 0.6 - 0.5 + (0.0 if over else next_value)
    assert agent.losses["critic"] == pytest.approx((value - aim) ** 2, rel=1e-4)
    moved = agent.critic.last.bias.detach() - before
    assert float(moved.abs()) == pytest.approx(1e-3, rel=1e-2)  # Adam's first step
    followed = agent.target_critic.last.bias.detach() - target_before
    assert followed.tolist() == pytest.approx((0.01 * moved).tolist(), rel=1e-2)


def test_the_actor_follows_the_critic():
    agent = filled(AMCAgent(Corridor(), 0, replace(QUICK, actor_learning_rate=1e-2)), STEP)
    with torch.no_grad():
        for parameter in agent.critic.parameters():
            parameter.zero_()
        agent.critic.of_action.weight.fill_(1.0)
        agent.critic.second.weight.copy_(torch.eye(16))
        agent.critic.last.weight.fill_(1.0)
    before = agent.predict(STEP.state)[0]
    for _ in range(5):
        agent.update()
    assert agent.predict(STEP.state)[0] > before + 0.01


def test_it_learns_what_is_best_in_every_state():
    agent = trained(3 * 150, arguments=Arguments(hidden=64, warm_up=30, actor_learning_rate=1e-3))
    env = Corridor()
    state, _ = env.reset()
    over = False
    while not over:
        state, reward, over, _, _ = env.step(agent.predict(state)[0])
    random = np.mean([step.reward for step in trained(90, arguments=Arguments()).memory])
    assert reward > random + 0.25


def test_a_seed_decides_everything_and_the_global_generators_are_left_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, again, other = trained(15), trained(15), trained(15, seed=1)
    assert np.array_equal(one.env.asked, again.env.asked)
    assert not np.array_equal(one.env.asked, other.env.asked)
    assert one.losses == again.losses
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_what_was_learnt_can_be_saved_and_taken_over(tmp_path):
    agent = trained(15)
    agent.save(tmp_path / "agent.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]
    fresh = AMCAgent(Corridor(), 7, QUICK)
    state = np.array([0.3, 1.0], np.float32)
    assert fresh.predict(state)[0] != agent.predict(state)[0]
    fresh.set_parameters(tmp_path / "agent.zip")
    assert fresh.predict(state)[0] == agent.predict(state)[0]
    assert torch.equal(fresh.target_critic.second.weight, agent.critic.second.weight)
    larger = AMCAgent(Corridor(), 0, replace(QUICK, hidden=17))
    with pytest.raises(ValueError, match="holds no networks of an AMC agent for this"):
        larger.set_parameters(tmp_path / "agent.zip")
    (tmp_path / "text").write_text("no agent")
    with pytest.raises(ValueError, match="holds no networks of an AMC agent"):
        fresh.set_parameters(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        fresh.set_parameters(tmp_path / "missing")


def test_it_searches_layerwise_and_globally():
    arguments = {"network": awaken(plain()), "images": images(8), "num_images": None,
                 "criterion": "l1", "repair": "none"}  # fmt: skip
    layerwise = gym.make("AMC-v0", reward="similarity", **arguments)
    result = run_search(layerwise, find_agent("lfgcl_env.baselines.amc:make"), 5)
    assert len(result.records) == 5
    assert result.agent.episodes >= 5
    executed = run_search(layerwise, "lfgcl_env.baselines.amc:make_executed", 5)
    assert [r.evaluation for r in executed.records] == [r.evaluation for r in result.records]
    whole = gym.make("LFGCL-v0", **arguments)
    assert len(run_search(whole, amc.make, 3).records) == 3
    with pytest.raises(AgentError) as refused:
        run_search(whole, amc.make_executed, 3)
    assert "store requested ones here" in str(refused.value.__cause__)
