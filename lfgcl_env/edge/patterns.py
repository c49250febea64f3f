"""Shell-style patterns of module names: lists of them, and limits that differ by them.

A pattern names a module and everything inside it: ``"layer1"`` and ``"layer1.*"`` both match
``"layer1.0.conv1"``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from lfgcl_env.edge.choices import closest
from lfgcl_env.edge.schema import check_value, short

_Number = TypeVar("_Number", int, float)
_Tuple = TypeVar("_Tuple", bound=tuple[Any, ...])

REST = "*"
"""The pattern that matches every module."""

MOST = 1000
"""Patterns of one argument, which may come from a stranger's file."""


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern matches a module, or one that it is inside of.

    >>> [matches("layer?", name) for name in ("layer1", "layer1.0.conv1", "fc")]
    [True, True, False]
    """
    return any(fnmatchcase(module, pattern) for module in (name, *containers(name)))


def containers(name: str) -> Iterator[str]:
    """Yield the names of the modules that a module is inside of, the whole network left out.

    >>> list(containers("layer1.0.conv1"))
    ['layer1.0', 'layer1']
    """
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def check_patterns(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or several patterns as a tuple.

    Raises:
        ValueError: if there are more than ``MOST``.

    >>> check_patterns("layer1"), check_patterns(["conv1", "fc"])
    (('layer1',), ('conv1', 'fc'))
    """
    return _few((given,) if isinstance(given, str) else tuple(given))


def check_limit(
    given: Any, kind: Any, what: str, accepts: str, rest: _Number
) -> _Number | tuple[tuple[str, _Number], ...]:
    """Return a limit as a number, or as pairs of patterns and numbers of which the first counts.

    Pairs are what JSON keeps in order; a mapping becomes such pairs.

    Args:
        given: a number, a mapping of patterns to numbers, or such pairs.
        kind: of the numbers, which may be annotated with bounds.
        what: the argument's name.
        accepts: which numbers are accepted, in words.
        rest: the number for modules that no pattern matches; the last pair says so.

    Raises:
        ValueError: if a pattern is no text, a number is not accepted, or there are more than
            ``MOST``.

    >>> check_limit({"layer1": 2}, int, "least", "a whole number", rest=1)
    (('layer1', 2), ('*', 1))
    """
    if not isinstance(given, (Mapping, Sequence)) or isinstance(given, str):
        number: _Number = check_value(given, kind, what, accepts)
        return number
    pairs: list[tuple[str, _Number]] = []
    for pair in given.items() if isinstance(given, Mapping) else given:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(
                f"{what} by modules is a pattern and a number for each, got {short(pair)}"
            )
        pattern, value = pair
        pairs.append((pattern, check_value(value, kind, f"{what} of {pattern!r}", accepts)))
    if not pairs or pairs[-1][0] != REST:
        pairs.append((REST, rest))
    return _few(tuple(pairs))


def number_for(
    names: Sequence[str], limit: _Number | tuple[tuple[str, _Number], ...], default: _Number
) -> _Number:
    """Return a module's number: that of the first pattern for any of its names, else the default.

    >>> number_for(["layer1.0", "stem"], (("stem", 4), ("layer1", 2)), 1)
    4
    """
    if not isinstance(limit, tuple):
        return limit
    return next((number for pattern, number in limit if matches_any(pattern, names)), default)


def check_used(
    patterns: Sequence[str], modules: Sequence[Sequence[str]], what: str, nowhere: str
) -> None:
    """Refuse patterns that decide nothing, each module being decided by the first that matches it.

    A last :data:`REST` may be left with nothing.

    Args:
        patterns: in the order in which they count.
        modules: all names of each.
        what: the argument's name.
        nowhere: says of a pattern that it matches no module, as in ``"matches no module"``.

    Raises:
        ValueError: if there is such a pattern; the message names the nearest module.

    >>> check_used(["layer1", "*"], [["layer1.0"]], "protect", "matches no module")
    >>> check_used(["layr1"], [["layer1.0"]], "protect", "matches no module")
    Traceback (most recent call last):
    ...
    ValueError: protect 'layr1' matches no module. Did you mean 'layer1'?
    """
    names = [name for module in modules for name in module]
    left = list(modules)
    for index, pattern in enumerate(patterns):
        if pattern == REST and index == len(patterns) - 1:
            return
        if not matches_any(pattern, names):
            near = closest(pattern, _known(names))
            raise ValueError(f"{what} {short(pattern)} {nowhere}.{near}")
        undecided = [module for module in left if not matches_any(pattern, module)]
        if len(undecided) == len(left):
            raise ValueError(
                f"{what} {short(pattern)} decides nothing: patterns before it match all that it "
                "does, and the first match counts"
            )
        left = undecided


def matches_any(pattern: str, names: Sequence[str]) -> bool:
    """Whether a pattern matches any of a module's names."""
    return any(matches(pattern, name) for name in names)


def _few(patterns: _Tuple) -> _Tuple:
    if len(patterns) > MOST:
        raise ValueError(f"at most {MOST:,} patterns are accepted, got {len(patterns):,}")
    return patterns


def _known(names: Iterable[str]) -> list[str]:
    """Return modules and what they are inside of, the outermost first."""
    known = dict.fromkeys(n for name in names for n in (*reversed([*containers(name)]), name))
    return list(known)
