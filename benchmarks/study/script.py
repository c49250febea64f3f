"""What all scripts share: options, messages and threads."""

import argparse
import logging
from pathlib import Path

import torch

RESULTS = Path(__file__).parents[1] / "results"


def new_parser(page: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows the first line of a script's docstring.

    Args:
        page: the docstring.
    """
    return argparse.ArgumentParser(description=(page or "").partition("\n")[0])


def study_parser(page: str | None) -> argparse.ArgumentParser:
    """Return the same with the options that all studies have."""
    parser = new_parser(page)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--report", action="store_true", help="only report what was measured")
    return parser


def prepare() -> None:
    """Show messages on standard error, and compute on one thread: more slow small networks."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
