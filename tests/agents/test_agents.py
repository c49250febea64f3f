"""Every agent in agents/ follows the protocol, and the searches among them improve."""

import json
import sys
import warnings
from functools import cache

import gymnasium as gym
import numpy as np
import pytest
import torch
from lfgcl_env.agents._ask_tell import LIMIT, AskTellAgent
from lfgcl_env.agents.cross_entropy import POPULATION, CrossEntropy
from lfgcl_env.agents.one_plus_one import OnePlusOne
from networks_for_tests import Head, images
from torch import nn

from lfgcl_env.search.protocol import find_agent, own_agents
from lfgcl_env.search.run_search import run_search

STEPS = {"gaussian_process": 14, "lfgcl": 14, "plain_ddpg": 14}
"""Fewer steps for slow agents; after ten the Gaussian process is fitted."""

NO_SEARCH = {"random", "uniform"}
"""Agents that do not improve."""

OWN_MIND = {"lfgcl", "plain_ddpg"}
"""Agents that may predict a strategy that they never tried."""

NEEDS = {"cma_es": "cma", "tpe": "optuna", "gaussian_process": "optuna"}

AGENTS = pytest.mark.parametrize("name", own_agents())


def conv(inputs, outputs, copies=False):
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    if copies:
        with torch.no_grad():
            layer.weight[:] = layer.weight[0] * torch.linspace(1, 2, outputs)[:, None, None, None]
            layer.bias.zero_()
    return nn.Sequential(layer, nn.ReLU())


def redundant():
    """Four groups of channels; in the first and the third all channels say the same."""
    torch.manual_seed(0)
    return nn.Sequential(
        conv(3, 12, copies=True), conv(12, 12), conv(12, 12, copies=True), conv(12, 12), Head(12)
    )


def varied():
    """Six groups of channels that all differ: there is always another good strategy."""
    torch.manual_seed(1)
    return nn.Sequential(conv(3, 16), *(conv(16, 16) for _ in range(5)), Head(16))


def env_of(network, id="LFGCL-v0", **arguments):
    options = {
        "images": images(8, size=12),
        "input_shape": (3, 12, 12),
        "num_images": 8,
    } | arguments
    return gym.make(id, network=network, **options)


@cache
def shared(**arguments):
    """One environment for all tests, for speed; its memory changes no strategy and no score."""
    return env_of(redundant().eval(), **arguments)


@cache
def wide(**arguments):
    """The same with more strategies than any agent here can visit."""
    return env_of(varied().eval(), **arguments)


class Watched(gym.Wrapper):
    """Records every step."""

    def __init__(self, env):
        super().__init__(env)
        self.visits, self.similarities, self.budgets = [], [], []

    def step(self, action):
        assert self.action_space.contains(action)
        result = self.env.step(action)
        self.visits.append(tuple(result[4]["keep"].tolist()))
        self.similarities.append(result[4]["similarity"])
        self.budgets.append(result[4]["budget"])
        return result


def made(name, env, seed=0):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return find_agent(name)(env, seed)


def made_search(name, env):
    agent = made(name, env)
    if not isinstance(agent, AskTellAgent):
        pytest.skip("not an ask-tell search")
    return agent


def trained(name, seed=0, of=shared, **arguments):
    env = Watched(of(**arguments))
    agent = made(name, env, seed)
    agent.learn(STEPS.get(name, 30), lambda *_: True)
    return env, agent


@AGENTS
def test_no_agent_visits_what_limits_of_single_layers_forbid(name):
    limits = {
        "max_prune_ratio": (("1", 0.25), ("*", 0.6)),
        "min_channels": (("2", 9), ("*", 1)),
        "round_to": (("5", 4), ("*", 1)),
        "protect": ("4.0",),
    }
    env, _ = trained(name, of=wide, budget=0.7, **limits)
    names = [group.name for group in env.unwrapped.problem.groups]
    assert names == ["0.0", "1.0", "2.0", "5.0"]
    for _, second, third, last in env.visits:
        assert second >= 12
        assert third >= 9
        assert last % 4 == 0
    assert all(min(keep) >= 7 for keep in env.visits)


@AGENTS
def test_the_seed_alone_decides_what_is_visited(name):
    first, _ = trained(name, seed=3)
    np.random.seed(5)  # noqa: NPY002 - what an agent must not depend on
    torch.manual_seed(5)
    again, _ = trained(name, seed=3)
    assert first.visits == again.visits
    if name != "uniform":
        assert len(first.visits) == STEPS.get(name, 30)
        assert trained(name, seed=4)[0].visits != first.visits


@AGENTS
def test_global_random_states_stay_as_they_were(name):
    shared()  # whose network draws its weights from the global state
    np.random.seed(1)  # noqa: NPY002
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    trained(name)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


@AGENTS
def test_nothing_is_printed_and_nothing_is_warned_of(name, capfd):
    made(name, shared())  # packages may say on their first import what they like
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(name)
    assert capfd.readouterr() == ("", "")


@AGENTS
def test_the_best_strategy_so_far_is_predicted(name):
    env, agent = trained(name)
    observation, _ = env.env.reset(seed=0)
    action, state = agent.predict(observation, deterministic=True)
    assert state is None
    assert env.action_space.contains(action)
    if name not in OWN_MIND:
        assert env.env.step(action)[4]["similarity"] == max(env.similarities)


@AGENTS
def test_an_action_is_predicted_before_anything_was_tried(name):
    env = shared()
    action, _ = made(name, env).predict(env.reset(seed=0)[0])
    assert env.action_space.contains(action)


@AGENTS
def test_the_callback_is_asked_after_every_step_and_ends_the_learning(name):
    env = Watched(shared())
    asked = []

    def callback(variables, _):
        asked.append(len(env.visits))
        return len(asked) < 4

    agent = made(name, env)
    agent.learn(50, callback)
    assert asked == ([1] if name == "uniform" else [1, 2, 3, 4])
    agent.learn(2)
    assert len(env.visits) == len(asked) + (0 if name == "uniform" else 2)


@AGENTS
def test_every_step_of_a_longer_episode_is_a_strategy(name):
    env, agent = trained(name, of=wide, horizon=2)
    assert len(set(env.visits)) > (0 if name == "uniform" else len(env.visits) / 3)
    action, _ = agent.predict(env.env.reset(seed=0)[0])
    if name not in OWN_MIND:
        assert env.env.step(action)[4]["similarity"] == max(env.similarities)


@AGENTS
def test_agents_keep_finding_new_strategies(name):
    """Only the uniform ratios end; the others do not use up their steps on what they know."""
    evaluations = STEPS.get(name, 60)
    made(name, wide())
    result = run_search(wide(), name, evaluations)
    assert len(result.records) == (1 if name == "uniform" else evaluations)
    assert result.steps < 10 * evaluations


@AGENTS
def test_a_search_gets_better_than_where_it_began(name):
    env, _ = trained(name, budget=0.4)
    if name not in NO_SEARCH:
        assert max(env.similarities) > env.similarities[0]


@AGENTS
def test_what_is_redundant_goes_and_the_rest_stays(name):
    if name in NO_SEARCH | set(STEPS):
        pytest.skip("it does not search, or not for long enough here")
    env = Watched(shared(budget=0.4))
    made_search(name, env).learn(100)
    best = env.visits[int(np.argmax(env.similarities))]
    assert max(best[0], best[2]) < min(best[1], best[3])


@AGENTS
def test_after_learning_on_a_range_there_is_an_answer_for_any_budget(name):
    """Searches answer with the best that they visited on the nearest budget."""
    env, agent = trained(name, budget=(0.3, 0.8))
    best = {}
    for budget, similarity, visit in zip(env.budgets, env.similarities, env.visits, strict=True):
        best[budget] = max(best.get(budget, (-np.inf, ())), (similarity, visit))
    for budget in (*best, 0.25, 0.9):
        observation, _ = env.env.reset(options={"budget": budget})
        info = env.env.step(agent.predict(observation)[0])[4]
        assert info["is_success"]
        if isinstance(agent, AskTellAgent) and budget in best:
            assert tuple(info["keep"].tolist()) == best[budget][1]


def test_budgets_that_are_near_share_a_search():
    env, _ = trained("one_plus_one", budget=(0.3, 0.8))
    budgets = sorted(set(env.budgets))
    assert 4 < len(budgets) <= 11
    assert min(np.diff(budgets)) > 0.05
    assert 0.3 <= budgets[0] < budgets[-1] <= 0.8


@AGENTS
def test_an_agent_is_saved_as_one_file_that_another_agent_loads(name, tmp_path):
    env, agent = trained(name)
    if not hasattr(agent, "save"):
        assert name == "random"  # the smallest example
        return
    path = tmp_path / "agent.of.any.name"
    agent.save(path)
    assert list(tmp_path.iterdir()) == [path]
    other = made(name, env, seed=1)
    other.set_parameters(path)
    observation, _ = env.env.reset(seed=0)
    if name in OWN_MIND:  # it loads networks, not strategies: tests/agents/test_saved_lfgcl.py
        assert env.action_space.contains(other.predict(observation)[0])
    else:
        assert np.array_equal(other.predict(observation)[0], agent.predict(observation)[0])


def test_a_saved_search_is_json_with_seed_and_best_strategy(tmp_path):
    env, agent = trained("one_plus_one", seed=7)
    agent.save(tmp_path / "agent")
    saved = json.loads((tmp_path / "agent").read_text())
    assert saved["seed"] == 7
    (best,) = saved["best"]
    assert (best["budget"], best["reward"]) == (0.5, max(env.similarities))
    kept = 1 - np.array(best["prune_ratios"])
    assert (12 * kept).tolist() == pytest.approx(env.visits[np.argmax(env.similarities)])


def test_what_does_not_fit_is_refused(tmp_path):
    env, agent = trained("one_plus_one")
    agent.save(tmp_path / "agent")
    small = env_of(nn.Sequential(conv(3, 6), conv(6, 6), Head(6)).eval())
    with pytest.raises(ValueError, match="has prune ratios of 4 groups, and this network has 2"):
        made("one_plus_one", small).set_parameters(tmp_path / "agent")
    (tmp_path / "other").write_text("[]")
    with pytest.raises(ValueError, match="is not a search agent's file"):
        agent.set_parameters(tmp_path / "other")
    action, _ = agent.predict(env.env.reset(seed=0)[0])
    assert env.env.step(action)[4]["similarity"] == max(env.similarities)


@AGENTS
def test_one_group_has_one_strategy(name):
    env = Watched(env_of(nn.Sequential(conv(3, 6), Head(6)).eval()))
    made_search(name, env).learn(20)
    assert len(env.visits) == 1


def test_an_environment_that_decides_layer_by_layer_is_refused():
    env = env_of(redundant().eval(), id="AMC-v0", reward="similarity")
    with pytest.raises(ValueError, match="give it the global environment"):
        made("one_plus_one", env)


@pytest.mark.parametrize(("name", "package"), NEEDS.items())
def test_a_missing_package_names_the_extra(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for module in (f"lfgcl_env.agents.{name}", "lfgcl_env.agents._optuna"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=rf"{name}.* needs? .*{package}.*lfgcl-env\[search\]"):
        find_agent(name)


def test_a_step_grows_after_successes_and_where_it_is_rounded_away():
    def offspring(similarity, known):
        """How far the twentieth offspring lies from the parent, on the average."""
        one = OnePlusOne(np.zeros(100), np.random.default_rng(0))
        one.tell(one.ask(), 0.5, False)
        for _ in range(20):
            one.tell(one.ask(), similarity, known)
        return np.std(one.ask())

    assert offspring(0.4, known=False) < 0.4 < offspring(0.4, known=True) < LIMIT


def test_cross_entropy_spreads_again_once_it_only_repeats_itself():
    flat = CrossEntropy(np.zeros(50), np.random.default_rng(0))
    spreads = []
    for generation in range(8):
        asked = [flat.ask() for _ in range(POPULATION)]
        for logits in asked:
            flat.tell(logits, 0.0, known=generation == 5)
        spreads.append(np.std(asked[1:], axis=0).mean())
    assert spreads[5] < spreads[4] < spreads[1]
    assert spreads[6] > spreads[1] * 0.9


def test_cma_es_starts_again_from_the_best_when_it_has_converged():
    cma_es = pytest.importorskip("lfgcl_env.agents.cma_es", exc_type=ImportError)
    one = cma_es.CMAES(np.zeros(3), np.random.default_rng(0))
    optimum = np.array([1.0, -1.0, 0.0])
    distances = []
    for _ in range(1500):
        logits = one.ask()
        distances.append(float(np.linalg.norm(logits - optimum)))
        one.tell(logits, -distances[-1], known=False)
    assert distances[0] == pytest.approx(2**0.5)
    first = int(np.argmax(np.array(distances) < 0.05))
    assert 0 < first < 400
    assert max(distances[first + 100 :]) > 0.5  # it spread out again
    assert min(distances) < 0.02
