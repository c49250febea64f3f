"""The header of a saved network: how to rebuild its structure, and what is known of it."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import ConfigDict, JsonValue

from lfgcl_env.edge.bounds import (
    LONGEST_LIST,
    Cost,
    Kept,
    Name,
    Ratio,
    Similarity,
    Text,
)
from lfgcl_env.edge.schema import STRICT, Schema
from lfgcl_env.edge.sealed import Sealed

FORMAT = 3
LARGEST_HEADER = 16 * 2**20
"""Bytes of the longest header that is read: 16 MiB."""

_Size = Annotated[int, Ge(1), Le(10**6)]
_CutSize = Annotated[int, Ge(0), Le(10**6)]
_Channels = Annotated[list[Annotated[float, Ge(-1e6), Le(1e6)]], MinLen(1), MaxLen(LONGEST_LIST)]
_Cut = Annotated[list[_CutSize | None], MinLen(2), MaxLen(2)]


class StoredEvaluation(Schema):
    """An :class:`~lfgcl_env.pruning.evaluation.Evaluation` in a file."""

    keep: Annotated[list[Kept], MinLen(1), MaxLen(LONGEST_LIST)]
    similarity: Similarity
    macs: Cost
    params: Cost
    macs_ratio: Ratio
    params_ratio: Ratio


class StoredInput(Schema):
    """One of several inputs of a network; its name is None where it goes by its place."""

    name: Name | None
    shape: Annotated[list[_Size], MaxLen(8)]
    dtype: Literal["float32", "int64", "int32", "bool"]


class Header(Sealed):
    """What stands in the header of a saved network, besides the facts that its saver adds.

    Attributes:
        format: of the file.
        network: what the architecture is rebuilt from; None for one that was given as a module.
        arguments: of its builder.
        weights: of the baseline, see :class:`~lfgcl_env.networks.Baseline`.
        input_shape: of one input, such as (channels, height, width); None where there are several.
        inputs: several inputs of the network, or None.
        num_classes: of the network; None if it has none.
        normalization: mean and std of the inputs.
        layers: for every layer that was cut its output and input channels; None for a side that
            was not cut.
        frozen: names of the parameters that are not to be trained.
        stock_attention: whether its attention is the architecture's own, which cannot lose heads.
        tensors: SHA-256 of all tensors, see :mod:`lfgcl_env.pruning.structure.saved_form`.
        evaluation: of the strategy.
        repaired: likewise, after sequential repair.
        kept_channels: indices of the channels that stayed in the layer that names the group, by its
            name.
        settings: of the problem.
    """

    model_config = ConfigDict(**{**STRICT, "extra": "allow"})

    format: Literal[3]
    network: Name | None
    arguments: dict[Name, JsonValue]
    weights: Text
    input_shape: Annotated[list[_Size], MinLen(1), MaxLen(4)] | None
    inputs: Annotated[list[StoredInput], MinLen(1), MaxLen(LONGEST_LIST)] | None = None
    num_classes: Annotated[int, Ge(1), Le(10**5)] | None
    normalization: Annotated[list[_Channels], MinLen(2), MaxLen(2)] | None
    layers: Annotated[dict[Name, _Cut], MaxLen(LONGEST_LIST)]
    frozen: Annotated[list[Name], MaxLen(LONGEST_LIST)]
    stock_attention: bool
    tensors: Annotated[str, MinLen(64), MaxLen(64)]
    evaluation: StoredEvaluation | None = None
    repaired: StoredEvaluation | None = None
    kept_channels: dict[Name, list[Annotated[int, Ge(0), Le(10**6)]]] | None = None
    settings: dict[Name, JsonValue] | None = None

    def facts(self) -> dict[str, Any]:
        """Return the header as plain JSON, without what was not given."""
        return self.model_dump(exclude_unset=True)
