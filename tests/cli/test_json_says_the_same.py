"""``--json`` of export, recover and synthesize holds what the text for people says."""

import json
import re
import shutil
from importlib.util import find_spec

import pytest

from lfgcl_env import load_pruned
from lfgcl_env.cli.main import main
from lfgcl_env.images.image_sheet import read_sheet
from lfgcl_env.recovery import RecoveryOptions

LACKS_ONNX = any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(LACKS_ONNX, reason="the extra onnx is missing")


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the finished run, without what other tests added."""
    left_out = shutil.ignore_patterns("recovered*", "*.onnx", "*.pt", "*.pt2")
    return shutil.copytree(run, tmp_path / "run", ignore=left_out)


def both(capsys, words, target):
    """Run a command with and without ``--json``; return the text, the file's size, and the JSON."""
    capsys.readouterr()
    assert main(words) == 0
    text = capsys.readouterr().out
    size = target.stat().st_size if target.exists() else 0
    target.unlink(missing_ok=True)
    assert main([*words, "--json"]) == 0
    return text, size, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("format", "suffix", "runtime"),
    [
        pytest.param("onnx", "onnx", "ONNX Runtime", marks=needs_onnx),
        ("torchscript", "pt", "torch.jit.load"),
    ],
)
def test_of_an_export(own_run, format, suffix, runtime, capsys):
    target = own_run / f"pruned.{suffix}"
    words = ["export", str(own_run), "--format", format, "--fold-normalization"]
    text, size, found = both(capsys, words, target)  # TorchScript's files differ by names
    opset = f", opset {found['opset']}" if format == "onnx" else ""
    assert found["format"] == format
    assert (found["opset"] is not None) == (format == "onnx")
    assert found["input"]["shape"] == [3, 32, 32]
    assert found["input"]["takes"] == "RGB pixels from 0 to 1"
    assert list(found["outputs"].values()) == [[10]]
    (output,) = found["outputs"]
    assert text.splitlines() == [
        f"{found['file']}  {size:,} bytes{opset}",
        f"input   {found['input']['name']} (batch, 3, 32, 32), float32, RGB pixels from 0 to 1",
        f"output  {output} (batch, 10)",
        f"equal to PyTorch to {found['error']:.0e} in {runtime}, on batches of 1, 3 and 8 images",
    ]
    assert (found["file"], found["bytes"]) == (str(target), target.stat().st_size)
    assert found["batches"] == [1, 3, 8]
    assert set(found) == {
        *("file", "bytes", "format", "opset", "input", "outputs", "error", "batches"),
    }


@needs_onnx
def test_of_an_int8_export(own_run, test_set, capsys):
    target = own_run / "pruned_int8.onnx"
    text, _, found = both(capsys, ["export", str(own_run), "--int8", "--data", "CIFAR10"], target)
    small = found["int8"]
    first = (
        f"calibrated on {small['calibrated']} images ({small['calibration']}) and compared on "
        f"{small['images']} others:"
    )
    assert first in text.splitlines()
    rows = {row[0]: row[1:] for row in table_after(first, text)}
    assert set(rows) == {
        *("bytes", "1 image [ms]", "32 images [ms]", "top-1"),
        *("same largest output", "error of outputs"),
    }
    whole, less = small["bytes"]
    assert less == found["bytes"] == target.stat().st_size
    assert rows["bytes"] == [f"{whole:,}", f"{less:,}", f"{less / whole:.1%}"]
    before, after = small["top1"]
    assert rows["top-1"] == [f"{before:.2f} %", f"{after:.2f} %", f"{after - before:+.2f}"]
    assert rows["same largest output"] == [f"{small['agreement']:.2f} %"]
    assert rows["error of outputs"] == [f"{small['error']:.1%}"]
    assert {name: len(times) for name, times in small["milliseconds"].items()} == {"1": 2, "32": 2}
    assert all(time > 0 for times in small["milliseconds"].values() for time in times)


def table_after(line, text):
    """Return the cells of a table's rows, less its heads and what is empty."""
    rows = text.partition(line)[2].strip("\n").splitlines()[1:]
    return [[cell for cell in re.split(r"\s{2,}", row.strip()) if cell] for row in rows]


def test_of_a_recovery(own_run, short_epochs, capsys):
    target = own_run / "recovered.safetensors"
    words = ["recover", str(own_run), "--num-images", "256", "--batch-size", "32"]
    text, _, found = both(capsys, [*words, "--epochs", "4", "--learning-rate", "0.0005"], target)
    assert found["used"]
    assert found["after"] > found["before"]
    assert text.splitlines() == [
        f"4 epochs of {found['num_images']} images from {found['images']}, no labels: outputs "
        f"{found['before']:.5f} -> {found['after']:.5f} on {found['watched']} others",
        found["file"],
    ]
    assert found["file"] == str(target)
    assert (found["num_images"], found["watched"]) == (224, 512)  # views of 32 others
    assert (found["images"], found["labels"]) == ("random", False)
    assert len(found["epochs"]) == 4
    wanted = RecoveryOptions(batch_size=32, epochs=4, learning_rate=0.0005)
    assert found["options"] == vars(wanted)
    del found["file"]
    assert load_pruned(target).pruned_structure["recovered"] == found


def test_of_a_recovery_that_brings_nothing(own_run, short_epochs, capsys):
    target = own_run / "recovered.safetensors"
    words = ["recover", str(own_run), "--num-images", "64", "--epochs", "1"]
    text, _, found = both(capsys, [*words, "--learning-rate", "1"], target)
    assert "training did not make the network better, so nothing was written" in text
    assert found["file"] is None
    assert not found["used"]
    assert found["after"] <= found["before"]
    assert f"{found['before']:.5f} -> {found['after']:.5f}" in text
    assert not target.exists()


def test_of_a_synthesis(tmp_path, capsys):
    target = tmp_path / "images.png"
    words = ["synthesize", "resnet20", "--weights", "random", "--count", "5", "--steps", "2"]
    text, _, found = both(capsys, [*words, "--out", str(target)], target)
    assert found == {"file": str(target), "images": 5, "bytes": target.stat().st_size}
    first, then = text.splitlines()
    assert first == f"{found['file']}  {found['images']} images, {found['bytes']:,} bytes"
    assert then.startswith("next: lfgcl prune resnet20 --weights random")
    assert f"--images {found['file']} " in then
    assert len(read_sheet(found["file"])[0]) == found["images"]
