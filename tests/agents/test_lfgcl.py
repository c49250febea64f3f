"""The LFGCL agent: its view of a network, its projection, what it learns and what it keeps."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from lfgcl_env.agents.lfgcl import Arguments, Critics, Layers, LFGCLAgent, Replay, make

import agents.lfgcl as lfgcl_module
import lfgcl_env
from lfgcl_env.envs.embedding import FEATURES
from lfgcl_env.search.run_search import run_search

QUICK = Arguments(hidden=16, critics=2, updates=2, warm_up=3, candidates=8)


def env_of(network="resnet20", **changes):
    assert lfgcl_env
    arguments = {"weights": "random", "images": "random", "num_images": 4, **changes}
    return gym.make("LFGCL-v0", network=network, **arguments)


@pytest.fixture(scope="module")
def env():
    return env_of()


@pytest.fixture(scope="module")
def ranged():
    return env_of(budget=(0.3, 0.8))


def learnt(env, evaluations=8, seed=0, arguments=QUICK):
    agent = LFGCLAgent(env, seed, arguments)
    agent.learn(4 * evaluations, lambda *_: len(agent.replay) < evaluations)
    return agent


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
    for keep in Layers(observation).on_budget(logits).double().numpy():
        rounded = np.rint(keep * problem.channels).astype(int).clip(1)
        assert problem.cost(rounded).macs / problem.baseline_cost.macs == pytest.approx(
            0.5, abs=0.03
        )


def test_the_gradient_passes_through_the_projection(env):
    observation, _ = env.reset()
    layers = Layers(observation)
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 9, generator=draw, dtype=torch.float32)
    weights = torch.randn(9, generator=draw)

    def value(at):
        return (layers.on_budget(at) * weights).sum()

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
    layers, logits = Layers(observation), torch.linspace(-1, 1, 9)[None]
    moved = layers.on_budget(logits + 1.5)
    torch.testing.assert_close(layers.on_budget(logits), moved, atol=1e-4, rtol=0)


def test_the_sensitivity_curve_is_that_of_the_observation(env):
    observation, _ = env.reset()
    layers = Layers(observation)
    for keep, name in ((0.75, "error_75"), (0.5, "error_50"), (0.25, "error_25")):
        column = (observation[:, FEATURES.index(name)] + 1) / 2
        found = layers.error_at(torch.full((1, 9), keep))[0]
        np.testing.assert_allclose(found, column, atol=1e-6)
    assert float(layers.error_at(torch.ones(1, 9)).abs().max()) == 0


def test_actor_and_critics_take_networks_of_any_size_and_order(env):
    agent = LFGCLAgent(env, 0, QUICK)
    torch.nn.init.normal_(agent.actor.last.weight)
    for groups in (2, 9, 30):
        seen = np.random.default_rng(groups).uniform(-1, 1, (groups, len(FEATURES)))
        seen[:, FEATURES.index("budget")] = 0.0  # the same for all groups
        layers, keep = Layers(seen), torch.rand(1, groups)
        assert agent.actor(layers).shape == (1, groups)
        assert agent.critics(layers, keep).shape == (QUICK.critics, 1)
        turned = Layers(seen[::-1].copy())
        close = {"atol": 1e-4, "rtol": 1e-3}
        torch.testing.assert_close(agent.actor(turned).flip(-1), agent.actor(layers), **close)
        found = agent.critics(turned, keep.flip(-1))
        torch.testing.assert_close(found, agent.critics(layers, keep), **close)


def test_every_critic_learns_from_a_batch_of_its_own():
    critics = Critics(8, 2, torch.Generator().manual_seed(0))
    seen = np.random.default_rng(0).uniform(-1, 1, (6, 4, len(FEATURES)))
    layers, keep = Layers(seen), torch.rand(6, 4)
    rows = torch.tensor([[0, 1, 2], [3, 4, 5]])
    own = critics(layers.take(rows), keep[rows], own=True)
    everything = critics(layers, keep)
    torch.testing.assert_close(own[0], everything[0, :3])
    torch.testing.assert_close(own[1], everything[1, 3:])


def test_replay_holds_executed_keep_ratios_and_every_strategy_once(env):
    agent = learnt(env)
    problem = env.unwrapped.problem
    _, keep, value = agent.replay.tensors()
    counts = keep.double().numpy() * problem.channels
    np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    assert len({tuple(row) for row in counts.round()}) == len(agent.replay) == 8
    similarity = [problem.evaluate(row.round().astype(int)).similarity for row in counts]
    assert np.argsort(value.numpy()).tolist() == np.argsort(similarity).tolist()


def test_critics_learn_what_strategies_are_worth(env):
    agent = learnt(env, 40, arguments=Arguments(updates=40, warm_up=10, hidden=32))
    layers, keep, value = agent.replay.tensors()
    found = agent.critics(layers, keep).mean(0)
    assert float(torch.corrcoef(torch.stack([found.detach(), value]))[0, 1]) > 0.8
    assert set(agent.losses) == {"critic", "actor"}
    assert all(np.isfinite(loss) for loss in agent.losses.values())


def test_predict_answers_with_the_best_or_what_critics_value_more(env):
    agent = learnt(env)
    observation, _ = env.reset()
    action, state = agent.predict(observation, deterministic=True)
    assert state is None
    assert env.action_space.contains(action)
    problem = env.unwrapped.problem
    predicted = problem.project(action)
    _, keep, value = agent.replay.tensors()
    best = (keep[value.argmax()].numpy() * problem.channels).round().astype(int)
    actors = Layers(observation).on_budget(agent.actor(Layers(observation)))[0]
    own = problem.project(1 - actors.detach().double().numpy())
    assert predicted.tolist() in (best.tolist(), own.tolist())


def test_one_agent_answers_for_every_budget(ranged):
    agent = learnt(ranged, 12)
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
        return [
            e.keep for e in (r.evaluation for r in run_search(env, "lfgcl", 12, seed=seed).records)
        ]

    assert visited(0) == visited(0)
    assert visited(0) != visited(1)


def test_repeated_strategies_widen_the_search_until_a_new_one_is_found():
    small = env_of(budget=0.9, num_images=2)
    result = run_search(small, "lfgcl", 30)
    assert len(result.records) == 30


def test_saved_and_loaded_it_answers_the_same(env, tmp_path):
    agent = learnt(env)
    agent.save(tmp_path / "agent")
    again = LFGCLAgent.load(tmp_path / "agent", env)
    observation, _ = env.reset()
    np.testing.assert_array_equal(agent.predict(observation)[0], again.predict(observation)[0])
    assert len(again.replay) == len(agent.replay)
    assert again.arguments == QUICK


def test_what_it_learnt_on_one_network_carries_over_to_another(env, tmp_path):
    agent = learnt(env)
    agent.save(tmp_path / "agent")
    other = env_of("resnet32")
    new = LFGCLAgent(other, 0, QUICK)
    observation, _ = other.reset()
    before = new.predict(observation)[0]
    new.set_parameters(tmp_path / "agent")
    assert len(new.replay) == 0
    assert np.abs(new.predict(observation)[0] - before).max() > 0.01


def test_other_files_and_other_sizes_are_refused(env, tmp_path):
    agent = LFGCLAgent(env, 0, QUICK)
    (tmp_path / "text").write_text("no agent")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign")
    for name in ("text", "foreign"):
        with pytest.raises(ValueError, match="not a file of the LFGCL agent"):
            agent.set_parameters(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        agent.set_parameters(tmp_path / "missing")
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="do not fit"):
        LFGCLAgent(env, 0, Arguments(hidden=8)).set_parameters(tmp_path / "agent")


def test_environments_that_it_cannot_see_are_refused(env):
    with pytest.raises(ValueError, match="global environment"):
        make(gym.wrappers.FlattenObservation(env), 0)


def test_an_empty_replay_is_saved_and_loaded_too(env, tmp_path):
    LFGCLAgent(env, 0, QUICK).save(tmp_path / "agent")
    assert len(LFGCLAgent.load(tmp_path / "agent", env).replay) == 0
    assert len(Replay.of({})) == 0


def test_it_searches_with_several_steps_an_episode():
    several = env_of(horizon=3)
    assert len(run_search(several, "lfgcl", 10).records) == 10


def test_a_part_of_the_noise_is_alike_in_neighbouring_layers(env):
    observation, _ = env.reset()
    waves = lfgcl_module._smooth(observation)
    assert np.linalg.matrix_rank(waves) == len(waves)
    steps = np.abs(np.diff(waves, axis=1)).max(1)
    assert (steps < 0.5 * np.ptp(waves, axis=1)).all()
