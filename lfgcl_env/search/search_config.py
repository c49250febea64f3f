"""The arguments of a search, each declared once; see :mod:`lfgcl_env.config`."""

import os
from typing import Annotated, TypedDict

from torch import Tensor

from lfgcl_env.config import Natural, Option
from lfgcl_env.edge.bounds import Evaluations, Points, Positive, ShortlistSize, Threads
from lfgcl_env.edge.choices import check_choice

STARTS = ("allocation", "agent")
"""What a search may start from."""


def _check_start(start: str) -> str:
    return check_choice(start, STARTS, "start")


class SearchConfig(TypedDict, total=False):
    """What a search is asked, besides its environment.

    What does not ``decide`` may change when a run goes on.
    """

    agent: Annotated[
        str,
        Option(
            "ddpg",
            "of Stable-Baselines3 or of lfgcl_env.agents, see `lfgcl list`, or 'module:factory'",
            "the name of an agent, or 'module:factory'",
        ),
    ]
    evaluations: Annotated[
        Evaluations,
        Option(400, "distinct strategies to score", "a whole number from 1 to 1,000,000,000"),
    ]
    agent_seed: Annotated[
        Natural,
        Option(
            0,
            "seed of the agent; the command takes --seed where it is not given",
            "a whole number of at least 0",
        ),
    ]
    start: Annotated[
        str,
        Option(
            "allocation",
            "the first strategy scored, from which agents of this package go on: 'allocation' by "
            "sensitivities, where one budget and one step decide a strategy, or the 'agent'",
            "'allocation' or 'agent'",
            check=_check_start,
        ),
    ]
    shortlist: Annotated[
        ShortlistSize,
        Option(
            4,
            "best strategies to compare after a sequential repair; 0: none",
            "a whole number from 0 to 10,000",
            decides=False,
        ),
    ]
    repair_images: Annotated[
        Positive | Tensor | None,
        Option(
            None,
            "how many other unlabelled images the last repair sees; by default 4096, or all that "
            "there are and views of them",
            "a tensor, a whole number of at least 1, or None",
            unit="images",
            decides=False,
        ),
    ]
    points: Annotated[
        Points,
        Option(
            6,
            "for a range of budgets: how many of them get a network, both ends included",
            "a whole number from 2 to 1,000",
            decides=False,
        ),
    ]
    threads: Annotated[
        Threads,
        Option(
            1,
            "threads of PyTorch; more than 1 pays for networks larger than CIFAR's, on idle cores",
            "a whole number from 1 to 10,000",
            decides=False,
        ),
    ]
    init_from: Annotated[
        str | os.PathLike[str] | None,
        Option(
            None,
            "folder of a finished run of the same agent, on this or another network, whose saved "
            "agent this search starts with. The first strategy scored is its prediction before it "
            "learns anything here: with one evaluation and a shortlist of 1 that is repaired and "
            "nothing else. Agents of Stable-Baselines3 fit networks with as many groups only",
            "a path, or None",
            decides=False,
            word="FOLDER",
        ),
    ]
