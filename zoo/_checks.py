"""Values from a JSON file: read into dataclasses, or an error that names the field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from larq_ext._text import did_you_mean

T = TypeVar("T")


def near(name: str, known: Iterable[str]) -> str:
    """` Did you mean ...?` where a known name comes near, else the known names."""
    known = sorted(known)
    return did_you_mean(name, known) or f" Known: {', '.join(known) or 'none'}."


def read(cls: type[T], values: Any) -> T:
    """Makes a dataclass of a JSON object.

    # Raises
        ValueError: if a field is missing or unknown, or the class refuses its value.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"expected an object, received {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise ValueError(f"`{name}` is no field.{near(name, fields)}")
    for name, field in fields.items():
        optional = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in values and not optional:
            raise ValueError(f"`{name}` is missing")
    return cls(**values)


def part(cls: type[T], field: str, value: Any) -> T:
    """A field that is a dataclass itself: as it is, or read from its JSON object."""
    if isinstance(value, cls):
        return value
    try:
        return read(cls, value)
    except ValueError as error:
        raise ValueError(f"`{field}`: {error}") from error


def check(right: bool, field: str, wanted: str, received: Any) -> None:
    """Raises a `ValueError` that names field, wish and value unless `right`."""
    if not right:
        raise ValueError(f"`{field}` is {wanted}, received {received!r}")


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_file_name(value: Any) -> bool:
    """A plain name: an entry must not reach files outside its folder."""
    return is_text(value) and not set(value) & set('/\\:"') and not value.startswith(".")
