"""Sentences for names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    lowered = {entry.lower(): entry for entry in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered)]
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"There is no {kind} {name!r}.{guess} Known: {', '.join(known) or 'none'}."
