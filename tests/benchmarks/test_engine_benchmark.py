"""The benchmark of many workers measures what it says, on little."""

import engine
import pytest
from study.records import read

pytestmark = pytest.mark.slow


def test_the_time_of_a_strategy_that_costs_nothing_is_measured(tmp_path, capsys):
    few = ["--only", "overhead", "--tasks", "20", "--engines", "processes"]
    assert engine.main([*few, "--out", str(tmp_path)]) == 0
    (line,) = read(tmp_path / "engine.jsonl")
    assert line["run"] == {"what": "overhead", "engine": "processes", "tasks": 20}
    assert min(line["result"].values()) > 0  # the driver's threads may spend more than the clock
    assert set(line["result"]) == {"microseconds", "of the driver"}
    assert "microseconds" in capsys.readouterr().out


def test_searches_whose_evaluations_sleep_are_measured(tmp_path):
    few = ["--only", "uneven", "--searchers", "4", "--evaluations", "2"]
    assert engine.main([*few, "--out", str(tmp_path)]) == 0
    lines = read(tmp_path / "engine.jsonl")
    assert [line["run"]["at a time"] for line in lines] == [2, 3, 4]
    for line in lines:
        assert line["result"]["evaluations"] == 8
        assert 0 < line["result"]["busy"] <= 1
