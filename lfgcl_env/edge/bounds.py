"""Bounded types of which files' schemas are made, so that nothing in a file is without limit."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

LONGEST_LIST = 10_000
LARGEST_COUNT = 10**9

Name = Annotated[str, MinLen(1), MaxLen(200)]
"""Of a group, module, network, agent or method."""

Text = Annotated[str, MaxLen(10_000)]
"""A path, a command or a message."""

Count = Annotated[int, Ge(1), Le(LARGEST_COUNT)]
"""Of evaluations, images or channels."""

Positive = Annotated[int, Ge(1), Le(10**6)]

POSITIVE = "a whole number from 1 to 1,000,000"

Kept = Annotated[int, Ge(0), Le(LARGEST_COUNT)]
"""Channels that a group keeps."""

TensorsChecksum = Annotated[str, MinLen(64), MaxLen(64)]
"""Of a network file's tensors."""

Cost = Annotated[int, Ge(0), Le(10**18)]
"""Multiply-accumulates or parameters."""

Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
"""Seeds that Python, NumPy and PyTorch all take."""

Ratio = Annotated[float, Ge(0), Le(1)]

Budget = Annotated[float, Gt(0), Le(1)]

Similarity = Annotated[float, Le(1 + 1e-6)]
"""At most 1, but for the rounding of a mean."""

Seconds = Annotated[float, Ge(0), Le(1e9)]

Milliseconds = Annotated[float, Gt(0), Le(1e9)]

Evaluations = Annotated[int, Ge(1), Le(LARGEST_COUNT)]

ShortlistSize = Annotated[int, Ge(0), Le(10_000)]

Points = Annotated[int, Ge(2), Le(1000)]
"""Budgets of a range that get a network."""

Threads = Annotated[int, Ge(1), Le(10_000)]
