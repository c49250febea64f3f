"""Commands on networks with other inputs than images, or without classes."""

import json
import sys
from pathlib import Path

import pytest
from command_for_tests import prune, said

from lfgcl_env.cli.main import main
from lfgcl_env.pruning.delivered_network import DELIVERIES

CASES = {
    "segmentation": ("segmenting", "3,12,10", ()),
    "dictionary": ("mapping", "3,12,10", ()),
    "sequence": ("sound", "3,32", ()),
    "row": ("table", "20,", ()),
    "detector": ("Detecting", "3,8,8", ("--features", "backbone.2")),
}
CLASSES = ("sequence", "row")


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """An empty current folder with a module of networks."""
    code = "from unusual_networks import *\n\n\ndef mapping():\n    return Forked(mapped)\n"
    (tmp_path / "any_networks.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    yield
    sys.modules.pop("any_networks", None)


@pytest.mark.parametrize("case", CASES)
def test_any_network_is_inspected_pruned_and_evaluated(case, networks, capsys):
    build, shape, more = CASES[case]
    name = f"any_networks:{build}"
    assert main(["inspect", name, "--input-shape", shape]) == 0
    assert "groups" in capsys.readouterr().out
    arguments = ["--input-shape", shape, "--budget", "0.9", *more]
    assert prune("run", *arguments, target=name) == 0
    printed = capsys.readouterr().out
    evaluate = ["evaluate", "run", "--network", name]
    assert f"next: lfgcl evaluate run --network {name}\n" in printed
    assert main(evaluate) == 0
    printed = capsys.readouterr().out
    why = "returns no scores of classes, so it has no accuracy\n"
    if case in CLASSES:
        sizes = {"sequence": "(3, 32)", "row": "(20,)"}[case]
        why = f"no accuracy was measured: no known data set has inputs {sizes} of 5 classes\n"
    assert why in printed
    best = json.loads(Path("run/best.json").read_text())
    assert f"{best['macs']:,}" in printed
    assert "top-1" not in printed


@pytest.mark.parametrize("case", ["segmentation", "dictionary"])
def test_sweeps_and_shortlists_of_networks_without_classes_are_evaluated(case, networks, capsys):
    build, shape, _ = CASES[case]
    arguments = ["--input-shape", shape, "--budget", "0.7:0.9", "--points", "2"]
    shortlist = ["--shortlist", "2"]
    name = f"any_networks:{build}"
    assert prune("run", *arguments, *shortlist, target=name) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.strip()[:5] in ("0.70 ", "0.90 ")]
    points = json.loads(Path("run/sweep.json").read_text())["points"]
    assert [row[-1] for row in rows] == [point["delivery"] for point in points]
    for word in {point["delivery"] for point in points}:
        assert f"\n{word}: the network {DELIVERIES[word]}\n" in printed
    assert main(["evaluate", "run", "--network", name]) == 0
    printed = capsys.readouterr().out
    assert "budget" in printed
    assert "top-1" not in printed


def test_detectors_without_named_features_are_refused(networks, capsys):
    assert prune("run", "--input-shape", "3,8,8", target="any_networks:Detecting") == 2
    assert "give features, the names of modules to compare" in said(capsys)


UNTRACEABLE = """
from torch import nn


class Branching(nn.Sequential):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


def build():
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    return Branching(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
"""


@pytest.fixture
def untraceable(tmp_path, monkeypatch):
    """The name of a network whose flow depends on values, in an empty current folder."""
    (tmp_path / "branching.py").write_text(UNTRACEABLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    yield "branching:build"
    sys.modules.pop("branching", None)


def test_an_untraceable_network_is_delivered_as_said_before_the_search(untraceable, capsys):
    arguments = ["--input-shape", "12", "--budget", "0.7", "--shortlist", "2"]
    assert prune("run", *arguments, "-v", target=untraceable) == 0
    error = capsys.readouterr().err
    assert "torch.fx can trace" in error
    assert "refitted from module calls instead" in error
    assert error.index("module calls") < error.index("shortlist 1/2")
    best = json.loads(Path("run/best.json").read_text())
    assert len(best["shortlist"]) == 2
    assert main(["inspect", untraceable, "--weights", "random", "--input-shape", "12"]) == 0
    assert "\n  from module calls  sequential repair needs" in capsys.readouterr().out


def test_sequential_scores_of_an_untraceable_network_are_refused_before_the_search(
    untraceable, capsys
):
    arguments = ["--input-shape", "12", "--budget", "0.7", "--repair", "sequential"]
    assert prune("run", *arguments, target=untraceable) == 2
    assert "choose repair='least_squares' (--repair least_squares)" in said(capsys)
    assert not Path("run").exists()
