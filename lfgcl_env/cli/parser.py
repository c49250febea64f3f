"""The parser of the command line, and what all of its commands accept alike."""

import argparse
import shlex
from collections.abc import Sequence
from typing import Any, NoReturn

EXAMPLES = "examples:"


class Parser(argparse.ArgumentParser):
    """A parser whose help ends with examples.

    Args:
        examples: command lines, as a person types them.
        arguments: of :class:`argparse.ArgumentParser`.

    Attributes:
        examples: see above.
    """

    def __init__(self, *, examples: Sequence[str] = (), **arguments: Any) -> None:
        self.examples = tuple(examples)
        # A shortened option could come to mean another one when options are added.
        arguments |= {"allow_abbrev": False, "formatter_class": _HelpFormatter}
        super().__init__(**arguments)
        if examples:
            lines = [EXAMPLES, *(f"  {example}" for example in examples)]
            self.epilog = "\n".join([*lines, *(["", self.epilog] if self.epilog else [])])

    def error(self, message: str) -> NoReturn:
        """End with one sentence."""
        self.exit(2, f"lfgcl: error: {' '.join(message.split())} (see `{self.prog} --help`)\n")


class _HelpFormatter(argparse.HelpFormatter):
    """Keeps the lines of examples, and fills all other text."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if not text.startswith(EXAMPLES):
            return super()._fill_text(text, width, indent)
        examples, _, rest = text.partition("\n\n")
        filled = super()._fill_text(rest, width, indent) if rest else ""
        return f"{examples}\n\n{filled}".rstrip()


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every command accepts, before or after the command's name."""
    shared = parser.add_argument_group("output")
    flags = (
        ("-v", "--verbose", "show the traceback of an error, and messages for developers"),
        ("-q", "--quiet", "show no progress and no messages but warnings"),
        ("", "--json", "print the result as JSON, and nothing else on standard output"),
    )
    for short, long, text in flags:
        shared.add_argument(
            *filter(None, (short, long)),
            action="store_true",
            default=argparse.SUPPRESS,
            help=text,
        )


def commands_of(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    """Return the parsers of all commands by name."""
    (verbs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(verbs.choices)


def words_of(example: str) -> list[str]:
    """Return what a shell makes of an example, without the program's name.

    >>> words_of("lfgcl list --json")
    ['list', '--json']
    """
    return shlex.split(example)[1:]
