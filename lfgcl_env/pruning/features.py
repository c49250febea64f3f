"""Features of baseline and candidates at named places, comparable although channels are gone."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lfgcl_env.names import closest
from lfgcl_env.pruning.layers import Layer
from lfgcl_env.pruning.plan import Dimension, SlicePlan

OUTPUT = "output"
"""The place that stands for the network's output."""


class FeatureReader:
    """Reads features at the classifier's input, at named modules' outputs, or at the output.

    The features of a removed channel count as zero: a candidate's features are put back into the
    baseline's shape, so that any two can be compared entry by entry.

    Args:
        network: the baseline.
        plan: its slice plan.
        layers: its measured layers; the last one in use is taken for the classifier.
        places: module names, ``"output"``, or None for the classifier's input (the penultimate
            features).

    Raises:
        ValueError: for an unknown module name, or one whose channels cannot be told apart.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: SlicePlan,
        layers: Sequence[Layer],
        places: Sequence[str] | None,
    ) -> None:
        self._classifier = layers[-1].name
        self._dimensions: list[Dimension | None] = []
        self._places = [places] if isinstance(places, str) else list(places or ())
        names = [name for name, _ in network.named_modules() if name]
        if places is not None and not self._places:
            raise ValueError("features names no module: give at least one, or None")
        for place in self._places:
            if place != OUTPUT and place not in names:
                raise ValueError(f"no module {place!r} to take features at.{closest(place, names)}")
            slices = plan.layers.get(place)
            self._dimensions.append(slices.out if slices else None)
        if places is None:
            slices = plan.layers.get(self._classifier)
            self._dimensions = [slices.into if slices else None]

    @contextmanager
    def reading(self, network: nn.Module) -> Iterator[list[list[Tensor]]]:
        """Collect features of every forward pass of ``network`` (baseline or a copy) inside.

        Yields:
            One list per place, which every pass appends its batch's features to, in this order.
        """
        found: list[list[Tensor]] = [[] for _ in self._dimensions]
        with ExitStack() as stack:
            if not self._places:
                module = network.get_submodule(self._classifier)
                handle = module.register_forward_pre_hook(
                    lambda module, inputs: found[0].append(
                        _pooled(_channels_first(module, inputs[0]))
                    )
                )
                stack.callback(handle.remove)
            for place, into in zip(self._places, found, strict=False):
                module = network if place == OUTPUT else network.get_submodule(place)
                # Copied, because what follows may work in place, as ReLUs and additions often do.
                handle = module.register_forward_hook(
                    lambda module, _, output, into=into: into.append(
                        _channels_first(module, output).clone()
                    )
                )
                stack.callback(handle.remove)
            yield found

    def joined(self, found: list[list[Tensor]], mask: NDArray[np.bool_] | None) -> list[Tensor]:
        """One matrix (images, features) per place, in the baseline's shape.

        Args:
            found: what :meth:`reading` collected.
            mask: see :meth:`SlicePlan.mask`; None for the baseline itself.
        """
        result = []
        for index, (batches, dimension) in enumerate(zip(found, self._dimensions, strict=True)):
            if not batches:
                raise ValueError(f"module {self._places[index]!r} is not used: it has no features")
            features = torch.cat(batches)
            if dimension is not None and mask is not None:
                whole = features.new_zeros((features.shape[0], dimension.size, *features.shape[2:]))
                kept = torch.from_numpy(dimension.kept(mask)).to(features.device)
                features = whole.index_copy_(1, kept, features)
            result.append(features.flatten(1))
        return result


def _channels_first(module: nn.Module, features: object) -> Tensor:
    """Features as (images, channels, ...); a linear layer has its channels last."""
    if not isinstance(features, Tensor):
        raise ValueError(
            f"a {type(module).__name__} gives a {type(features).__name__}, not one tensor, and so "
            "has no features to compare: name another module"
        )
    return features.movedim(-1, 1) if isinstance(module, nn.Linear) else features


def _pooled(inputs: Tensor) -> Tensor:
    """A classifier's input as (images, channels): positions, where there are any, averaged."""
    return inputs.flatten(2).mean(dim=2) if inputs.dim() > 2 else inputs
