"""What all scripts share: options, messages and threads."""

import argparse
import logging

import torch


def new_parser(page: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows the first line of a script's docstring.

    Args:
        page: the docstring.
    """
    return argparse.ArgumentParser(description=(page or "").partition("\n")[0])


def prepare() -> None:
    """Show messages on standard error, and compute on one thread: more slow small networks."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
