"""Networks are measured beside each other: times, sizes and memory."""

import time
from itertools import count

import pytest
import torch
from networks_for_tests import awaken, plain
from torch import nn

from lfgcl_env.latency import onnx_session
from lfgcl_env.latency.live_tensors import peak_bytes
from lfgcl_env.latency.measuring import measure_beside
from lfgcl_env.latency.runtimes import RUNTIMES, Prepared, Runtime, available, on_threads


def chain(depth):
    return nn.Sequential(*(nn.Linear(10, 10, bias=False) for _ in range(depth))).eval()


def test_memory_is_that_of_tensors_alive_at_once():
    batch = torch.zeros(8, 10)
    whole = 4 * (100 + 8 * 10 + 8 * 10)
    assert peak_bytes(chain(1), batch) == whole
    # An input and an output of one layer at once, beside the batch and all weights.
    assert peak_bytes(chain(5), batch) == whole + 4 * (400 + 8 * 10)


def test_a_tensor_in_place_takes_no_more_memory():
    batch = torch.zeros(8, 10)
    twice = nn.Sequential(nn.Linear(10, 10), nn.ReLU(inplace=True)).eval()
    assert peak_bytes(twice, batch) == 4 * (110 + 8 * 10 + 8 * 10)


def test_others_are_compared_with_the_first():
    ticks = count()
    runtime = Runtime(
        "exact", "", lambda: None, lambda net, example, threads: Prepared(net.run, 7, lambda: None)
    )

    class Takes(nn.Module):
        def __init__(self, steps):
            super().__init__()
            self.steps = steps

        def run(self):
            [next(ticks) for _ in range(self.steps)]

    # A clock that moves by one whenever it is read, and by a network's steps between.
    beside = measure_beside(
        {"baseline": Takes(7), "pruned": Takes(3)},
        (3, 4, 4),
        runtime,
        batch=2,
        threads=1,
        seconds=0.0,
        clock=lambda: float(next(ticks)),
    )
    assert [one.network for one in beside] == ["baseline", "pruned"]
    assert [one.time.median for one in beside] == [8000.0, 4000.0]
    assert [one.speedup for one in beside] == [1.0, 2.0]
    assert [one.images_per_second for one in beside] == [0.25, 0.5]
    assert {(one.file_bytes, one.batch, one.threads) for one in beside} == {(7, 2, 1)}


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_installed_runtime_measures_positive_numbers(name):
    if reason := RUNTIMES[name].missing():
        pytest.skip(reason)
    network = awaken(plain())
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    found = measure_beside({"baseline": network}, (3, 8, 8), RUNTIMES[name], 2, 1, 0.0)
    assert len(found) == 1
    one = found[0]
    assert one.time.low > 0
    assert one.time.low <= one.time.median <= one.time.high
    assert one.time.rounds >= 3
    weights = sum(t.numel() * t.element_size() for t in before.values())
    assert one.file_bytes > weights / 2
    assert one.peak_bytes is None or one.peak_bytes >= 0
    assert all(torch.equal(network.state_dict()[key], before[key]) for key in before)


def test_a_missing_runtime_says_what_to_install(monkeypatch):
    monkeypatch.setattr("lfgcl_env.latency.runtimes.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install lfgcl-env\[onnx\]"):
        available(["onnxruntime"])
    assert "onnxruntime" not in [runtime.name for runtime in available()]
    with pytest.raises(ValueError, match="runtime"):
        available(["onnxrutime"])


def test_what_cannot_be_exported_says_why():
    pytest.importorskip("onnx")

    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(ValueError, match="cannot be exported to ONNX"):
        onnx_session.export(Odd(), torch.randn(2, 3))


def test_what_only_the_newer_exporter_knows_is_measured_in_silence(capfd):
    pytest.importorskip("onnxscript")
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    network = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    network.eval().requires_grad_(False)
    example = torch.randn(2, 5, 8)
    model = onnx_session.export(network, example)
    (found,) = onnx_session.start(model, [example], 1)()
    torch.testing.assert_close(torch.from_numpy(found), network(example), rtol=1e-4, atol=1e-5)
    assert capfd.readouterr() == ("", "")


def test_a_session_leaves_the_processor_to_the_next_one():
    pytest.importorskip("onnxruntime")
    network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval()
    images = torch.randn(8, 3, 32, 32)
    run = onnx_session.start(onnx_session.export(network, images), [images], 2)
    for _ in range(3):
        run()
        before = time.process_time()
        time.sleep(0.1)
        assert time.process_time() - before < 0.01, "its threads go on spinning"


def test_a_full_disk_is_told_as_it_is(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(OSError, match="No space left"):
        onnx_session.export(plain(), torch.randn(2, 3, 8, 8))


def test_threads_are_as_before_after_a_measurement():
    before = torch.get_num_threads()
    with on_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
