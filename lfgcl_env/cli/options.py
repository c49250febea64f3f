"""How the command reads arguments: from an argument's type to its option."""

import argparse
import ast
import json
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from lfgcl_env.config import Option, complete, options
from lfgcl_env.edge.bounds import POSITIVE, Positive
from lfgcl_env.edge.schema import check_value, short
from lfgcl_env.pruning.registries import CHOICES


@dataclass(frozen=True)
class Form:
    """How a value is written on the command line.

    Attributes:
        metavar: for help texts.
        read: makes the value from text; raises ValueError for other texts.
    """

    metavar: str
    read: Callable[[str], Any]


def whole(text: str) -> int:
    """Read a whole number.

    >>> whole("12")
    12
    """
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def positive(text: str) -> int:
    """Read a positive whole number.

    Raises:
        argparse.ArgumentTypeError: for other texts.
    """
    try:
        return int(check_value(whole(text), Positive, "it", POSITIVE))
    except ValueError:
        raise ArgumentTypeError(f"must be {POSITIVE}, got {short(text)}") from None


def low_to_high(text: str) -> list[float]:
    """Read a range.

    >>> low_to_high("0.3:0.8")
    [0.3, 0.8]
    """
    low, high = map(float, text.split(":"))
    if not low < high:
        raise ValueError(text)
    return [low, high]


def sizes(text: str) -> list[int]:
    """Read channels, height and width, or other sizes, or one side of a square image.

    >>> sizes("1,28,28"), sizes("64"), sizes("20,")
    ([1, 28, 28], [3, 64, 64], [20])
    """
    found = [whole(part) for part in text.removesuffix(",").split(",")]
    return [3, *found, *found] if len(found) == 1 and not text.endswith(",") else found


def mean_and_std(text: str) -> list[list[float]]:
    """Read means and standard deviations.

    >>> mean_and_std("0.5,0.4,0.3/0.2,0.2,0.2")
    [[0.5, 0.4, 0.3], [0.2, 0.2, 0.2]]
    """
    mean, std = ([float(part) for part in half.split(",")] for half in text.split("/"))
    return [mean, std]


def mapping(text: str) -> dict[str, Any]:
    """Read a JSON object, or pairs whose values are JSON or else text.

    >>> mapping('{"num_classes": 100}'), mapping("num_classes=100,shortcut=B")
    ({'num_classes': 100}, {'num_classes': 100, 'shortcut': 'B'})
    """
    if text.startswith("{"):
        return dict(json.loads(text))
    return {key: _json_or_text(value) for key, value in map(_pair, text.split(","))}


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise ValueError(text)
    return key, value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


FORMS: dict[Any, Form] = {
    Mapping[str, Any]: Form("KEY=VALUE,...", mapping),
    Sequence[Sequence[float]]: Form("M,M,M/S,S,S", mean_and_std),
    Sequence[str]: Form("NAME,...", lambda text: text.split(",")),
    Sequence[int]: Form("C,H,W", sizes),
    Sequence[float]: Form("LOW:HIGH", low_to_high),
    int: Form("N", whole),
    float: Form("X", float),
    str: Form("NAME", str),
}
"""Forms by type, in the order in which they are tried for an argument of several types."""

_NONE = "all"  # written for None where that is not the default

_MAPPING = re.compile(r"\{'[^{}]*\}")
"""A mapping by names in a text for Python."""


def add_options(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    kinds: type[Any] | Sequence[type[Any]],
    only: Iterable[str] | None = None,
    *,
    given_only: bool = False,
) -> None:
    """Add an option for every argument that config classes declare and text can express.

    Args:
        parser: or a group of its options.
        kinds: config classes; an argument that several declare gets one option.
        only: names of arguments; by default all.
        given_only: leave out of the result what is not given, instead of adding its default.
    """
    kinds = [kinds] if isinstance(kinds, type) else kinds
    names = dict.fromkeys(name for kind in kinds for name in options(kind))
    for name in names if only is None else only:
        declared = [kind for kind in kinds if name in options(kind)]
        known = [options(kind)[name] for kind in declared]
        members = _members(get_type_hints(declared[0])[name])
        forms = [form for member, form in FORMS.items() if member in members]
        if not known[0].command or not (forms or bool in members):
            continue
        settings: dict[str, Any] = {"help": _help(name, known)}
        settings["default"] = argparse.SUPPRESS if given_only else known[0].default
        if bool in members:
            settings["action"] = "store_true"
        elif known[0].several:
            settings |= {"action": _Several, "nargs": "+", "kind": declared[0], "forms": forms}
        else:
            optional = NoneType in members and known[0].default is not None
            words = [
                known[0].word if form is FORMS[str] else form.metavar for form in reversed(forms)
            ]
            settings["metavar"] = " or ".join(words + [_NONE] * optional)
            settings["type"] = partial(_read, declared[0], name, forms, settings["metavar"])
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)


class _Several(argparse.Action):
    """Reads names, or one number, or numbers by patterns."""

    def __init__(self, *, kind: type[Any], forms: Sequence[Form], dest: str, **settings: Any):
        self._kind, self._forms = kind, forms
        word = forms[0].metavar
        metavar = "NAME" if FORMS[str] in forms else (word, f"PATTERN={word}")
        super().__init__(dest=dest, metavar=metavar, **settings)

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the values as they are given, which the config class of the target completes."""
        if getattr(namespace, self.dest, self.default) is not self.default:
            raise argparse.ArgumentError(self, "is given twice: give all its values after one")
        try:
            value = values if FORMS[str] in self._forms else self._numbers(values)
            complete(self._kind, {self.dest: value}, "the command")
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, value)

    def _numbers(self, texts: Sequence[str]) -> Any:
        pairs = [text.rpartition("=") for text in texts]
        plain = len(texts) == 1 and not pairs[0][1]
        try:
            numbers = [self._forms[0].read(number) for _, _, number in pairs]
        except ValueError:
            numbers = []
        if not numbers or not (plain or all(pattern for pattern, _, _ in pairs)):
            accepts, word = options(self._kind)[self.dest].accepts, self._forms[0].metavar
            raise ValueError(
                f"must be {accepts}, as in 'layer1.*={word}' '*={word}', "
                f"got {short(' '.join(texts))}"
            )
        if plain:
            return numbers[0]
        return [[pair[0], number] for pair, number in zip(pairs, numbers, strict=True)]


def _read(kind: type[Any], name: str, forms: Sequence[Form], metavar: str, text: str) -> Any:
    """Read the value of an option, and check it as its config class does."""
    option = options(kind)[name]
    value: Any = text
    for form in forms:
        with suppress(ValueError, RecursionError):
            value = form.read(text)
            break
    else:
        if not (metavar.endswith(_NONE) and text == _NONE):
            plain = metavar.removesuffix(f" or {_NONE}") in ("N", "X")
            written = "" if plain else f", written {metavar}"
            accepts = as_typed(option.accepts, option)
            raise ArgumentTypeError(f"must be {accepts}{written}, got {short(text)}")
        value = None
    try:
        return complete(kind, {name: value}, "the command")[name]
    except ValueError as error:
        said, got, _ = str(error).partition(", got ")
        raise ArgumentTypeError(as_typed(said, option) + (got and got + short(text))) from None


def as_typed(text: str, option: Option) -> str:
    """Say on the command line what a text says in Python: of None, mappings and tensors.

    Args:
        text: the help of an option, or what it accepts.
        option: that option.

    >>> as_typed("as in {'a.*': 4, '*': 8}", Option(1, "", "", several=True))
    "as in 'a.*=4' '*=8'"
    >>> as_typed("images; None: as many as there are", Option(256, "", ""))
    'images; all: as many as there are'
    """

    def pairs(found: re.Match[str]) -> str:
        typed = [f"{key}={value}" for key, value in ast.literal_eval(found[0]).items()]
        return " ".join(map(repr, typed)) if option.several else ",".join(typed)

    text = _MAPPING.sub(pairs, text).replace("a tensor, ", "")
    if option.default is None:
        return text.replace(", or None", "").replace("None: ", "if not given: ")
    return text.replace(", or None", f", or {_NONE}").replace("None: ", f"{_NONE}: ")


def _members(hint: Any) -> set[Any]:
    """Return the types of a union."""
    if get_origin(hint) in (Union, UnionType):
        return {member for part in get_args(hint) for member in _members(part)}
    return {hint}


def _help(name: str, known: Sequence[Option]) -> str:
    first = known[0]
    text = first.command_help or as_typed(first.help, first)
    if name in CHOICES:
        text += f": {', '.join(CHOICES[name])}"
    if first.unit:
        text += f" [{first.unit}]"
    defaults = dict.fromkeys(str(option.default) for option in known)
    if first.default not in (None, False, ()):
        text += f" ({' or '.join(defaults)})"
    return text.replace("%", "%%")
