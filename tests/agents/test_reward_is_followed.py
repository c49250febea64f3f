"""Every agent maximises the reward that its environment returns, whatever that is made of."""

from functools import cache, partial

import gymnasium as gym
import pytest
from gymnasium.wrappers import TransformReward
from lfgcl_env.baselines import amc, eagleeye, gnn_rl, legr
from test_agents import NEEDS, env_of, redundant

from lfgcl_env import zoo
from lfgcl_env.search.budget_sweep import answer
from lfgcl_env.search.protocol import find_agent, own_agents
from lfgcl_env.search.run_search import run_search

BUDGET = 0.4
PRICED = 1
"""The group that costs something; its channels differ, so that losing them costs similarity."""

BASELINES = {
    "amc": lambda env, seed: amc.AMCAgent(
        env,
        seed + 2,  # whose random episodes find no strategy that is best under both rewards
        amc.Arguments(hidden=32, warm_up=10, actor_learning_rate=1e-2, critic_learning_rate=1e-2),
    ),
    "eagleeye": eagleeye.EagleEyeAgent,  # with any repair
    "gnn_rl": partial(gnn_rl.make, n_steps=20, batch_size=20, n_epochs=4),
    "legr": legr.make,
}
QUICK = {
    name: partial(zoo.make, name, gradient_steps=1) for name in zoo.ALGORITHMS if name != "ppo"
}
NAMES = [*(name for name in own_agents() if name != "uniform"), *zoo.ALGORITHMS, *BASELINES]
AGENTS = pytest.mark.parametrize("name", NAMES)

EVALUATIONS = {"amc": 30, "gaussian_process": 13, "tpe": 13, "lfgcl": 16, "plain_ddpg": 16}
PREDICTS_WHAT_IT_TRIED = {*own_agents(), "eagleeye", "legr"} - {"lfgcl", "plain_ddpg"}
"""Agents that answer with their best strategy; others need longer to learn than a test takes."""


class Priced(gym.Wrapper):
    """Subtracts twice the keep ratio of one group at the end of an episode."""

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        kept = info["keep"][PRICED] / self.env.unwrapped.problem.channels[PRICED]
        return observation, reward - 2 * kept * terminated, terminated, truncated, info


def priced(evaluation, channels):
    return evaluation.similarity - 2 * evaluation.keep[PRICED] / channels[PRICED]


@cache
def shared(id):
    reward = {"reward": "similarity"} if id == "AMC-v0" else {}
    return env_of(redundant().eval(), id=id, budget=BUDGET, **reward)


def searched(name, wrapper=lambda env: env):
    """What a search with an agent keeps, and what the agent predicts afterwards."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    base = shared("AMC-v0" if name == "amc" else "LFGCL-v0")
    env = wrapper(base)
    factory = (BASELINES | QUICK).get(name) or find_agent(name)
    result = run_search(env, factory, EVALUATIONS.get(name, 20))
    problem = env.unwrapped.problem
    predicted = problem.evaluate(answer(env, result.agent, BUDGET))
    return result, predicted, problem.channels


@cache
def plainly(name):
    return searched(name)


@AGENTS
def test_under_a_negated_reward_it_ends_with_a_strategy_of_low_similarity(name):
    result, predicted, _ = searched(name, lambda env: TransformReward(env, lambda r: -r))
    plain, plain_predicted, _ = plainly(name)
    assert result.reward == -result.best.similarity
    assert result.best.similarity < plain.best.similarity - 0.3
    if name in PREDICTS_WHAT_IT_TRIED:
        assert predicted == result.best
        assert plain_predicted == plain.best


@AGENTS
def test_under_a_reward_of_ones_own_it_maximises_that(name):
    result, predicted, channels = searched(name, Priced)
    plain, _, _ = plainly(name)
    assert result.reward == pytest.approx(priced(result.best, channels))
    assert result.reward > priced(plain.best, channels)
    assert result.best.keep[PRICED] < plain.best.keep[PRICED]
    if name in PREDICTS_WHAT_IT_TRIED:
        assert predicted == result.best
