"""The options of ``lfgcl prune``: one table for the command line, its help and recorded runs."""

import inspect
from argparse import ArgumentTypeError
from typing import Any

from lfgcl_env.envs import LFGCLEnv
from lfgcl_env.pruning import CRITERIA, REPAIRS, SIMILARITIES


def positive(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: if it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def natural(text: str) -> int:
    """Read a whole number of at least 0.

    Raises:
        argparse.ArgumentTypeError: if it is none.
    """
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def several(text: str) -> int:
    """Read a whole number of at least 2.

    Raises:
        argparse.ArgumentTypeError: if it is none.
    """
    if not text.isdecimal() or int(text) < 2:
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 2")
    return int(text)


def budget(text: str) -> float | list[float]:
    """Read a number, or a range of them as ``LOW:HIGH``.

    Raises:
        argparse.ArgumentTypeError: if it is neither.

    >>> budget("0.5"), budget("0.3:0.8")
    (0.5, [0.3, 0.8])
    """
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ArgumentTypeError(f"{text!r} is neither a number nor a range such as 0.3:0.8")
    if len(numbers) == 2 and not numbers[0] < numbers[1]:
        raise ArgumentTypeError(f"{text!r} is not a range from a lower to a higher budget")
    return numbers if len(numbers) == 2 else numbers[0]


SEARCH_OPTIONS: dict[str, tuple[Any, str]] = {
    "agent": (
        str,
        "ddpg, td3, sac, tqc, crossq, ppo, an agent in agents/ such as random, or module:factory",
    ),
    "evaluations": (positive, "distinct strategies to score"),
    "seed": (natural, "of the agent, the choice of images, and random weights"),
    "shortlist": (natural, "best strategies to repair sequentially and compare; 0: none"),
    "repair_images": (
        positive,
        "other unlabelled images for these repairs; by default 1024, or, where there are not so "
        "many others, all that there are; of images made for the purpose those of the search",
    ),
    "reward": (
        str,
        "of AMC- environments: accuracy, which needs labels (the default), or similarity",
    ),
    "points": (several, "for a range of budgets: how many of them get a network, ends included"),
    "threads": (
        positive,
        "of PyTorch; more than 1 pays for networks larger than CIFAR's, on idle cores",
    ),
}
ENV_OPTIONS: dict[str, tuple[Any, str]] = {
    "weights": (
        str,
        "'published', 'random', the path of a state dict, or 'embedded': from the package. By "
        "default what `lfgcl list` says for an environment, and published for a network",
    ),
    "images": (
        str,
        "CIFAR10, CIFAR100, a folder of images, an image sheet (.png); 'embedded': from the "
        "package; 'synthetic': made from the network alone; or 'random': noise. By default "
        "embedded for embedded weights, CIFAR10 for others and where labels are needed",
    ),
    "num_images": (positive, "how many calibration images; they need no labels"),
    "budget": (
        budget,
        "fraction of the baseline's cost that may remain; LOW:HIGH trains one agent for all "
        "budgets between them and writes a sweep of networks",
    ),
    "budget_metric": (str, "what the budget counts: macs or params"),
    "criterion": (str, f"which channels go first: {', '.join(CRITERIA)}"),
    "repair": (str, f"before a strategy is scored: {', '.join(REPAIRS)}"),
    "similarity": (str, f"of features: {', '.join(SIMILARITIES)}"),
    "scope": (str, "inner, or all: also channels that additions couple"),
    "round_to": (positive, "kept channels are multiples of it"),
    "min_channels": (positive, "fewest channels that stay in a group"),
    "device": (str, "where pruned networks are scored"),
    "data_root": (str, "folder of data sets; else LFGCL_DATA, else ~/.cache/lfgcl/data"),
}
"""Options that are the environment's keyword arguments, which have their defaults there."""

DEFAULTS: dict[str, Any] = {
    "agent": "ddpg",
    "evaluations": 400,
    "seed": 0,
    "shortlist": 8,
    "repair_images": None,
    "reward": None,
    "points": 6,
    "threads": 1,
    "init_from": None,
} | {
    name: inspect.signature(LFGCLEnv.__init__).parameters[name].default
    for name in ENV_OPTIONS
    if name != "weights"
}
DEFAULTS["weights"] = None  # the id's
