"""Declared schemas: what people and files give is checked for types, bounds and finite numbers.

The checks are pydantic's, in its strict mode; what they say becomes one sentence.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lfgcl_env.edge.choices import closest

STRICT = ConfigDict(
    strict=True,
    frozen=True,
    extra="forbid",
    allow_inf_nan=False,
    arbitrary_types_allowed=True,
)

LARGEST_TEXT = 64 * 2**20
"""Bytes of the longest file of text that is read: 64 MiB."""


_SUBJECT = re.compile(r"^(Input|String|List|Dictionary|Tuple|Value error,) ")


class Schema(BaseModel):
    """Base of everything that is read back from a file. Unknown fields are refused."""

    model_config = STRICT


_Schema = TypeVar("_Schema", bound=Schema)


def parse(schema: type[_Schema], text: str | bytes, what: str) -> _Schema:
    """Read JSON into a schema.

    Args:
        schema: what is expected.
        text: JSON.
        what: names it in the message, such as ``"line 3"``.

    Raises:
        ValueError: if it is no JSON or does not fit; one sentence that names the field.

    >>> class Point(Schema):
    ...     x: float
    >>> parse(Point, '{"x": 1}', "point")
    Point(x=1.0)
    >>> parse(Point, '{"x": "1"}', "point")
    Traceback (most recent call last):
    ...
    ValueError: point: 'x' should be a valid number, got '1'
    """
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{what}: {sentence(error, schema)}") from None
    except UnicodeEncodeError:
        raise ValueError(f"{what}: it is not text") from None


def sentence(error: ValidationError, schema: type[BaseModel] | None = None) -> str:
    """Say the first thing that is wrong in one sentence."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    kind, value = first["type"], first.get("input")
    if kind == "json_invalid":
        return f"no JSON ({first['msg'].removeprefix('Invalid JSON: ')})"
    if kind == "missing":
        return f"{place!r} is missing"
    if kind == "extra_forbidden":
        known = list(schema.model_fields) if schema is not None else []
        return f"unknown field {place!r}.{closest(place.rpartition('.')[2], known)}"
    message = _SUBJECT.sub("", first["msg"])
    where = f"{place!r} " if place else ""
    return f"{where}{message}, got {short(value)}"


def short(value: object) -> str:
    """Write a value on one line, short enough for a sentence."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # somebody's own object
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=STRICT)


def check_value(value: Any, kind: Any, what: str, accepts: str) -> Any:
    """Return a value if it is of a kind.

    Args:
        value: NumPy's scalars count as Python's.
        kind: a type, which may be annotated with pydantic's bounds.
        what: the argument's name.
        accepts: what is accepted, in words.

    Raises:
        ValueError: if it is not.

    >>> check_value(3, int, "seed", "a whole number")
    3
    >>> check_value(True, int, "seed", "a whole number")
    Traceback (most recent call last):
    ...
    ValueError: seed must be a whole number, got True
    """
    plain = value.item() if isinstance(value, np.generic) else value
    try:
        return _adapter(kind).validate_python(plain)
    except ValidationError:
        raise ValueError(f"{what} must be {accepts}, got {short(value)}") from None


def read_text(path: str | os.PathLike[str], limit: int = LARGEST_TEXT) -> str:
    """Read a file of text that is no longer than ``limit`` bytes.

    Raises:
        ValueError: if it is longer, not UTF-8, or neither a file nor missing.
        OSError: if it cannot be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # to open a named pipe would wait for ever
        raise ValueError(f"{path} is not a file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} is longer than {limit:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text") from None


class UnknownArgument(TypeError, ValueError):
    """An argument that is not known.

    It is a TypeError, as in all of Python, by which other libraries find out what may be given, and
    a ValueError like all that is wrong with arguments here.
    """


def check_names(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    """Refuse names that are not known.

    Raises:
        UnknownArgument: if there is one; the message names the nearest.
    """
    for name in given:
        if name not in known:
            raise UnknownArgument(
                f"{what} got an unexpected keyword argument {name!r}.{closest(name, known)}"
            )
