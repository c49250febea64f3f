"""What TensorBoard and wandb record of a search, and what is written without them."""

import json
import logging
import struct

import numpy as np
import pytest
from lfgcl_env.agents.random import RandomAgent
from resnet_searches import clean_env, found, stopping_after

from lfgcl_env import zoo
from lfgcl_env.search.run_search import run_search


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
