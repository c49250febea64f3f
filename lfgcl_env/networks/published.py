"""Published weights: where they are, what they were trained with, and loading them checked."""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor

from lfgcl_env.networks.embedded_weights import embedded_names
from lfgcl_env.networks.normalization import IMAGENET, Normalization
from lfgcl_env.networks.state_dicts import unwrap

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedWeights:
    """One published checkpoint.

    Attributes:
        url: where it is downloaded from; the file name ends with the first hexadecimal digits of
            its SHA-256.
        normalization: what the training normalised its images with.
        test_error: top-1 error on the test set that the source states [%].
        licence: licence of the source.
        source: the repository it comes from.
        data: the data set it was trained on, as torchvision names it.
        num_classes: classes of that data set.
    """

    url: str
    normalization: Normalization
    test_error: float
    licence: str
    source: str
    data: str = "CIFAR10"
    num_classes: int = 10

    @property
    def path(self) -> Path:
        """Where the downloaded file is kept (``torch.hub`` decides; see ``TORCH_HOME``)."""
        return cached_path(self.url)


def _idelbayev(file: str, test_error: float) -> PublishedWeights:
    source = "https://github.com/akamaster/pytorch_resnet_cifar10"
    return PublishedWeights(
        url=f"{source}/raw/master/pretrained_models/{file}",
        normalization=IMAGENET,  # trainer.py of the source normalises CIFAR-10 with ImageNet's
        test_error=test_error,
        licence="BSD-2-Clause",
        source=source,
    )


def _chenyaofo(file: str, test_error: float) -> PublishedWeights:
    source = "https://github.com/chenyaofo/pytorch-cifar-models"
    return PublishedWeights(
        url=f"{source}/releases/download/{file}",
        # "mean" and "std" of the training logs in the source
        normalization=Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        test_error=test_error,
        licence="BSD-3-Clause",
        source=source,
    )


PUBLISHED: dict[str, PublishedWeights] = {
    "resnet20": _idelbayev("resnet20-12fca82f.th", 8.27),
    "resnet32": _idelbayev("resnet32-d509ac18.th", 7.37),
    "resnet44": _idelbayev("resnet44-014dd654.th", 6.90),
    "resnet56": _idelbayev("resnet56-4bfd9763.th", 6.61),
    "resnet110": _idelbayev("resnet110-1d1ed7c2.th", 6.32),
    "vgg16_bn": _chenyaofo("vgg/cifar10_vgg16_bn-6ee7ea24.pt", 5.84),
    "mobilenet_v2": _chenyaofo("mobilenetv2/cifar10_mobilenetv2_x1_0-fe6a5b48.pt", 6.21),
}


def load_published(name: str) -> dict[str, Tensor]:
    """Return the published state dict of a network, downloaded if it is not there yet.

    Raises:
        ValueError: if there is none of that name, or the file is not the published one.
        OSError: if it cannot be downloaded.
    """
    check_published(name)
    path = PUBLISHED[name].path
    fetch(PUBLISHED[name].url)
    return unwrap(torch.load(path, map_location="cpu", weights_only=True), str(path))


def fetch(url: str) -> None:
    """Download weights to where ``torch.hub`` keeps them, or check those that are there.

    Args:
        url: whose file name ends with the first digits of the file's SHA-256.

    Raises:
        ValueError: if the file is not the published one.
        OSError: if it cannot be downloaded.
    """
    path = cached_path(url)
    if path.exists():
        _check_cached(url)
        return
    _logger.info("downloading %s to %s", url, path)
    with _explained_download(url):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), _expected(url))


def check_published(name: str) -> None:
    """Check that there are published weights of a network.

    Raises:
        ValueError: if there are none; the message names the networks that have some.
    """
    if name not in PUBLISHED:
        raise ValueError(
            f"there are no published weights of {name} (networks that have some: "
            f"{', '.join(PUBLISHED)}): give weights={_others(name)} or the path of a state dict"
        )


def _others(name: str) -> str:
    return "'embedded', 'random'" if name in embedded_names() else "'random'"


def cached_path(url: str) -> Path:
    """Return where ``torch.hub`` keeps what it downloads from ``url``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def is_published_file(path: str | os.PathLike[str], url: str) -> bool:
    """Return whether the file has the SHA-256 that the file name in ``url`` ends with."""
    return sha256(path).startswith(_expected(url))


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expected(url: str) -> str:
    return cached_path(url).stem.rsplit("-", 1)[-1]


def _check_cached(url: str) -> None:
    """Check the SHA-256 of a file downloaded earlier against the digits in its name.

    ``torch.hub`` checks what it downloads, never what it finds: without this a truncated or
    foreign file would be loaded, or fail in the middle of a zip archive.

    Raises:
        ValueError: if the file is there and is not the published one.
    """
    path = cached_path(url)
    if not path.exists():
        return
    found, expected = sha256(path), _expected(url)
    if not found.startswith(expected):
        raise ValueError(
            f"{str(path)!r} is damaged or is not the published checkpoint (its SHA-256 begins with "
            f"{found[: len(expected)]}, not {expected}): delete it and it is downloaded again"
        )


@contextmanager
def _explained_download(url: str) -> Iterator[None]:
    """Explain a failed download of ``url`` in one sentence that says what to do.

    Raises:
        OSError: if it cannot be fetched or stored.
        ValueError: if what came is not the published file.
    """
    try:
        yield
    except (OSError, HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise OSError(
            f"cannot download {url} ({reason}): put the file into "
            f"{str(cached_path(url).parent)!r} by hand, or give weights='random', the path of a "
            "state dict, or 'embedded' for those in the package "
            f"({' and '.join(embedded_names())})"
        ) from error
    except RuntimeError as error:
        if "invalid hash value" not in str(error):
            raise
        raise ValueError(
            f"the file from {url} is damaged or is not the published checkpoint (its SHA-256 does "
            "not begin with the digits in the name): try again later"
        ) from error
