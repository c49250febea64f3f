"""Times on a GPU: what is timed has ended, is there and not here, and makes tables and budgets."""

import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images, plain, simple_problem
from torch import nn

from lfgcl_env.latency.machine import machine
from lfgcl_env.latency.measuring import measure_beside, time_beside
from lfgcl_env.latency.operations import find_operations
from lfgcl_env.latency.runtimes import RUNTIMES
from lfgcl_env.latency.units import BENCHES
from lfgcl_env.runs.delivered_times import measure_delivered

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = RUNTIMES["cuda"]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Keep tables here."""
    monkeypatch.setenv("LFGCL_LATENCY", str(tmp_path / "cache"))


def problem(**options):
    given = {"budget_metric": "latency", "latency_runtime": "cuda", "latency_batch": 4, **options}
    return simple_problem(awaken(plain()), images(8), **given)


def test_a_call_computes_on_the_device_and_leaves_the_network_here():
    network, example = awaken(plain()), torch.randn(4, 3, 8, 8)
    found = CUDA.prepare(network, example, 1).call()
    assert found.device.type == "cuda"
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}
    with torch.no_grad():
        torch.testing.assert_close(found.cpu(), network(example), rtol=1e-3, atol=1e-3)


def test_the_runtime_waits_for_what_was_begun():
    large = torch.randn(4096, 4096, device="cuda")
    for _ in range(50):
        large = large @ large / 64
    done = torch.cuda.Event()
    done.record()
    CUDA.idle()
    assert done.query()


def test_a_time_holds_the_work_on_the_device_and_not_its_launch_alone():
    layers = [nn.Linear(4096, 4096) for _ in range(8)]
    network = nn.Sequential(*layers).eval()
    (took,) = time_beside([network], (4096,), CUDA, 4096, 1, 0.0)
    call = CUDA.prepare(network, torch.randn(4096, 4096), 1).call
    call()
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    call()
    ended.record()
    torch.cuda.synchronize()
    # The launches take a hundredth of it; the device's own clock differs by less than half.
    assert min(took) > 0.5 * begun.elapsed_time(ended) / 1e3


def test_every_operation_of_a_network_runs_on_the_device():
    small = problem()
    candidate = small.network.candidate()

    def build(keep):
        candidate.install([np.arange(count) for count in keep])
        return candidate.network

    operations = find_operations(build, small.channels, torch.randn(4, 3, 8, 8))
    assert operations
    for operation in operations:
        ((call, weight),) = BENCHES["cuda"](operation.signature, operation.signature.full, 1)
        assert call().device.type == "cuda"
        assert weight == 1.0


def test_a_budget_of_latency_on_a_gpu_is_met_by_its_table():
    small = problem(budget=1.0)
    table = small.network.latency.table
    assert table.belongs_to["gpu"] == torch.cuda.get_device_name()
    assert table.belongs_to["runtime"] == "cuda"
    assert machine("cuda")["gpu"] == table.belongs_to["gpu"]
    assert all(entry.grid.min() > 0 for entry in table.entries.values())
    assert small.meets(small.project([0.5, 0.5]))
    half, whole = small.costs(np.array([small.channels // 2, small.channels]))
    assert half < whole
    assert problem(budget=1.0).latency_table == table.checksum  # measured once


def test_a_delivered_network_is_measured_there(caplog):
    small = problem(budget=1.0)
    network = small.compress(small.channels // 2)
    times = measure_delivered(small, network)
    assert times is not None
    assert times.delivered.rounds >= 3
    assert "another machine" not in caplog.text
    assert next(network.parameters()).device.type == "cpu"


def test_memory_is_what_the_allocator_gave_out():
    network = awaken(plain())
    (one,) = measure_beside({"network": network}, (3, 8, 8), CUDA, 4, 1, 0.0)
    weights = sum(
        tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()
    )
    assert one.peak_bytes >= weights
