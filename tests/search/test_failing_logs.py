"""Logs that cannot be written never end a search."""

import io
import sys
import threading

import gymnasium as gym
import pytest
from networks_for_tests import Concatenating, awaken, images

import lfgcl_env  # noqa: F401 - registers the environments
from lfgcl_env.runs.log_writers import TensorBoard
from lfgcl_env.search.run_search import run_search


@pytest.fixture(scope="module")
def env():
    return gym.make("LFGCL-v0", network=awaken(Concatenating()), images=images(8), num_images=None)


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


class FullLater(Full):
    """A stream whose disk is full after the first writes."""

    left = 2

    def write(self, text):
        self.left -= 1
        return len(text) if self.left > 0 else super().write(text)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Full, FullLater, closed, lambda: None])
def test_a_progress_bar_that_cannot_be_shown_does_not_end_the_search(
    env, stream, monkeypatch, caplog
):
    monkeypatch.setattr(sys, "stderr", stream())
    result = run_search(env, "random", 12, progress=True)
    monkeypatch.undo()
    assert len(result.records) == 12
    assert caplog.text.count("the search goes on without ProgressBar") == int(stream() is not None)


def test_a_progress_bar_shows_the_best_reward(env, capsys):
    result = run_search(env, "random", 5, progress=True)
    assert f"best reward {result.reward:.4f}" in capsys.readouterr().err


def test_a_full_disk_ends_tensorboard_with_one_warning_and_no_traceback(
    env, tmp_path, monkeypatch, caplog, capfd
):
    before = threading.active_count()
    add = TensorBoard._add
    written = []

    def full_later(self, event):
        written.append(event)
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        add(self, event)

    monkeypatch.setattr(TensorBoard, "_add", full_later)
    result = run_search(env, "random", 8, out=tmp_path)
    assert len(result.records) == 8
    assert (tmp_path / "best.json").exists()
    assert caplog.text.count("the search goes on without TensorBoard") == 1
    assert threading.active_count() == before  # nothing that could print from a thread of its own
    assert capfd.readouterr() == ("", "")


def test_a_linked_tensorboard_folder_is_left_alone(env, tmp_path, caplog):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "events.out.tfevents.1").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "tensorboard").symlink_to(mine)
    with pytest.raises(OSError, match="is a link"):
        TensorBoard(folder / "tensorboard", None)
    assert (mine / "events.out.tfevents.1").read_text() == "precious"
