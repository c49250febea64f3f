"""Schema of ``arguments.json``: what a search was asked, and under which circumstances."""

from typing import Annotated, Self

from annotated_types import MaxLen, MinLen
from pydantic import ConfigDict, Field, JsonValue, model_validator

from lfgcl_env.config import EnvConfig, complete, options
from lfgcl_env.edge.bounds import (
    Count,
    Evaluations,
    Name,
    Points,
    Seed,
    ShortlistSize,
    Text,
    Threads,
)
from lfgcl_env.edge.schema import STRICT, Schema
from lfgcl_env.edge.sealed import Sealed

_OPEN = ConfigDict(**{**STRICT, "extra": "allow"})


class Asked(Schema):
    """Arguments of a run: the search's here, and besides them those of its environment.

    What JSON cannot hold, such as a module, is recorded by the name of its type.

    Attributes:
        environment: id of the environment.
        agent: name of the agent.
        evaluations: distinct strategies to score.
        agent_seed: seed of the agent; the environment's is ``seed``.
        shortlist: strategies that are repaired and compared at the end.
        repair_images: images for that; None for the default.
        points: budgets of a range that get a network.
        threads: of PyTorch.
        init_from: the run that the agent began from.
        init_from_sha256: of the agent's file there.
    """

    model_config = _OPEN
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    environment: Name
    agent: Name
    evaluations: Evaluations
    agent_seed: Seed = 0
    shortlist: ShortlistSize = 0
    repair_images: Count | None = None
    points: Points = 6
    threads: Threads | None = None
    init_from: Text | None = None
    init_from_sha256: Annotated[str, MinLen(64), MaxLen(64)] | None = None

    @model_validator(mode="after")
    def _check_environments(self) -> Self:
        """Check the environment's arguments that decide scores; others belong to a machine."""
        given = self.model_extra or {}
        deciding = [name for name, option in options(EnvConfig).items() if option.decides]
        complete(EnvConfig, {n: given[n] for n in deciding if n in given}, "the run")
        return self


class Described(Sealed):
    """``arguments.json``: what was asked, and where it ran.

    Attributes:
        arguments: what was asked.
        started: when the run was begun, in ISO format.
        versions: of Python and of packages.
        resumed: where it ran each time it went on, see :mod:`lfgcl_env.runs.provenance`.
    """

    model_config = _OPEN
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    arguments: Asked
    started: Annotated[str, MaxLen(40)]
    versions: dict[Name, Text] = Field(default_factory=dict)
    resumed: list[dict[Name, JsonValue]] = Field(default_factory=list)
