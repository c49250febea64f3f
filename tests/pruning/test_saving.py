"""Pruned networks on disk: they come back exactly, and what is no such file says so."""

import json
import os
import resource
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks_for_tests import (
    FAMILIES,
    Head,
    awaken,
    images,
    plain,
    random_strategy,
    shared_problem,
    simple_problem,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import lfgcl_env
from lfgcl_env.edge.sealed import sealed
from lfgcl_env.networks import build_network, load_baseline
from lfgcl_env.pruning import load_pruned, read_structure
from lfgcl_env.pruning.structure import saved_form
from lfgcl_env.pruning.structure.layers import count_macs

INPUTS = images(5, seed=3)


def built_elsewhere(width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def same(one: nn.Module, other: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(one(INPUTS), other(INPUTS))


@pytest.fixture
def saved(tmp_path) -> Path:
    problem = shared_problem("resnet20")
    return problem.save(tmp_path / "pruned.safetensors", random_strategy(problem, 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_network_computes_bit_by_bit_what_the_saved_one_does(family, tmp_path):
    problem = shared_problem(family, "all")
    strategy = random_strategy(problem, 21)
    compressed = problem.compress(strategy)
    path = problem.save(tmp_path / "pruned", strategy, compressed)
    assert path == tmp_path / "pruned"
    loaded = load_pruned(path, trust=True)  # a family is named by somebody's code
    assert same(loaded, compressed)
    assert not any(module.training for module in loaded.modules())
    assert count_macs(loaded, INPUTS) == problem.cost(strategy).macs
    assert sum(p.numel() for p in loaded.parameters()) == problem.cost(strategy).params
    for (name, one), (_, other) in zip(
        loaded.named_modules(), compressed.named_modules(), strict=True
    ):
        for size in ("in_channels", "out_channels", "groups", "num_features", "in_features"):
            assert getattr(one, size, None) == getattr(other, size, None), (name, size)


@pytest.mark.parametrize(
    ("network", "arguments", "repair"),
    [
        (f"{__name__}:built_elsewhere", {"width": 10}, "batchnorm"),
        ("torchvision:squeezenet1_1", {"num_classes": 7}, "none"),
        ("torchvision:squeezenet1_1", {}, "least_squares"),
        ("resnet20", {"num_classes": 7, "shortcut": "B"}, "batchnorm"),
        ("resnet20", {}, "least_squares"),
    ],
)
def test_networks_are_rebuilt_by_name_and_arguments(network, arguments, repair, tmp_path):
    baseline = load_baseline(network, "random", input_shape=(3, 32, 32), **arguments)
    problem = simple_problem(baseline, images(8), budget=1.0, repair=repair)
    strategy = random_strategy(problem, 1)
    path = problem.save(tmp_path / "pruned", strategy)
    structure = read_structure(path)
    assert (structure["network"], structure["arguments"]) == (network, arguments)
    loaded = lfgcl_env.load_pruned(os.fspath(path), trust=network.startswith(__name__))
    assert same(loaded, problem.compress(strategy))
    assert loaded(INPUTS).shape == (5, baseline.num_classes)


def test_a_function_comes_back_by_its_importable_name(tmp_path):
    problem = simple_problem(load_baseline(built_elsewhere), images(8), budget=1.0)
    path = problem.save(tmp_path / "pruned", [3, 4])
    assert read_structure(path)["network"] == f"{__name__}:built_elsewhere"
    with pytest.raises(ValueError, match=r"would run somebody's code: pass .* network=build") as no:
        load_pruned(path)
    assert "\n" not in str(no.value)
    before = torch.get_rng_state()
    both = load_pruned(path, built_elsewhere), load_pruned(path, trust=True)
    assert torch.equal(torch.get_rng_state(), before)
    for loaded in both:
        assert same(loaded, problem.compress([3, 4]))


@pytest.mark.parametrize("given", [built_elsewhere, built_elsewhere()], ids=["function", "module"])
def test_a_network_given_as_a_module_needs_its_architecture_again(given, tmp_path):
    problem = simple_problem(built_elsewhere().eval(), images(8), budget=1.0)
    path = problem.save(tmp_path / "pruned", [3, 4])
    with pytest.raises(ValueError, match=r"given as a module, not by name: pass .* network="):
        load_pruned(path)
    assert same(load_pruned(path, network=given), problem.compress([3, 4]))


def test_arguments_that_json_cannot_hold_do_not_stand_in_the_way(tmp_path):
    baseline = load_baseline(
        "torchvision:resnet18", "random", input_shape=(3, 32, 32), norm_layer=nn.BatchNorm2d
    )
    problem = simple_problem(baseline, images(), budget=1.0)
    path = problem.save(tmp_path / "pruned", problem.channels)
    rebuilt = load_pruned(path, network=build_network("torchvision:resnet18"))
    assert same(rebuilt, problem.compress(problem.channels))


def test_a_loaded_network_can_be_trained_as_far_as_the_saved_one_could(tmp_path):
    network = awaken(plain())
    problem = simple_problem(network, images(), budget=1.0)
    loaded = load_pruned(problem.save(tmp_path / "pruned", [3, 4]), network=plain())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    loaded.train()(INPUTS).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_the_structure_tells_what_was_done(saved):
    problem = shared_problem("resnet20")
    strategy = random_strategy(problem, 1)
    structure = read_structure(saved)
    assert structure == load_pruned(saved).pruned_structure
    assert structure["network"] == "resnet20"
    assert structure["weights"] == "random"
    assert structure["input_shape"] == [3, 32, 32]
    assert structure["num_classes"] == 10
    assert structure["evaluation"]["keep"] == strategy.tolist()
    assert structure["evaluation"]["macs"] == problem.cost(strategy).macs
    assert structure["settings"]["criterion"] == "l1"
    kept = [structure["kept_channels"][group.name] for group in problem.groups]
    assert kept == [channels.tolist() for channels in problem.kept_channels(strategy)]
    assert len(structure["normalization"]) == 2


def test_the_file_is_plain_safetensors(saved):
    raw = saved.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    assert json.loads(header["__metadata__"]["lfgcl_env"])["format"] == 3
    assert "conv1.weight" in header


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.01, 0.5, 0.999])
def test_a_truncated_file_says_so_in_one_sentence(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        ValueError, match="not a pruned network's file, or was cut short"
    ) as refused:
        load_pruned(saved)
    assert str(saved) in str(refused.value)
    assert "\n" not in str(refused.value)


def foreign_text(path: Path) -> None:
    path.write_text("not a network at all, but long enough to hold a header")


def foreign_tensors(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def foreign_pickle(path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


def foreign_metadata(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, metadata={"lfgcl_env": "{not json"})


@pytest.mark.parametrize("write", [foreign_text, foreign_tensors, foreign_pickle, foreign_metadata])
def test_a_foreign_file_is_refused(write, tmp_path):
    write(tmp_path / "foreign")
    for read in (load_pruned, read_structure):
        with pytest.raises(ValueError, match="is not a pruned network's file"):
            read(tmp_path / "foreign")


@pytest.mark.parametrize("structure", [{"format": 1}, {}, [], "text", None])
def test_another_format_is_refused(structure, tmp_path):
    metadata = {"lfgcl_env": json.dumps(structure)}
    save_file({"weight": torch.zeros(3)}, tmp_path / "later", metadata=metadata)
    with pytest.raises(ValueError, match="not a pruned network's file of this version: "):
        load_pruned(tmp_path / "later")


@pytest.mark.parametrize("name", ["nothing", "."])
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="no pruned network at"):
        load_pruned(tmp_path / name)


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (
            lambda: build_network("resnet32"),
            r"does not fit the CifarResNet that was passed: it differs in \['layer1.3",
        ),
        (lambda: build_network("resnet20", num_classes=11), r"linear.\w+ is .* not cut from \[11"),
        (lambda: build_network("resnet20", shortcut="B"), "differs in"),
        (plain, "differs in"),
    ],
)
def test_a_wrong_architecture_is_refused(saved, network, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        load_pruned(saved, network=network())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", ["missing/pruned", "file/pruned"])
def test_an_unwritable_place_is_an_os_error_and_leaves_nothing(place, tmp_path):
    (tmp_path / "file").write_text("")
    problem = shared_problem("resnet20")
    with pytest.raises(OSError, match="pruned"):
        problem.save(tmp_path / place, problem.channels)
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interrupt_leaves_nothing_half_written(saved, error, monkeypatch):
    """Neither a partial file, nor a damaged one in place of the one before."""
    before = saved.read_bytes()

    write = Path.write_bytes

    def fail(path, content):
        write(path, content[: len(content) // 2])
        raise error

    problem = shared_problem("resnet20")
    monkeypatch.setattr(Path, "write_bytes", fail)
    for path in (saved, saved.with_name("new")):
        with pytest.raises(type(error)):
            problem.save(path, problem.channels)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert saved.read_bytes() == before


def test_a_network_with_other_channels_than_its_strategy_is_not_saved(tmp_path):
    problem = simple_problem(awaken(plain()), images(8))
    whole, half = problem.channels, problem.channels // 2
    with pytest.raises(ValueError, match=r"its 0\.bias is \(8,\), and the strategy's \(4,\)"):
        problem.save(tmp_path / "pruned.safetensors", half, problem.compress(whole))
    more = problem.cut(half)
    more.register_buffer("threshold", torch.zeros(()))
    with pytest.raises(ValueError, match="other tensors than the pruned one: threshold"):
        problem.save(tmp_path / "pruned.safetensors", half, more)
    assert not list(tmp_path.iterdir())
    problem.save(tmp_path / "pruned.safetensors", half, problem.cut(half))


def test_saving_does_not_need_the_strategy_to_be_scored_before(tmp_path):
    problem = simple_problem(awaken(plain()), images(), budget=1.0)
    with problem.count() as counted:
        problem.save(tmp_path / "pruned", np.array([2, 3]))
    assert len(counted) == 1


def rewritten(path: Path, **changes: object) -> Path:
    """A file whose header says something else, with a checksum that fits: a forgery."""
    structure = read_structure(path) | changes
    del structure["checksum"]
    save_file(load_file(path), path, metadata={"lfgcl_env": sealed(structure)})
    return path


def with_tensors(path: Path, **changes: torch.Tensor) -> Path:
    """A file with other tensors, with checksums that fit."""
    tensors = load_file(path) | changes
    structure = read_structure(path) | {"tensors": saved_form._sha256(tensors)}
    del structure["checksum"]
    save_file(tensors, path, metadata={"lfgcl_env": sealed(structure)})
    return path


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("subprocess:run", {"args": ["touch", "ran"]}),
        ("os:rmdir", {"path": "victim"}),
        ("planted:build", {}),
        ("lfgcl_env.edge.files:remove_partials", {"folder": "victim"}),
        ("lfgcl_env.agents.random:make", {}),
    ],
)
def test_no_code_that_a_file_names_is_imported_or_run(
    saved, network, arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted.py").write_text("open('ran', 'w')\ndef build(): open('ran', 'w')\n")
    (tmp_path / "victim").mkdir()
    before = set(os.listdir())
    with pytest.raises(ValueError, match="would run somebody's code"):
        load_pruned(rewritten(saved, network=network, arguments=arguments))
    assert set(os.listdir()) == before
    assert "planted" not in sys.modules


@pytest.mark.parametrize(
    ("network", "arguments", "complaint"),
    [
        ("resnet20", {"num_classes": 10**9}, "at most 100,000"),
        ("resnet20", {"num_classes": "7"}, "cannot be built"),
        ("resnet20", {"num_classes": -1}, "cannot be built"),
        ("resnet20", {"depth": 20}, "cannot be built"),
        ("resnet20", {"classes": 10}, "does not take 'classes'"),
        ("torchvision:resnet50", {"width_per_group": 10**5}, "parameters; at most"),
        ("torchvision:resnet18", {"groups": 0}, "cannot be built"),
        ("torchvision:resnet18", {"layers": [10**5] * 4}, "must be a number of at most"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "not for files"),
        ("torchvision:resnet18", {"pretrained": True}, "not for files"),
        ("torchvision:resnet1", {}, "no classification network"),
        ("resnet32", {}, "does not fit resnet32: it differs in"),
    ],
)
def test_a_forged_architecture_is_refused_before_anything_is_allocated(
    saved, network, arguments, complaint
):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=complaint) as refused:
        load_pruned(rewritten(saved, network=network, arguments=arguments))
    assert "\n" not in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 2**18  # KiB: 256 MiB


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        ({"layer1.0.conv1": [10**6, None]}, "which its header says is cut to"),
        ({"layer9": [3, None]}, "it has no layer 'layer9'"),
        ({"": [3, None]}, "should have at least 1 character"),
        ({"layer1.0.conv1": [10**9, None]}, "should be less than or equal to"),
        ({}, "which is not cut from"),
    ],
)
def test_forged_sizes_are_refused(saved, layers, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_pruned(rewritten(saved, layers=layers))


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        (torch.zeros(10, dtype=torch.int64), "of type I64, and torch.float32 is needed"),
        (torch.full((10,), float("nan")), "NaN or infinite values in linear.bias"),
        (torch.zeros(11), "not cut from"),
        (torch.zeros(10, 1), "not cut from"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(saved, tensor, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_pruned(with_tensors(saved, **{"linear.bias": tensor}))


def test_every_single_flipped_bit_is_noticed(saved):
    content = saved.read_bytes()
    draw = np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    for place in [
        *range(8),
        *draw.integers(8, header, 92),
        *draw.integers(header, len(content), 100),
    ]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=str(saved)):
            load_pruned(saved)


@pytest.mark.parametrize("network", [3, "resnet20", lambda: 3])
def test_what_is_no_architecture_is_refused(saved, network):
    with pytest.raises(ValueError, match=r"torch\.nn\.Module"):
        load_pruned(saved, network)


@pytest.mark.parametrize("keep", [[8, 1], [1, 1]])
def test_a_delivered_network_with_one_channel_comes_back(keep, tmp_path):
    problem = simple_problem(awaken(plain()), images(8))
    delivered, _ = problem.finish(keep, images(16, seed=1))
    assert same(load_pruned(problem.save(tmp_path / "pruned", keep, delivered), plain), delivered)


def test_a_block_under_two_names_is_cut_and_comes_back_under_both(tmp_path):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.one = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1))
            self.other = self.one
            self.head = Head(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(x + self.other(x + self.one(x)))

    problem = simple_problem(awaken(Twice()), images(8))
    (keep,) = ([3] if group.name == "one.0" else [] for group in problem.groups)
    small = problem.compress(keep)
    loaded = load_pruned(problem.save(tmp_path / "pruned", keep, small), Twice())
    assert loaded.one is loaded.other
    assert loaded.one[0].out_channels == 3
    assert same(loaded, small)


def test_buffers_that_are_in_no_file_have_the_precision_of_the_file(tmp_path):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = plain()
            self.register_buffer("scale", torch.full((1,), 2.0), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * self.scale

    with pytest.warns(UserWarning, match="float64 weights"):
        problem = simple_problem(awaken(Scaled()).double(), images(8))
    keep = [3, 4]
    small = problem.compress(keep)
    assert same(
        load_pruned(problem.save(tmp_path / "pruned", keep, small), Scaled().double()), small
    )
