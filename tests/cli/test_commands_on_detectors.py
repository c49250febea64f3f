"""Commands on a detector of torchvision, which they call for its dense outputs."""

import json
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from command_for_tests import prune
from small_detectors import SIDE, detector

import lfgcl_env
from lfgcl_env.cli.main import main

NAME = "my_detector:build"


def run(command: str, *more: str) -> int:
    return main([command, "run", "--network", NAME, *more])


@pytest.fixture
def pruned(tmp_path, monkeypatch, capsys):
    """A folder with a run on a detector."""
    code = "from small_detectors import detector\n\n\ndef build():\n    return detector('FCOS')\n"
    (tmp_path / "my_detector.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    assert prune("run", "--input-shape", f"3,{SIDE},{SIDE}", "--budget", "0.6", target=NAME) == 0
    capsys.readouterr()
    yield
    sys.modules.pop("my_detector", None)


def test_it_is_evaluated_measured_exported_and_trained(pruned, capsys):
    assert run("evaluate") == 0
    assert "returns no scores of classes, so it has no accuracy" in capsys.readouterr().out
    assert run("measure", "--seconds", "1", "--batch", "1", "--runtime", "pytorch") == 0
    assert run("export") == 0
    assert run("recover", "--epochs", "1", "--images", "random", "--num-images", "64") == 0
    best = json.loads(Path("run/best.json").read_text())
    assert best["measured"]["networks"]["pruned"]["macs"] == best["macs"]
    assert [one["file"] for one in best["exports"]] == ["pruned.onnx"]

    network = lfgcl_env.load_pruned("run/pruned.safetensors", lambda: detector("FCOS"))
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = network.head(list(network.backbone(images).values()))
    session = onnxruntime.InferenceSession("run/pruned.onnx")
    (name,) = [given.name for given in session.get_inputs()]
    found = session.run(None, {name: images.numpy()})
    assert len(found) == len(wanted) == 3
    for one, right in zip(found, wanted.values(), strict=True):
        torch.testing.assert_close(torch.from_numpy(one), right, rtol=1e-3, atol=1e-4)
