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


def sealed(fields: Mapping[str, Any], indent: int | None = None) -> str:
    """Write fields as JSON, their checksum last.

    Args:
        fields: JSON-able.
        indent: of the lines; None writes one line.

    Raises:
        ValueError: if they hold NaN or infinite numbers.

    >>> sealed({"a": 1, "b": [0.5]})
    '{"a": 1, "b": [0.5], "checksum": "18e7e7985e1478de"}'
    """
    text = json.dumps(fields, allow_nan=False)
    return json.dumps({**fields, "checksum": _checksum(text)}, indent=indent)


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
        fits = found.checksum == _checksum(text)
    except (ValueError, RecursionError):
        fits = False
    if not fits:
        raise ValueError(f"{what}: its checksum does not fit: it was damaged or edited")
    return found


def _checksum(text: str) -> str:
    """Return the first 64 bits of the SHA-256 of canonical JSON, in hexadecimal digits.

    Numbers count digit by digit; order, white space and the checksum itself do not count.
    """
    fields = json.loads(text, parse_int=str, parse_float=str)
    content = {name: value for name, value in fields.items() if name != "checksum"}
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()[:_DIGITS]
