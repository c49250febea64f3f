"""Commands on networks with other inputs than images, or without classes."""

import json
import sys
from pathlib import Path

import pytest
from command_for_tests import prune, said

from lfgcl_env.cli.main import main

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
    capsys.readouterr()
    assert main(["evaluate", "run", "--network", name]) == 0
    printed = capsys.readouterr().out
    assert "budget" in printed
    assert "top-1" not in printed


def test_detectors_without_named_features_are_refused(networks, capsys):
    assert prune("run", "--input-shape", "3,8,8", target="any_networks:Detecting") == 2
    assert "give features, the names of modules to compare" in said(capsys)
