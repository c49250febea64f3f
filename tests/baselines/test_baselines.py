"""Baselines spend the budget, never more, and each in its own way."""

from functools import cache, partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TransformReward
from lfgcl_env.baselines import (
    eagleeye,
    global_threshold,
    gnn_rl,
    legr,
    soft_filter,
    uniform_ratios,
)
from lfgcl_env.baselines.global_threshold import keep_highest
from lfgcl_env.baselines.quoted import QUOTED
from networks_for_tests import awake_baseline, awaken, images, plain, shared_problem, simple_problem

import lfgcl_env  # noqa: F401 - registers the environments
from lfgcl_env.search.protocol import find_agent
from lfgcl_env.search.run_search import run_search

GLOBAL = {
    name: getattr(global_threshold, name) for name in ("l1", "l2", "fpgm", "bn_scale", "hrank")
}
ONE_SHOT = {
    **GLOBAL,
    "uniform": uniform_ratios.strategy,
    "soft_filter": soft_filter.strategy,
    "legr": lambda problem, budget=None: legr.strategy(problem, identity(problem), budget),
}
PPO = partial(gnn_rl.make, n_steps=4, batch_size=4, n_epochs=2)
AGENTS = {"legr": legr.make, "eagleeye": eagleeye.make, "gnn_rl": PPO}

FIRST = np.array([9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0])
SECOND = np.array([0.5, 5.0, 2.5, 10.0, 3.5, 1.5])
LOWEST_FIRST = [(1, 0), (0, 1), (1, 5), (0, 3), (1, 2), (0, 5), (1, 4), (0, 7), (1, 1), (0, 6)]


def identity(problem):
    return np.tile([1.0, 0.0], (len(problem.groups), 1))


def resnet20(**arguments):
    return simple_problem(awake_baseline("resnet20"), images(), **arguments)


@cache
def l2_problem(**arguments):
    """Shared by tests that score nothing in it."""
    return resnet20(criterion=soft_filter.CRITERION, budget=0.5, **arguments)


@cache
def shared_env(**arguments):
    options = {"weights": "random", "images": "random", "num_images": 4} | arguments
    return gym.make("LFGCL-ResNet20-v0", **options)


def make_env(**arguments):
    """An environment that nothing was scored in; made once, for speed."""
    env = shared_env(**arguments)
    env.unwrapped.forget()
    return env


def ratio(problem, keep):
    return problem.costs(keep) / problem.costs(problem.channels)


def test_agents_among_the_baselines_stay_within_limits_of_single_layers():
    limits = (("layer1", 0.25), ("layer2", 0.5), ("*", 0.9))
    for make in AGENTS.values():
        repair = {"repair": "batchnorm"} if make is eagleeye.make else {}
        env = make_env(max_prune_ratio=limits, criterion="l1", budget=0.6, **repair)
        lowest = env.unwrapped.problem.lowest
        assert lowest.tolist() == [12] * 3 + [16] * 3 + [7] * 3
        for evaluation in found(run_search(env, make, 3, shortlist=0)):
            assert (np.array(evaluation.keep) >= lowest).all()


def found(result):
    return [record.evaluation for record in result.records]


class Watched(gym.Wrapper):
    """Remembers the channels that every step kept."""

    def __init__(self, env):
        super().__init__(env)
        self.kept = []

    def step(self, action):
        result = self.env.step(action)
        self.kept.append(result[4]["keep"])
        return result


@pytest.mark.parametrize("name", ONE_SHOT)
@pytest.mark.parametrize("metric", ["macs", "params"])
def test_a_strategy_is_on_the_budget_and_one_more_channel_is_not(name, metric):
    problem = l2_problem(budget_metric=metric)
    with problem.count() as counted:
        check_budgets(name, problem)
    assert len(counted) == 0


def check_budgets(name, problem):
    for budget in (None, 0.35, 0.65, 1.0):
        keep = ONE_SHOT[name](problem, budget)
        assert keep.dtype == np.int64
        assert (keep >= 1).all()
        assert ratio(problem, keep) <= (budget or 0.5)
        for group in np.flatnonzero(keep < problem.channels):
            more = keep + (np.arange(len(keep)) == group)
            assert ratio(problem, more) > (budget or 0.5)
        assert ONE_SHOT[name](problem, budget).tolist() == keep.tolist()


@pytest.mark.parametrize("name", ONE_SHOT)
def test_counts_are_allowed_ones_and_an_unreachable_budget_is_refused(name):
    problem = l2_problem(round_to=4, min_channels=4)
    keep = ONE_SHOT[name](problem, 0.5)
    assert (keep % 4 == 0).all()
    assert 0.4 < ratio(problem, keep) <= 0.5
    lowest = ONE_SHOT[name](problem, problem.lowest_budget)
    assert lowest.tolist() == [4] * len(problem.groups)
    with pytest.raises(ValueError, match=r"budget of 0\.01 of the macs cannot be reached"):
        ONE_SHOT[name](problem, 0.01)


def test_uniform_keeps_the_same_fraction_of_every_group():
    problem = shared_problem("resnet20")
    keep = uniform_ratios.strategy(problem, 0.5)
    middle = np.median(keep / problem.channels)
    assert np.abs(keep - middle * problem.channels).max() <= 1


def test_soft_filter_pruning_is_uniform_by_the_l2_norm_and_nothing_else():
    problem = l2_problem()
    keep = uniform_ratios.strategy(problem, 0.5)
    assert soft_filter.strategy(problem, 0.5).tolist() == keep.tolist()
    with pytest.raises(ValueError, match="by criterion 'l2' and this problem by 'l1': make it"):
        soft_filter.strategy(shared_problem("resnet20"))


@pytest.mark.parametrize("gone", range(1, 11))
def test_the_lowest_scores_of_all_groups_go_and_no_others(gone):
    problem = simple_problem(awaken(plain()), images())
    keep = problem.channels.copy()
    for group, _ in LOWEST_FIRST[:gone]:
        keep[group] -= 1
    budget = ratio(problem, keep)  # met by the last to go
    assert keep_highest(problem, [FIRST, SECOND], budget).tolist() == keep.tolist()


def test_what_went_in_vain_comes_back_from_the_highest_score_down():
    # A channel of the first group costs several times one of the second.
    problem = simple_problem(awaken(plain()), images())
    scores = [np.array([2.5, *[9.0] * 7]), np.array([1.0, 2.0, *[9.0] * 4])]
    budget = ratio(problem, np.array([8, 4])) - 1e-6
    keep = keep_highest(problem, scores, budget)
    assert ratio(problem, np.array([7, 6])) <= budget < ratio(problem, np.array([8, 4]))
    assert keep.tolist() == [7, 6]


def test_channels_of_every_group_stay_however_low_they_score():
    problem = simple_problem(awaken(plain()), images())
    low = [FIRST * 1e-6, SECOND]
    budget = ratio(problem, np.array([1, 4]))
    assert keep_highest(problem, low, budget).tolist() == [1, 4]
    budget = ratio(problem, np.array([4, 4]))
    assert keep_highest(problem, low, budget).tolist() == [3, 6]
    assert keep_highest(problem, low, budget, fewest=0.5).tolist() == [4, 4]


@pytest.mark.parametrize("name", GLOBAL)
def test_with_its_own_criterion_exactly_the_channels_below_the_threshold_go(name):
    problem = resnet20(criterion=name)
    scores = problem.scores(name, relative=False)
    if name != "bn_scale":
        scores = [score / score.mean() for score in scores]
    threshold = min(np.median(np.concatenate(scores)), *(score.max() for score in scores))
    expected = [np.flatnonzero(score >= threshold).tolist() for score in scores]
    budget = ratio(problem, np.array([len(kept) for kept in expected]))
    kept = problem.kept_channels(GLOBAL[name](problem, budget))
    assert [channels.tolist() for channels in kept] == expected


@pytest.mark.parametrize("name", ["l1", "l2", "fpgm"])
def test_the_scale_of_a_layer_counts_for_nothing(name):
    louder = awaken(plain())
    louder[0].weight.data *= 100
    before, after = (simple_problem(network, images()) for network in (awaken(plain()), louder))
    assert GLOBAL[name](after, 0.5).tolist() == GLOBAL[name](before, 0.5).tolist()


def test_batchnorm_scales_are_compared_as_they_are():
    quieter = awaken(plain())
    quieter[1].weight.data /= 100
    before, after = (simple_problem(network, images()) for network in (awaken(plain()), quieter))
    budget = ratio(after, np.array([4, 6]))
    assert global_threshold.bn_scale(after, budget).tolist() == [4, 6]
    assert global_threshold.bn_scale(before, budget)[1] < 6


@pytest.mark.parametrize("budget", [0.35, 0.5, 0.65])
def test_legr_with_the_identity_is_a_global_threshold_on_l2_norms(budget):
    problem = shared_problem("resnet20")
    norms = problem.scores("l2", relative=False)
    threshold = keep_highest(problem, norms, budget, fewest=legr.SAFEGUARD)
    assert legr.strategy(problem, identity(problem), budget).tolist() == threshold.tolist()


def test_a_scale_or_a_shift_moves_a_whole_group_in_the_ranking():
    problem = shared_problem("resnet20")
    for change in ([1e6, 0.0], [1.0, 1e6]):
        affine = identity(problem)
        affine[4] = change
        assert legr.strategy(problem, affine, 0.5)[4] == problem.channels[4]
    affine[4] = [1.0, -1e6]
    keep = legr.strategy(problem, affine, 0.5)
    assert keep[4] == np.ceil(legr.SAFEGUARD * problem.channels[4])


def test_legr_tries_the_identity_last_in_its_population_and_then_mutates_one_group_in_ten():
    env = Watched(make_env())
    problem = env.unwrapped.problem
    agent = legr.make(env, 0)
    tried = []
    agent.learn(90, lambda scope, _: tried.append(scope["affine"]) or True)
    assert len(tried) == 90
    for affine in tried[:63]:
        assert (affine[:, 0] > 0).all()
        assert (affine != identity(problem)).all()
    assert (tried[63] == identity(problem)).all()
    expected = [legr.strategy(problem, affine, 0.5).tolist() for affine in tried]
    assert [keep.tolist() for keep in env.kept] == expected
    scores = [problem.evaluate(keep).similarity for keep in expected]
    assert (agent.affine == tried[int(np.argmax(scores))]).all()
    for index, affine in enumerate(tried[64:], start=64):
        parents = tried[index - 64 : index]  # the oldest have been replaced
        changed = min((affine != parent).any(axis=1).sum() for parent in parents)
        assert changed == 1


def test_one_ranking_serves_every_budget():
    env = make_env(budget=0.4)
    agent = run_search(env, "lfgcl_env.baselines.legr:make", 5).agent
    for budget in (0.4, 0.6, 0.8):
        observation, _ = env.reset(options={"budget": budget})
        _, _, _, _, info = env.step(agent.predict(observation)[0])
        expected = legr.strategy(env.unwrapped.problem, agent.affine, budget)
        assert info["keep"].tolist() == expected.tolist()
        assert info["is_success"]


def test_a_ranking_is_saved_and_taken_over(tmp_path):
    env = make_env()
    agent = run_search(env, legr.make, 3).agent
    agent.save(tmp_path / "ranking")
    other = legr.make(env, 1)
    other.set_parameters(tmp_path / "ranking")
    assert (other.affine == agent.affine).all()
    for text in ("no numbers", "nan 1\n" * 9, "\x00\xff"):
        (tmp_path / "damaged").write_text(text, encoding="latin1")
        with pytest.raises(ValueError, match="damaged"):
            other.set_parameters(tmp_path / "damaged")
    (tmp_path / "short").write_text("1 0\n1 0\n")
    with pytest.raises(ValueError, match=r"shape \(9, 2\), got shape \(2, 2\)"):
        other.set_parameters(tmp_path / "short")


def test_eagleeye_draws_around_uniform_and_rejects_what_is_off_the_budget():
    problem = shared_problem("resnet20")
    for budget in (0.35, 0.5, 0.65):
        drawn = eagleeye.candidates(problem, budget, np.random.default_rng(0))
        ratios = np.array([next(drawn) for _ in range(200)])
        keep = np.maximum(1, np.rint((1 - ratios) * problem.channels)).astype(np.int64)
        assert np.abs(ratio(problem, keep) - budget).max() <= eagleeye.TOLERANCE + 1e-9
        assert len(np.unique(keep, axis=0)) == 200
        uniform_ratio = problem.prune_ratios(uniform_ratios.strategy(problem, budget)).mean()
        assert np.abs(ratios.mean(axis=0) - uniform_ratio).max() < 0.1
        assert ratios.std(axis=0).min() > 0.1


def test_eagleeye_takes_the_nearest_where_no_network_is_on_the_budget():
    problem = simple_problem(awaken(plain()), images())
    budget = ratio(problem, np.array([5, 3])) - 0.006
    off = [abs(ratio(problem, np.array([a, b])) - budget) for a in range(1, 9) for b in range(1, 7)]
    assert min(off) > eagleeye.TOLERANCE
    drawn = next(eagleeye.candidates(problem, budget, np.random.default_rng(0)))
    keep = np.maximum(1, np.rint((1 - drawn) * problem.channels)).astype(np.int64)
    assert abs(ratio(problem, keep) - budget) == min(off)


def test_eagleeye_needs_batchnorm_reestimation():
    with pytest.raises(ValueError, match="'sequential': make it with repair='batchnorm', or"):
        eagleeye.make(make_env(), 0)


def test_shrinking_scores_nothing_before_the_budget_is_met():
    env = gnn_rl.Shrinking(TransformReward(make_env(), lambda reward: 10 * reward))
    problem = env.unwrapped.problem
    groups = len(problem.groups)
    start, _ = env.reset(seed=0)
    quarter = np.full(groups, 0.25, np.float32)
    with problem.count() as counted:
        observation, reward, terminated, truncated, _ = env.step(quarter)  # 3/4 left
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert len(counted) == 0
    assert observation.shape == start.shape
    assert (observation[:, -3] < start[:, -3]).all()  # keep ratios
    assert not env.step(quarter)[2]  # 9/16 left
    with problem.count() as counted:
        _, reward, terminated, _, info = env.step(quarter)  # 27/64 left
    assert terminated
    assert len(counted) == 1
    assert reward == 10 * info["similarity"]
    assert info["keep"].tolist() == uniform_ratios.strategy(problem, 0.5).tolist()


def test_shrinking_ends_after_five_steps_on_the_budget_whatever_was_asked_for():
    env = gnn_rl.Shrinking(make_env())
    problem = env.unwrapped.problem
    env.reset(seed=0)
    ended = [env.step(np.full(9, -1.0, np.float32))[2] for _ in range(4)]
    assert not any(ended)
    _, _, terminated, _, info = env.step(np.full(9, -1.0, np.float32))
    assert terminated
    assert info["is_success"]
    env.reset()
    assert not env.step(np.full(9, 0.25, np.float32))[2]
    observation = env.step(np.full(9, -1.0, np.float32))[0]
    assert (observation[:, -3] == 1.0).all()  # all channels are back
    _, _, terminated, _, info = env.step(np.full(9, 1.0, np.float32))
    assert terminated
    assert info["keep"].tolist() == problem.project(np.full(9, 0.9)).tolist()


def test_the_encoder_sees_who_follows_whom():
    space = gym.spaces.Box(-1, 1, (5, 3), np.float32)
    torch.manual_seed(0)
    encoder = gnn_rl.GraphEncoder(space)
    networks = torch.randn(2, 5, 3)
    embedded = encoder(networks)
    assert embedded.shape == (2, 50)
    assert torch.allclose(encoder(networks.flip(1)), embedded, atol=1e-6)
    assert not torch.allclose(encoder(networks[:, [0, 2, 1, 3, 4]]), embedded, atol=1e-3)


@pytest.mark.parametrize("name", AGENTS)
def test_a_search_with_the_same_seed_finds_the_same(name):
    repair = {"eagleeye": "batchnorm"}.get(name, "least_squares")
    first, second, other = (
        run_search(make_env(repair=repair), AGENTS[name], 9, agent_seed=seed) for seed in (3, 3, 4)
    )
    assert len(found(first)) == 9
    assert found(first) == found(second)
    assert found(first) != found(other)
    assert all(0.45 < evaluation.macs_ratio <= 0.5 for evaluation in found(first))
    assert find_agent(f"lfgcl_env.baselines.{name}:make")


@pytest.mark.parametrize("name", AGENTS)
def test_an_interrupted_search_goes_on(name, tmp_path):
    repair = {"eagleeye": "batchnorm"}.get(name, "least_squares")
    whole = run_search(make_env(repair=repair), AGENTS[name], 8, out=tmp_path)
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "evaluations.jsonl").write_text("".join(lines[:5]))
    resumed = run_search(make_env(repair=repair), AGENTS[name], 8, out=tmp_path, resume=True)
    assert found(resumed) == found(whole)


def test_every_quoted_number_is_plausible_and_says_where_it_was_read():
    for row in QUOTED:
        assert 0 < row.macs_ratio < 1
        assert 80 < row.top1 < 100
        assert row.baseline_top1 is None or abs(row.baseline_top1 - row.top1) < 5
        assert row.paper
        assert row.read_in
