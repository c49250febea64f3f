"""``lfgcl export``: networks of runs, files and names."""

import importlib
import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from command_for_tests import prune, said

import lfgcl_env
from lfgcl_env.cli.main import main
from lfgcl_env.edge.sealed import sealed
from lfgcl_env.networks import IMAGENET, load_baseline
from lfgcl_env.page import write_page
from lfgcl_env.pruning import PruningProblem
from lfgcl_env.runs.best import read_best

LACKS_ONNX = any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(LACKS_ONNX, reason="the extra onnx is missing")
if not LACKS_ONNX:
    import onnxruntime


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(run, tmp_path / "run")


def outputs(path, images, name="images"):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: images.numpy()})[0]


def files(folder):
    return {path.name for path in folder.iterdir()}


SUFFIXES = [pytest.param("onnx", "onnx", marks=needs_onnx), ("pt2", "pt2"), ("torchscript", "pt")]


@pytest.mark.parametrize(("format", "suffix"), SUFFIXES)
def test_the_pruned_network_of_a_run_is_written_beside_it(own_run, format, suffix, capsys):
    before = files(own_run)
    assert main(["export", str(own_run), "--format", format]) == 0
    assert files(own_run) - before == {f"pruned.{suffix}", "exports.json"}
    (stored,) = read_best(own_run).exports
    size = (own_run / f"pruned.{suffix}").stat().st_size
    assert (stored.file, stored.of, stored.bytes, stored.int8) == (
        f"pruned.{suffix}", "pruned.safetensors", size, None,
    )  # fmt: skip
    assert f"-> pruned.{suffix}: {format}" in (own_run / "report.txt").read_text()
    assert f"<td>pruned.{suffix}</td>" in write_page(own_run).read_text()
    printed = capsys.readouterr()
    assert f"{own_run / f'pruned.{suffix}'}  " in printed.out
    assert "images (batch, 3, 32, 32), float32, RGB pixels from 0 to 1 normalised" in printed.out
    assert "logits (batch, 10)" in printed.out
    assert "on batches of 1, 3 and 8 images" in printed.out
    assert printed.err == ""


@needs_onnx
def test_a_folded_normalization_takes_pixels(own_run, tmp_path):
    path, pixels = tmp_path / "own.onnx", torch.rand(5, 3, 32, 32)
    given = ["--fold-normalization", "--output", str(path), "--input-name", "x", "--opset", "20"]
    assert main(["export", str(own_run / "pruned.safetensors"), *given]) == 0
    network = lfgcl_env.load_pruned(own_run / "pruned.safetensors")
    with torch.no_grad():
        expected = network(IMAGENET.apply(pixels)).numpy()
    np.testing.assert_allclose(outputs(path, pixels, "x"), expected, rtol=1e-4, atol=1e-4)


def test_a_network_is_exported_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--weights", "random", "--format", "torchscript"]
    assert main(["export", "resnet20", *given]) == 0
    found, images = torch.jit.load(tmp_path / "resnet20.pt"), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = load_baseline("resnet20", "random").network(images)
        torch.testing.assert_close(found(images), expected, rtol=1e-4, atol=1e-5)
    small = ["--input-shape", "3,64,64", "--output", "small.pt"]
    assert main(["export", "torchvision:squeezenet1_1", *given, *small]) == 0
    assert "(batch, 3, 64, 64)" in capsys.readouterr().out


@needs_onnx
def test_int8_is_reported_beside_float(own_run, test_set, monkeypatch, capsys):
    monkeypatch.setattr("lfgcl_env.cli.export.COMPARED", 40)
    options = ["--int8", "--data", "CIFAR10", "--fold-normalization"]
    before = files(own_run)
    assert main(["export", str(own_run), *options]) == 0
    assert files(own_run) - before == {"pruned_int8.onnx", "exports.json"}
    int8 = read_best(own_run).exports[0].int8
    assert (int8.calibrated, int8.images) == (4, 16)
    assert [one.images for one in int8.times] == [1, 32]
    assert len(int8.top1) == 2
    page, size = write_page(own_run).read_text(), (own_run / "pruned_int8.onnx").stat().st_size
    for text in (f"{int8.float_bytes / 1e6:.2f}", f"{size / 1e6:.2f}", f"{int8.agreement:.2f}"):
        assert f">{text}</td>" in page
        assert text in (own_run / "report.txt").read_text()
    printed = capsys.readouterr().out
    # the run's own 4 images of noise, and 4 views of each
    assert f"calibrated on 4 images ({int8.calibration}) and compared on 16 others" in printed
    for row in ("bytes", "1 image [ms]", "32 images [ms]", "top-1", "same largest output", "error"):
        assert f"\n{row}" in printed
    assert outputs(own_run / "pruned_int8.onnx", torch.rand(5, 3, 32, 32)).shape == (5, 10)


@needs_onnx
def test_int8_without_the_test_set_leaves_nothing_in_the_way(own_run, tmp_path, capsys):
    before = files(own_run)
    capsys.readouterr()
    missing = ["--data", "CIFAR10", "--data-root", str(tmp_path / "nowhere")]
    assert main(["export", str(own_run), "--int8", *missing]) == 2
    assert "CIFAR" in said(capsys)
    assert files(own_run) == before


@needs_onnx
def test_int8_of_a_run_on_a_tensor_needs_images(own_run, capsys):
    record = own_run / "arguments.json"
    fields = json.loads(record.read_text())
    fields["arguments"]["images"] = "Tensor"
    record.write_text(sealed({k: v for k, v in fields.items() if k != "checksum"}))
    capsys.readouterr()
    assert main(["export", str(own_run), "--int8"]) == 2
    assert "the run's images were a tensor and are not kept: give --images" in said(capsys)
    assert main(["export", str(own_run), "--int8", "--images", "random"]) == 0


OWN = """
import torch
from torch import nn

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3)
        self.c, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x, mask):
        both = self.a(x).relu() + self.b(mask).relu()
        return self.head(self.c(both).relu().mean((2, 3)))

def pair():
    torch.manual_seed(0)
    return Pair().eval()
"""


@pytest.mark.parametrize("command", [["export", "--format", "pt2"], ["measure"]])
def test_a_network_of_several_inputs_is_refused(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "paired_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    network = importlib.import_module("paired_networks").pair
    both = (torch.randn(8, 3, 12, 12), torch.randn(8, 1, 12, 12))
    quick = {"criterion": "l1", "repair": "none", "similarity": "cosine"}
    problem = PruningProblem(network(), both, budget=0.8, scope="all", **quick)
    keep = problem.project(np.full(len(problem.groups), 0.5))
    problem.save("pair.safetensors", keep, problem.compress(keep))
    name, *options = command
    given = ["--network", "paired_networks:pair", *options]
    assert main([name, "pair.safetensors", *given]) == 2
    assert "the network in pair.safetensors takes several inputs" in said(capsys)


def test_a_sweep_is_exported_file_by_file(tmp_path, capsys):
    assert prune(tmp_path, "--budget", "0.3:0.5", "--points", "2") == 0
    capsys.readouterr()
    assert main(["export", str(tmp_path), "--format", "torchscript"]) == 2
    assert f"holds 2 networks: give the file of one, such as {tmp_path}/sweep/" in said(capsys)
    file = tmp_path / "sweep" / "pruned_0.30.safetensors"
    assert main(["export", str(file), "--format", "torchscript"]) == 0
    assert (tmp_path / "sweep" / "pruned_0.30.pt").is_file()


@needs_onnx
def test_nothing_is_overwritten(own_run, capsys):
    (own_run / "pruned.onnx").write_bytes(b"mine")
    assert main(["export", str(own_run)]) == 2
    assert "exists: delete it, or give another --output" in said(capsys)
    assert (own_run / "pruned.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--int8", "--format", "pt2"], "--int8 is quantised by ONNX Runtime"),
        (["--images", "CIFAR10"], "--images is for --int8"),
        (["--images", "auto"], "--images is for --int8"),
        (["--data", "CIFAR10"], "--data is for --int8"),
        (["--weights", "random"], "--weights is for a network's name"),
        (["--opset", "7"], "opset must be a whole number from 18"),
        (["--format", "pt2", "--opset", "18"], "are for ONNX, not for pt2"),
        (["--output-names", "a,b"], "1 outputs need names"),
        (["--output", "nowhere/file.onnx"], "there is no folder 'nowhere'"),
        (["--format", "tflite"], "invalid choice: 'tflite'"),
        (["--int8", "--images", "nothing"], "unknown images 'nothing'"),
        (["--normalization", "0,0,0/1,1,1"], "takes inputs normalised by mean (0.485, 0.456"),
    ],
)
@needs_onnx
def test_options_that_do_not_fit_are_refused(own_run, options, reason, tmp_path, capsys):
    before = files(own_run)
    capsys.readouterr()
    assert main(["export", str(own_run), *options]) == 2
    assert reason in said(capsys)
    assert files(own_run) == before


@needs_onnx
def test_runs_that_are_missing_damaged_or_unfinished_are_refused(own_run, tmp_path, capsys):
    capsys.readouterr()
    for missing in (str(tmp_path / "nothing"), "nothing.safetensors"):
        assert main(["export", missing]) == 2
        assert "there is no run folder and no pruned network at" in said(capsys)
    assert main(["export", "resnet21"]) == 2
    assert "Did you mean" in said(capsys)
    assert main(["export", str(tmp_path)]) == 2
    assert "no pruned network at" in said(capsys)
    file = own_run / "pruned.safetensors"
    content = file.read_bytes()
    for damaged in (content[:1000], content[:-1000] + bytes(1000), b"no network"):
        file.write_bytes(damaged)
        assert main(["export", str(own_run)]) == 2
        assert str(file) in said(capsys)
    file.unlink()
    assert main(["export", str(own_run)]) == 2
    assert "`lfgcl prune --resume --out" in said(capsys)
    file.write_bytes(content)
    (own_run / "arguments.json").write_text("{")
    assert main(["export", str(own_run)]) == 2
    assert "is damaged" in said(capsys)
    assert not list(own_run.glob("*.onnx*"))


def test_a_missing_package_names_the_extra(own_run, monkeypatch, capsys):
    capsys.readouterr()
    monkeypatch.setattr("lfgcl_env.export.onnx_model.find_spec", lambda _: None)
    assert main(["export", str(own_run)]) == 2
    assert "needs onnx: run `pip install lfgcl-env[onnx]`" in said(capsys)
    assert main(["export", str(own_run), "--format", "pt2"]) == 0


def test_a_normalization_that_is_not_known_cannot_be_folded_in(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))\n"
    )
    monkeypatch.chdir(tmp_path)
    target = ["export", "own_networks:build", "--input-shape", "3,8,8", "--format", "torchscript"]
    assert main([*target, "--fold-normalization"]) == 2
    assert "is not known, so it cannot be folded in: give --normalization" in said(capsys)
    known = ["--normalization", "0.5,0.5,0.5/0.2,0.2,0.2", "--fold-normalization"]
    assert main([*target, *known]) == 0
    assert "RGB pixels from 0 to 1" in capsys.readouterr().out
    assert (tmp_path / "own_networks_build.pt").is_file()
