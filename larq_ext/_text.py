"""Reports as text: tables, lines that fit a terminal; and options as text, taken apart."""

from __future__ import annotations

import difflib
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

WIDTH = 100


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """The lines of a table whose first `left` columns are aligned left."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def shorten(text: str, width: int) -> str:
    """The end of a long name, which tells layers apart."""
    return text if len(text) <= width else "..." + text[3 - width :]


def wrap(text: str) -> list[str]:
    """Lines of a paragraph."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean ...?` with the known names that come near, or nothing."""
    lowered = {one.lower(): one for one in sorted(known)}
    near = [lowered[match] for match in difflib.get_close_matches(str(name).lower(), lowered)]
    return f" Did you mean {' or '.join(near)}?" if near else ""


def split_options(text: str) -> list[str]:
    """The parts of `key=value,key=(1,2)`, at the commas outside of brackets."""
    return [part for part in re.split(r",(?![^(]*\))", text) if part]


def read_option(text: str) -> Any:
    """The number, truth value, none or `(1,2,3)` that a text stands for, or the text."""
    if text.startswith("(") and text.endswith(")"):
        return tuple(read_option(part) for part in text[1:-1].split(",") if part)
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def for_json(values: Any) -> Any:
    """Plain values with words for numbers that are not finite, which JSON does not have."""
    if isinstance(values, dict):
        return {name: for_json(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [for_json(value) for value in values]
    return str(values) if isinstance(values, float) and not math.isfinite(values) else values


def given_numbers(**options: str | None) -> dict[str, Any]:
    """The numbers of those options that are given, by their names."""
    return {name: numbers(f"--{name}", text) for name, text in options.items() if text is not None}


def numbers(option: str, text: str) -> list[float]:
    """The numbers of a command's option, which have commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} takes numbers with commas, received {text!r}.") from None
