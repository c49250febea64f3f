"""A budget of latency is met as one of MACs is, and replayed by the table's checksum."""

import json

import numpy as np
import pytest
from latency_for_tests import measure_exactly
from networks_for_tests import awaken, images, plain, simple_problem

from lfgcl_env.edge.sealed import sealed
from lfgcl_env.latency import table_cache
from lfgcl_env.latency.table import Table, read_table, write_table
from lfgcl_env.latency.table_cache import adopt, cache_folder, find_table


@pytest.fixture(autouse=True)
def tables(monkeypatch, tmp_path):
    """Measure without noise; what was measured."""
    monkeypatch.setenv("LFGCL_LATENCY", str(tmp_path / "cache"))
    return measure_exactly(monkeypatch)


def problem(**options):
    return simple_problem(awaken(plain()), images(8), budget_metric="latency", **options)


def test_a_budget_is_met_and_spent():
    small = problem(budget=0.6)
    for ratios in ([0.5, 0.5], [0.0, 0.9], [0.9, 0.1]):
        keep = small.project(ratios)
        assert small.meets(keep)
        for group in range(2):
            more = keep.copy()
            more[group] = min(more[group] + 1, small.channels[group])
            assert (more == keep).all() or not small.meets(more)
        again = small.project(1 - keep / small.channels)
        assert again.tolist() == keep.tolist()


def test_the_baseline_is_predicted_as_measured():
    model = problem().network.latency
    assert int(model(problem().channels)) == pytest.approx(1e9, rel=1e-6)
    assert model.factor > 0


def test_time_grows_with_every_channel():
    small = problem()
    for first in range(1, 8):
        for second in range(1, 6):
            times = small.costs(
                np.array([[first, second], [first + 1, second], [first, second + 1]])
            )
            assert times[0] < min(times[1:])


def test_a_table_is_measured_once_and_then_read(tables):
    checksums = {problem(budget=budget).latency_table for budget in (0.5, 0.6)}
    assert len(checksums) == 1
    assert len(tables) == 1
    problem(round_to=2)
    assert len(tables) == 2  # other counts


def test_a_damaged_table_is_measured_anew_with_a_note(tables, caplog):
    problem()
    for path in cache_folder().glob("machine-*.json"):
        path.write_text(path.read_text().replace("operation", "0peration", 1))
    problem()
    assert len(tables) == 2
    assert "measured anew" in caplog.text


def test_settings_replay_the_same_table_whatever_this_machine_measures_now(tables, monkeypatch):
    first = problem(budget=0.6)
    settings = first.settings()
    assert settings["latency_table"] == first.latency_table
    monkeypatch.setattr(table_cache, "_name", lambda belongs_to: "machine-other")
    second = problem(budget=0.6, latency_table=settings["latency_table"])
    assert len(tables) == 1
    assert second.project([0.5, 0.5]).tolist() == first.project([0.5, 0.5]).tolist()


def test_a_table_may_be_a_file_and_come_from_another_machine(tables, tmp_path, monkeypatch):
    first = problem()
    path = tmp_path / "latency.json"
    write_table(path, first.network.latency.table)
    monkeypatch.setenv("LFGCL_LATENCY", str(tmp_path / "elsewhere"))
    assert problem(latency_table=str(path)).latency_table == first.latency_table
    with pytest.raises(FileNotFoundError, match="no latency table"):
        find_table(first.latency_table)
    assert adopt(path) == first.latency_table
    assert find_table(first.latency_table) == read_table(path)
    assert len(tables) == 1


def test_a_table_of_another_network_is_refused(tmp_path):
    path = tmp_path / "latency.json"
    write_table(path, problem(round_to=2).network.latency.table)
    with pytest.raises(ValueError, match="another network, batch or limits"):
        problem(latency_table=str(path))


@pytest.mark.parametrize(
    "other",
    [{"latency_runtime": "onnxruntime"}, {"latency_batch": 4}, {"latency_threads": 2}],
    ids=lambda other: next(iter(other)),
)
def test_a_table_of_another_runtime_batch_or_threads_is_refused(tmp_path, other):
    path = tmp_path / "latency.json"
    write_table(path, problem().network.latency.table)
    (name,) = other
    with pytest.raises(ValueError, match=f"and {name} is {other[name]}: give {name} "):
        problem(latency_table=str(path), **other)


def test_a_prediction_that_misses_what_was_measured_warns(caplog, tmp_path):
    path = tmp_path / "latency.json"
    table = problem().network.latency.table
    assert "predicts" not in caplog.text
    fields = table.model_dump(exclude={"checksum"})
    fields["networks"][2] = fields["networks"][0] * 1.5
    write_table(path, Table.model_validate_json(sealed(fields)))
    problem(latency_table=str(path))
    assert "predicts" in caplog.text


def test_an_edited_table_is_refused(tmp_path):
    path = tmp_path / "latency.json"
    write_table(path, problem().network.latency.table)
    fields = json.loads(path.read_text())
    fields["networks"][0] *= 2
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="checksum"):
        problem(latency_table=str(path))


def test_a_budget_out_of_reach_says_which_are_in_reach():
    with pytest.raises(ValueError, match=r"of the latency cannot be reached.* to 1 can"):
        problem(budget=0.001)


def test_other_budgets_need_no_table(tables):
    other = simple_problem(awaken(plain()), images(8))
    assert other.latency_table is None
    assert len(tables) == 0
