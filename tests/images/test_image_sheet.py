"""Image sheets: many small images in one PNG."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lfgcl_env.images import load_images, read_sheet, write_sheet


def noise(*shape):
    draw = np.random.default_rng(0)
    return torch.from_numpy(draw.integers(0, 256, shape, dtype=np.uint8))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 11), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_what_is_written_is_read(tmp_path_factory, count, channels, height, width):
    path = tmp_path_factory.mktemp("sheets") / "sheet.png"
    pixels = noise(count, channels, height, width)
    write_sheet(path, pixels, {"seed": 3, "network": "größer"})
    found, texts = read_sheet(path)
    assert torch.equal(found, pixels)
    assert texts["seed"] == "3"
    assert texts["network"] == "größer"


def test_a_sheet_is_a_picture_of_a_square_grid(tmp_path):
    pixels = noise(5, 3, 4, 6)
    write_sheet(tmp_path / "sheet.png", pixels, {})
    with Image.open(tmp_path / "sheet.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (18, 8))
        grid = np.asarray(picture)
    assert np.array_equal(grid[4:8, 6:12], pixels[4].permute(1, 2, 0).numpy())
    assert not grid[4:8, 12:].any()


def test_a_picture_that_is_no_sheet_is_refused(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match=r"is a picture, but no image sheet .* the folder"):
        read_sheet(tmp_path / "photo.png")
    texts = PngInfo()
    for name, value in {"count": 4, "channels": 3, "height": 32, "width": 31}.items():
        texts.add_text(name, str(value))
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png", pnginfo=texts)
    with pytest.raises(ValueError, match="is a picture, but no image sheet"):
        load_images(tmp_path / "other.png", 2, shape=(3, 32, 32), normalization=None)


@pytest.mark.parametrize("size", [0, 7, 40, 300])
def test_a_damaged_sheet_is_refused(tmp_path, size):
    path = tmp_path / "sheet.png"
    write_sheet(path, noise(9, 3, 8, 8), {})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"sheet\.png' cannot be read"):
        read_sheet(path)


def test_a_missing_sheet_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no image sheet"):
        read_sheet(tmp_path / "sheet.png")


@pytest.mark.parametrize(
    "pixels", [torch.zeros(2, 3, 4, 4), noise(3, 4, 4), noise(0, 3, 4, 4)], ids=["float", "3d", "0"]
)
def test_what_is_no_pixels_is_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match=r"are no image sheet: give uint8"):
        write_sheet(tmp_path / "sheet.png", pixels, {})
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_sheet(tmp_path / "sheet.png", noise(2, 3, 4, 4), {})
    assert not list(tmp_path.iterdir())


def test_images_are_drawn_from_a_sheet_by_seed(tmp_path):
    pixels = noise(6, 3, 4, 4)
    write_sheet(tmp_path / "sheet.png", pixels, {})
    drawn = [
        load_images(tmp_path / "sheet.png", 3, shape=(3, 4, 4), normalization=None, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    with pytest.raises(ValueError, match=r"the image sheet .* holds 6 images, and 7 are needed"):
        load_images(tmp_path / "sheet.png", 7, shape=(3, 4, 4), normalization=None)
