"""The LFGCL agent: its view of a network, its projection, and what it learns."""

import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from lfgcl_env.agents._actor_critics import Critics, EnsembleLinear, linear
from lfgcl_env.agents._groups import Groups, View
from lfgcl_env.agents._lfgcl_arguments import Arguments
from lfgcl_env.agents._promise import Promise
from lfgcl_env.agents._replay import Replay, values_of
from lfgcl_env.agents.lfgcl import LFGCLAgent, _waves, make
from lfgcl_for_tests import QUICK, env_of, trained
from networks_for_tests import Head, images
from torch import nn

from lfgcl_env.envs.embedding import FEATURES
from lfgcl_env.search.run_search import run_search

VIEW = View()


@pytest.fixture(scope="module")
def env():
    return env_of()


@pytest.fixture(scope="module")
def ranged():
    return env_of(budget=(0.3, 0.8))


def test_the_first_strategy_is_the_actors_own_which_is_uniform_before_it_learns(env):
    result = run_search(env, "lfgcl", 1)
    ratios = env.unwrapped.problem.prune_ratios(result.best.keep)
    assert np.ptp(ratios) < 0.1
    observation, _ = env.reset()
    assert np.ptp(make(env, 1).predict(observation)[0]) == 0


def test_the_actor_meets_the_budget_before_the_environment_corrects_it(env):
    problem = env.unwrapped.problem
    observation, _ = env.reset()
    logits = torch.randn(20, len(problem.groups), generator=torch.Generator().manual_seed(0))
    for keep in Groups.of(observation, VIEW).on_budget(logits).double().numpy():
        rounded = np.rint(keep * problem.channels).astype(int).clip(1)
        assert problem.cost(rounded).macs / problem.baseline_cost.macs == pytest.approx(
            0.5, abs=0.03
        )


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_actors_keep_ratios_save_what_the_budget_asks_for(env, scale):
    observation, _ = env.reset()
    groups = Groups.of(observation, VIEW)
    draw = torch.Generator().manual_seed(2)
    logits = scale * torch.randn(20, 9, generator=draw) + torch.linspace(-6, 6, 20)[:, None]
    saved = (groups.gain * (1 - groups.on_budget(logits))).sum(-1)
    torch.testing.assert_close(saved, torch.full((20,), 0.5), atol=1e-5, rtol=0)


def test_one_observation_stands_for_a_batch(env):
    observation, _ = env.reset()
    critics = LFGCLAgent(env, 0, QUICK).critics
    keep = torch.rand(5, 9, generator=torch.Generator().manual_seed(0))
    one, copies = Groups.of(observation, VIEW), Groups.of(np.stack([observation] * 5), VIEW)
    torch.testing.assert_close(critics(one, keep), critics(copies, keep))


def test_the_gradient_passes_through_the_projection(env):
    observation, _ = env.reset()
    groups = Groups.of(observation, VIEW)
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 9, generator=draw, dtype=torch.float32)
    weights = torch.randn(9, generator=draw)

    def value(at):
        return (groups.on_budget(at) * weights).sum()

    at = logits.clone().requires_grad_()
    value(at).backward()
    step = 0.05
    for group in range(9):
        moved = torch.zeros_like(logits)
        moved[0, group] = step
        slope = (value(logits + moved) - value(logits - moved)) / (2 * step)
        assert float(at.grad[0, group]) == pytest.approx(float(slope), abs=2e-2)


def test_a_shift_of_all_logits_changes_nothing(env):
    observation, _ = env.reset()
    groups, logits = Groups.of(observation, VIEW), torch.linspace(-1, 1, 9)[None]
    moved = groups.on_budget(logits + 1.5)
    torch.testing.assert_close(groups.on_budget(logits), moved, atol=1e-4, rtol=0)


def test_the_sensitivity_curve_is_that_of_the_observation(env):
    observation, _ = env.reset()
    groups = Groups.of(observation, VIEW)
    for keep, name in ((0.75, "error_75"), (0.5, "error_50"), (0.25, "error_25")):
        column = (observation[:, FEATURES.index(name)] + 1) / 2
        found = groups.error_at(torch.full((1, 9), keep))[0]
        np.testing.assert_allclose(found, column, atol=1e-6)
    assert float(groups.error_at(torch.ones(1, 9)).abs().max()) == 0


def test_actor_and_critics_take_networks_of_any_size_and_order(env):
    agent = LFGCLAgent(env, 0, QUICK)
    torch.nn.init.normal_(agent.actor.last.weight)
    for count in (2, 9, 30):
        seen = np.random.default_rng(count).uniform(-1, 1, (count, len(FEATURES)))
        seen[:, FEATURES.index("budget")] = 0.0  # the same for all groups
        groups, keep = Groups.of(seen, VIEW), torch.rand(1, count)
        assert agent.actor(groups).shape == (1, count)
        assert agent.critics(groups, keep).shape == (QUICK.critics, 1)
        turned = Groups.of(seen[::-1].copy(), VIEW)
        close = {"atol": 1e-4, "rtol": 1e-3}
        torch.testing.assert_close(agent.actor(turned).flip(-1), agent.actor(groups), **close)
        found = agent.critics(turned, keep.flip(-1))
        torch.testing.assert_close(found, agent.critics(groups, keep), **close)


def test_every_critic_learns_from_a_batch_of_its_own():
    critics = Critics(Arguments(hidden=8, critics=2), torch.Generator().manual_seed(0))
    seen = np.random.default_rng(0).uniform(-1, 1, (6, 4, len(FEATURES)))
    groups, keep = Groups.of(seen, VIEW), torch.rand(6, 4)
    rows = torch.tensor([[0, 1, 2], [3, 4, 5]])
    own = critics(groups[rows], keep[rows])
    everything = critics(groups, keep)
    torch.testing.assert_close(own[0], everything[0, :3])
    torch.testing.assert_close(own[1], everything[1, 3:])


def test_replay_holds_executed_keep_ratios_and_every_strategy_once(env):
    agent = trained(env)
    problem = env.unwrapped.problem
    _, keep, value = agent.replay.tensors()
    counts = keep.double().numpy() * problem.channels
    np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    assert len({tuple(row) for row in counts.round()}) == len(agent.replay) == 8
    similarity = [problem.evaluate(row.round().astype(int)).similarity for row in counts]
    assert np.argsort(value.numpy()).tolist() == np.argsort(similarity).tolist()


def test_critics_learn_what_strategies_are_worth(env):
    agent = trained(env, 30, arguments=Arguments(updates=30, warm_up=10, hidden=16, critics=2))
    groups, keep, value = agent.replay.tensors()
    found = agent.critics(groups, keep).mean(0)
    assert float(torch.corrcoef(torch.stack([found.detach(), value]))[0, 1]) > 0.8
    assert set(agent.losses) == {"critic", "actor"}
    assert all(np.isfinite(loss) for loss in agent.losses.values())


def test_predict_answers_with_the_best_while_critics_value_the_actors_less(env, monkeypatch):
    agent = trained(env)
    observation, _ = env.reset()
    problem = env.unwrapped.problem
    _, keep, value = agent.replay.tensors()
    best = (keep[value.argmax()].numpy() * problem.channels).round().astype(int)
    groups = Groups.of(observation, VIEW)
    actors = groups.on_budget(agent.actor(groups))[0]
    own = problem.project(1 - actors.detach().double().numpy())
    assert own.tolist() != best.tolist()
    for opinion, expected in ((-9.0, best), (9.0, own)):
        monkeypatch.setattr(agent.critics, "forward", lambda *_, o=opinion: torch.full((2, 1), o))
        action, state = agent.predict(observation, deterministic=True)
        assert state is None
        assert env.action_space.contains(action)
        assert problem.project(action).tolist() == expected.tolist()


def test_one_agent_answers_for_every_budget(ranged):
    agent = trained(ranged, 12)
    problem = ranged.unwrapped.problem
    spent = []
    for budget in (0.3, 0.55, 0.8):
        observation, _ = ranged.reset(options={"budget": budget})
        action, _ = agent.predict(observation)
        wanted = (problem.channels * (1 - action)).round().astype(int).clip(1)
        assert problem.cost(wanted).macs / problem.baseline_cost.macs == pytest.approx(
            budget, abs=0.03
        )
        spent.append(problem.cost(problem.project(action, budget)).macs)
    assert spent == sorted(spent)
    assert agent.replay.many_budgets


def test_two_agents_of_a_seed_do_the_same_and_of_other_seeds_do_not(env):
    def visited(seed):
        torch.manual_seed(17 * seed + 1)
        found = run_search(env, "lfgcl", 12, agent_seed=seed)
        return [record.evaluation.keep for record in found.records]

    assert visited(0) == visited(0)
    assert visited(0) != visited(1)


def test_repeated_strategies_widen_the_search_until_a_new_one_is_found():
    """A network with few strategies is searched whole."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 4, 3))]
    network = nn.Sequential(*layers, nn.ReLU(), Head(4)).eval()
    few = gym.make(
        "LFGCL-v0", network=network, input_shape=(3, 12, 12), images=images(4, 12), num_images=4
    )
    narrow = replace(QUICK, noise=0.01, last_noise=0.01)

    def tried(arguments):
        agent = LFGCLAgent(few, 0, arguments)
        agent.learn(60)
        return len(agent.replay)

    assert tried(narrow) > tried(replace(narrow, growth=1.0))


def test_environments_that_it_cannot_see_are_refused(env):
    with pytest.raises(ValueError, match="global environment"):
        make(gym.wrappers.FlattenObservation(env), 0)


def test_it_searches_with_several_steps_an_episode():
    several = env_of(horizon=3)
    assert len(run_search(several, "lfgcl", 10).records) == 10


def test_a_part_of_the_noise_is_alike_in_neighbouring_layers(env):
    observation, _ = env.reset()
    waves = _waves(observation)
    assert np.linalg.matrix_rank(waves) == len(waves)
    steps = np.abs(np.diff(waves, axis=1)).max(1)
    assert (steps < 0.5 * np.ptp(waves, axis=1)).all()


class Reward(gym.RewardWrapper):
    """Changes the reward, and hides what else says how good a strategy is."""

    def __init__(self, env, change):
        super().__init__(env)
        self.change = change

    def step(self, action):
        observation, reward, *ends, info = self.env.step(action)
        shown = {name: info[name] for name in ("keep", "prune_ratios", "budget")}
        return observation, self.change(reward), *ends, shown


@pytest.mark.parametrize(
    "change",
    [lambda r: -r, lambda r: 1e9 * r - 5, lambda r: 1e-9 * r, lambda r: -1e9 if r < 0.08 else r],
    ids=["negated", "large", "tiny", "penalised"],
)
def test_the_reward_decides_whatever_its_scale(env, change):
    problem = env.unwrapped.problem
    agent = trained(Reward(env, change), 30, arguments=replace(QUICK, updates=10, warm_up=8))
    _, keep, returns = agent.replay.arrays()
    scores = [
        change(problem.evaluate((row * problem.channels).round().astype(int)).similarity)
        for row in keep.astype(np.float64)
    ]
    np.testing.assert_allclose(returns, scores, rtol=1e-6)
    assert values_of(returns)[-10:].mean() > values_of(returns)[:10].mean()
    observation, _ = env.reset()
    _, _, value = agent.replay.tensors()
    assert value.argmax() == np.argmax(returns)
    assert float(value.std()) == pytest.approx(1, abs=0.2)
    assert len(value) == 30
    assert env.action_space.contains(agent.predict(observation)[0])


def test_gains_of_a_longer_episode_are_summed():
    several = env_of(horizon=3)
    problem = several.unwrapped.problem
    agent = LFGCLAgent(Reward(several, lambda r: -r), 0, QUICK)
    agent.learn(9)
    _, keep, returns = agent.replay.arrays()
    counts = (keep.astype(np.float64) * problem.channels).round().astype(int)
    scores = [-problem.evaluate(row).similarity for row in counts]
    np.testing.assert_allclose(returns, scores, rtol=1e-6)


def test_values_keep_the_order_of_returns_and_their_shape_only_within_0_and_1():
    draws = np.random.default_rng(0)
    for scale in (1.0, -1.0, 1e-8, 1e8):
        returns = draws.uniform(0.2, 0.9, 50) * scale
        assert np.argsort(values_of(returns)).tolist() == np.argsort(returns).tolist()
    similarities = draws.uniform(0, 1, 50)
    np.testing.assert_array_equal(values_of(similarities), -np.log(1 - similarities))
    np.testing.assert_allclose(values_of(-similarities), values_of(-1000 * similarities))
    assert len(set(values_of(np.array([5.0, 5.0, 7.0])).tolist())) == 2
    assert values_of(np.full(4, 2.0)).tolist() == [0, 0, 0, 0]


def test_critics_learn_ranks_whatever_the_returns(env):
    def values(change):
        replay = Replay(QUICK)
        observation, _ = env.reset()
        for index in range(7):
            keep = np.full(9, 0.1 * (index + 1), dtype=np.float32)
            replay.add(observation, keep, change(index / 10))
        return replay.tensors()[2]

    torch.testing.assert_close(values(lambda r: r), values(lambda r: 1e6 * r**3 - 5))


def test_a_linear_layer_is_an_ensemble_of_one():
    one = linear(5, 3, torch.Generator().manual_seed(0))
    members = EnsembleLinear(1, 5, 3, torch.Generator().manual_seed(0))
    inputs = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(one(inputs), members(inputs[None])[0])


def test_without_an_actor_noise_is_put_on_elites_alone(env):
    agent = LFGCLAgent(env, 0, replace(QUICK, actor=False))
    before = agent.actor.state_dict()["first.weight"].clone()
    agent.learn(8)
    torch.testing.assert_close(agent.actor.state_dict()["first.weight"], before, rtol=0, atol=0)
    assert set(agent.losses) == {"critic"}
    nn.init.constant_(agent.actor.last.bias, 3.0)
    nn.init.normal_(agent.actor.last.weight)  # whatever it says
    observation, _ = env.reset()
    keep, returns = agent.replay.arrays()[1:]
    problem = env.unwrapped.problem
    predicted = problem.project(agent.predict(observation)[0])
    best = (keep[returns.argmax()].astype(np.float64) * problem.channels).round()
    assert predicted.tolist() == best.tolist()
    with pytest.raises(ValueError, match="elites must be at least 1"):
        Arguments(actor=False, elites=0)


def test_the_actor_is_trained_once_an_interval(env):
    agent = LFGCLAgent(env, 0, replace(QUICK, actor_interval=5))
    before = agent.actor.state_dict()["last.weight"].clone()
    trained_at = []
    for _ in range(10):
        agent.learn(1)
        after = agent.actor.state_dict()["last.weight"].clone()
        if not torch.equal(before, after):
            trained_at.append(len(agent.replay))
        before = after
    assert trained_at == [5, 10]


def test_without_choice_the_first_proposal_is_executed(env):
    observation, _ = env.reset()
    asked = {}
    for choice in (True, False):
        agent = LFGCLAgent(env, 0, replace(QUICK, choice=choice, warm_up=0, candidates=64))
        agent.learn(1)
        proposals = agent._proposals
        seen = []
        agent._proposals = lambda *given, p=proposals, s=seen: s.append(p(*given)) or s[-1]
        asked[choice] = agent._explore(observation).choice.actions[0]
        first = Groups.of(observation, VIEW).on_budget(seen[0])[0]
        if not choice:
            np.testing.assert_allclose(1 - asked[choice], first, atol=1e-6)
    assert (asked[True] != asked[False]).any()


def test_without_elites_noise_is_put_on_the_actors_action_alone(env):
    agent = LFGCLAgent(env, 0, replace(QUICK, elites=0, noise=0.0, last_noise=0.0, growth=1.0))
    agent.learn(8)
    observation, _ = env.reset()
    groups = Groups.of(observation, VIEW)
    own = 1 - groups.on_budget(agent.actor(groups))[0].detach().numpy()
    np.testing.assert_allclose(agent._explore(observation).choice.actions[0], own, atol=1e-6)


@pytest.mark.parametrize("budgets", [(0.5, 0.5), (0.3, 0.5)])
def test_what_is_promised_is_corrected_by_cheap_scores_relative_to_all_others(budgets):
    draws = np.random.default_rng(0)
    observations = []
    for budget in budgets:
        observation = draws.uniform(-1, 1, (3, len(FEATURES))).astype(np.float32)
        observation[:, FEATURES.index("budget")] = 2 * budget - 1
        observations.append(observation)
    cheap, after = Replay(QUICK), Replay(QUICK)
    keeps = draws.uniform(0.1, 1, (24, 3)).astype(np.float32)
    returns = draws.uniform(0.5, 1, 24)
    for place, (keep, found) in enumerate(zip(keeps[:20], returns[:20], strict=True)):
        for replay in (cheap, after):
            replay.add(observations[place % 2], keep, found)
    proposed = keeps[[20, 1, 21, 20]]  # one is known, one is there twice
    scores = returns[[20, 1, 21, 20]]
    for keep, found in zip(proposed, scores, strict=True):
        after.add(observations[1], keep, found)
    value, expected = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
    for trust in (0.2, 5.0):
        promise = Promise.of(
            value, expected, trust, cheap, observations[1], proposed, QUICK.trend_degree
        )
        measured = after.tensors()[2][[20, 1, 21, 20]]
        wanted = value + trust * (measured - expected)
        assert pickle.loads(pickle.dumps(promise))(scores) == int(wanted.argmax())
    assert len(cheap) == 20
