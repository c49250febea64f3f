"""``lfgcl evaluate``: accuracies of networks, runs and sweeps."""

import csv
import json
import shutil

import pytest
import torch
from command_for_tests import prune, said

import lfgcl_env
from lfgcl_env.cli.main import main
from lfgcl_env.images import LabelledImages, top1
from lfgcl_env.runs.run_folder import RunFolder


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the run, which may be changed."""
    return shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("accuracy.json"))


def test_evaluate_compares_pruned_network_and_baseline(run, test_set, capsys):
    for path in (run, run / "pruned.safetensors"):
        assert main(["evaluate", str(path), "--data", "CIFAR10"]) == 0
        printed = capsys.readouterr().out
        best = json.loads((run / "best.json").read_text())
        assert "20 images" in printed
        assert "40,551,040" in printed
        assert f"{best['macs']:,}" in printed


def test_a_range_of_budgets_gives_a_front_whose_accuracy_is_told(tmp_path, test_set, capsys):
    options = ["--budget", "0.3:0.5", "--points", "2"]
    assert prune(tmp_path, *options) == 0
    printed = capsys.readouterr().out
    assert "30.0% to 50.0% of the MACs may remain" in printed
    assert "3 strategies were scored on budgets from 0.3 to 0.5" in printed
    sweep = json.loads((tmp_path / "sweep.json").read_text())
    for point in sweep["points"]:
        assert f"{point['searched']['macs']:,}" in printed
    assert f"lfgcl evaluate {tmp_path} --data CIFAR10" in printed

    assert main(["evaluate", str(tmp_path), "--data", "CIFAR10"]) == 0
    printed = capsys.readouterr().out
    assert "40,551,040  100.0%" in printed
    assert [line.split()[0] for line in printed.splitlines()[2:5]] == ["baseline", "0.30", "0.50"]
    with (tmp_path / "sweep_accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == [
        "baseline", "sweep/pruned_0.30.safetensors", "sweep/pruned_0.50.safetensors",
    ]  # fmt: skip
    assert (tmp_path / "sweep_accuracy.png").read_bytes().startswith(b"\x89PNG")
    for row in rows[1:]:
        network = lfgcl_env.load_pruned(tmp_path / row["network"])
        assert float(row["top1"]) == top1(network, test_set)
        assert main(["evaluate", str(tmp_path / row["network"]), "--data", "CIFAR10"]) == 0
        assert f"{float(row['top1']):.2f} %" in capsys.readouterr().out

    assert main(["prune", "--resume", "--out", str(tmp_path), "--points", "3"]) == 0
    assert (tmp_path / "sweep" / "pruned_0.40.safetensors").exists()


@pytest.mark.slow
@pytest.mark.data("CIFAR10", "resnet20")
@pytest.mark.slow
def test_evaluate_on_cifar10(tmp_path, capsys):
    search = ["--agent", "random", "--evaluations", "2", "--num-images", "32"]
    search += ["--shortlist", "2", "--repair-images", "32"]
    assert main(["prune", "resnet20", *search, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "91.73 %" in told  # where the images are at hand, the search itself ends with it
    assert main(["evaluate", str(tmp_path), "--data", "CIFAR10"]) == 0
    assert capsys.readouterr().out in told


def test_evaluate_says_what_is_missing(run, tmp_path, test_set, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 2
    assert "has 10 classes: give --data CIFAR10 to measure its accuracy" in said(capsys)
    assert main(["evaluate", str(tmp_path), "--data", "CIFAR10"]) == 2
    assert "no pruned network" in said(capsys)
    (tmp_path / "arguments.json").write_bytes((run / "arguments.json").read_bytes())
    assert main(["evaluate", str(tmp_path), "--data", "CIFAR10"]) == 2
    assert f"`lfgcl prune --resume --out {tmp_path}` goes on" in said(capsys)
    (tmp_path / "arguments.json").write_text("{")
    assert main(["prune", "--resume", "--out", str(tmp_path)]) == 2
    assert "is damaged" in said(capsys)
    short = tmp_path / "short.safetensors"
    short.write_bytes((run / "pruned.safetensors").read_bytes()[:1000])
    assert main(["evaluate", str(short), "--data", "CIFAR10"]) == 2
    assert "cut short" in said(capsys)


def test_evaluate_refuses_images_of_another_kind(run, monkeypatch, capsys):
    capsys.readouterr()
    labelled = LabelledImages(torch.zeros(2, 3, 32, 32), torch.tensor([0, 99]), "CIFAR100 test")
    monkeypatch.setattr("lfgcl_env.cli.evaluate.load_test_set", lambda *_, **__: labelled)
    assert main(["evaluate", str(run), "--data", "CIFAR100"]) == 2
    assert "100 classes" in said(capsys)


def test_an_accuracy_that_cannot_be_kept_is_told_all_the_same(own_run, test_set, capsys):
    with RunFolder(own_run).lock():
        assert main(["evaluate", str(own_run), "--data", "CIFAR10", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["networks"][1]["top1"] >= 0
    assert "the accuracy is not kept in the run folder" in output.err
    assert not (own_run / "accuracy.json").exists()
