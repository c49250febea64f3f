"""Progress is shown where it is wanted, and its failures end nothing."""

import io
import sys
import time

import pytest

from lfgcl_env.edge import progress as module
from lfgcl_env.edge.progress import is_shown, progress, show_progress


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Every step counts as a long one."""
    monkeypatch.setattr(module, "_DELAY", 0.0)


def count(**options):
    with progress("counting", "number", **options) as advance:
        for done in range(1, 4):
            advance(done, 3)


def test_nothing_is_shown_unless_somebody_asks(capsys):
    count()
    assert capsys.readouterr().err == ""
    with show_progress(True):
        count()
    assert "counting: 100%" in capsys.readouterr().err


def test_who_forbids_it_is_obeyed(capsys):
    with show_progress(False):
        count(default=True)
        assert not is_shown(default=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_stream_that_cannot_be_written_ends_nothing(stream, monkeypatch):
    if stream:
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with show_progress(True):
        count()


def test_the_time_of_the_first_part_counts(monkeypatch, capsys):
    monkeypatch.setattr(module, "_DELAY", 0.05)
    with show_progress(True), progress("waiting") as advance:
        time.sleep(0.1)
        advance(1, 1)
    assert "waiting: 100%" in capsys.readouterr().err


def test_a_step_without_parts_shows_nothing(monkeypatch, capsys):
    monkeypatch.setattr(module, "_DELAY", 0.05)
    with show_progress(True), progress("waiting"):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
