"""A search keeps the best, loses nothing, and goes on as if it had never stopped."""

import json
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from resnet_searches import IMAGES, clean_env, found, make_env, stopping_after

import lfgcl_env
from lfgcl_env import zoo
from lfgcl_env.pruning import Evaluation
from lfgcl_env.runs.record import Record
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.protocol import AgentError, find_agent
from lfgcl_env.search.result import best_of
from lfgcl_env.search.run_search import run_search

DDPG = partial(zoo.make, "ddpg", learning_starts=5, gradient_steps=2)
PPO = partial(zoo.make, "ppo", n_steps=4, batch_size=4, n_epochs=2)
AGENTS = pytest.mark.parametrize("agent", ["random", DDPG, PPO], ids=["random", "ddpg", "ppo"])


class Scripted:
    """Asks for the same prune ratios everywhere, one number of the script after the other."""

    def __init__(self, env, script):
        self.env, self.script = env, script

    def learn(self, total_timesteps, callback):
        for value in self.script:
            self.env.reset()
            action = np.full(self.env.action_space.shape, 0.5, np.float32)
            action[0] = value
            self.env.step(action)
            if not callback({}, {}):
                return

    def predict(self, observation):
        return np.full(self.env.action_space.shape, 0.5, np.float32), None


def scripted(script):
    return lambda env, seed: Scripted(env, script)


@AGENTS
def test_the_same_seed_finds_the_same(agent):
    first, second = (run_search(e, agent, 9, agent_seed=3) for e in (clean_env(), make_env()))
    assert found(first) == found(second)
    assert first.best == second.best == best_of(first.records).evaluation
    assert found(run_search(clean_env(), agent, 9, agent_seed=4)) != found(first)


@AGENTS
def test_an_interrupted_search_goes_on_as_if_it_never_stopped(agent, tmp_path):
    whole = run_search(clean_env(), agent, 12, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_search(stopping_after(7), agent, 12, out=tmp_path / "run")
    assert len(RunFolder(tmp_path / "run").records()) == 7

    resumed = run_search(clean_env(), agent, 12, out=tmp_path / "run", resume=True)
    assert found(resumed) == found(whole)
    assert resumed.steps == whole.steps
    for name in ("best.json", "report.txt", "pruned.safetensors"):
        one, other = ((tmp_path / run / name).read_bytes() for run in ("whole", "run"))
        assert one == other


def test_what_was_recorded_is_looked_up_by_a_resumed_search(tmp_path, monkeypatch):
    run_search(clean_env(), "random", 4, out=tmp_path)
    env = clean_env()
    known = []
    evaluate = env.unwrapped.problem.evaluate

    def watched(strategy):
        known.append(env.unwrapped.problem.known(strategy))
        return evaluate(strategy)

    monkeypatch.setattr(env.unwrapped.problem, "evaluate", watched)
    run_search(env, "random", 6, out=tmp_path, resume=True)
    assert known.count(False) == 2


def test_a_line_cut_short_is_dropped_and_scored_again(tmp_path):
    whole = run_search(clean_env(), "random", 6, out=tmp_path)
    lines = tmp_path / "evaluations.jsonl"
    text = lines.read_text()
    for cut in (1, 30):
        lines.write_text(text[:-cut])
        assert found(run_search(clean_env(), "random", 6, out=tmp_path, resume=True)) == found(
            whole
        )
        records = [Record.from_json(line) for line in lines.read_text().splitlines()]
        assert [record.evaluation for record in records] == found(whole)


def test_a_damaged_line_is_named(tmp_path):
    run_search(clean_env(), "random", 4, out=tmp_path)
    lines = tmp_path / "evaluations.jsonl"
    text = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join([text[0], "{}\n", *text[2:]]))
    with pytest.raises(ValueError, match="line 2"):
        run_search(clean_env(), "random", 4, out=tmp_path, resume=True)
    lines.write_text("".join([text[0], *text[2:]]))
    with pytest.raises(ValueError, match=r"line 2.*out of order"):
        run_search(clean_env(), "random", 4, out=tmp_path, resume=True)


def test_a_finished_search_can_be_given_more_evaluations_but_not_fewer(tmp_path):
    run_search(clean_env(), "random", 4, out=tmp_path)
    longer = run_search(clean_env(), "random", 7, out=tmp_path, resume=True)
    assert found(longer) == found(run_search(clean_env(), "random", 7))
    with pytest.raises(ValueError, match="scored 7 strategies already"):
        run_search(clean_env(), "random", 5, out=tmp_path, resume=True)


def test_resuming_with_other_arguments_names_them(tmp_path):
    run_search(clean_env(), "random", 3, out=tmp_path)
    with pytest.raises(ValueError, match=r"agent_seed=0 .* 1"):
        run_search(clean_env(), "random", 3, agent_seed=1, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="agent='random'"):
        run_search(clean_env(), "ddpg", 3, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"budget=0\.5 .* 0\.4"):
        run_search(make_env(budget=0.4), "random", 3, out=tmp_path, resume=True)


def test_resuming_with_other_images_is_refused(tmp_path):
    run_search(clean_env(), "random", 3, out=tmp_path)
    with pytest.raises(ValueError, match="images, weights or versions"):
        run_search(make_env(images=IMAGES.flip(3) * 2), "random", 3, out=tmp_path, resume=True)


def test_an_agent_that_takes_another_path_keeps_what_was_scored(tmp_path, caplog):
    first = run_search(clean_env(), scripted([0.1, 0.3, 0.5]), 3, out=tmp_path)
    again = run_search(clean_env(), scripted([0.1, 0.5, 0.9, 0.7]), 4, out=tmp_path, resume=True)
    assert "from evaluation 2 on" in caplog.text
    assert found(again)[:3] == found(first)
    assert len(found(again)) == 4


def test_an_agent_that_ends_early_on_resuming_keeps_what_was_scored(tmp_path):
    first = run_search(clean_env(), scripted([0.1, 0.3, 0.5]), 3, out=tmp_path)
    again = run_search(clean_env(), scripted([0.1]), 3, out=tmp_path, resume=True)
    assert found(again) == found(first)


def test_strategies_count_once_and_repeating_ends_the_search():
    result = run_search(clean_env(), scripted([0.1, 0.1, 0.4, 0.1] * 10), 3)
    assert len(result.records) == 2
    assert result.steps == 30
    assert "repeats itself" in result.ended
    assert "ended it after 2" in run_search(clean_env(), scripted([0.1, 0.4]), 3).ended


def test_searches_on_one_environment_count_each_for_itself():
    env = clean_env()
    first = run_search(env, "random", 5)
    assert found(run_search(env, "random", 5)) == found(first)


def test_the_best_has_the_highest_reward_and_of_equal_ones_fewer_macs():
    plain = Evaluation((1,), 0.9, 100, 10, 0.5, 0.5)
    worse = replace(plain, similarity=0.5)
    ones = [(plain, 0.1), (worse, 0.2), (replace(worse, macs=90), 0.2)]
    records = [Record(i, 0.0, reward, 0.5, e) for i, (e, reward) in enumerate(ones, start=1)]
    assert best_of(records) is records[2]


def test_records_survive_writing_exactly():
    record = Record(3, 1.25, 0.1 + 0.2, 1 / 3, Evaluation((3, 4), 1 / 3, 7, 8, 2 / 3, 0.1))
    assert Record.from_json(record.to_json()) == record


def test_an_agent_that_raises_leaves_a_run_that_goes_on(tmp_path):
    env = stopping_after(4, error=ZeroDivisionError)
    with pytest.raises(AgentError, match="ZeroDivisionError after 4 evaluations") as raised:
        run_search(env, "random", 6, out=tmp_path)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    resumed = run_search(clean_env(), "random", 6, out=tmp_path, resume=True)
    assert found(resumed) == found(run_search(clean_env(), "random", 6))


def test_an_agent_that_asks_for_nan_is_told():
    with pytest.raises(AgentError) as raised:
        run_search(clean_env(), scripted([0.1, float("nan")]), 3)
    assert "finite" in str(raised.value.__cause__)
    with pytest.raises(AgentError, match="without scoring"):
        run_search(clean_env(), scripted([]), 3)


def test_an_agent_that_asks_for_nan_leaves_a_run_that_goes_on(tmp_path):
    with pytest.raises(AgentError, match="ValueError after 2 evaluations, which are kept in"):
        run_search(clean_env(), scripted([0.1, 0.5, float("nan")]), 3, out=tmp_path)
    assert len(RunFolder(tmp_path).records()) == 2
    mended = run_search(clean_env(), scripted([0.1, 0.5, 0.9]), 3, out=tmp_path, resume=True)
    assert found(mended) == found(run_search(clean_env(), scripted([0.1, 0.5, 0.9]), 3))


def test_an_interrupted_shortlist_is_repaired_anew(tmp_path, monkeypatch):
    options = {"shortlist": 2, "repair_images": IMAGES.flip(3)}
    whole = run_search(clean_env(), "random", 4, out=tmp_path / "whole", **options)

    def stop(*_):
        raise KeyboardInterrupt

    env = clean_env()
    with monkeypatch.context() as patched:
        patched.setattr(env.unwrapped.problem, "repair_all", stop)
        with pytest.raises(KeyboardInterrupt):
            run_search(env, "random", 4, out=tmp_path / "run", **options)
    assert not (tmp_path / "run" / "best.json").exists()
    resumed = run_search(clean_env(), "random", 4, out=tmp_path / "run", resume=True, **options)
    assert resumed.shortlist == whole.shortlist
    for name in ("best.json", "report.txt", "pruned.safetensors"):
        one, other = ((tmp_path / run / name).read_bytes() for run in ("whole", "run"))
        assert one == other


def test_a_run_that_goes_on_may_be_delivered_otherwise(tmp_path):
    run_search(clean_env(), "random", 4, out=tmp_path, shortlist=0)
    assert json.loads((tmp_path / "best.json").read_text())["shortlist"] == []
    options = {"shortlist": 2, "repair_images": IMAGES.flip(3)}
    resumed = run_search(clean_env(), "random", 4, out=tmp_path, resume=True, **options)
    whole = run_search(clean_env(), "random", 4, **options)
    assert resumed.shortlist == whole.shortlist
    assert found(resumed) == found(whole)
    assert len(json.loads((tmp_path / "best.json").read_text())["shortlist"]) == 2


def test_a_run_folder_tells_everything(tmp_path):
    env = clean_env()
    problem = env.unwrapped.problem
    result = run_search(env, DDPG, 8, out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "agent.zip", "arguments.json", "best.json", "evaluations.jsonl", "problem.json",
        "pruned.safetensors",
        "report.png", "report.txt", "tensorboard",
    ]  # fmt: skip
    best = json.loads((tmp_path / "best.json").read_text())
    assert tuple(best["keep"]) == result.best.keep
    assert best["similarity"] == best["reward"] == result.reward == result.best.similarity
    assert [group["keep"] for group in best["groups"]] == best["keep"]
    arguments = json.loads((tmp_path / "arguments.json").read_text())
    assert arguments["arguments"]["evaluations"] == 8
    assert arguments["versions"]["torch"] == torch.__version__.split("+")[0]

    pruned = lfgcl_env.load_pruned(tmp_path / "pruned.safetensors")
    compressed = problem.compress(result.best.keep)
    with torch.inference_mode():
        assert torch.equal(pruned(IMAGES), compressed(IMAGES))
    assert sum(p.numel() for p in pruned.parameters()) == result.best.params

    report = (tmp_path / "report.txt").read_text()
    assert f"{problem.baseline_cost.macs:,} -> {result.best.macs:,}" in report
    assert f"{problem.baseline_cost.params:,} -> {result.best.params:,}" in report
    assert all(layer.name in report for layer in problem.layers)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    run_search(clean_env(), "random", 2, out=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match="holds a run already"):
        run_search(clean_env(), "random", 2, out=tmp_path)
    assert before == {path: path.read_bytes() for path in before}


def test_an_unwritable_folder_is_told_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    with clean_env().unwrapped.problem.count() as counted:
        with pytest.raises(OSError, match="cannot be written"):
            run_search(clean_env(), "random", 2, out=tmp_path / "file" / "run")
    assert len(counted) == 0


def test_a_file_that_fails_to_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(text, partial):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "lfgcl_env.runs.report.draw_layers", lambda table, path, title: full(table, path)
    )
    with pytest.raises(OSError, match="No space left"):
        run_search(clean_env(), "random", 2, out=tmp_path / "run")
    assert not (tmp_path / "run" / "best.json").exists()
    assert not list((tmp_path / "run").glob("*.partial"))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="from 1 to 1,000,000,000, got 0"):
        run_search(clean_env(), "random", 0)
    with pytest.raises(ValueError, match="needs out"):
        run_search(clean_env(), "random", 2, resume=True)
    with pytest.raises(ValueError, match="not an environment of lfgcl_env"):
        run_search(gym.make("CartPole-v1"), "random", 2)
    with pytest.raises(ValueError, match="Did you mean 'random'"):
        find_agent("rondom")


def test_an_invented_reward_does_not_lead_a_resumed_run(tmp_path):
    run_search(clean_env(), "random", 4, out=tmp_path)
    path = tmp_path / "evaluations.jsonl"
    records = [Record.from_json(line) for line in path.read_text().splitlines()]
    records[2] = replace(records[2], reward=0.999)
    path.write_text("".join(f"{record.to_json()}\n" for record in records))
    with pytest.raises(ValueError, match=r"strategy 3 had reward 0\.999000 and has"):
        run_search(clean_env(), "random", 4, out=tmp_path, resume=True)
    assert [r.reward for r in RunFolder(tmp_path).records()] == [r.reward for r in records]


@pytest.mark.parametrize(
    "arguments",
    [
        {"agent_seed": "x"},
        {"agent_seed": -1},
        {"agent_seed": 2**40},
        {"evaluations": 10**30},
        {"evaluations": 2.5},
        {"shortlist": "x"},
        {"shortlist": 2.5},
        {"points": 10**7},
        {"repair_images": 5},
        {"init_from": 3},
        {"agent": 3},
    ],
    ids=str,
)
def test_arguments_of_a_wrong_kind_are_refused_in_one_sentence(arguments):
    with pytest.raises(ValueError, match="must be"):
        run_search(clean_env(), **{"agent": "random", "evaluations": 2} | arguments)
