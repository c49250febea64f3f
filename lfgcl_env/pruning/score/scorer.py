"""Scorer: pruned networks scored by their features on the calibration images."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.edge.value_checks import with_kind
from lfgcl_env.networks.feeding import fed
from lfgcl_env.networks.prepared import settle
from lfgcl_env.pruning.repair.interface import Features, run_plain
from lfgcl_env.pruning.score.features import OUTPUT, FeatureReader
from lfgcl_env.pruning.score.similarities import SIMILARITIES, relative_error, variance
from lfgcl_env.pruning.structure.candidate import Candidate
from lfgcl_env.pruning.structure.prunable_network import PrunableNetwork


class Scorer:
    """Compares features of pruned networks with the baseline's, which are read once.

    Args:
        network: what is pruned.
        candidate: a candidate that is still the whole network.
        batches: calibration images on its device.
        similarity: a name in :data:`~lfgcl_env.pruning.score.similarities.SIMILARITIES`.
        features: modules at whose outputs features are compared; None for the inputs of the layers
            that feed the network's outputs.

    Raises:
        ValueError: for modules without features that can be compared.

    Attributes:
        reader: reads features out of forward passes at the places that are compared.
        targets: the baseline's features, one matrix (images, features) per place, or outputs in
            their shape.
    """

    def __init__(
        self,
        network: PrunableNetwork,
        candidate: Candidate,
        batches: Sequence[Tensor],
        similarity: str,
        features: str | Sequence[str] | None = None,
    ) -> None:
        self._plan, self._feeding = network.plan, network.baseline.feeding
        self._batches = batches
        self._similarity = SIMILARITIES[similarity]
        places = [OUTPUT] if self._similarity.of_outputs else features
        find = self._similarity.upstream if features is None else None
        upstream = find(network.plan) if find is not None else None
        self.reader = FeatureReader(network, places, upstream)
        upstream = self.reader.upstream
        self._extra = int(upstream is not None)
        found = run_plain(candidate.network, self.reader, batches)
        self.targets = self._shape(self.reader.join(found, None))
        # Constant, and as costly as the comparison itself.
        self._upstream_variance = variance(self.targets[0]) if upstream is not None else None

    def check_places(self, candidate: Candidate, kept: list[NDArray[np.int64]]) -> None:
        """Refuse places whose channels change in a way that the slice plan does not know.

        Args:
            candidate: a strategy is installed in it.
            kept: for each group, the indices of the channels that stay.

        Raises:
            ValueError: if there is such a place.
        """
        candidate.install(kept)
        # Two images: some networks drop the dimension of images where there is one.
        found = run_plain(candidate.network, self.reader, [self._batches[0][:2]])
        self._check_shapes(self.join(found, kept))

    def join(self, found: Features, kept: list[NDArray[np.int64]]) -> list[Tensor]:
        """Join batches to one matrix (images, features) per place, removed channels as zeros.

        Outputs keep their shape, (images, classes, ...), for similarities of them.

        Args:
            found: what :attr:`reader` read of a network.
            kept: for each group, the indices of the channels that it kept.
        """
        return self._shape(self.reader.join(found, self._plan.mask(kept)))

    def read(self, network: nn.Module, kept: list[NDArray[np.int64]]) -> list[Tensor]:
        """Run any network with some channels, and return its features as :meth:`join` does.

        Raises:
            ValueError: if it cannot be run on the images, or has other channels.
        """
        if not isinstance(network, nn.Module):
            raise ValueError(f"a network must be a torch.nn.Module, got {type(network).__name__}")
        settled = settle(network, self._batches[0].device)
        try:
            with fed(settled, self._feeding):
                found = run_plain(settled, self.reader, self._batches)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(
                f"the network cannot be run on the calibration images ({with_kind(error)})"
            ) from error
        features = self.join(found, kept)
        self._check_shapes(features)
        return features

    def named(self, features: list[Tensor]) -> list[Tensor]:
        """Leave out what is read upstream, and return the features that a user asked for."""
        return features[self._extra :]

    def compare(self, features: list[Tensor]) -> float:
        """Return the similarity of a network's features to the baseline's, averaged over places.

        Args:
            features: what :meth:`join` returned.
        """
        with torch.inference_mode():
            pairs = list(zip(self.targets, features, strict=True))
            upstream: dict[str, float] = {}
            if self._upstream_variance is not None:
                error = relative_error(*pairs.pop(0), self._upstream_variance)
                upstream["upstream_error"] = error
            values = [self._similarity(target, mine, **upstream) for target, mine in pairs]
        similarity = float(np.mean(values))
        return similarity if np.isfinite(similarity) else self._similarity.worst

    def _shape(self, features: list[Tensor]) -> list[Tensor]:
        return features if self._similarity.of_outputs else [f.flatten(1) for f in features]

    def _check_shapes(self, features: list[Tensor]) -> None:
        for target, mine in zip(self.targets, features, strict=True):
            if target.shape[1:] != mine.shape[1:]:
                raise ValueError(
                    "features loses channels that cannot be matched to the baseline's: name a "
                    "convolution, linear or BatchNorm layer instead"
                )
