"""Fixtures of the command's tests."""

from dataclasses import fields

import pytest
import torch
from command_for_tests import prune

from lfgcl_env.images import LabelledImages
from lfgcl_env.recovery import RecoveryOptions


@pytest.fixture(autouse=True)
def threads_as_before():
    """The command sets PyTorch's threads for its process, which is ours here."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert prune(out) == 0
    return out


@pytest.fixture
def short_epochs(monkeypatch):
    """Epochs of a recovery have 64 images at least, in place of 4,096."""
    names = [field.name for field in fields(RecoveryOptions)]
    given = list(RecoveryOptions.__init__.__defaults__)
    given[names.index("epoch_images")] = 64
    monkeypatch.setattr(RecoveryOptions.__init__, "__defaults__", tuple(given))


@pytest.fixture
def test_set(monkeypatch):
    """Labelled noise for CIFAR-10's test images."""
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labelled = LabelledImages(images, torch.arange(20) % 10, "CIFAR10 test")
    monkeypatch.setattr("lfgcl_env.cli.evaluate.load_test_set", lambda *_, **__: labelled)
    return labelled
