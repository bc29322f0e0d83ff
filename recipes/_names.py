"""Sentences for names that do not exist."""

from __future__ import annotations

from collections.abc import Iterable

from larq_ext._text import did_you_mean


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Says that a name is unknown, what was probably meant and what there is.

    # Arguments
        kind: What the name should name, such as `"experiment"`.
        name: What was received.
        known: The names that exist.

    # Returns
        A sentence for an error.
    """
    known = sorted(known)
    guess = did_you_mean(name, known)
    return f"There is no {kind} {name!r}.{guess} Known: {', '.join(known) or 'none'}."
