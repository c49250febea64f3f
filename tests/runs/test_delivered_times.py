"""A network that is delivered on a budget of latency is measured whole, beside its baseline."""

import json

import gymnasium as gym
import pytest
import torch
from latency_for_tests import measure_exactly
from networks_for_tests import awaken, images, plain, simple_problem

from lfgcl_env.latency.timing import Timing
from lfgcl_env.page import write_page
from lfgcl_env.runs.delivered_times import DeliveredTimes, measure_delivered
from lfgcl_env.search.run_search import run_search


@pytest.fixture(autouse=True)
def exact(monkeypatch, tmp_path):
    """Measure tables without noise, and keep them here."""
    monkeypatch.setenv("LFGCL_LATENCY", str(tmp_path / "cache"))
    measure_exactly(monkeypatch)


def problem(metric="latency", **options):
    return simple_problem(awaken(plain()), images(8), budget_metric=metric, **options)


def test_both_networks_are_run_on_batches_as_the_table_s():
    small = problem(latency_batch=3)
    network, seen = small.compress(small.channels // 2), []
    network.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    times = measure_delivered(small, network)
    assert times.baseline.rounds == times.delivered.rounds == 3
    assert times.share == times.delivered.median / times.baseline.median
    assert all(torch.equal(network.state_dict()[key], before[key]) for key in before)
    assert set(seen) == {(3, *small.baseline.input_shape)}


def test_other_budgets_measure_nothing():
    small = problem("macs")
    assert measure_delivered(small, small.compress(small.channels)) is None


def test_a_runtime_that_is_not_here_costs_the_measurement_alone(monkeypatch, caplog):
    small = problem(latency_runtime="onnxruntime") if _has_onnx() else pytest.skip("needs onnx")
    monkeypatch.setattr("lfgcl_env.latency.runtimes.find_spec", lambda name: None)
    assert measure_delivered(small, small.compress(small.channels)) is None
    assert "was not measured: runtime 'onnxruntime' cannot be used" in caplog.text


def _has_onnx():
    from lfgcl_env.latency.runtimes import RUNTIMES

    return RUNTIMES["onnxruntime"].missing() is None


def test_another_machine_than_the_table_s_is_told(monkeypatch, caplog):
    small = problem()
    small.network.latency.table.belongs_to["processor"] = "another"
    assert measure_delivered(small, small.compress(small.channels)) is not None
    assert "the latency table is of another machine" in caplog.text


def test_every_network_of_a_sweep_keeps_its_times_when_the_run_goes_on(tmp_path, monkeypatch):
    def search(**options):
        env = gym.make(
            "LFGCL-v0", network=awaken(plain()), images=images(8), num_images=None,
            budget=(0.6, 0.9), budget_metric="latency",
        )  # fmt: skip
        return run_search(env, "random", 4, out=tmp_path, points=2, **options)

    first = search()
    points = json.loads((tmp_path / "sweep.json").read_text())["points"]
    for point, result in zip(points, first.sweep, strict=True):
        assert point["predicted_ms"][1] <= point["budget"] * point["predicted_ms"][0]
        assert DeliveredTimes.read(point["measured_ms"]) == result.times
        report = (tmp_path / point["file"].replace("pruned", "report")).with_suffix(".txt")
        share = f"measured {result.times.delivered.median:.3g} ms ({result.times.share:.1%})"
        assert share in report.read_text().splitlines()[0]
    assert f"<td>{first.sweep[0].times.share:.1%}</td>" in _cells(write_page(tmp_path).read_text())
    monkeypatch.setattr("lfgcl_env.search.result.measure_delivered", None)  # kept, not made anew
    assert [point.times for point in search(resume=True).sweep] == [p.times for p in first.sweep]


def _cells(page):
    return page.replace('<td class="number">', "<td>")


def test_times_are_read_as_they_were_written():
    times = DeliveredTimes(Timing(2.0, 1.0, 3.0, 5), Timing(1.0, 0.5, 2.0, 5))
    stored = [vars(times.baseline), vars(times.delivered)]
    assert DeliveredTimes.read(stored) == times
    assert DeliveredTimes.read(None) is None
    assert times.share == 0.5
