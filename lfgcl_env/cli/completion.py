"""Completion in shells: of commands, options, names that options accept, and files."""

import argparse
import re
from collections.abc import Iterable
from typing import Any

from lfgcl_env import zoo
from lfgcl_env.engine import ENGINES
from lfgcl_env.envs.registration import ALL_IDS
from lfgcl_env.images.datasets import DATASETS
from lfgcl_env.networks import network_names
from lfgcl_env.pruning.registries import CHOICES
from lfgcl_env.search.protocol import own_agents
from lfgcl_env.search.search_config import STARTS

_PATHS = re.compile("FILE|FOLDER|PATH|RUN")
"""In the word for an argument that is, or may be, a file or folder."""


def _names() -> dict[str, Iterable[str]]:
    """Return the names that are completed, by argument or its word; others may be accepted."""
    return {
        **CHOICES,
        "ENV_OR_NETWORK": [*ALL_IDS, *network_names()],
        "agent": [*zoo.ALGORITHMS, *own_agents()],
        "start": STARTS,
        "engine": ENGINES,
        "reward": ("similarity", "accuracy"),
        "data": DATASETS,
    }


class PrintCompletion(argparse.Action):
    """Prints a script for a shell that completes this command, and ends."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(choices=("bash", "zsh", "tcsh"), metavar="SHELL", **settings)

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Print the script.

        Raises:
            ImportError: if the extra ``completion`` is missing.
        """
        try:
            import shtab
        except ImportError:
            parser.error("completion needs shtab: run `pip install lfgcl-env[completion]`")
        names = _names()
        for action in _actions(parser):
            word = str(action.metavar)
            if action.nargs != 0 and action.choices is None:
                if found := names.get(word) or names.get(action.dest):
                    action.choices = list(found)
                elif _PATHS.search(word):
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, values))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser and of all its commands."""
    found = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [one for command in action.choices.values() for one in _actions(command)]
    return found
