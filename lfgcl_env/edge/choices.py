"""Choosing by name, with an error that names the nearest choice."""

from collections.abc import Iterable
from difflib import get_close_matches


def closest(name: str, choices: Iterable[str]) -> str:
    """Return a hint such as ``" Did you mean 'l1'?"``, or ``""`` where nothing is near.

    >>> closest("resnet65", ["resnet20", "resnet56"])
    " Did you mean 'resnet56'?"
    """
    by_lower = {choice.lower(): choice for choice in choices}
    near = get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def check_choice(value: str, choices: Iterable[str], what: str) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ValueError: if it is not; the message names ``what`` was asked for, the choices and the
            nearest of them.

    >>> check_choice("l1", ["l1", "l2"], "criterion")
    'l1'
    """
    choices = list(choices)
    if value in choices:
        return value
    raise ValueError(
        f"unknown {what} {value!r}: choose one of {', '.join(choices)}.{closest(value, choices)}"
    )
