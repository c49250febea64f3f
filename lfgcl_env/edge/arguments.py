"""Arguments that are declared once, as annotated fields of a ``TypedDict``.

A field's annotation holds its type, with bounds, and an :class:`Option`: default, help, check.
Checking, signatures and tables are derived from these.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, cast, get_args, get_type_hints

from lfgcl_env.edge.schema import check_names, check_value, short


@dataclass(frozen=True)
class Option:
    """What is known of an argument besides its name and type.

    Attributes:
        default: its value where it is not given.
        help: one line for tables and ``--help``, without the default.
        accepts: ends the sentence "NAME must be ..." of a refusal.
        unit: in brackets behind the help; ``""`` for none.
        decides: whether it decides what a strategy scores. Such arguments are recorded with every
            score, may not differ when a run goes on, and are a leaderboard entry's problem.
        command: whether ``lfgcl`` has an option for it.
        several: whether that option takes several values, separated by spaces.
        word: what its text is, in the option's usage.
        command_help: the option's help, where text can say less than Python.
        check: called with a value of the right type; returns the value to use, or raises
            ValueError with one sentence.
    """

    default: Any
    help: str
    accepts: str
    unit: str = ""
    decides: bool = True
    command: bool = True
    several: bool = False
    word: str = "NAME"
    command_help: str = ""
    check: Callable[[Any], Any] | None = None


_Config = TypeVar("_Config", bound=Mapping[str, Any])
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Class = TypeVar("_Class", bound=type[Any])

NO_CHOICES: Mapping[str, Iterable[str]] = MappingProxyType({})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def options(kind: Any) -> dict[str, Option]:
    """Return what is known of every argument of a config class, in the order of declaration."""
    return {
        name: next(part for part in get_args(hint) if isinstance(part, Option))
        for name, hint in _hints(kind).items()
    }


def defaults(kind: type[Any]) -> dict[str, Any]:
    """Return every argument's default."""
    return {name: option.default for name, option in options(kind).items()}


def complete(kind: type[_Config], given: Mapping[str, Any], what: str) -> _Config:
    """Check arguments, and add the defaults of those that are missing.

    Args:
        kind: a config class.
        given: arguments by name. Paths are taken as their text, NumPy's scalars as Python's.
        what: is made from them; named in messages.

    Raises:
        ValueError: for an unknown name or a value that is not accepted; one sentence.
    """
    known = options(kind)
    check_names(given, known, what)
    checked, hints = defaults(kind), _hints(cast(Any, kind))
    for name, value in given.items():
        option = known[name]
        plain = os.fspath(value) if isinstance(value, os.PathLike) else value
        plain = check_value(plain, hints[name], name, option.accepts)
        checked[name] = plain if option.check is None else option.check(plain)
    return cast(_Config, checked)


def part(kind: type[_Config], config: Mapping[str, Any]) -> _Config:
    """Return those arguments that a config class declares."""
    return cast(_Config, {name: config[name] for name in options(kind) if name in config})


def signature(kind: type[Any], first: Sequence[inspect.Parameter] = ()) -> inspect.Signature:
    """Return a signature that lists every argument and its default, for ``help()`` and editors."""
    hints = get_type_hints(kind)
    keyword = inspect.Parameter.KEYWORD_ONLY
    arguments = [
        inspect.Parameter(name, keyword, default=option.default, annotation=hints[name])
        for name, option in options(kind).items()
    ]
    return inspect.Signature([*first, *arguments])


PATTERNS = re.compile(r"\{[^{}]*\*[^{}]*\}|'[^' ]*\*'")
"""Asterisks in help, and what is around them: Markdown would take two of them for emphasis."""


def table(
    kind: type[Any],
    only: Sequence[str] | None = None,
    choices: Mapping[str, Iterable[str]] = NO_CHOICES,
) -> str:
    """Return a table of arguments in Markdown.

    Args:
        kind: a config class.
        only: the arguments wanted; None for all.
        choices: names that an argument accepts, which are added to its help.
    """
    lines = ["| argument | default | meaning |", "|---|---|---|"]
    for name, option in options(kind).items():
        if only is None or name in only:
            meaning = PATTERNS.sub(r"`\g<0>`", option.help)
            meaning += f" [{option.unit}]" if option.unit else ""
            if name in choices:
                meaning += ": " + ", ".join(f"`{choice}`" for choice in choices[name])
            lines.append(f"| `{name}` | `{short(option.default)}` | {meaning} |")
    return "\n".join(lines)


def documented(
    kind: type[Any], choices: Mapping[str, Iterable[str]] = NO_CHOICES
) -> Callable[[_Class], _Class]:
    """Return a decorator for a class whose ``__init__`` takes ``**config: Unpack[kind]``.

    The constructor's signature then lists every argument, and ``{arguments}`` in the class's
    docstring becomes their table.

    Args:
        kind: a config class.
        choices: see :func:`table`.
    """

    def decorate(cls: _Class) -> _Class:
        self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        cls.__init__.__signature__ = signature(kind, [self])
        if cls.__doc__:  # python -OO strips docstrings
            # Python 3.13 and newer have taken the indentation away, older ones have not.
            page = inspect.cleandoc(cls.__doc__)
            cls.__doc__ = page.replace("{arguments}", table(kind, choices=choices))
        return cls

    return decorate
