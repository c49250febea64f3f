"""How ``lfgcl recover`` reads options of the training: one for every field of RecoveryOptions."""

import argparse
import inspect
import re
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from lfgcl_env.cli.options import FORMS, whole
from lfgcl_env.recovery import RecoveryOptions, with_labels
from lfgcl_env.recovery.recovery_options import PRECISIONS, SCHEDULES

_NAMES = {"schedule": SCHEDULES, "precision": PRECISIONS}
"""Of the options that are one of several."""

_READ = {int: whole, float: float, str: str}


def add_recovery_options(parser: argparse._ArgumentGroup) -> None:
    """Add an option for every field; one that is not given is None."""
    said = meanings()
    for field in fields(RecoveryOptions):
        text = f"{said[field.name]} ({_defaults(field)})"
        settings: dict[str, Any] = {"help": text.replace("%", "%%")}
        if field.type is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif field.name in _NAMES:
            settings["choices"] = _NAMES[field.name]
        else:
            kind: Any = field.type
            settings |= {"type": _READ[kind], "metavar": FORMS[kind].metavar}
        parser.add_argument(_option(field.name), default=None, **settings)


def recovery_options(arguments: Mapping[str, Any]) -> RecoveryOptions:
    """Return the options that were given, and the defaults of all others.

    Args:
        arguments: of the command, ``labels`` among them.

    Raises:
        ValueError: for a value that is out of its range.
    """
    names = [field.name for field in fields(RecoveryOptions)]
    given = {name: arguments[name] for name in names if arguments[name] is not None}
    return with_labels(**given) if arguments["labels"] else RecoveryOptions(**given)


def meanings() -> dict[str, str]:
    """Return what every field means, from the class's docstring.

    >>> meanings()["temperature"]
    'that logits are divided by'
    """
    page = inspect.cleandoc(RecoveryOptions.__doc__ or "")  # python -OO strips docstrings
    _, _, attributes = page.partition("Attributes:\n")
    entries = re.split(r"^    (?=\w+: )", attributes, flags=re.MULTILINE)
    found = dict(" ".join(entry.split()).split(": ", 1) for entry in entries if ": " in entry)
    plain = {name: text.replace("``", "").removesuffix(".") for name, text in found.items()}
    return {field.name: plain.get(field.name, "") for field in fields(RecoveryOptions)}


def table() -> str:
    """Return a table of the options and their defaults in Markdown."""
    lines = ["| Option | Meaning | Default |", "|---|---|---|"]
    for field in fields(RecoveryOptions):
        name = _option(field.name)
        if field.type is bool:
            name = f"{name}`, `{name.replace('--', '--no-', 1)}"
        lines.append(f"| `{name}` | {meanings()[field.name]} | {_defaults(field)} |")
    return "\n".join(lines)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _defaults(field: Field[Any]) -> str:
    """Say what an option is where it is not given, also with labels where that differs."""
    usual, labelled = (getattr(one, field.name) for one in (RecoveryOptions(), with_labels()))
    return _text(usual) + (f"; {_text(labelled)} with --labels" if labelled != usual else "")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
