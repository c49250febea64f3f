"""``lfgcl prune --budget-metric latency``: a run keeps the table that its strategies met."""

import json
import re

import pytest
from command_for_tests import prune, said
from latency_for_tests import measure_exactly

from lfgcl_env.cli.main import main
from lfgcl_env.latency.table import read_table
from lfgcl_env.page import write_page
from lfgcl_env.pruning.budget import latency_metric


@pytest.fixture(autouse=True)
def exact(monkeypatch, tmp_path):
    """Measure without noise, which may put a budget out of reach, and keep tables here."""
    monkeypatch.setenv("LFGCL_LATENCY", str(tmp_path / "cache"))
    measure_exactly(monkeypatch)


def test_a_run_goes_on_with_its_own_table_on_another_machine(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert prune(out, "--budget-metric", "latency", "--budget", "0.95", "--round-to", "8") == 0
    printed = capsys.readouterr().out
    assert "95.0% of the latency may remain\n" in printed
    (share,) = re.findall(r"time +[\d.e+]+ ms -> +[\d.e+]+ ms \(([\d.]+)%\), predicted", printed)
    assert float(share) <= 95
    whole, pruned, left = re.findall(
        r"time +([\d.e+]+) ms -> +([\d.e+]+) ms \(([\d.]+)%\), measured whole", printed
    )[0]
    headline = (out / "report.txt").read_text().splitlines()[0]
    assert re.search(rf", predicted latency [\d.e+]+ ms \({share}%\)", headline)
    assert headline.endswith(f", measured {pruned} ms ({left}%)")
    table = read_table(out / "latency.json")
    asked = json.loads((out / "arguments.json").read_text())["arguments"]
    assert asked["latency_table"] == table.checksum
    best = json.loads((out / "best.json").read_text())
    assert best["settings"]["latency_table"] == table.checksum
    before, after = best["predicted_ms"]
    assert f"{100 * after / before:.1f}" == share
    measured = best["measured_ms"]
    assert [f"{one['median']:.3g}" for one in measured] == [whole, pruned]
    assert all(0 < one["low"] <= one["median"] <= one["high"] for one in measured)
    assert float(pruned) / float(whole) == pytest.approx(float(left) / 100, rel=0.02)
    page = write_page(out).read_text()
    assert f"{whole} ms → {pruned} ms, measured whole" in page
    assert table.belongs_to["runtime"] == "pytorch"
    assert min(table.networks) > 0

    monkeypatch.setenv("LFGCL_LATENCY", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(latency_metric, "measure_table", None)  # nothing is measured any more
    assert main(["prune", "--resume", "--out", str(out), "--evaluations", "4"]) == 0
    assert json.loads((out / "best.json").read_text())["evaluations"] == 4


def test_multiples_are_suggested_where_counts_are_any(tmp_path, capsys):
    assert prune(tmp_path / "run", "--budget-metric", "latency", "--budget", "0.95") == 0
    hint = "may remain; counts of channels that are multiples of 8 (--round-to 8) are mostly faster"
    assert hint in capsys.readouterr().out


def test_a_missing_table_is_refused(tmp_path, capsys):
    options = ["--budget-metric", "latency", "--latency-table", "0123456789abcdef"]
    assert prune(tmp_path / "run", *options) == 2
    assert "no latency table '0123456789abcdef'" in said(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["new", "resumed"])
def test_another_batch_than_the_table_s_is_refused(where, tmp_path, capsys):
    out = tmp_path / "run"
    assert prune(out, "--budget-metric", "latency", "--budget", "0.95", "--round-to", "8") == 0
    capsys.readouterr()
    other = ["--latency-batch", "2"]
    if where == "resumed":
        assert main(["prune", "--resume", "--out", str(out), *other]) == 2
        assert "latency_batch" in said(capsys)
        return
    options = ["--budget-metric", "latency", "--budget", "0.95", "--round-to", "8", *other]
    assert prune(tmp_path / "new", *options, "--latency-table", str(out / "latency.json")) == 2
    assert "is of batch 1, and latency_batch is 2: give latency_batch 1" in said(capsys)
