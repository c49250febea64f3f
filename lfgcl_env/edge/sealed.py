"""Files that carry a checksum of what they say.

It protects from damage and from edits by hand: whatever changes a value without the checksum is
refused when it is read. It does not protect from forgery: who edits a file can compute its
checksum anew.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from lfgcl_env.edge.schema import Schema, parse

_DIGITS = 16


class Sealed(Schema):
    """Base of what :func:`sealed` writes and :func:`parse_sealed` reads."""

    checksum: str


_Sealed = TypeVar("_Sealed", bound=Sealed)


def checksum(fields: Mapping[str, Any]) -> str:
    """Return the first 64 bits of the SHA-256 of fields as canonical JSON, in hexadecimal digits.

    Args:
        fields: JSON-able; their order does not matter, and ``"checksum"`` does not count.

    Raises:
        ValueError: if they hold NaN or infinite numbers.

    >>> checksum({"a": 1, "b": [0.5]})
    'bdad23344c9c37f9'
    """
    content = {name: value for name, value in fields.items() if name != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def sealed(fields: Mapping[str, Any], indent: int | None = None) -> str:
    """Write fields as JSON, their checksum last.

    Args:
        fields: JSON-able.
        indent: of the lines; None writes one line.

    Raises:
        ValueError: if they hold NaN or infinite numbers.
    """
    return json.dumps({**fields, "checksum": checksum(fields)}, indent=indent)


def parse_sealed(schema: type[_Sealed], text: str, what: str) -> _Sealed:
    """Read what :func:`sealed` wrote.

    Args:
        schema: what is expected.
        text: JSON.
        what: names it in the message, such as ``"line 3"``.

    Raises:
        ValueError: if it is no JSON, does not fit, or was changed since it was written.
    """
    found = parse(schema, text, what)
    try:
        expected = checksum(json.loads(text))
    except (ValueError, RecursionError):
        expected = ""
    if found.checksum != expected:
        raise ValueError(f"{what}: its checksum does not fit: it was damaged or edited")
    return found
