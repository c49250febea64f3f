"""Exported files run elsewhere, on any number of images, and compute what the network does."""

import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from networks_for_tests import (
    FAMILIES,
    Shuffling,
    awake_baseline,
    awaken,
    plain,
    shared_problem,
)
from torch import nn
from torchvision import models

from lfgcl_env.export import FORMATS, export_network
from lfgcl_env.networks import Normalization
from lfgcl_env.pruning import PruningProblem

LACKS_ONNX = any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(LACKS_ONNX, reason="the extra onnx is missing")
if not LACKS_ONNX:
    import onnx
    import onnxruntime

EVERY = [pytest.param(name, marks=needs_onnx if name == "onnx" else ()) for name in FORMATS]
"""Formats, of which those that need the extra are skipped without it."""


PIXELS = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def pruned(module=None, **arguments):
    """A small network at half of its MACs."""
    given = {"budget": 0.5, "criterion": "l1", "repair": "none", "similarity": "cosine"}
    problem = PruningProblem((module or plain()).eval(), PIXELS, **(given | arguments))
    return problem.compress(problem.project(np.full(len(problem.groups), 0.5)))


def load(path, format):
    """Load a file as its users do; returns what runs it on a tensor."""
    if format == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (name,) = [one.name for one in session.get_inputs()]
        return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])
    if format == "pt2":
        return torch.export.load(path).module()
    return torch.jit.load(path)


@pytest.mark.parametrize("format", EVERY)
@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_file_computes_what_the_network_does_on_any_number_of_images(format, count, tmp_path):
    network, path = pruned(), tmp_path / f"network{FORMATS[format].suffix}"
    done = export_network(network, PIXELS, path, format)
    images = torch.randn(count, 3, 16, 16)
    with torch.no_grad():
        expected, found = network(images), load(path, format)(images)
    assert found.shape == expected.shape == (count, 5)
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert done.error <= 1e-4
    assert done.bytes == path.stat().st_size
    assert 2 not in done.batches  # what it was traced with


@pytest.mark.parametrize("format", EVERY)
def test_a_folded_normalization_takes_pixels(format, tmp_path):
    network, path = pruned(), tmp_path / f"network{FORMATS[format].suffix}"
    normalization = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    export_network(network, PIXELS, path, format, normalization=normalization)
    with torch.no_grad():
        expected, found = network(normalization.apply(PIXELS)), load(path, format)(PIXELS)
        assert float((network(PIXELS) - expected).abs().max()) > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", EVERY)
@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_networks_of_every_family_are_exported(family, format, tmp_path):
    problem = shared_problem(family)
    cut = problem.compress(np.maximum(1, problem.channels // 2))
    done = export_network(cut, torch.randn(3, 3, 32, 32), tmp_path / "network", format)
    assert done.error <= 1e-4


@pytest.mark.parametrize("format", EVERY)
def test_a_network_without_whole_blocks_is_exported(format, tmp_path):
    problem = PruningProblem(
        awake_baseline("resnet20"), torch.randn(4, 3, 32, 32), criterion="l1", repair="none",
        min_channels=0,
    )  # fmt: skip
    keep = problem.channels.copy()
    keep[2] = 0
    cut = problem.compress(keep)
    assert export_network(cut, torch.randn(3, 3, 32, 32), tmp_path / "n", format).error <= 1e-4


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = plain()

    def forward(self, x):
        out = self.network(x)
        return {"out": out, "more": (out.sum(1, keepdim=True), out.argmax(1))}


@needs_onnx
def test_several_outputs_have_names(tmp_path):
    network = Several().eval()
    expected = network(PIXELS)
    path = tmp_path / "network"
    done = export_network(network, PIXELS, path)
    assert done.outputs == {"out": (5,), "more_0": (1,)}
    export_network(network, PIXELS, path, input_name="x", output_names=["a", "b"], opset=20)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    a, b = session.run(["a", "b"], {"x": PIXELS.numpy()})
    torch.testing.assert_close(torch.from_numpy(a), expected["out"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(b), expected["more"][0], rtol=1e-4, atol=1e-4)
    versions = {entry.domain: entry.version for entry in onnx.load(path).opset_import}
    assert versions[""] == 20
    for format in ("pt2", "torchscript"):
        export_network(network, PIXELS, path, format)
        run = torch.export.load(io.BytesIO(path.read_bytes())).module() if format == "pt2" else None
        found = (run or torch.jit.load(path))(PIXELS)
        assert list(found) == ["out", "more_0"]


@needs_onnx
def test_facts_are_kept_and_paths_of_this_machine_are_not(tmp_path):
    path = tmp_path / "network.onnx"
    export_network(pruned(), PIXELS, path, facts={"network": "plain", "macs": 5})
    model = onnx.load(path)
    assert {one.key: one.value for one in model.metadata_props} == {"network": "plain", "macs": "5"}
    assert str(Path(__file__).parent).encode() not in path.read_bytes()
    assert b".py" not in path.read_bytes()
    export_network(pruned(), PIXELS, path, "torchscript", facts={"macs": 5})
    extra = {"lfgcl_env.json": ""}
    torch.jit.load(path, _extra_files=extra)
    assert json.loads(extra["lfgcl_env.json"]) == {"macs": 5}


def test_the_network_itself_is_left_alone(tmp_path):
    network = pruned().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    export_network(network, PIXELS, tmp_path / "network", "pt2")
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


class FixedBatch(Several):
    def forward(self, x):
        return self.network(x) * len(x)


class ByValue(Several):
    def forward(self, x):
        return self.network(x) if x.sum() > 0 else -self.network(x)


class Drawing(Several):
    def forward(self, x):
        return self.network(x) + torch.randn(1)


@pytest.mark.parametrize(
    ("network", "format", "reason"),
    [
        pytest.param(
            FixedBatch,
            "onnx",
            "FixedBatch fixes the number of images .* take it from x.shape",
            marks=needs_onnx,
        ),
        (FixedBatch, "pt2", "FixedBatch fixes the number of images"),
        (FixedBatch, "torchscript", "another output 'logits' than in PyTorch: on 1 images"),
        pytest.param(
            ByValue, "onnx", "cannot trace ByValue .* take what depends on values", marks=needs_onnx
        ),
        (ByValue, "pt2", "cannot trace ByValue"),
        pytest.param(Drawing, "onnx", "another output", marks=needs_onnx),
        (Drawing, "pt2", "another output"),
    ],
)
def test_what_cannot_be_exported_says_why_and_leaves_no_file(network, format, reason, tmp_path):
    with pytest.raises(ValueError, match=reason) as raised:
        export_network(network().eval(), PIXELS, tmp_path / "network", format)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_a_file_stays_where_another_cannot_take_its_place(tmp_path):
    path = tmp_path / "network"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="fixes the number"):
        export_network(FixedBatch().eval(), PIXELS, path)
    assert path.read_bytes() == b"before"
    export_network(pruned(), PIXELS, path)
    assert path.read_bytes() != b"before"
    assert list(tmp_path.iterdir()) == [path]


NORMAL = Normalization((0.5,) * 3, (0.2,) * 3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"format": "tflite"}, "unknown format 'tflite'"),
        ({"opset": 7}, "opset must be a whole number from 18 to"),
        ({"opset": "18"}, "opset must be a whole number"),
        ({"format": "pt2", "opset": 18}, "are for ONNX, not for pt2"),
        ({"format": "torchscript", "input_name": "x"}, "are for ONNX"),
        ({"output_names": ["a", "b"]}, r"1 outputs need names \(logits\)"),
        ({"output_names": ["images"]}, "a name of their own"),
        ({"example": np.zeros((2, 3, 16, 16))}, "floating-point tensor of inputs"),
        ({"example": torch.zeros(0, 3, 16, 16)}, "holds no inputs"),
        ({"example": torch.zeros(2, 1, 16, 16)}, "does not take inputs of shape"),
        ({"example": PIXELS * 255, "normalization": NORMAL}, "give pixels from 0 to 1"),
        ({"example": PIXELS[:, :2], "normalization": NORMAL}, "the normalization is of images"),
        ({"path": 5}, "path must be a path"),
    ],
)
@needs_onnx
def test_wrong_arguments_are_refused(arguments, reason, tmp_path):
    given = {"network": Shuffling().eval(), "example": PIXELS, "path": tmp_path / "network"}
    with pytest.raises(ValueError, match=reason):
        export_network(**(given | arguments))
    assert list(tmp_path.iterdir()) == []


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = plain()

    def forward(self, x, scale):
        return self.network(x) * scale


@pytest.mark.parametrize("example", [PIXELS, (PIXELS, torch.ones(5, 1))], ids=["one", "both"])
def test_a_network_of_several_inputs_is_refused(example, tmp_path):
    with pytest.raises(ValueError, match="Pair takes several inputs, and only networks of one"):
        export_network(Pair().eval(), example, tmp_path / "network", "pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lfgcl_env.export.onnx_model.find_spec",
        lambda name: None if name == "onnxscript" else object(),
    )
    with pytest.raises(ImportError, match=r"needs onnxscript: run `pip install lfgcl-env\[onnx\]`"):
        export_network(pruned(), PIXELS, tmp_path / "network")


def run_alone(code, folder, *arguments):
    """Run code in a process that sees no installed packages but those it is given.

    Args:
        code: for Python.
        folder: that it is run in, and that no package is in.
        *arguments: of the process.
    """
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)],  # -S: none installed
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert find_spec("lfgcl_env") is not None


RUN_IN_PYTORCH = """
import sys
sys.path[:0] = [sys.argv[2]]
import torch
path = sys.argv[1]
images = torch.load(sys.argv[3])
run = torch.export.load(path).module() if path.endswith("pt2") else torch.jit.load(path)
with torch.no_grad():
    torch.save(run(images), sys.argv[4])
for name in ("lfgcl_env", "torch_pruning", "torchvision"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} can be imported")
"""


def without_a_block() -> nn.Module:
    """A pruned network with this package's modules in the place of layers that are gone."""
    problem = PruningProblem(
        awake_baseline("resnet20"), torch.randn(4, 3, 32, 32), criterion="l1", repair="none",
        min_channels=0,
    )  # fmt: skip
    keep = problem.channels // 2
    keep[2] = 0
    return problem.compress(keep)


def without_heads() -> nn.Module:
    """A pruned network with this package's modules in the place of ``nn.MultiheadAttention``."""
    network = awaken(models.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=5))
    problem = PruningProblem(network, torch.randn(4, 3, 32, 32), criterion="l1", repair="none")
    return problem.compress(problem.channels // 2)


@pytest.mark.slow
@pytest.mark.parametrize("build", [without_a_block, without_heads])
@pytest.mark.parametrize("format", ["pt2", "torchscript"])
def test_a_file_for_pytorch_runs_where_this_package_cannot_be_imported(format, build, tmp_path):
    network, images = build(), torch.rand(5, 3, 32, 32)
    assert any(type(m).__module__.startswith("lfgcl_env") for m in network.modules())
    path = tmp_path / f"network{FORMATS[format].suffix}"
    normalization = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    export_network(network, images, path, format, normalization=normalization)
    library = tmp_path / "library"
    library.mkdir()
    for found in Path(torch.__file__).parents[1].iterdir():  # PyTorch and what it needs
        if not any(name in found.name for name in ("lfgcl", "torch_pruning", "torchvision")):
            os.symlink(found, library / found.name)
    torch.save(images, tmp_path / "images.pt")
    run_alone(
        RUN_IN_PYTORCH, tmp_path, path, library, tmp_path / "images.pt", tmp_path / "logits.pt"
    )
    with torch.no_grad():
        expected = network(normalization.apply(images))
    found = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


RUN = """
import sys
sys.path[:0] = sys.argv[2].split(":")
import numpy as np, onnxruntime
loaded = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = np.load(sys.argv[3])
(logits,) = loaded.run(["logits"], {"images": images})
np.save(sys.argv[4], logits)
for name in ("lfgcl_env", "torch", "onnx"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} can be imported")
"""


@needs_onnx
def test_an_onnx_file_runs_where_neither_this_package_nor_pytorch_can_be_imported(tmp_path):
    network, path, library = pruned(), tmp_path / "network.onnx", tmp_path / "library"
    export_network(network, PIXELS, path)
    library.mkdir()
    needed = ["numpy", "numpy.libs", "onnxruntime", "flatbuffers", "google", "packaging"]
    for name in needed:
        for folder in sys.path:
            found = Path(folder) / name
            if found.is_dir() and folder.endswith("site-packages"):
                os.symlink(found, library / name)
                break
    np.save(tmp_path / "images.npy", PIXELS.numpy())
    run_alone(RUN, tmp_path, path, library, tmp_path / "images.npy", tmp_path / "logits.npy")
    with torch.no_grad():
        expected = network(PIXELS).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-4)
