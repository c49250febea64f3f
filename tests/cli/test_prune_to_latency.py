"""``lfgcl prune --budget-metric latency``: a run keeps the table that its strategies met."""

import json
from functools import partial

import pytest
from command_for_tests import prune, said

from lfgcl_env.cli.main import main
from lfgcl_env.latency.table import measure_table, read_table
from lfgcl_env.pruning.budget import latency_metric


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Measure as few rounds as there may be, and keep tables here."""
    monkeypatch.setenv("LFGCL_LATENCY", str(tmp_path / "cache"))
    monkeypatch.setattr(latency_metric, "measure_table", partial(measure_table, seconds=0.0))


def test_a_run_goes_on_with_its_own_table_on_another_machine(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert prune(out, "--budget-metric", "latency", "--budget", "0.95", "--round-to", "8") == 0
    assert "95.0% of the latency may remain" in capsys.readouterr().out
    table = read_table(out / "latency.json")
    asked = json.loads((out / "arguments.json").read_text())["arguments"]
    assert asked["latency_table"] == table.checksum
    best = json.loads((out / "best.json").read_text())
    assert best["settings"]["latency_table"] == table.checksum
    assert table.belongs_to["runtime"] == "pytorch"
    assert min(table.networks) > 0

    monkeypatch.setenv("LFGCL_LATENCY", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(latency_metric, "measure_table", None)  # nothing is measured any more
    assert main(["prune", "--resume", "--out", str(out), "--evaluations", "4"]) == 0
    assert json.loads((out / "best.json").read_text())["evaluations"] == 4


def test_a_missing_table_is_refused(tmp_path, capsys):
    options = ["--budget-metric", "latency", "--latency-table", "0123456789abcdef"]
    assert prune(tmp_path / "run", *options) == 2
    assert "no latency table '0123456789abcdef'" in said(capsys)
    assert not (tmp_path / "run").exists()
