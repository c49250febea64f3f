"""Cheap scores: the closed-form score beside a costly one, and what goes by them."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images, plain, simple_problem

import lfgcl_env  # noqa: F401 - registers the environments
from lfgcl_env.pruning import PruningProblem, allocate
from lfgcl_env.pruning.score.screen import SCREENED, Screen
from lfgcl_env.pruning.sensitivities import sensitivities

STRATEGIES = np.array([[4, 8, 8], [8, 4, 8], [8, 8, 4], [3, 5, 7]])


def problem(**config):
    return PruningProblem(awaken(plain()), images(16), **config)


@pytest.fixture(scope="module")
def costly():
    return problem(repair="sequential", similarity="kl")


def strategies_of(made):
    return np.minimum(STRATEGIES[:, : len(made.groups)], made.channels)


def test_a_cheap_score_is_the_closed_form_score_and_changes_nothing_else(costly):
    keeps = strategies_of(costly)
    before = [costly.evaluate(keep).similarity for keep in keeps]
    closed = problem(repair="least_squares", similarity="discounted_mse")
    expected = [closed.evaluate(keep).similarity for keep in keeps]
    assert costly.screen(keeps) == pytest.approx(expected, abs=1e-6)
    costly._memory.clear()
    assert [costly.evaluate(keep).similarity for keep in keeps] == before


def test_cheap_scores_are_looked_up_counted_apart_and_forgotten():
    made = problem(repair="sequential", similarity="kl")
    keeps = strategies_of(made)
    assert made.screened == 0
    with made.count() as counted:
        first = made.screen([*keeps, keeps[0]])
    assert first.dtype == np.float64
    assert first[0] == first[-1]
    assert made.screened == len(keeps)
    assert not counted
    assert not any(made.known(keep) for keep in keeps)
    made.forget()
    assert made.screened == 0
    assert (made.screen(keeps) == first[:-1]).all()


def test_only_a_costly_repair_has_cheap_scores_that_pay(costly):
    assert costly.screens
    assert not any(problem(repair=name).screens for name in ("none", "batchnorm", "least_squares"))


def test_sensitivities_take_cheap_scores_where_evaluations_are_costly(costly):
    closed = problem(repair="least_squares", similarity="discounted_mse")
    with costly.count() as counted:
        weights = sensitivities(costly)
    assert not counted
    assert weights == pytest.approx(sensitivities(closed), rel=1e-4)
    assert (allocate(costly) == allocate(closed)).all()


def test_an_environment_screens_actions_on_the_budget_of_the_episode(costly):
    env = gym.make(
        "LFGCL-v0",
        network=awaken(plain()),
        images=images(16),
        num_images=None,
        repair="sequential",
        similarity="kl",
        budget=(0.3, 0.9),
    )
    own, groups = env.unwrapped, env.action_space.shape[0]
    actions = np.random.default_rng(0).uniform(size=(3, groups)).astype(np.float32)
    env.reset(options={"budget": 0.4})
    found = own.screen(actions)
    assert (found == costly.screen([costly.project(one, 0.4) for one in actions])).all()
    assert (own.screen(actions, 0.8) > found).any()
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        own.screen(actions + 2)
    with pytest.raises(ValueError, match="budget"):
        own.screen(actions, 1e-9)
    with pytest.raises(ValueError, match=str(groups)):
        own.screen(actions[:, :1])


def test_the_similarity_and_score_images_are_those_that_suit_the_repair():
    assert problem().similarity == "discounted_mse"
    made = problem(repair="sequential")
    assert made.similarity == made.settings()["similarity"] == "kl"
    assert problem(repair="sequential", similarity="mse").similarity == "mse"
    arguments = {"network": awaken(plain()), "images": images(64), "num_images": 6}
    for given, found in (
        ({}, 6),
        ({"repair": "sequential"}, 24),
        ({"repair": "sequential", "num_score_images": 0}, 6),
        ({"repair": "sequential", "num_images": None}, 64),
        ({"num_score_images": 9}, 9),
    ):
        env = gym.make("LFGCL-v0", **arguments | given).unwrapped
        assert env.problem.score_images == found
    with pytest.raises(ValueError, match="unknown similarity 'kll'"):
        problem(similarity="kll")


def test_features_that_are_asked_for_are_compared_or_refused():
    made = problem(repair="sequential", features="0")
    assert made.similarity == "discounted_mse"
    assert made.evaluate(made.channels).similarity == pytest.approx(1)
    with pytest.raises(ValueError, match=r"'kl' compares outputs.*leave features out"):
        problem(repair="sequential", features="0", similarity="kl")
    with pytest.raises(ValueError, match="nothing"):
        problem(repair="sequential", features="nothing")


def test_strategies_are_screened_on_the_first_images(monkeypatch):
    seen = []
    usual = Screen.__init__

    def noted(self, network, device, batches, *more):
        seen.append(torch.cat(list(batches)))
        usual(self, network, device, batches, *more)

    monkeypatch.setattr(Screen, "__init__", noted)
    given = images(SCREENED + 5, 8)
    for inputs in (given, given[:9]):
        problem = simple_problem(awaken(plain()), inputs, repair="sequential")
        problem.screen([[4, 3]])
        assert torch.equal(seen.pop(), inputs[:SCREENED])
