"""What several test files need: skipping what needs missing data, and marking what is slow."""

import re
import signal
import sys

import pytest

from lfgcl_env.images import data_root
from lfgcl_env.networks import PUBLISHED

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell's script
    signal.signal(signal.SIGINT, signal.default_int_handler)

LARGE = re.compile(
    r"(?:LFGCL|AMC)-(?:v0|ResNet44|ResNet56|ResNet110|VGG16|MobileNetV2)"
    r"|resnet50|vgg16_bn|mobilenet_v2"
)
"""Begins the names of cases that take a large network."""

PHOTOGRAPHED = "MobileNetV2 and photographs"
"""What packages carry for benchmarks/mobilenet.py: the weights for ImageNet, and photographs."""

FOLDERS = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}
"""Data sets, and the folders that torchvision keeps them in."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of large networks as slow."""
    for item in items:
        case = getattr(item, "callspec", None)
        if case is not None and LARGE.match(case.id):
            item.add_marker(pytest.mark.slow)


def missing(need: str) -> str | None:
    """Return how to get a data set or the weights of a network; None if they are there."""
    if need in FOLDERS:
        root = data_root()
        if (root / FOLDERS[need]).is_dir():
            return None
        return (
            f"{need} is not in {root}: "
            f'python -c "import torchvision; torchvision.datasets.{need}({str(root)!r}, '
            'download=True)"'
        )
    if need == PHOTOGRAPHED:
        import mobilenet  # a benchmark, which other tests do not load
        import photographs

        try:
            mobilenet.weights(), photographs.folders()
        except ImportError as error:
            return str(error)
        return None
    if PUBLISHED[need].path.is_file():
        return None
    return (
        f"{PUBLISHED[need].path} is not there: "
        f'python -c "import lfgcl_env.networks as n; n.load_baseline({need!r})"'
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked ``data(need, ...)`` where a need is missing; without one: CIFAR10."""
    for mark in item.iter_markers("data"):
        for need in mark.args or ("CIFAR10",):
            if how := missing(need):
                pytest.skip(how)


@pytest.fixture
def frequent_switches():
    """Threads take turns every 10 microseconds, so that they meet where they must not."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """An empty cache of downloaded weights; returns the folder of its checkpoints."""
    monkeypatch.setattr("torch.hub._hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints
