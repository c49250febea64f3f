"""The interface of repairs that run before every score, and their registry."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.pruning.moments.second_moments import Moments
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork

Features = list[list[Tensor]]
"""Features per place and batch, see :class:`~lfgcl_env.pruning.score.features.FeatureReader`."""


@dataclass(frozen=True)
class Cut:
    """A pruned network and what it was cut to.

    Attributes:
        network: in evaluation mode, on the device of the images; its tensors are replaced.
        kept: for each group, the indices of the channels that stay.
    """

    network: nn.Module
    kept: Sequence[NDArray[np.int64]]


class Reader(Protocol):
    """Reads features out of a network's forward passes."""

    def reading(self, network: nn.Module) -> AbstractContextManager[Features]:
        """Collect the features of every forward pass of ``network`` inside the block."""


class Repair:
    """A way to repair candidates. Its subclasses change what they need to; this one does nothing.

    One object serves one problem. It is made without arguments, checks the network, prepares the
    candidate once, and from then on runs it after every cut.

    Attributes:
        large_batches: whether statistics are taken of batches, which are better the larger they
            are; otherwise batches are of the size that runs fastest.
        costly: whether a score after it takes far longer than a forward pass.
        similarity: that ranks networks best after it, by docs/fidelity.md.
        score_images: images that scores take after it, for every calibration image; 0: these.
    """

    large_batches = False
    costly = False
    similarity = "discounted_mse"
    score_images = 0

    def check(self, network: nn.Module) -> None:
        """Refuse a network that cannot be repaired so.

        Raises:
            ValueError: if it cannot; the message names a repair that can.
        """

    def check_cut(self, network: PrunableNetwork) -> None:
        """Refuse a network that cannot be repaired so once channels are gone.

        Raises:
            ValueError: if it cannot; the message names a repair that can.
        """

    def prepare(
        self,
        network: PrunableNetwork,
        candidate: Candidate,
        images: Sequence[Tensor],
        moments: Callable[[], Mapping[str, Moments]],
    ) -> None:
        """Compute what does not depend on a strategy, before the first one is installed.

        Args:
            network: what is pruned.
            candidate: still the whole network; how it is cut may be changed.
            images: the calibration images in batches, which repairs go by.
            moments: returns the second moments of every layer whose inputs follow groups.
        """

    def run(
        self,
        candidate: Candidate,
        kept: Sequence[NDArray[np.int64]],
        reader: Reader,
        batches: Sequence[Tensor],
    ) -> Features:
        """Repair a candidate that has been cut, run it, and return its features.

        Args:
            candidate: cut to the strategy.
            kept: for each group, the indices of the channels that stay.
            reader: of features.
            batches: images to run it on, the calibration images or others.
        """
        return run_plain(candidate.network, reader, batches)

    def carry(
        self, candidate: Candidate, kept: Sequence[NDArray[np.int64]], smaller: nn.Module
    ) -> None:
        """Copy weights and statistics of a cut and repaired candidate into a network of its shape.

        Args:
            candidate: cut to the strategy.
            kept: for each group, the indices of the channels that stay.
            smaller: the compressed network; its tensors are overwritten.
        """
        smaller.load_state_dict(candidate.network.state_dict())

    def carry_prior(
        self, candidate: Candidate, kept: Sequence[NDArray[np.int64]], smaller: nn.Module
    ) -> None:
        """Copy what a sequential repair of ``smaller`` starts from; see :meth:`carry`."""
        self.carry(candidate, kept, smaller)


REPAIRS: dict[str, type[Repair]] = {}
"""Repairs that a problem can be scored with, by name; see :func:`repair`."""

_Kind = TypeVar("_Kind", bound=type[Repair])


def repair(name: str) -> Callable[[_Kind], _Kind]:
    """Register a subclass of :class:`Repair` under a name in :data:`REPAIRS`."""

    def register(kind: _Kind) -> _Kind:
        REPAIRS[name] = kind
        return kind

    return register


@torch.inference_mode()
def run_plain(network: nn.Module, reader: Reader, batches: Sequence[Tensor]) -> Features:
    """Run a network as it is and return its features."""
    with reader.reading(network) as features:
        for batch in batches:
            network(batch)
    return features
