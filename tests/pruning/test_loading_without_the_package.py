"""The lines in docs/saved_networks.md load pruned networks without this package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks_for_tests import awaken, images, random_strategy, simple_problem
from numpy.typing import ArrayLike
from torchvision import models

from lfgcl_env.networks import load_baseline
from lfgcl_env.pruning import PruningProblem

PAGE = Path(__file__).parents[2] / "docs/saved_networks.md"
INPUTS = images(4, seed=3)

ARCHITECTURE = """
from torch import nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import FrozenBatchNorm2d


def build():
    layers = [
        nn.Conv2d(3, 6, 1), LayerNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.GroupNorm(1, 6),
        nn.ReLU(), nn.Conv2d(6, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.PReLU(16),
        nn.Conv2d(16, 24, 3, padding=1, groups=8), nn.InstanceNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 12, 1), FrozenBatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 12, 3, groups=12), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, groups=12, bias=False), nn.ReLU(), nn.Conv2d(24, 8, 1), nn.ReLU(),
        nn.ConvTranspose2d(8, 10, 2), nn.ReLU(), nn.ConvTranspose2d(10, 20, 3, groups=5), nn.ReLU(),
        nn.Conv2d(20, 8, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 12), nn.LayerNorm(12), nn.ReLU(),
        nn.Linear(12, 5),
    ]
    layers[0].bias.requires_grad_(False)
    return nn.Sequential(*layers)


class Shortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 5, 3)
        self.branch = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.branch(x)).mean((2, 3))
"""

RUN = """
import sys

sys.modules["lfgcl_env"] = None  # importing it fails now
sys.path.insert(0, "")
import torch

{lines}
try:
    import lfgcl_env
except ImportError:
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    sizes = {{name: repr(m) for name, m in network.named_modules() if not m._modules}}
    torch.save([network(torch.load("inputs.pt")), frozen, sizes], "outputs.pt")
"""


def load_elsewhere(
    problem: PruningProblem, keep: ArrayLike, network: str | None, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Save a strategy, and run the page's lines in a process without this package.

    Args:
        problem: whose network is cut.
        keep: the strategy.
        network: the code that stands for the page's network; None leaves it.
        folder: of the process.
    """
    (lines,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    problem.save(folder / "pruned.safetensors", keep)
    torch.save(INPUTS, folder / "inputs.pt")
    if network is not None:
        assert "models.resnet18()" in lines
        lines = lines.replace("models.resnet18()", network)
    return subprocess.run(
        [sys.executable, "-c", RUN.format(lines=lines)],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def check_loaded(problem: PruningProblem, keep: ArrayLike, folder: Path) -> None:
    compressed = problem.compress(keep)
    outputs, frozen, sizes = torch.load(folder / "outputs.pt")
    with torch.no_grad():
        assert torch.equal(outputs, compressed(INPUTS))
    assert frozen == [name for name, p in compressed.named_parameters() if not p.requires_grad]
    assert sizes == {n: repr(m) for n, m in compressed.named_modules() if not m._modules}


@pytest.mark.slow
def test_the_lines_as_they_stand_load_a_network_of_torchvision(tmp_path):
    baseline = load_baseline("torchvision:resnet18", "random", input_shape=(3, 32, 32))
    awaken(baseline.network)
    problem = simple_problem(baseline, images(8), budget=1.0, scope="all")
    keep = random_strategy(problem, 1)
    done = load_elsewhere(problem, keep, None, tmp_path)
    assert not done.returncode, done.stderr
    check_loaded(problem, keep, tmp_path)


def unusual(folder: Path, name: str = "build") -> torch.nn.Module:
    (folder / "architecture.py").write_text(ARCHITECTURE)
    names: dict = {}
    exec(ARCHITECTURE, names)
    return awaken(names[name]())


def test_the_lines_load_groups_norms_and_frozen_parameters(tmp_path):
    problem = simple_problem(unusual(tmp_path), images(8), budget=1.0)
    keep = random_strategy(problem, 2)
    assert len({group.bundle for group in problem.groups}) > 1
    done = load_elsewhere(problem, keep, "__import__('architecture').build()", tmp_path)
    assert not done.returncode, done.stderr
    check_loaded(problem, keep, tmp_path)
    assert torch.load(tmp_path / "outputs.pt")[1] == ["0.bias"]


def test_the_lines_refuse_a_network_whose_layers_are_gone(tmp_path):
    problem = simple_problem(unusual(tmp_path, "Shortcut"), images(8), budget=1.0, min_channels=0)
    done = load_elsewhere(problem, [0], "__import__('architecture').Shortcut()", tmp_path)
    assert "whole layers are gone: ['branch.0.bias', 'branch.0.weight', " in done.stderr


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_the_lines_load_networks_of_timm_that_lost_heads(tmp_path, name):
    timm = pytest.importorskip("timm")
    sizes = "num_heads=4, depth=2" if "vit" in name else "depths=(1, 1), window_size=4"
    build = f"timm.create_model({name!r}, img_size=32, patch_size=4, embed_dim=48, {sizes})"
    network = eval(build, {"timm": timm})
    problem = simple_problem(awaken(network), images(8), budget=1.0)
    attention = [group for group in problem.groups if "attn" in group.name]
    keep = random_strategy(problem, 3)
    assert attention
    assert any(k < c for k, c in zip(keep, problem.channels, strict=True))
    done = load_elsewhere(problem, keep, f"__import__('timm').{build[5:]}", tmp_path)
    assert not done.returncode, done.stderr
    check_loaded(problem, keep, tmp_path)


SWIN = "[4, 4], 16, [1, 1], [2, 4], [4, 4], num_classes=5"
STOCK = {
    "Swin": (f"models.SwinTransformer({SWIN})", ["window_attention"]),
    "Swin V2": (
        f"models.SwinTransformer({SWIN}, block=models.swin_transformer.SwinTransformerBlockV2, "
        "downsample_layer=models.swin_transformer.PatchMergingV2)",
        ["window_attention"],
    ),
    "ViT": ("models.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=5)", ["head_attention"]),
    "encoder": ("__import__('encoder').build()", ["padded_encoder", "head_attention"]),
}
"""Networks whose attention has to be replaced: their code, and the files that do it."""

ENCODER = """
from torch import nn


class Encoding(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(16))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        padding = x.new_zeros(len(x), 16).bool()
        padding[:, 12:] = True
        return self.fc(self.encoder(tokens, src_key_padding_mask=padding)[:, :12].mean(1))


def build():
    return Encoding()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", STOCK)
def test_copied_files_load_stock_attention_that_lost_heads(name, tmp_path, monkeypatch):
    (tmp_path / "encoder.py").write_text(ENCODER)
    monkeypatch.syspath_prepend(tmp_path)
    code, files = STOCK[name]
    problem = simple_problem(awaken(eval(code, {"models": models})), images(8), budget=1.0)
    heads = [
        g for g, group in enumerate(problem.groups) if "attn" in group.name or ".q" in group.name
    ]
    keep = random_strategy(problem, 3)
    keep[heads] = np.maximum(1, problem.channels[heads] // 2)
    assert heads
    for file in files:
        done = load_elsewhere(problem, keep, code, tmp_path)
        assert f"No module named '{file}'" in done.stderr
        shutil.copy(PAGE.parents[1] / "lfgcl_env/networks" / f"{file}.py", tmp_path)
    done = load_elsewhere(problem, keep, code, tmp_path)
    assert not done.returncode, done.stderr
    check_loaded(problem, keep, tmp_path)
