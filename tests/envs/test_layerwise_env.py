"""The layerwise environment: AMC's states, the bound on its actions, and its two rewards."""

import pickle
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from networks_for_tests import (
    FAMILIES,
    SCOPED,
    awaken,
    flattening,
    images,
    plain,
    shared_problem,
    simple_problem,
)

from lfgcl_env.envs import AMCEnv, reward
from lfgcl_env.envs.amc_bound import ActionBound
from lfgcl_env.envs.amc_state import FEATURES, AMCState
from lfgcl_env.images import LabelledImages, top1
from lfgcl_env.pruning.budget.limits import Limits, find_producers
from lfgcl_env.pruning.budget.rounding import Rounding
from lfgcl_env.search.record_evaluations import RecordEvaluations
from lfgcl_env.search.run_search import run_search

QUICK = {"weights": "random", "images": "random", "num_images": 8, "criterion": "l1"}
UNLABELLED = QUICK | {"reward": "similarity", "repair": "none"}
SMALL = "AMC-ResNet20-v0"

# ResNet-20 on 3x32x32 by hand: the first convolution of each of its nine blocks. The state begins
# with index, out channels, in channels, height, width, stride, kernel and MACs.
RESNET20_LAYERS = [
    (0, 16, 16, 32, 32, 1, 3, 2_359_296),
    (1, 16, 16, 32, 32, 1, 3, 2_359_296),
    (2, 16, 16, 32, 32, 1, 3, 2_359_296),
    (3, 32, 16, 32, 32, 2, 3, 1_179_648),
    (4, 32, 32, 16, 16, 1, 3, 2_359_296),
    (5, 32, 32, 16, 16, 1, 3, 2_359_296),
    (6, 64, 32, 16, 16, 2, 3, 1_179_648),
    (7, 64, 64, 8, 8, 1, 3, 2_359_296),
    (8, 64, 64, 8, 8, 1, 3, 2_359_296),
]
RESNET20_MACS = 40_551_040
# MACs of the layers that follow each of them: the whole network's less the stem's 442,368 and those
# of the convolutions up to it; behind the last there is one of 2,359,296, and the classifier's 640.
RESNET20_REST = [
    37_749_376,
    33_030_784,
    28_312_192,
    24_773_248,
    20_054_656,
    15_336_064,
    11_797_120,
    7_078_528,
    2_359_936,
]
# What keeping half of each group's channels saves: half of this layer and half of the next.
RESNET20_HALVED = [2_359_296] * 3 + [1_769_472] + [2_359_296] * 2 + [1_769_472] + [2_359_296] * 2


def small(**arguments) -> gym.Env:
    return gym.make(SMALL, **(UNLABELLED | arguments))


def tiny(**arguments) -> AMCEnv:
    """Two groups of 8 and 6 channels."""
    return AMCEnv(network=awaken(plain()), images=images(8), num_images=None, **(
        {"criterion": "l1", "repair": "none", "reward": "similarity"} | arguments))  # fmt: skip


def labelled(count: int = 40, classes: int = 5) -> LabelledImages:
    draw = torch.Generator().manual_seed(3)
    return LabelledImages(
        images(count, seed=3), torch.randint(classes, (count,), generator=draw), "drawn labels"
    )


def play(env: gym.Env, ratios) -> list[tuple]:
    """One episode of given prune ratios, the last one repeated; returns its steps."""
    env.reset(seed=0)
    steps = []
    for ratio in ratios:
        steps.append(env.step(np.array([ratio], np.float32)))
    return steps


def rounding_of(problem, limits: Limits) -> Rounding:
    channels = problem.channels.tolist()
    producers = find_producers(problem.baseline.network, problem.groups)
    return Rounding(channels, limits.steps(producers), limits.fewest(producers, channels))


def bound_of(problem, limits: Limits, *, spend_budget: bool) -> ActionBound:
    return ActionBound(problem, rounding_of(problem, limits), spend_budget=spend_budget)


def decide(bound: ActionBound, problem, ratios, budget: float) -> np.ndarray:
    keep = problem.channels.copy()
    for group, ratio in enumerate(ratios):
        keep[group] = bound(keep, group, ratio, budget)
    return keep


def asked(groups: int, seed: int, pattern: str) -> np.ndarray:
    ratios = np.random.default_rng(seed).uniform(size=groups)
    return {
        "random": ratios,
        "nothing": np.zeros(groups),
        "everything": np.ones(groups),
        "extremes": ratios.round(),
        "all at once": np.arange(groups) % 2 + 0.0,
    }[pattern]


def test_states_of_resnet20_equal_a_table_made_by_hand():
    env = small(budget=1.0)
    layers = np.array(RESNET20_LAYERS, dtype=np.float64)
    low, high = layers.min(axis=0), layers.max(axis=0)
    expected = (layers - low) / np.where(high > low, high - low, 1)
    observation, _ = env.reset(seed=0)
    reduced = 0
    for group in range(9):
        assert observation[:8].tolist() == pytest.approx(expected[group].tolist(), abs=1e-6)
        assert observation[8] == pytest.approx(reduced / RESNET20_MACS, abs=1e-6)
        assert observation[9] == pytest.approx(RESNET20_REST[group] / RESNET20_MACS, abs=1e-6)
        assert observation[10] == (0.5 if group else 0)
        observation, *_ = env.step(np.array([0.5], np.float32))
        reduced += RESNET20_HALVED[group]
    assert observation[:8].tolist() == pytest.approx(expected[8].tolist(), abs=1e-6)
    assert observation[8] == pytest.approx(reduced / RESNET20_MACS, abs=1e-6)


def test_the_table_before_scaling_holds_these_integers_exactly():
    state = AMCState(shared_problem("resnet20"))
    assert state.table.tolist() == [list(map(float, layer)) for layer in RESNET20_LAYERS]
    assert (state.rest * RESNET20_MACS).round().tolist() == RESNET20_REST
    assert len(FEATURES) == 11


def test_a_linear_layer_has_no_stride_and_a_constant_feature_is_zero():
    problem = simple_problem(awaken(flattening()), images())
    state = AMCState(problem)
    # 6 channels of 32x32 from 3, and 10 units that see 24 numbers.
    assert state.table.tolist() == [
        [0, 6, 3, 32, 32, 1, 3, 3 * 9 * 6 * 1024],
        [1, 10, 24, 1, 1, 0, 1, 240],
    ]
    problem = simple_problem(awaken(plain()), images())
    # Both see 32x32 with a kernel of 3; the second has 6 channels from 8, stride 2, and fewer MACs.
    shown = AMCState(problem)(1, problem.channels, 0.0)
    assert shown[:8].tolist() == [1, 0, 1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(("family", "scope"), SCOPED)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pattern=st.sampled_from(["random", "nothing", "everything", "extremes", "all at once"]),
    above_lowest=st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 1)),
    round_to=st.sampled_from([1, 1, 4, 8]),
    min_channels=st.integers(1, 9),
    max_prune_ratio=st.sampled_from([0.8, 1.0, 0.3]),
    spend_budget=st.booleans(),
)
def test_no_actions_on_any_network_exceed_the_budget(
    family, scope, seed, pattern, above_lowest, round_to, min_channels, max_prune_ratio,
    spend_budget,
):  # fmt: skip
    problem = shared_problem(family, scope)
    limits = Limits(min_channels, round_to, max_prune_ratio)
    bound = bound_of(problem, limits, spend_budget=spend_budget)
    whole = int(problem.costs(problem.channels))
    lowest = int(problem.costs(rounding_of(problem, limits).fewest)) / whole
    budget = min(lowest + above_lowest * (1 - lowest), 1.0)
    keep = decide(bound, problem, asked(len(problem.groups), seed, pattern), budget)
    assert problem.costs(keep) <= budget * whole * (1 + 1e-12)
    assert (keep >= np.minimum(problem.channels, min_channels)).all()
    assert (1 - keep / problem.channels <= max_prune_ratio + 1e-9).all()
    assert ((keep % round_to == 0) | (keep == problem.channels)).all()
    if spend_budget and (keep < problem.channels).any():
        last = int(np.flatnonzero(keep < problem.channels)[-1])
        more = keep.copy()
        more[last] = min(keep[last] // round_to * round_to + round_to, problem.channels[last])
        assert problem.costs(more) > budget * whole


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lowest_budget_leaves_no_choice(family):
    problem = shared_problem(family, "all")
    fewest = np.minimum(problem.channels, 2)
    lowest = int(problem.costs(fewest)) / int(problem.costs(problem.channels))
    bound = bound_of(problem, Limits(min_channels=2), spend_budget=False)
    for pattern in ("nothing", "everything"):
        ratios = asked(len(problem.groups), 0, pattern)
        assert decide(bound, problem, ratios, lowest).tolist() == fewest.tolist()


def test_an_action_is_executed_as_asked_where_the_budget_allows_it():
    env = small(budget=1.0)
    ratios = [0.1, 0.5, 0.26, 0.4, 0.77, 0.0, 0.3, 0.61, 0.8]
    steps = play(env, ratios)
    expected = [14, 8, 12, 19, 7, 32, 45, 25, 13]
    assert steps[-1][4]["keep"].tolist() == expected
    full = env.unwrapped.problem.channels
    executed = [step[4]["executed_action"] for step in steps]
    assert executed == pytest.approx((1 - expected / full).tolist())


def test_an_action_is_bounded_as_late_and_as_little_as_the_rest_allows():
    env = small(budget=0.4).unwrapped
    info = play(env, [0.0] * 9)[-1][4]
    keep, problem = info["keep"], env.problem
    fewest = np.ceil(0.2 * problem.channels - 1e-9).astype(int)
    bounded = np.flatnonzero(keep < problem.channels)
    assert len(bounded) > 1
    allowed = 0.4 * RESNET20_MACS
    for group in bounded:
        more = np.concatenate([keep[:group], [keep[group] + 1], fewest[group + 1 :]])
        assert problem.cost(more).macs > allowed


def test_without_spending_an_agent_may_prune_more_than_it_has_to_and_with_it_not():
    wasteful = play(small(), [0.8] * 9)[-1][4]
    assert wasteful["macs_ratio"] < 0.25
    env = small(spend_budget=True)
    spent = play(env, [0.8] * 9)[-1][4]
    assert 0.49 < spent["macs_ratio"] <= 0.5
    assert spent["prune_ratios"][0] == pytest.approx(0.75)
    assert (spent["prune_ratios"][-2:] < 0.02).all()


def test_budgets_are_drawn_set_and_counted_in_params_as_in_the_global_env():
    env = small(budget=(0.4, 0.8))
    budgets = [env.reset(seed=seed)[1]["budget"] for seed in (0, 1, 0)]
    assert budgets[0] == budgets[2] == float(np.random.default_rng(0).uniform(0.4, 0.8))
    assert budgets[0] != budgets[1]
    assert env.reset(options={"budget": 0.3})[1]["budget"] == env.unwrapped.budget == 0.3
    for _ in range(9):
        info = env.step(np.zeros(1))[4]
    assert 0.29 < info["macs_ratio"] <= 0.3
    assert info["is_success"]
    info = play(small(budget_metric="params", budget=0.4), [0.0] * 9)[-1][4]
    assert 0.39 < info["params_ratio"] <= 0.4
    assert info["is_success"]


def test_an_option_that_cannot_be_is_refused_and_leaves_the_episode_alone():
    env = small().unwrapped
    env.reset(seed=0)
    env.step(np.array([0.5]))
    with pytest.raises(
        ValueError, match=r"0\.15 of the macs cannot be reached.*a higher max_prune_ratio"
    ):
        env.reset(options={"budget": 0.15})
    with pytest.raises(ValueError, match="reset has the option 'budget' only"):
        env.reset(options={"horizon": 2})
    assert env.budget == 0.5
    assert env.step(np.array([0.5]))[4]["keep"].tolist()[:3] == [8, 8, 16]


def test_an_episode_begins_with_a_reset_and_ends():
    env = tiny()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.array([0.5]))
    play(env, [0.5, 0.5])
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.array([0.5]))


@pytest.mark.parametrize("action", [[np.nan], [1.5], [-0.5], [0.5, 0.5], 0.5])
def test_actions_that_are_none_are_refused_and_can_be_corrected(action):
    env = tiny()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="prune ratios must"):
        env.step(np.array(action))
    assert env.step(np.array([0.5]))[4]["keep"].tolist() == [4, 6]


def test_accuracy_is_the_reward_and_equals_an_independent_computation():
    test_set = labelled()
    env = tiny(reward="accuracy", labelled=test_set, repair="batchnorm", budget=0.9)
    for ratios in ([0.3, 0.3], [0.6, 0.1], [0.0, 0.8]):
        first, last = play(env, ratios)
        assert not env.problem.known(first[4]["keep"])
        assert (first[1], "accuracy" in first[4]) == (0.0, False)
        network = env.problem.compress(last[4]["keep"])
        with torch.no_grad():
            hits = [
                int(network(image[None]).argmax()) == int(label)
                for image, label in zip(test_set.images, test_set.labels, strict=True)
            ]
        assert last[1] == last[4]["accuracy"] == pytest.approx(sum(hits) / len(hits))
        keep = last[4]["keep"]
        assert last[4]["similarity"] == env.problem.evaluate(keep).similarity


def test_the_accuracy_of_a_strategy_is_measured_once(monkeypatch):
    measured = []

    def counted(network, test_set, **arguments):
        measured.append(network)
        return top1(network, test_set, **arguments)

    monkeypatch.setattr(reward, "top1", counted)
    env = tiny(reward="accuracy", labelled=labelled())
    with env.problem.count() as counted:
        rewards = [play(env, ratios)[-1][1] for ratios in ([0.5, 0.5], [0.2, 0.5], [0.5, 0.5])]
    assert rewards[0] == rewards[2]
    assert len(measured) == len(counted) == 2


def test_a_search_keeps_what_was_rewarded_and_looks_it_up_when_it_goes_on(tmp_path, monkeypatch):
    def made():
        return tiny(reward="accuracy", labelled=labelled())

    out = tmp_path / "run"
    found = run_search(made(), "random", 8, out=out)
    best = max(found.records, key=lambda r: (r.reward, -r.evaluation.macs))
    assert found.best == best.evaluation
    assert found.reward == best.reward
    assert max(r.evaluation.similarity for r in found.records) > found.best.similarity
    more = torch.randn(4, *made().problem.baseline.input_shape)
    repaired = run_search(made(), "random", 8, shortlist=3, repair_images=more)
    accuracies = [listed.score for listed in repaired.shortlist]
    assert len(accuracies) > 1
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    assert accuracies[1:] == sorted(accuracies[1:], reverse=True)

    measured, measure = [], reward.top1

    def counting(*arguments, **keywords):
        measured.append(measure(*arguments, **keywords))
        return measured[-1]

    monkeypatch.setattr(reward, "top1", counting)
    again = run_search(made(), "random", 8, out=out, resume=True)
    assert again.records == found.records
    again_measured = {found.records[0].evaluation, best.evaluation}
    assert len(measured) == len(again_measured) + 2  # the best as it was scored, and merely cut


@pytest.mark.data("CIFAR10", "resnet20")
def test_held_out_images_are_labelled_training_images_and_no_calibration_images():
    from torchvision.datasets import CIFAR10

    from lfgcl_env.images import data_root

    env = gym.make(SMALL, num_images=64, num_labelled=300, criterion="l1", repair="none").unwrapped
    held_out, problem = env.labelled, env.problem
    assert held_out.images.shape == (300, 3, 32, 32)
    calibration = torch.cat([env._source.calibration, env.other_images(1024)])
    distances = torch.cdist(held_out.images.flatten(1), calibration.flatten(1))
    assert distances.min() > 1
    assert 95 < top1(problem.baseline.network, held_out) < 100  # it was trained on them
    training = CIFAR10(data_root(), train=True)
    mean, std = problem.baseline.normalization.mean, problem.baseline.normalization.std
    pixels = held_out.images * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    known = {image.tobytes(): label for image, label in zip(training.data, training.targets,
                                                             strict=True)}  # fmt: skip
    for image, label in zip(pixels, held_out.labels.tolist(), strict=True):
        raw = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        assert known[raw.tobytes()] == label


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"reward": "acuracy"}, "unknown reward 'acuracy'.*Did you mean 'accuracy'"),
        ({"reward": "accuracy"}, "needs labels, and images='random' have none"),
        ({"reward": "accuracy", "images": images(8)}, "needs labels, and these images have none"),
        ({"reward": "accuracy", "images": "CIFAR10", "num_labelled": 0}, "num_labelled must be"),
        ({"reward": "accuracy", "labelled": labelled(classes=11)}, "11 classes, and the network"),
        ({"reward": "accuracy", "labelled": replace(labelled(), images=images(40, size=16))},
         r"shape \(3, 16, 16\)"),
        ({"max_prune_ratio": 0}, "max_prune_ratio must be a number above 0 .*, got 0"),
        ({"max_prune_ratio": 1.2}, "at most 1, .*, got 1.2"),
        ({"max_prune_ratio": float("nan")}, "got nan"),
        ({"max_prune_ratio": "0.8"}, "got '0.8'"),
        ({"budget": 0.15}, "0.2.* to 1 can, or less with a higher max_prune_ratio"),
        ({"budget": (0.15, 0.5)}, "or less with a higher max_prune_ratio"),
        ({"budget": "half"}, "must be a number above 0 and at most 1, or a range"),
        ({"min_channels": -1}, "min_channels must be a whole number from 0"),
        ({"render_mode": "video"}, "unknown render_mode"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_are_refused_in_one_sentence(arguments, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        AMCEnv(**({"network": "resnet20"} | UNLABELLED | arguments))
    assert "\n" not in str(refused.value)


@pytest.mark.data
def test_more_images_than_there_are_cannot_be_held_out():
    with pytest.raises(ValueError, match="49000 besides 1001 others are needed"):
        AMCEnv(network="resnet20", weights="random", criterion="l1", repair="none", num_images=1001,
               num_labelled=49_000)  # fmt: skip


def test_a_lower_budget_can_be_reached_with_a_higher_max_prune_ratio():
    info = play(small(budget=0.1, max_prune_ratio=1.0), [0.0] * 9)[-1][4]
    assert 0.09 < info["macs_ratio"] <= 0.1


def test_a_pickled_env_goes_on_alike_in_the_middle_of_an_episode():
    env = tiny(budget=(0.4, 0.6), reward="accuracy", labelled=labelled())
    env.reset(seed=2)
    env.step(np.array([0.7]))
    copied = pickle.loads(pickle.dumps(env))
    one, other = env.step(np.array([0.2])), copied.step(np.array([0.2]))
    assert one[0].tolist() == other[0].tolist()
    assert one[1:4] == other[1:4]
    assert str(one[4]) == str(other[4])
    assert env.reset()[1]["budget"] == copied.reset()[1]["budget"]


def test_vector_envs_give_what_a_single_one_does():
    envs = gym.make_vec(SMALL, num_envs=2, vectorization_mode="sync", **UNLABELLED)
    envs.reset(seed=0)
    for _ in range(9):
        _, rewards, terminated, _, infos = envs.step(np.array([[0.3], [0.7]], np.float32))
    assert terminated.all()
    assert infos["executed_action"].shape == (2,)
    expected = [play(small(), [ratio] * 9)[-1][1] for ratio in (0.3, 0.7)]
    assert rewards.tolist() == pytest.approx(expected, abs=1e-6)


def test_other_networks_go_into_the_general_id():
    env = gym.make(
        "AMC-v0", network=awaken(plain()), images=images(8), num_images=None, labelled=labelled()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    assert env.unwrapped.steps_per_strategy == 2
    assert 0 <= play(env, [0.5, 0.5])[-1][1] <= 1


def test_a_search_counts_episodes_and_gives_an_agent_time_for_their_steps():
    env = gym.make(SMALL, **UNLABELLED)
    result = run_search(env, "random", 4)
    assert len(result.records) == 4
    assert result.steps == 4 * 9
    assert all(record.evaluation.macs_ratio <= 0.5 for record in result.records)
    assert [r.reward for r in result.records] == [r.evaluation.similarity for r in result.records]


class Stubborn:
    """Asks for the same in every step."""

    def __init__(self, env, seed):
        self.env = env

    def learn(self, total_timesteps, callback):
        self.env.reset(seed=0)
        for _ in range(total_timesteps):
            if self.env.step(np.full(1, 0.5, np.float32))[2]:
                self.env.reset()
            if not callback(locals(), globals()):
                return self
        return self

    def predict(self, observation, **_):
        return np.full(1, 0.5, np.float32), None


def test_an_agent_that_repeats_itself_is_stopped_after_ten_episodes_an_evaluation():
    result = run_search(gym.make(SMALL, **UNLABELLED), Stubborn, 2)
    assert (len(result.records), result.steps) == (1, 2 * 10 * 9)
    assert "repeats itself" in result.ended


def test_a_strategy_half_decided_is_no_visit_even_if_it_was_scored_before():
    env = tiny(budget=0.9, spend_budget=False)
    half = play(env, [0.7, 0.0])[0][4]["keep"]
    assert half.tolist() == [2, 6]
    assert env.problem.known(half)
    seen = []
    visits = RecordEvaluations(env, [], lambda record, new: seen.append(record.evaluation.keep))
    play(visits, [0.7, 0.5])
    assert seen == [(2, 3)]
