"""The accuracy that comes with published and embedded weights."""

from typing import Any

from lfgcl_env.networks.baseline import Baseline
from lfgcl_env.networks.embedded_weights import embedded_names, read_card
from lfgcl_env.networks.normalization import Normalization
from lfgcl_env.networks.published import PUBLISHED

TESTED_ON = {"CIFAR10": 10_000, "CIFAR100": 10_000}
"""Images of the test sets that accuracies are stated for."""


def stated_top1(baseline: Baseline, data: str, images: int) -> float | None:
    """Return the top-1 that a network's weights come with [%]; None where none is known.

    That of published weights is their source's, that of embedded ones is on their model card. Both
    are of the network as it was trained: with other normalization or arguments none is known.

    Args:
        baseline: the network.
        data: the data set that it is tested on.
        images: of its test set; of some alone no accuracy is stated.
    """
    name, arguments = baseline.name, baseline.arguments
    if name is None or images != TESTED_ON.get(data):
        return None
    of: tuple[Any, ...]  # data, normalization and arguments that it is stated for
    if baseline.weights == "published" and name in PUBLISHED:
        source = PUBLISHED[name]
        stated, of = round(100 - source.test_error, 2), (source.data, source.normalization, {})
    elif baseline.weights == "embedded" and name in embedded_names():
        card = read_card(name)
        stated = card["top1"]
        of = (card["data"], Normalization(**card["normalization"]), card["arguments"])
    else:
        return None
    return stated if of == (data, baseline.normalization, arguments) else None
