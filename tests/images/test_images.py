"""Calibration images and test sets: what is loaded, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lfgcl_env.images import LabelledImages, data_root, load_images, load_test_set, top1
from lfgcl_env.networks import IMAGENET, Normalization

HALF = Normalization((0.5,) * 3, (0.25,) * 3)
SHAPE = (3, 4, 6)


def pixels(count: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)


def load(source, count=None, **keywords):
    return load_images(source, count, **({"shape": SHAPE, "normalization": HALF} | keywords))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    for index in range(6):
        where = tmp_path / "below" if index % 2 else tmp_path
        Image.new("RGB", (12, 9), (index, 128, 255)).save(where / f"{index}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


# Tensors and arrays


def test_pixels_are_scaled_and_normalised_in_every_layout():
    source = pixels()
    expected = (source / 255 - 0.5) / 0.25
    for given in (source, source.permute(0, 2, 3, 1), source.numpy(), source[..., :].numpy()):
        assert torch.allclose(load(given), expected)
    assert load(source, normalization=None).max() <= 1


def test_floating_point_inputs_are_taken_as_they_are_and_copied():
    source = torch.randn(5, *SHAPE, dtype=torch.float64, requires_grad=True)
    images = load(source)
    assert images.dtype == torch.float32
    assert not images.requires_grad
    assert torch.equal(images, source.detach().float())
    own = torch.randn(5, *SHAPE)
    load(own).zero_()
    assert own.any()


def test_a_draw_is_seeded_and_a_larger_one_begins_with_a_smaller():
    source = pixels(50)
    small, same, other = load(source, 5), load(source, 5), load(source, 5, seed=1)
    assert torch.equal(small, same)
    assert not torch.equal(small, other)
    assert torch.equal(load(source, 20)[:5], small)
    assert torch.equal(load(source, 50)[:5], small)
    assert torch.equal(load(source)[0], load(source[:1])[0])


def test_a_draw_leaves_the_global_generators_alone():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load(pixels(), 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_inputs_that_look_unnormalised_are_refused(scale):
    source = pixels() / 255 * scale
    with pytest.raises(ValueError, match="look as if they were not normalised"):
        load(source)
    load(source, normalization=None)
    load(source, normalization=Normalization((0.0,) * 3, (1.0,) * 3))


@pytest.mark.parametrize(
    ("source", "count", "message"),
    [
        (pixels()[:, :2], None, "do not fit the network"),
        (pixels()[:, :, :3], None, "do not fit the network"),
        (pixels()[0], None, "do not fit the network"),
        (torch.randn(2, 4, 6, 3), None, "do not fit the network"),
        (pixels(), 9, "holds 8 images, and 9 are needed"),
        (pixels(0), None, "holds 0 images"),
        (pixels(), 0, "a whole number of at least 1"),
        (pixels(), 2.5, "a whole number of at least 1"),
        (pixels().to(torch.int64), None, "neither uint8 pixels"),
        (pixels().numpy() > 3, None, "neither uint8 pixels"),
        (np.array(["cat"]), None, "neither uint8 pixels"),
        (torch.full((2, *SHAPE), torch.nan), None, "NaN"),
        (torch.full((2, *SHAPE), 1e300, dtype=torch.float64), None, "infinite"),
        ([1, 2], None, "type list"),
        ("CIFAR-10", None, r"an existing folder.*Did you mean 'CIFAR10'\?"),
        ("no/such/folder", None, "unknown images"),
    ],
)
def test_images_that_cannot_be_used_are_refused(source, count, message):
    with pytest.raises(ValueError, match=message):
        load(source, count)


# Folders


def test_a_folder_is_read_with_everything_below_it(folder):
    images = load(folder, normalization=None)
    assert images.shape == (6, *SHAPE)
    reds = (images[:, 0, 0, 0] * 255).round().int().tolist()
    assert sorted(reds) == [0, 1, 2, 3, 4, 5]
    assert torch.equal(load(str(folder), 3), load(folder, 3))


def test_a_folder_for_a_network_that_takes_grey(folder):
    assert load(folder, 2, shape=(1, 5, 5), normalization=None).shape == (2, 1, 5, 5)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        load(folder, 2, shape=(4, 5, 5), normalization=None)


def test_a_folder_with_too_few_images_says_how_many(folder, tmp_path):
    with pytest.raises(ValueError, match="holds 6 images, and 7 are needed"):
        load(folder, 7)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images: files that end with \.bmp"):
        load(tmp_path / "empty", 1)


def test_an_unreadable_file_is_named(folder):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff half a picture")
    with pytest.raises(ValueError, match=r"broken\.jpg.*cannot be read"):
        load(folder)


# Data sets


def test_the_data_root_is_the_argument_then_the_variable_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("LFGCL_DATA", raising=False)
    assert data_root().parts[-3:] == (".cache", "lfgcl", "data")
    monkeypatch.setenv("LFGCL_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root(tmp_path / "given") == tmp_path / "given"


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_a_missing_data_set_says_where_it_was_looked_for_and_how_to_get_it(tmp_path, name):
    for call in (
        lambda: load(name, 4, root=tmp_path),
        lambda: load_test_set(name, normalization=None, root=tmp_path),
    ):
        with pytest.raises(FileNotFoundError, match=r"LFGCL_DATA.*download=True") as error:
            call()
        assert f"{name} is not in {str(tmp_path)!r}" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_damaged_data_set_is_told_from_a_missing_one(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="CIFAR10 is incomplete or damaged in"):
        load("CIFAR10", 4, root=tmp_path)


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    from urllib.error import URLError

    def refuse(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    with pytest.raises(OSError, match=r"cannot download CIFAR10.*Name or service.*by hand"):
        load("CIFAR10", 4, root=tmp_path, download=True)


def test_an_unknown_test_set_is_refused():
    with pytest.raises(ValueError, match=r"unknown data set 'CIFAR'.*Did you mean"):
        load_test_set("CIFAR", normalization=None)


@pytest.mark.data
def test_calibration_images_are_training_images_without_labels():
    images = load_images("CIFAR10", 64, shape=(3, 32, 32), normalization=IMAGENET)
    assert images.shape == (64, 3, 32, 32)
    assert images.dtype == torch.float32
    again = load_images("CIFAR10", 64, shape=(3, 32, 32), normalization=IMAGENET)
    assert torch.equal(images, again)
    test = load_test_set("CIFAR10", normalization=IMAGENET).images
    assert not any((image == test).flatten(1).all(1).any() for image in images[:8])


@pytest.mark.data
def test_a_data_set_is_resized_to_what_the_network_takes():
    images = load_images("CIFAR10", 2, shape=(3, 40, 48), normalization=IMAGENET)
    assert images.shape == (2, 3, 40, 48)
    with pytest.raises(ValueError, match="have 3 channels, and the network takes 1"):
        load_images("CIFAR10", 2, shape=(1, 40, 48), normalization=None)


# Accuracy


class Echo(nn.Module):
    """Gives its inputs as logits, the wrong way round in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9).eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return -x if self.training else x


def test_top1_counts_in_percent_in_eval_mode_and_restores_every_flag():
    logits = torch.eye(4)[:, :, None, None]
    test_set = LabelledImages(logits, torch.tensor([0, 1, 2, 0]), "toy")
    network = Echo().train()
    network.dropout.eval()
    assert top1(network, test_set, batch_size=3) == 75.0
    assert network.training
    assert not network.dropout.training


def test_labels_must_belong_to_images():
    with pytest.raises(ValueError, match="one label for every image"):
        LabelledImages(torch.zeros(3, 1, 2, 2), torch.zeros(2, dtype=torch.int64), "toy")
    with pytest.raises(ValueError, match="batch_size"):
        top1(Echo(), LabelledImages(torch.zeros(1, 2, 1, 1), torch.zeros(1).long(), "toy"), 0)
