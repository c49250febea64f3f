"""One agent learns a range of budgets, and answers for any with a network."""

import csv
import json
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from networks_for_tests import Concatenating, awaken, images, plain

import lfgcl_env
from lfgcl_env import zoo
from lfgcl_env.pruning.budget.tolerance import label
from lfgcl_env.pruning.delivered_network import DELIVERIES
from lfgcl_env.runs.record import Record
from lfgcl_env.search import shortlist
from lfgcl_env.search.budget_sweep import answer, ask, spaced, sweep
from lfgcl_env.search.protocol import AgentError
from lfgcl_env.search.run_search import run_search

NETWORK = awaken(plain())
INPUTS = images(8)
OTHERS = images(12, seed=1)
BUDGETS = (0.4, 0.6, 0.8)
DDPG = partial(zoo.make, "ddpg", learning_starts=3, gradient_steps=2)
PPO = partial(zoo.make, "ppo", n_steps=4, batch_size=4, n_epochs=2)


def make_env(budget=(0.4, 0.8), network=NETWORK, **options):
    return gym.make(
        "LFGCL-v0", network=network, images=INPUTS, num_images=None, budget=budget, **options
    )


class Seer:
    """Explores at random; asked without exploration, prunes the first group as budgets shrink."""

    def __init__(self, env, seed):
        self.env, self.draws = env, np.random.default_rng(seed)

    def learn(self, total_timesteps, callback):
        self.env.reset(seed=0)
        for _ in range(total_timesteps):
            shape = self.env.action_space.shape
            self.env.step(self.draws.uniform(size=shape).astype(np.float32))
            self.env.reset()
            if not callback(locals(), globals()):
                return

    def predict(self, observation, deterministic=False):
        assert deterministic
        action = np.full(len(observation), 0.5, np.float32)
        action[0] = (1 - observation[0, -1]) / 2
        return action, None


class Untouched(Seer):
    """Must not be asked."""

    def predict(self, observation, deterministic=False):
        raise AssertionError


class Blind(Seer):
    """Has one answer, whatever the budget."""

    def predict(self, observation, deterministic=False):
        return np.linspace(0.2, 0.8, len(observation), dtype=np.float32), None


def search_sweep(env, out=None, agent=Seer, evaluations=6, size=3, **options):
    return run_search(
        env, agent, evaluations, out=out, points=3, shortlist=size,
        repair_images=OTHERS if size else None, **options,
    )  # fmt: skip


def files(folder):
    """What decides a sweep's worth, by file."""
    paths = [folder / "sweep.json", folder / "sweep.csv", *(folder / "sweep").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def recorded(problem, *strategies, budget=0.9):
    """Records of strategies, rewarded with their similarity."""
    evaluations = [problem.evaluate(keep) for keep in strategies]
    return [Record(i, 0.0, e.similarity, budget, e) for i, e in enumerate(evaluations, start=1)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run over a range, its environment and its result."""
    folder = tmp_path_factory.mktemp("sweep")
    env = make_env()
    return env, search_sweep(env, folder), folder


def test_budgets_are_equally_spaced_with_both_ends():
    assert spaced(0.35, 0.5, 2) == (0.35, 0.5)
    assert spaced(1 / 3, 2 / 3, 3) == (1 / 3, 0.5, 2 / 3)
    assert [label(b) for b in spaced(0.3, 0.8, 5)] == ["0.30", "0.425", "0.55", "0.675", "0.80"]
    for count in (1, 2.0, True):
        with pytest.raises(ValueError, match="at least 2 budgets"):
            spaced(0.3, 0.8, count)


def test_an_agent_is_asked_with_the_budget_and_its_answers_are_scored():
    env = make_env()
    problem = env.unwrapped.problem
    with problem.count() as counted:
        predicted = ask(env, Seer(env, 0), BUDGETS)
    for budget, evaluation in zip(BUDGETS, predicted, strict=True):
        action = [np.float32(1 - budget), 0.5]
        assert evaluation.keep == tuple(problem.project(action, budget))
        assert problem.meets(evaluation.keep, budget)
    assert len(counted) == len(set(predicted))


def test_what_does_not_look_at_the_budget_is_projected_onto_each():
    env = make_env(budget_metric="params")
    problem = env.unwrapped.problem
    predicted = ask(env, Blind(env, 0), BUDGETS)
    assert [e.keep for e in predicted] == [
        tuple(problem.project(np.linspace(0.2, 0.8, 2), budget)) for budget in BUDGETS
    ]
    assert all(e.params_ratio <= b for e, b in zip(predicted, BUDGETS, strict=True))


@pytest.mark.parametrize("make", [DDPG, PPO], ids=["ddpg", "ppo"])
def test_stable_baselines3_is_asked_as_it_sees_the_environment(make):
    env = make_env()
    agent = make(env, 0)
    agent.learn(6)
    for budget, evaluation in zip(BUDGETS, ask(env, agent, BUDGETS), strict=True):
        wrapped = agent.get_env().envs[0]
        observation, _ = wrapped.reset(options={"budget": budget})
        action, _ = agent.predict(observation, deterministic=True)
        *_, info = wrapped.step(action)
        assert info["budget"] == budget
        assert evaluation.keep == tuple(info["keep"])


def test_an_agent_is_asked_through_its_own_wrapper_and_for_whole_episodes():
    env = make_env(horizon=3)

    class Wrapped(Seer):
        def __init__(self, env, seed):
            super().__init__(gym.wrappers.FlattenObservation(env), seed)
            self.asked = []

        def predict(self, observation, deterministic=False):
            self.asked.append(observation)
            return np.full(2, len(self.asked) / 10, np.float32), None

    agent = Wrapped(env, 0)
    keep = answer(env, agent, 0.6)
    assert [observation.ndim for observation in agent.asked] == [1, 1, 1]
    assert keep == tuple(env.unwrapped.problem.project([0.3, 0.3], 0.6))


def test_a_budget_that_cannot_be_reached_is_told_before_any_is_asked():
    env = make_env()
    with pytest.raises(ValueError, match="cannot be reached"):
        ask(env, Untouched(env, 0), (0.5, 0.001))


def test_a_point_is_the_best_of_what_was_predicted_and_what_was_visited_within_its_budget():
    env = make_env()
    problem = env.unwrapped.problem
    visited = recorded(problem, (8, 2), (4, 4), (6, 5), (2, 6))
    predicted = ask(env, Blind(env, 0), BUDGETS)
    for point in sweep(env, BUDGETS, predicted, visited, counted=[]):
        allowed = [r.evaluation for r in visited if r.evaluation.macs_ratio <= point.budget]
        candidates = [*allowed, point.predicted]
        assert point.searched.similarity == max(e.similarity for e in candidates)
        assert point.reward == point.searched.similarity
        assert point.origin == ("prediction" if point.searched == point.predicted else "search")
        assert point.repaired is None
    origins = {p.origin for p in sweep(env, BUDGETS, predicted, visited, counted=[])}
    assert origins >= {"search"}
    alone = sweep(env, BUDGETS, predicted, [], counted=[])
    assert [point.origin for point in alone] == ["prediction"] * 3


def test_prediction_and_allocation_have_their_places_on_the_shortlist():
    env = make_env()
    problem = env.unwrapped.problem
    strategies = [problem.project((a, 0.5), 0.7) for a in (0, 0.2, 0.6, 0.8, 1)]
    visited = recorded(problem, *strategies, budget=0.7)
    worst = min(visited, key=lambda record: record.reward)
    better = [record for record in visited if record != worst]
    _, listed = shortlist.choose(
        env, better, OTHERS, size=3, budget=0.7, predicted=worst.evaluation
    )
    assert len(listed) == 3
    assert worst.evaluation in [one.searched for one in listed if one.origin == "prediction"]
    allocated = problem.evaluate(lfgcl_env.pruning.allocate(problem, 0.7))
    assert allocated in [one.searched for one in listed]


def test_a_search_over_a_range_writes_a_network_for_every_budget(finished):
    env, result, folder = finished
    problem = env.unwrapped.problem
    assert [point.budget for point in result.sweep] == [0.4, 0.6, 0.8]
    assert len(result.records) == 6
    assert all(0.4 <= record.budget <= 0.8 for record in result.records)
    assert not (folder / "pruned.safetensors").exists()
    for point in result.sweep:
        network = lfgcl_env.load_pruned(
            folder / f"sweep/pruned_{label(point.budget)}.safetensors", plain()
        )
        with torch.inference_mode():
            assert torch.equal(network(INPUTS), point.network(INPUTS))
        assert network.pruned_structure["settings"]["budget"] == point.budget
        assert problem.meets(point.searched.keep, point.budget)
        similarity = problem.score_network(network, point.searched.keep)
        assert similarity == pytest.approx(point.repaired.similarity)
        report = (folder / f"sweep/report_{label(point.budget)}.txt").read_text()
        assert f"-> {point.searched.macs:,}" in report
        assert f"\nhanded over: the network {DELIVERIES[point.delivery]}\n" in report
    assert result.best == result.sweep[-1].searched
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_a_front_says_what_it_is_made_of(finished):
    _, result, folder = finished
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["budget"]) for row in rows] == [0.4, 0.6, 0.8]
    for row, point in zip(rows, result.sweep, strict=True):
        assert int(row["macs"]) == point.searched.macs
        assert float(row["similarity"]) == point.searched.similarity
        assert float(row["repaired_similarity"]) == point.repaired.similarity
        assert float(row["predicted_similarity"]) == point.predicted.similarity
        assert tuple(map(int, row["keep"].split())) == point.searched.keep
        assert (row["origin"], row["delivery"]) == (point.origin, point.delivery)
        assert (folder / row["file"]).exists()
    described = json.loads((folder / "sweep.json").read_text())
    assert described["evaluations"] == 6
    assert described["settings"]["budget"] == [0.4, 0.8]


def test_answers_and_sensitivities_are_counted_besides_the_search(finished):
    _, result, _ = finished
    visited = {record.evaluation.keep for record in result.records}
    answers = {point.predicted.keep for point in result.sweep}
    halved = {(4, 6), (8, 3)}
    allocated = {one.searched.keep for point in result.sweep for one in point.shortlist}
    assert result.sweep[-1].evaluations == len(visited | answers | halved | allocated)


def test_an_interrupted_front_keeps_its_points_and_ends_as_if_it_never_stopped(
    finished, tmp_path, monkeypatch
):
    _, whole, folder = finished
    finish = shortlist.choose

    def interrupted(*arguments, budget, **options):
        if budget == 0.6:
            raise KeyboardInterrupt
        return finish(*arguments, budget=budget, **options)

    monkeypatch.setattr("lfgcl_env.search.budget_sweep.choose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search_sweep(make_env(), tmp_path)
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == [
        "pruned_0.40.safetensors", "report_0.40.txt",
    ]  # fmt: skip

    chosen = []

    def counted(*arguments, budget, **options):
        chosen.append(budget)
        return finish(*arguments, budget=budget, **options)

    monkeypatch.setattr("lfgcl_env.search.budget_sweep.choose", counted)
    resumed = search_sweep(make_env(), tmp_path, resume=True)
    assert chosen == [0.6, 0.8]
    assert files(tmp_path) == files(folder)
    assert resumed.sweep == whole.sweep
    with torch.inference_mode():
        for one, other in zip(resumed.sweep, whole.sweep, strict=True):
            assert torch.equal(one.network(INPUTS), other.network(INPUTS))

    chosen.clear()
    search_sweep(make_env(), tmp_path, resume=True)
    assert chosen == []
    (tmp_path / "sweep" / "pruned_0.60.safetensors").unlink()
    search_sweep(make_env(), tmp_path, resume=True)
    assert chosen == [0.6]
    assert files(tmp_path) == files(folder)


def test_more_evaluations_or_other_points_make_the_front_anew(tmp_path):
    search_sweep(make_env(), tmp_path, size=0)
    (tmp_path / "sweep_accuracy.csv").touch()
    longer = search_sweep(make_env(), tmp_path, evaluations=8, size=0, resume=True)
    assert json.loads((tmp_path / "sweep.json").read_text())["evaluations"] == 8
    assert longer.sweep == search_sweep(make_env(), evaluations=8, size=0).sweep
    assert not (tmp_path / "sweep_accuracy.csv").exists()
    run_search(make_env(), Seer, 8, out=tmp_path, points=2, resume=True)
    names = sorted(path.name for path in (tmp_path / "sweep").glob("*.safetensors"))
    assert names == ["pruned_0.40.safetensors", "pruned_0.80.safetensors"]


def test_an_agent_that_fails_when_asked_leaves_a_run_that_goes_on(tmp_path):
    class Failing(Seer):
        broken = True

        def predict(self, observation, deterministic=False):
            if self.broken:
                return np.full(len(observation), np.nan, np.float32), None
            return super().predict(observation, deterministic)

    with pytest.raises(AgentError, match="when it was asked for a budget") as raised:
        search_sweep(make_env(), tmp_path, agent=Failing, size=0)
    assert "finite" in str(raised.value.__cause__)
    Failing.broken = False
    resumed = search_sweep(make_env(), tmp_path, agent=Failing, size=0, resume=True)
    assert resumed.sweep == search_sweep(make_env(), size=0).sweep


@pytest.mark.parametrize("agent", ["random", "cross_entropy", DDPG], ids=["1", "2", "ddpg"])
def test_any_agent_makes_a_sweep(agent, tmp_path):
    env = make_env(network=awaken(Concatenating()))
    result = search_sweep(env, tmp_path, agent=agent, size=0)
    for point in result.sweep:
        assert env.unwrapped.problem.meets(point.searched.keep, point.budget)
    similarities = [point.searched.similarity for point in result.sweep]
    assert similarities == sorted(similarities)


def test_one_budget_has_no_sweep(tmp_path):
    result = search_sweep(make_env(budget=0.5), tmp_path, size=0)
    assert result.sweep == ()
    assert (tmp_path / "pruned.safetensors").exists()
    assert not (tmp_path / "sweep.json").exists()


def test_logs_tell_budgets_and_the_best_of_each(finished):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    env, result, folder = finished
    meets = env.unwrapped.problem.meets
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    budgets = [point.value for point in events.Scalars("search/budget")]
    np.testing.assert_allclose(budgets, [r.budget for r in result.records], rtol=1e-6)
    assert "search/best_reward" not in events.Tags()["scalars"]
    for budget in BUDGETS:
        found = [r.evaluation for r in result.records if meets(r.evaluation.keep, budget)]
        name = f"sweep/best_{label(budget)}"
        if found:
            best = max(e.similarity for e in found)
            assert events.Scalars(name)[-1].value == pytest.approx(best, rel=1e-6)
        else:
            assert name not in events.Tags()["scalars"]
