"""Limits of single layers: what arguments say of modules becomes counts that groups may keep."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from lfgcl_env.config import StructureConfig
from lfgcl_env.edge.patterns import check_used, number_for
from lfgcl_env.pruning.structure.groups import Group
from lfgcl_env.pruning.structure.layers import layer_kind, names_of

Whole = int | tuple[tuple[str, int], ...]
Real = float | tuple[tuple[str, float], ...]

_NOWHERE = "matches no layer that produces channels of a group (`lfgcl inspect` lists them)"


@dataclass(frozen=True)
class Producer:
    """A layer that produces channels of a group, which has limits.

    Attributes:
        names: all of the layer's, and of the depthwise convolutions that pass the channels on.
        bundle: how many of its channels go together.
    """

    names: tuple[str, ...]
    bundle: int


Producers = Sequence[Sequence[Producer]]
"""Of every group."""


def find_producers(network: nn.Module, groups: Sequence[Group]) -> list[list[Producer]]:
    """Return the layers that produce every group's channels, grouped convolutions included."""
    modules, names = dict(network.named_modules()), names_of(network)
    found = []
    for group in groups:
        kinds = {
            member.layer: layer_kind(modules[member.layer])
            for member in group.members
            if member.side == "through"
        }
        passing = [n for layer, kind in kinds.items() if kind == "depthwise" for n in names[layer]]
        found.append(
            [
                Producer((*names[member.layer], *passing), group.bundle_of(member))
                for member in group.members
                if member.side == "out" or kinds.get(member.layer) == "grouped"
            ]
        )
    return found


@dataclass(frozen=True)
class Limits:
    """How far groups may be pruned, each by one number or by pairs of patterns and numbers.

    Patterns are matched with the layers that produce a group's channels, grouped convolutions
    included; a depthwise one, which passes channels on, counts as part of these layers. Of each
    layer's matches the first counts, and of a group's layers the strictest.

    Attributes:
        min_channels: fewest channels that stay in a layer.
        round_to: kept counts are multiples of it, or the whole layer.
        max_prune_ratio: most that is pruned of a group, above 0 and at most 1.
    """

    min_channels: Whole = 1
    round_to: Whole = 1
    max_prune_ratio: Real = 1.0

    @classmethod
    def of(cls, config: StructureConfig) -> "Limits":
        """Return the limits among completed arguments, whose checks have made pairs of mappings."""
        return cls(**{name: cast(Any, config)[name] for name in cls.__dataclass_fields__})

    def check_used(self, producers: Producers) -> None:
        """Refuse patterns that decide nothing.

        Raises:
            ValueError: if there is one; the message names the nearest layer.
        """
        modules = [layer.names for layers in producers for layer in layers]
        for what, limit in vars(self).items():
            if isinstance(limit, tuple):
                check_used([pattern for pattern, _ in limit], modules, what, _NOWHERE)

    def fewest(self, producers: Producers, channels: Sequence[int]) -> list[int]:
        """Return the fewest channels, or bundles, that may stay in every group, before rounding.

        Args:
            producers: of every group.
            channels: of every group; where they go in bundles, how many of these.
        """
        return [
            max(*self._least(layers), *self._unpruned(layers, full))
            for layers, full in zip(producers, channels, strict=True)
        ]

    def steps(self, producers: Producers) -> list[int]:
        """Return what the counts of every group are multiples of, in bundles if channels go so."""
        return [math.lcm(*self._steps(layers)) for layers in producers]

    def ways(self, producers: Producers, channels: Sequence[int]) -> list[str]:
        """Say in words how groups could be pruned further, by the limits that hold some back.

        Args:
            producers: of every group.
            channels: as for :meth:`fewest`.
        """
        found = set()
        for layers, full in zip(producers, channels, strict=True):
            least, step = max(self._least(layers)), math.lcm(*self._steps(layers))
            narrow = {
                "a lower min_channels": full > 1 and least > 1,
                "a lower round_to": full > 1 and step > 1,
                "a higher max_prune_ratio": max(self._unpruned(layers, full)) > min(least, 1),
            }
            found |= {way for way, is_so in narrow.items() if is_so}
        return sorted(found, key=list(narrow).index)

    def _least(self, layers: Sequence[Producer]) -> Iterator[int]:
        for layer in layers:
            yield -(-number_for(layer.names, self.min_channels, 1) // layer.bundle)

    def _steps(self, layers: Sequence[Producer]) -> Iterator[int]:
        for layer in layers:
            step = number_for(layer.names, self.round_to, 1)
            yield step // math.gcd(step, layer.bundle)

    def _unpruned(self, layers: Sequence[Producer], full: int) -> Iterator[int]:
        for layer in layers:
            ratio = number_for(layer.names, self.max_prune_ratio, 1.0)
            # Rounding errors of the product must not cost a channel: 0.2 of 15 is 3, not 4.
            yield math.ceil((1 - ratio) * full - 1e-9)
