"""The exact changes that `bake` may make to a network, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rewrite:
    """A change that was made: the outputs are the same, the deployed form is faster or smaller.

    # Arguments
        name: the rewrite, a key of `REWRITES`.
        layer: the layer that was changed.
        what: what became of it.
    """

    name: str
    layer: str
    what: str
