"""Weights in the package, which need no download; each file has a model card beside it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lfgcl_env.networks.normalization import Normalization
from lfgcl_env.networks.state_dicts import read_state_dict

FOLDER = Path(__file__).parent / "weights"


class EmbeddedWeights(NamedTuple):
    """Weights from the package, with what has to be known to use them.

    Attributes:
        state: float32 tensors by name; ``num_batches_tracked`` is not among them.
        arguments: that the network must be built with.
        normalization: of the images that it was trained on.
        path: of the file.
    """

    state: dict[str, Tensor]
    arguments: dict[str, Any]
    normalization: Normalization
    path: Path


def embedded_names() -> list[str]:
    """Return the networks whose weights come with the package."""
    return names_of_files(FOLDER, ".safetensors")


def load_embedded(name: str) -> EmbeddedWeights:
    """Return the weights of a network that come with the package.

    Raises:
        ValueError: if it has none; the message names those that have.
        FileNotFoundError: if a file of the package is missing.
    """
    if name not in embedded_names():
        raise ValueError(
            f"no weights of {name} come with the package (networks that have some: "
            f"{', '.join(embedded_names()) or 'none'}): give weights='published', 'random', or "
            "the path of a state dict"
        )
    path = FOLDER / f"{stem_of_files(name)}.safetensors"
    card = read_card(name)
    state = {key: tensor.float() for key, tensor in read_state_dict(path).items()}
    normalization = Normalization(**card["normalization"])
    return EmbeddedWeights(state, card["arguments"], normalization, path)


def read_card(name: str) -> dict[str, Any]:
    """Return the model card of a network's embedded weights.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = FOLDER / f"{stem_of_files(name)}.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no model card {str(path)!r}: reinstall the package")
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card


def stem_of_files(name: str) -> str:
    """Return what the files of a network are called: its name, which ends in its data set.

    >>> stem_of_files("resnet20"), stem_of_files("resnet20_cifar100")
    ('resnet20_cifar10', 'resnet20_cifar100')
    """
    return name if name.endswith("_cifar100") else f"{name}_cifar10"


def names_of_files(folder: Path, suffix: str) -> list[str]:
    """Return the networks that have a file in a folder of the package."""
    return sorted(path.stem.removesuffix("_cifar10") for path in folder.glob(f"*{suffix}"))
