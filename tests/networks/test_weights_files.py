"""Weights from files of every kind, and what is wrong with them."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from lfgcl_env.networks import Normalization, build_network, load_baseline


def tiny() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4)
    ).eval()


@pytest.mark.parametrize("suffix", [".pt", ".th", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_from_a_file(tmp_path, suffix, wrapped):
    path = tmp_path / f"own{suffix}"
    state = build_network("resnet20").state_dict()
    stored = {f"module.{key}": value for key, value in state.items()} if wrapped else state
    if suffix == ".safetensors":
        save_file(stored, path)
    else:
        torch.save({"state_dict": stored, "epoch": 3} if wrapped else stored, path)
    with pytest.warns(UserWarning, match="does not say how its inputs were normalised"):
        baseline = load_baseline("resnet20", path)
    assert torch.equal(baseline.network.conv1.weight, state["conv1.weight"])
    assert baseline.weights == str(path)


def test_a_normalization_that_is_given_is_taken_without_a_warning(tmp_path):
    path = tmp_path / "own.pt"
    torch.save(build_network("resnet20").state_dict(), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baseline = load_baseline("resnet20", path, normalization=((0.5,) * 3, (0.25,) * 3))
    assert baseline.normalization == Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    path = tmp_path / "own.pt"
    torch.save(build_network("resnet32", num_classes=100).state_dict(), path)
    with pytest.raises(ValueError, match=r"own.pt.*unknown layer1.3.*linear.weight \(100, 64\)"):
        load_baseline("resnet20", path)


def test_weights_with_nan_are_refused(tmp_path):
    path = tmp_path / "own.pt"
    state = build_network("resnet20").state_dict()
    state["linear.bias"][3] = float("nan")
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"NaN or infinite values in linear.bias"):
        load_baseline("resnet20", path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half an archive"])
def test_a_file_that_is_no_state_dict_is_named(tmp_path, suffix, content):
    path = tmp_path / f"own{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"own{suffix}.*damaged"):
        load_baseline("resnet20", path)


def test_a_pickled_module_is_not_executed(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(build_network("resnet20"), path)
    with pytest.raises(ValueError, match="weights_only"):
        load_baseline("resnet20", path)


def test_a_file_with_something_else_is_named(tmp_path):
    path = tmp_path / "own.pt"
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds no state dict"):
        load_baseline("resnet20", path)


def test_a_missing_file_and_a_misspelt_word_are_told_apart():
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'published'\?"):
        load_baseline("resnet20", "publishd")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.int64, "whole"), (torch.uint8, "whole"), (torch.complex64, "complex")],
)
def test_weights_of_whole_or_complex_numbers_are_refused(tmp_path, suffix, dtype, kind):
    path = tmp_path / f"own{suffix}"
    state = build_network("resnet20").state_dict()
    state["conv1.weight"] = state["conv1.weight"].to(dtype)
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    with pytest.raises(ValueError, match=f"conv1.weight of {kind} numbers instead of floating-poi"):
        load_baseline("resnet20", path)


@pytest.mark.parametrize(
    "change", [torch.Tensor.to_sparse, lambda value: value.to("meta"), lambda value: value.half()]
)
def test_dense_weights_of_any_precision_are_loaded_and_others_refused(tmp_path, change):
    path = tmp_path / "own.pt"
    state = build_network("resnet20").state_dict()
    state["linear.weight"] = change(state["linear.weight"])
    torch.save(state, path)
    if state["linear.weight"].dtype == torch.float16:
        loaded = load_baseline("resnet20", path, normalization=((0.5,) * 3, (0.25,) * 3))
        assert loaded.network.linear.weight.dtype == torch.float32
    else:
        with pytest.raises(ValueError, match=r"own.pt.*(linear.weight of unusual|is damaged)"):
            load_baseline("resnet20", path)


@settings(max_examples=60, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 2**30), st.integers(1, 255)), min_size=1, max_size=9)
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_damaged_file_is_loaded_or_refused_in_one_sentence(tmp_path_factory, suffix, flips):
    path = tmp_path_factory.mktemp("damaged") / f"own{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tiny().state_dict(), path)
    content = bytearray(path.read_bytes())
    for place, change in flips:
        content[place % len(content)] ^= change
    path.write_bytes(content)
    try:
        load_baseline(tiny, path)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 (flips in values may go unnoticed)
