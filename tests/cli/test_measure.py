"""``lfgcl measure``: times, sizes and memory beside the baseline's, kept in the run folder."""

import json
import shutil
from dataclasses import replace

import pytest
from command_for_tests import prune, said

from lfgcl_env.cli.main import main
from lfgcl_env.latency.runtimes import RUNTIMES
from lfgcl_env.runs.best import read_best

FEW = ["--runtime", "pytorch", "--batch", "2", "--seconds", "1"]


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the run, which may be changed."""
    return shutil.copytree(run, tmp_path / "run")


def test_a_run_keeps_what_was_measured(own_run, capsys):
    before = read_best(own_run)
    page = (own_run / "report.txt").read_text()
    assert main(["measure", str(own_run), *FEW]) == 0
    printed = capsys.readouterr().out
    assert "40,551,040" in printed
    assert f"{before.macs:,}" in printed
    measured = json.loads((own_run / "measured.json").read_text())
    assert [one["network"] for one in measured["measurements"]] == ["baseline", "pruned"]
    assert {(one["runtime"], one["batch"]) for one in measured["measurements"]} == {("pytorch", 2)}
    after = read_best(own_run)
    del measured["checksum"]
    assert after.measured == measured
    assert after.model_dump(exclude={"checksum", "measured"}) == before.model_dump(
        exclude={"checksum", "measured"}
    )
    report = (own_run / "report.txt").read_text()
    assert report.startswith(page)
    assert printed in report.replace("measured by `lfgcl measure`: ", "")


def test_counts_that_kernels_do_not_like_are_told_with_the_way_out(own_run, tmp_path, capsys):
    assert main(["measure", str(own_run), *FEW]) == 0
    assert "no multiples of 8 any more, such as" in (told := capsys.readouterr().err)
    assert "--round-to 8" in told
    assert prune(tmp_path / "even", "--round-to", "8") == 0
    capsys.readouterr()
    assert main(["measure", str(tmp_path / "even"), *FEW]) == 0
    assert "multiples" not in capsys.readouterr().err


def test_a_second_measurement_takes_the_place_of_the_first(own_run, capsys):
    for threads in ("1", "2"):
        assert main(["measure", str(own_run), *FEW, "--threads", threads]) == 0
    report = (own_run / "report.txt").read_text()
    assert report.count("measured by `lfgcl measure`") == 1
    assert "2 threads" in report
    assert read_best(own_run).measured["measurements"][0]["threads"] == 2


def test_a_run_that_goes_on_keeps_it_for_the_same_network_alone(own_run, capsys):
    assert main(["measure", str(own_run), *FEW]) == 0
    measured = read_best(own_run).measured
    assert main(["prune", "--resume", "--out", str(own_run)]) == 0
    assert read_best(own_run).measured == measured
    assert "measured by `lfgcl measure`" in (own_run / "report.txt").read_text()

    path = own_run / "measured.json"
    path.write_text(path.read_text().replace('"macs"', '"marcs"', 1))
    assert main(["prune", "--resume", "--out", str(own_run)]) == 0
    assert read_best(own_run).measured is None
    assert "measured by" not in (own_run / "report.txt").read_text()


def test_a_file_is_measured_and_nothing_is_written(own_run, capsys):
    network = own_run / "pruned.safetensors"
    there = sorted(own_run.iterdir())
    assert main(["measure", str(network), *FEW, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    times = [one["time"] for one in measured["measurements"]]
    assert all(0 < time["low"] <= time["median"] <= time["high"] for time in times)
    assert measured["networks"]["baseline"]["macs"] == 40_551_040
    assert sorted(own_run.iterdir()) == there


def test_all_networks_of_a_sweep_are_measured_beside_each_other(tmp_path, capsys):
    assert prune(tmp_path, "--budget", "0.3:0.5", "--points", "2") == 0
    assert main(["measure", str(tmp_path), *FEW]) == 0
    assert "baseline" in capsys.readouterr().out
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert list(measured["networks"]) == ["baseline", "0.30 pruned", "0.50 pruned"]


def test_an_unknown_runtime_is_refused(run, capsys):
    assert main(["measure", str(run), "--runtime", "tflite"]) == 2
    assert "onnxruntime" in said(capsys)


@pytest.fixture
def one_fails(monkeypatch):
    """Let ONNX Runtime fail, whether it is installed or not."""

    def fail(*_):
        raise ValueError("it cannot be exported")

    failing = replace(RUNTIMES["onnxruntime"], missing=lambda: None, prepare=fail)
    monkeypatch.setitem(RUNTIMES, "onnxruntime", failing)


def test_a_runtime_that_fails_is_left_out_unless_it_was_asked_for(own_run, one_fails, capsys):
    assert main(["measure", str(own_run), "--batch", "2", "--seconds", "1"]) == 0
    assert "onnxruntime is left out: " in capsys.readouterr().err
    measured = json.loads((own_run / "measured.json").read_text())
    assert "pytorch" in {one["runtime"] for one in measured["measurements"]}
    assert main(["measure", str(own_run), *FEW, "--runtime", "onnxruntime"]) == 2
    assert "it cannot be exported" in said(capsys)
