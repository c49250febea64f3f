"""Every long step of a command has a bar, and says before it begins what is loaded."""

import re
import shutil
import warnings

import pytest

from lfgcl_env.cli.main import main
from lfgcl_env.cli.messages import messages
from lfgcl_env.edge import progress


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Every step counts as a long one."""
    monkeypatch.setattr(progress, "_DELAY", 0.0)


def bars(text):
    """Return the names of bars that reached their end, in their order."""
    return list(dict.fromkeys(re.findall(r"([\w ]+): 100%", text)))


SMALL = ["--evaluations", "2", "--agent", "random", "--num-images", "4"]
REPAIRED = ["--shortlist", "2", "--repair-images", "8"]


@pytest.mark.slow
def test_every_long_step_of_a_small_run_has_a_bar(tmp_path, test_set, capsys):
    asked = ["prune", "LFGCL-ResNet20-v0", *SMALL, *REPAIRED, "--out", str(tmp_path / "run")]
    assert main(asked) == 0
    output, error = capsys.readouterr()
    first, *_ = output.splitlines()
    assert first == "loading resnet20 with embedded weights, and preparing 4 images"
    assert set(bars(error)) == {
        "search",
        "sensitivities",
        "repairing the shortlist",
        "repairing the winner",
        "testing",
    }
    assert bars(error)[-1] == "testing"
    # The whole and the pruned network on 20 images each.
    assert "40/40" in error.rpartition("testing: 100%")[2]

    assert main(["evaluate", str(tmp_path / "run"), "--data", "CIFAR10"]) == 0
    assert bars(capsys.readouterr().err) == ["testing"]


def test_int8_shows_its_calibrations_and_its_test(run, test_set, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    own_run = shutil.copytree(run, tmp_path / "run")
    asked = ["export", str(own_run), "--int8", "--data", "CIFAR10"]
    assert main(asked) == 0
    shown = bars(capsys.readouterr().err)
    assert shown == ["calibrating int8 by minmax", "calibrating int8 by percentile", "testing"]


def test_what_is_loaded_is_named_with_its_images(tmp_path, capsys):
    asked = ["prune", "LFGCL-v0", "--out", str(tmp_path), "--weights", "random", "--images", "none"]
    assert main([*asked, "--num-images", "all"]) == 2
    said = capsys.readouterr().out
    assert "loading resnet56 with random weights, and preparing all images of none" in said
    asked = ["prune", "torch.nn:Identity", "--input-shape", "3,8,8", "--out", str(tmp_path)]
    assert main([*asked, "--images", "none", "--num-images", "4"]) == 2
    said = capsys.readouterr().out
    assert "loading torch.nn:Identity with given weights, and preparing 4 images of none" in said


def test_a_warning_is_shown_once(capsys):
    with messages(verbose=False):
        for _ in range(2):
            warnings.warn("one for all", stacklevel=1)
            with warnings.catch_warnings():  # by which Python forgets what it has shown
                warnings.simplefilter("ignore")
    assert capsys.readouterr().err.count("warning: one for all") == 1
