"""What a command returns: its result as JSON, beside the text that it prints for people."""

from typing import Any

Outcome = dict[str, Any]
"""Plain JSON, which ``--json`` prints."""


class Failure(ValueError):
    """A result that is bad: it is printed, and the command fails.

    Args:
        text: one sentence that says what is bad.
        outcome: the result.
    """

    def __init__(self, text: str, outcome: Outcome) -> None:
        super().__init__(text)
        self.outcome = outcome
