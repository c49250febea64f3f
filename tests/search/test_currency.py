"""What comes out of the environment, wrappers included, is what a search maximises."""

import json
import logging

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TransformAction, TransformReward
from networks_for_tests import awaken, images, plain

import lfgcl_env  # noqa: F401 - registers the environments
from lfgcl_env.images import LabelledImages
from lfgcl_env.page import write_page
from lfgcl_env.pruning import allocate, load_pruned
from lfgcl_env.pruning.repair import least_squares
from lfgcl_env.pruning.repair.layer_fit import Fit
from lfgcl_env.pruning.repair.profiles import SCORING
from lfgcl_env.pruning.structure.saved_form import read_structure
from lfgcl_env.runs.best import read_best
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.return_so_far import ReturnSoFar
from lfgcl_env.search.run_search import run_search
from lfgcl_env.search.shortlist import choose
from lfgcl_env.search.strategy_reward import Rewarded, reward_of, rewards_are_scores

INPUTS, OTHERS = images(8), images(12, seed=1)


def make_env(id="LFGCL-v0", **options):
    return gym.make(id, network=awaken(plain()), images=INPUTS, num_images=None, **options)


def negated(env):
    return TransformReward(env, lambda reward: -reward)


class Penalised(gym.Wrapper):
    """Takes the keep ratio of the first group off the reward; costs nothing below a half."""

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        kept = info["keep"][0] / self.env.unwrapped.problem.channels[0]
        return observation, reward - max(0.0, kept - 0.5), terminated, truncated, info


def similarities(result):
    return [record.evaluation.similarity for record in result.records]


def test_the_return_so_far_is_the_score_of_the_strategy_at_hand():
    env = ReturnSoFar(make_env(horizon=3))
    for _ in range(2):
        env.reset(seed=0)
        for value in (0.1, 0.9, 0.4):
            _, score, _, _, info = env.step(np.array([value, 0.5], np.float32))
            assert score == pytest.approx(info["similarity"])


def test_a_search_keeps_the_strategy_with_the_highest_reward():
    plainly, wrapped = (run_search(env, "random", 20) for env in (make_env(), negated(make_env())))
    assert plainly.reward == plainly.best.similarity == max(similarities(plainly))
    assert wrapped.reward == -wrapped.best.similarity == -min(similarities(wrapped))
    assert min(similarities(wrapped)) < max(similarities(wrapped))


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_record_holds_the_return_up_to_the_step_that_scored_the_strategy(horizon):
    result = run_search(make_env(horizon=horizon), "random", 12)
    rewards = [record.reward for record in result.records]
    assert rewards == pytest.approx(similarities(result))


def test_best_json_and_logs_hold_the_reward(tmp_path):
    result = run_search(negated(make_env()), "random", 6, out=tmp_path)
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["reward"] == result.reward == -best["similarity"]
    assert best["reward_name"] == "similarity"
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rewards = [record.reward for record in result.records]
    for name, expected in (
        ("search/reward", rewards),
        ("search/best_reward", np.maximum.accumulate(rewards)),
    ):
        points = [point.value for point in events.Scalars(name)]
        np.testing.assert_allclose(points, expected, rtol=1e-6)


def test_a_strategy_has_a_reward_where_actions_lead_to_it():
    env = make_env()
    problem = env.unwrapped.problem
    keep = tuple(problem.project([0.2, 0.7]).tolist())
    similarity = problem.evaluate(keep).similarity
    assert reward_of(env, keep, 0.5) == similarity
    assert reward_of(negated(env), keep, 0.5) == -similarity
    assert reward_of(make_env(horizon=4), keep, 0.5) == pytest.approx(similarity)
    turned = TransformAction(env, lambda action: 1 - action, env.action_space)
    assert reward_of(turned, keep, 0.5) is None
    layerwise = make_env("AMC-v0", reward="similarity", max_prune_ratio=0.6)
    assert reward_of(layerwise, (8, 3), 0.9) == pytest.approx(problem.evaluate((8, 3)).similarity)
    assert reward_of(layerwise, (8, 1), 0.9) is None


def test_rewards_are_scores_unless_a_wrapper_changes_one_of_them():
    env = make_env()
    problem = env.unwrapped.problem

    def strategies(wrapped):
        for ratios in ([0.9, 0.1], [0.1, 0.9]):
            keep = tuple(problem.project(ratios).tolist())
            yield Rewarded(problem.evaluate(keep), reward_of(wrapped, keep, 0.5), 0.5)

    assert rewards_are_scores(env, strategies(env))
    assert rewards_are_scores(env, strategies(TransformReward(env, float)))
    assert not rewards_are_scores(negated(env), strategies(negated(env)))
    few, many = strategies(Penalised(env))
    assert rewards_are_scores(Penalised(env), [few])
    assert not rewards_are_scores(Penalised(env), [few, many])


def records(env, count=6):
    return run_search(env, "random", count).records


def test_the_shortlist_keeps_the_best_after_repair_and_includes_the_allocation(caplog):
    caplog.set_level(logging.INFO)
    env = make_env(budget=0.6)
    problem = env.unwrapped.problem
    network, listed = choose(env, records(env), OTHERS, size=3)
    assert caplog.text.count("once repaired") == len(listed) == 3
    assert tuple(allocate(problem)) in {one.searched.keep for one in listed}
    assert [one.score for one in listed[1:]] == sorted(
        (one.score for one in listed[1:]), reverse=True
    )
    assert listed[0].score == pytest.approx(env.unwrapped.judge(network, listed[0].searched.keep))
    assert all(one.reward == one.searched.similarity for one in listed)
    assert network[0].weight.shape[0] == listed[0].searched.keep[0]
    with pytest.raises(ValueError, match="at least 1"):
        choose(env, records(env), OTHERS, size=0)


@pytest.mark.parametrize(
    ("images_of_a_score", "reward"),
    [(len(INPUTS), {}), (len(INPUTS) + 1, {}), (len(INPUTS), {"reward": "own"})],
)
def test_networks_are_compared_as_they_were_scored_where_the_repair_was_one_for_that(
    images_of_a_score, reward, monkeypatch
):
    if reward:
        reward = {"reward": mean_weight}
    scored = images_of_a_score == len(INPUTS) and not reward
    monkeypatch.setattr("lfgcl_env.search.shortlist.COMPARED_IMAGES", images_of_a_score)
    env = make_env(budget=0.6, repair="sequential", **reward)
    problem, repaired = env.unwrapped.problem, []
    usual = problem.repair_all

    def counted(keeps, *given, **named):
        repaired.extend(keeps)
        return usual(keeps, *given, **named)

    found = records(env)
    monkeypatch.setattr(problem, "repair_all", counted)
    _, listed = choose(env, found, OTHERS, size=3)
    assert len(repaired) == (1 if scored else 1 + len(listed))
    assert repaired[-1] == listed[0].searched.keep
    for one in listed[1:]:
        keep = one.searched.keep
        assert (one.score == env.unwrapped.judge(problem.compress(keep), keep)) == scored


def mean_weight(network, _images):
    """A score that has nothing to do with similarity."""
    return float(sum(p.abs().sum() for p in network.parameters()))


def test_finished_networks_are_compared_by_the_environments_own_reward():
    env = make_env(reward=mean_weight)
    found = records(env)
    assert all(r.reward != r.evaluation.similarity for r in found)
    network, listed = choose(env, found, OTHERS, size=4)
    assert listed[0].score == pytest.approx(mean_weight(network, None))
    assert [one.score for one in listed[1:]] == sorted(
        (one.score for one in listed[1:]), reverse=True
    )
    by_reward = sorted((record.reward for record in found), reverse=True)
    assert sorted((one.reward for one in listed), reverse=True)[:3] == by_reward[:3]


def test_a_repair_that_makes_a_network_worse_is_not_used(caplog, monkeypatch):
    env = make_env(budget=0.6)
    problem = env.unwrapped.problem
    usual = problem.repair_all

    def spoil(*arguments, **named):
        networks = usual(*arguments, **named)
        if len(arguments) == 2:  # the thorough one
            with torch.no_grad():
                networks[0][0].weight.zero_()
        return networks

    monkeypatch.setattr(problem, "repair_all", spoil)
    network, listed = choose(env, records(env), OTHERS, size=2)
    assert "made the network worse" in caplog.text
    assert network[0].weight.abs().sum() > 0
    assert listed[0].score == pytest.approx(env.unwrapped.judge(network, listed[0].searched.keep))


def spoil_refits(monkeypatch):
    """Let every refit, closed form or sequential, set weights that have nothing to do with data."""

    def spoilt(moments, kept):
        columns = torch.cat([moments.reader.columns(kept), torch.tensor([-1])])
        return torch.full_like(moments.weights[:, columns], 3.0)

    monkeypatch.setattr(least_squares, "repaired_weights", spoilt)
    monkeypatch.setattr(
        Fit, "solve", lambda self, _: self.layer.set(torch.full_like(self.layer.matrix(), 3.0))
    )


def test_where_every_repair_does_harm_the_network_is_merely_cut(caplog, monkeypatch):
    spoil_refits(monkeypatch)
    env = make_env(budget=0.6)
    problem = env.unwrapped.problem
    network, listed = choose(env, records(env), OTHERS, size=2)
    keep = listed[0].searched.keep
    cut = problem.network.cut(problem.kept_channels(keep))
    assert "every repair made the network worse" in caplog.text
    assert torch.equal(network[0].weight, cut[0].weight)
    assert listed[0].repaired.similarity == problem.score_network(cut, keep)
    assert listed[0].repaired.similarity > listed[0].searched.similarity


def test_without_a_shortlist_a_harmful_repair_is_not_used_either(tmp_path, caplog, monkeypatch):
    spoil_refits(monkeypatch)
    result = run_search(make_env(budget=0.6), "random", 4, out=tmp_path / "run")
    assert "the repair made the network worse" in caplog.text
    saved = read_structure(tmp_path / "run" / "pruned.safetensors")
    assert saved["repaired"]["similarity"] > result.best.similarity


class Prefers:
    """A reward that ranks one network of every strategy highest: 1, and 0 for all others."""

    def __init__(self, delivery):
        self.delivery, self.problem = delivery, None

    def wanted(self, keep):
        """Return a network of a strategy."""
        if self.delivery == "thorough":
            return self.problem.repair_all([keep], OTHERS)[0]
        if self.delivery == "quick":
            return self.problem.repair_all([keep], OTHERS, SCORING)[0]
        return getattr(self.problem, {"scored": "compress", "cut": "cut"}[self.delivery])(keep)

    def __call__(self, network, images):
        if self.problem is None:
            return 0.0
        wanted = self.wanted([network[0].out_channels, network[3].out_channels])
        pairs = zip(network.parameters(), wanted.parameters(), strict=True)
        return float(all(torch.equal(mine, its) for mine, its in pairs))


@pytest.mark.parametrize("delivery", ["thorough", "quick", "scored", "cut"])
@pytest.mark.parametrize("repair", ["least_squares", "sequential"])
def test_a_reward_of_ones_own_decides_which_network_of_the_winner_is_handed_over(
    delivery, repair, caplog
):
    reward = Prefers(delivery)
    env = make_env(budget=0.6, reward=reward, repair=repair)
    reward.problem = env.unwrapped.problem
    network, listed = choose(env, records(env, 3), OTHERS, size=2)
    assert listed[0].score == reward(network, None) == 1
    assert [one.delivery for one in listed] == [delivery, None]
    keep = listed[0].searched.keep
    assert listed[0].repaired.similarity == reward.problem.score_network(network, keep)
    assert ("made the network worse" in caplog.text) == (delivery != "thorough")


def test_accuracy_decides_too():
    inputs = images(200, seed=2)
    problem = make_env(budget=0.6).unwrapped.problem
    keep = tuple(problem.project([0.5, 0.5]).tolist())
    with torch.no_grad():
        labels = problem.cut(keep)(inputs).argmax(1)
    labelled = LabelledImages(inputs, labels, "what the merely cut network says")
    env = make_env(budget=0.6, reward="accuracy", labelled=labelled)
    found = [Rewarded(problem.evaluate(keep), reward_of(env, keep, 0.6), 0.6)]
    network, (only,) = choose(env, found, OTHERS, size=1)
    assert (only.delivery, only.score) == ("cut", 1.0)
    assert only.reward < 1  # as the search scored it
    assert torch.equal(network[0].weight, problem.cut(keep)[0].weight)


@pytest.mark.parametrize("delivery", ["thorough", "scored", "cut"])
def test_so_it_does_where_a_wrapper_changes_it(delivery):
    reward = Prefers(delivery)
    env = TransformReward(
        make_env(budget=0.6, reward=reward, repair="sequential"), lambda reward: 2 * reward + 1
    )
    reward.problem = env.unwrapped.problem
    network, (only,) = choose(env, records(env, 3), OTHERS, size=2)
    assert (only.score, only.delivery) == (None, delivery)
    assert reward(network, None) == 1


@pytest.mark.parametrize(
    ("delivery", "size", "words"),
    [
        ("thorough", 2, "repaired thoroughly, layer by layer"),
        ("quick", 2, "repaired quickly, layer by layer: the thorough repair made it worse"),
        ("scored", 2, "as it was scored in the search"),
        ("scored", 0, "as it was scored in the search"),
        ("cut", 2, "merely cut: every repair that was tried made it worse"),
        ("cut", 0, "merely cut: every repair that was tried made it worse"),
    ],
)
def test_a_run_says_which_network_it_hands_over(delivery, size, words, tmp_path):
    reward = Prefers(delivery)
    env = make_env(budget=0.6, reward=reward)
    reward.problem = env.unwrapped.problem
    result = run_search(
        env, "random", 2, out=tmp_path, shortlist=size, repair_images=OTHERS if size else None
    )
    best = read_best(tmp_path)
    assert result.delivery == best.delivery == delivery
    assert [one.delivery for one in best.shortlist[:1]] == [delivery] * min(size, 1)
    report = (tmp_path / "report.txt").read_text().splitlines()
    assert report[1:3] == [f"handed over: the network {words}", ""]
    assert reward(load_pruned(tmp_path / "pruned.safetensors", plain()), None) == 1
    text = write_page(tmp_path).read_text(encoding="utf-8")
    assert f'handed over</span><b>{delivery}</b><span class="quiet">the network {words}<' in text
    assert (f"What is handed over is the network {words}." in text) == (size > 0)


@pytest.mark.parametrize("wrapper", [negated, Penalised])
def test_where_a_wrapper_changes_rewards_the_highest_is_repaired_without_a_comparison(
    wrapper, caplog
):
    env = wrapper(make_env())
    result = run_search(env, "random", 12, shortlist=4, repair_images=OTHERS)
    assert caplog.text.count("a wrapper changes this environment's rewards") == 1
    (only,) = result.shortlist
    assert only.score is None
    allocated = tuple(allocate(env.unwrapped.problem).tolist())
    known = [r.reward for r in result.records] + [reward_of(env, allocated, 0.5)]
    assert result.reward == only.reward == max(known)
    assert result.best == only.searched
    kept = sum(parameter.numel() for parameter in result.network.parameters())
    assert kept == result.best.params


def test_a_strategy_that_the_actions_do_not_lead_to_is_not_shortlisted():
    env = make_env("AMC-v0", reward="similarity", max_prune_ratio=0.5, budget=0.8)
    found = records(env)
    _, listed = choose(env, found, OTHERS, size=8)
    assert min(min(np.array(one.searched.keep) / (8, 6)) for one in listed) >= 0.5


def test_a_sweep_follows_the_rewards():
    options = {"budget": (0.4, 0.8)}
    up = run_search(make_env(**options), "random", 10, points=2)
    down = run_search(negated(make_env(**options)), "random", 10, points=2)
    for one, other in zip(up.sweep, down.sweep, strict=True):
        assert one.reward == one.searched.similarity > other.searched.similarity
        assert other.reward == -other.searched.similarity


def test_a_resumed_search_does_not_take_changed_rewards_for_the_environments_own(tmp_path):
    def made():
        labelled = LabelledImages(OTHERS, torch.arange(12) % 5, "twelve images")
        return negated(make_env("AMC-v0", reward="accuracy", labelled=labelled))

    def scores(result):
        return [(record.reward, record.evaluation) for record in result.records]

    run_search(made(), "random", 6, out=tmp_path)
    longer = run_search(made(), "random", 12, out=tmp_path, resume=True)
    assert scores(longer) == scores(run_search(made(), "random", 12))
    assert all(record.reward <= 0 for record in longer.records)


def test_the_agents_seed_is_recorded_beside_the_environments(tmp_path):
    env = gym.make("LFGCL-ResNet20-v0", weights="random", images="random", num_images=2, seed=7)
    run_search(env, "random", 2, agent_seed=1, out=tmp_path)
    asked = RunFolder(tmp_path).described()["arguments"]
    assert (asked["seed"], asked["agent_seed"]) == (7, 1)
    assert asked["environment"] == "LFGCL-ResNet20-v0"
    assert (asked["network"], asked["num_images"], asked["criterion"]) == ("resnet20", 2, "obs")
    assert (asked["agent"], asked["evaluations"], asked["shortlist"]) == ("random", 2, 0)


def test_what_json_cannot_hold_is_recorded_by_its_type_and_the_run_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run_search(make_env(), "random", 2, out=tmp_path)
    asked = RunFolder(tmp_path).described()["arguments"]
    assert (asked["network"], asked["images"]) == ("Sequential", "Tensor")
    assert "recorded by their types alone: network, images" in caplog.text


def test_a_search_counts_its_own_evaluations_whatever_was_scored_before(tmp_path):
    env = make_env()
    options = {"shortlist": 3, "repair_images": OTHERS}
    counts = []
    for name in ("one", "two"):
        run_search(env, "random", 6, out=tmp_path / name, **options)
        best = json.loads((tmp_path / name / "best.json").read_text())
        counts.append((best["evaluations"], best["evaluations_with_shortlist"]))
    halved = {(4, 6), (8, 3)}
    visited = {r.evaluation.keep for r in RunFolder(tmp_path / "one").records()}
    allocated = tuple(allocate(env.unwrapped.problem).tolist())
    assert counts == [(len(visited), len(visited | halved | {allocated}))] * 2
