"""Limits of single layers: what arguments say of modules becomes counts that groups may keep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from lfgcl_env.config import StructureConfig
from lfgcl_env.edge.patterns import check_used, number_for

Whole = int | tuple[tuple[str, int], ...]
Real = float | tuple[tuple[str, float], ...]

_NOWHERE = "matches no layer that produces channels of a group (`lfgcl inspect` lists them)"


@dataclass(frozen=True)
class Limits:
    """How far groups may be pruned, each by one number or by pairs of patterns and numbers.

    Patterns are matched with the layers that produce a group's channels; of each layer's matches
    the first counts, and of a group's layers the strictest.

    Attributes:
        min_channels: fewest channels that stay in a group.
        round_to: kept counts are multiples of it, or the whole group; of a group whose layers
            differ, of all of theirs.
        max_prune_ratio: most that is pruned of a group, above 0 and at most 1.
    """

    min_channels: Whole = 1
    round_to: Whole = 1
    max_prune_ratio: Real = 1.0

    @classmethod
    def of(cls, config: StructureConfig) -> "Limits":
        """Return the limits among completed arguments, whose checks have made pairs of mappings."""
        return cls(**{name: cast(Any, config)[name] for name in cls.__dataclass_fields__})

    def check_used(self, producers: Sequence[Sequence[str]]) -> None:
        """Refuse patterns that decide nothing.

        Args:
            producers: of every group, the layers that produce its channels, by all their names.

        Raises:
            ValueError: if there is one; the message names the nearest layer.
        """
        names = [name for layers in producers for name in layers]
        for what, limit in vars(self).items():
            if isinstance(limit, tuple):
                check_used([pattern for pattern, _ in limit], names, what, _NOWHERE)

    def fewest(
        self, producers: Sequence[Sequence[str]], channels: Sequence[int], bundles: Sequence[int]
    ) -> list[int]:
        """Return the fewest channels, or bundles, that may stay in every group, before rounding.

        Args:
            producers: as for :meth:`check_used`.
            channels: of every group; where they go in bundles, how many of these.
            bundles: channels in each.
        """
        return [
            max(
                *(-(-number_for(name, self.min_channels, 1) // bundle) for name in layers),
                # Rounding errors of the product must not cost a channel: 0.2 of 15 is 3, not 4.
                *(math.ceil((1 - r) * full - 1e-9) for r in self._ratios(layers)),
            )
            for layers, full, bundle in zip(producers, channels, bundles, strict=True)
        ]

    def steps(self, producers: Sequence[Sequence[str]], bundles: Sequence[int]) -> list[int]:
        """Return what the counts of every group are multiples of, in bundles if channels go so."""
        steps = (
            math.lcm(*(number_for(name, self.round_to, 1) for name in layers))
            for layers in producers
        )
        return [step // math.gcd(step, bundle) for step, bundle in zip(steps, bundles, strict=True)]

    @property
    def ways(self) -> list[str]:
        """How groups could be pruned further, in words."""
        narrow = {
            "lower min_channels": self.min_channels not in (0, 1),
            "lower round_to": self.round_to != 1,
            "higher max_prune_ratio": self.max_prune_ratio != 1,
        }
        return [f"a {way}" for way, is_so in narrow.items() if is_so]

    def _ratios(self, layers: Sequence[str]) -> list[float]:
        return [number_for(name, self.max_prune_ratio, 1.0) for name in layers]
