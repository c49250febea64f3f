"""A search keeps the best, loses nothing, and goes on as if it had never stopped."""

import json
import logging
import struct
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from lfgcl_env.agents.random import RandomAgent

import lfgcl_env
from lfgcl_env import zoo
from lfgcl_env.pruning import Evaluation
from lfgcl_env.runs.record import Record
from lfgcl_env.runs.run_folder import RunFolder
from lfgcl_env.search.protocol import AgentError, find_agent
from lfgcl_env.search.result import best_of
from lfgcl_env.search.run_search import run_search

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
DDPG = partial(zoo.make, "ddpg", learning_starts=5, gradient_steps=2)
PPO = partial(zoo.make, "ppo", n_steps=4, batch_size=4, n_epochs=2)
AGENTS = pytest.mark.parametrize("agent", ["random", DDPG, PPO], ids=["random", "ddpg", "ppo"])


def make_env(**arguments):
    options = {"weights": "random", "images": IMAGES, "num_images": 4} | arguments
    return gym.make("LFGCL-ResNet20-v0", **options)


SHARED = make_env()


def clean_env():
    """An environment that nothing was scored in; made once, for speed."""
    SHARED.unwrapped.forget()
    return SHARED


def found(result):
    return [record.evaluation for record in result.records]


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


def stopping_after(count, error=KeyboardInterrupt):
    """An environment in which the step that visits new strategy number ``count`` + 1 raises."""

    visited = set()

    class Stopping(gym.Wrapper):
        def step(self, action):
            result = self.env.step(action)
            visited.add(tuple(result[4]["keep"].tolist()))
            if len(visited) > count:
                raise error("stopped")
            return result

    return Stopping(clean_env())


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


def test_tensorboard_shows_a_resumed_run_whole(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(KeyboardInterrupt):
        run_search(stopping_after(3), "random", 6, out=tmp_path)
    result = run_search(clean_env(), "random", 6, out=tmp_path, resume=True)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = events.Scalars("search/similarity")
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]
    similarities = [evaluation.similarity for evaluation in found(result)]
    np.testing.assert_allclose([point.value for point in points], similarities, rtol=1e-6)
    best = [point.value for point in events.Scalars("search/best_reward")]
    np.testing.assert_allclose(best, np.maximum.accumulate(similarities), rtol=1e-6)
    assert sum(tag.startswith("keep_ratio/") for tag in events.Tags()["scalars"]) == 9


class Losing(RandomAgent):
    """Has losses from its second step on."""

    def learn(self, total_timesteps, callback):
        steps = 0

        def told(own, everyone):
            nonlocal steps
            steps += 1
            if steps > 1:
                self.losses = {"critic": 1 / steps, "note": "no number"}
            return callback(own, everyone)

        return super().learn(total_timesteps, told)


def logged(folder):
    """Every scalar in a run's event file: steps and values by name."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        name: {point.step: point.value for point in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def test_losses_of_an_agent_are_logged_at_its_evaluations_and_again_when_resumed(tmp_path):
    run_search(clean_env(), Losing, 5, out=tmp_path / "whole")
    whole = logged(tmp_path / "whole")
    assert whole["losses/critic"] == pytest.approx({2: 1 / 2, 3: 1 / 3, 4: 1 / 4, 5: 1 / 5})
    assert "losses/note" not in whole
    with pytest.raises(KeyboardInterrupt):
        run_search(stopping_after(3), Losing, 5, out=tmp_path / "run")
    assert max(logged(tmp_path / "run")["losses/critic"]) == 3
    run_search(clean_env(), Losing, 5, out=tmp_path / "run", resume=True)
    assert logged(tmp_path / "run")["losses/critic"] == whole["losses/critic"]


@pytest.mark.parametrize("algorithm", ["ddpg", "td3", "ppo"])
def test_losses_of_stable_baselines3_are_logged_once_it_learns(algorithm, tmp_path):
    made = []

    def make(env, seed):
        few = {"n_steps": 4, "batch_size": 4} if algorithm == "ppo" else {"learning_starts": 5}
        made.append(zoo.make(algorithm, env, seed, **few))
        return made[0]

    run_search(clean_env(), make, 9, out=tmp_path)
    scalars = logged(tmp_path)
    name = "losses/loss" if algorithm == "ppo" else "losses/critic_loss"
    first = 5 if algorithm == "ppo" else 7  # the step after that which was learnt from first
    assert list(scalars[name]) == list(range(first, 10))
    if algorithm != "ppo":  # which learns once more after the last callback
        last = made[0].logger.name_to_value["train/critic_loss"]
        assert scalars[name][9] == pytest.approx(last)
        assert len(set(scalars[name].values())) > 1


def wandb_records(path):
    """The messages in a file of wandb: LevelDB's log format, in which a message may be in parts."""
    content, place, message = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768  # in this block, in which no header is split
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        message += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield message
            message = b""


def test_wandb_has_all_values_by_evaluation_count(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    result = run_search(clean_env(), Losing, 4, out=tmp_path / "r20", wandb=True)
    (path,) = (tmp_path / "r20").rglob("*.wandb")
    rows, names = {}, []
    for message in wandb_records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(message)
        names.append(record.run.display_name)
        if record.HasField("history"):
            row = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            rows[row["_step"]] = row
    assert "r20" in names
    assert sorted(rows) == [1, 2, 3, 4]
    for step, record in enumerate(result.records, start=1):
        assert rows[step]["search/similarity"] == pytest.approx(record.evaluation.similarity)
        assert sum(name.startswith("keep_ratio/") for name in rows[step]) == 9
    assert [rows[step].get("losses/critic") for step in (1, 4)] == [None, 1 / 4]
    assert rows[4]["search/best_reward"] == pytest.approx(result.reward)


def test_wandb_that_cannot_start_says_what_to_do(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def refuse(**_):
        raise wandb.Error("no account")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match="WANDB_MODE=offline"):
        run_search(clean_env(), "random", 3, out=tmp_path, wandb=True)
    assert len(run_search(clean_env(), "random", 3, out=tmp_path).records) == 3


@pytest.mark.parametrize("package", ["wandb", "stable_baselines3"])
def test_a_missing_package_names_its_extra(package, tmp_path, monkeypatch):
    for module in ("runs.logs", "zoo.sb3"):
        monkeypatch.setattr(f"lfgcl_env.{module}.find_spec", lambda name: None)
    extra = {"wandb": "wandb", "stable_baselines3": "sb3"}[package]
    agent = "random" if package == "wandb" else "ddpg"
    with pytest.raises(ImportError, match=rf"lfgcl-env\[{extra}\]"):
        run_search(clean_env(), agent, 3, out=tmp_path / "run", wandb=package == "wandb")
    assert not (tmp_path / "run").exists()


def test_without_matplotlib_and_tensorboard_the_rest_is_written(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    for module in ("runs.logs", "runs.report"):
        monkeypatch.setattr(f"lfgcl_env.{module}.find_spec", lambda name: None)
    run_search(clean_env(), "random", 3, out=tmp_path)
    assert (tmp_path / "pruned.safetensors").exists()
    assert not (tmp_path / "report.png").exists()
    assert "pip install tensorboard" in caplog.text
    assert "lfgcl-env[plots]" in caplog.text


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
