"""Larq's quantized scope, restored whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import larq as lq


@contextmanager
def quantized_scope(quantize: bool | None = None) -> Iterator[None]:
    """Sets Larq's scope (`None`: leaves it), and puts it back even after an exception.

    Larq's own context manager does not: one failing layer would leave it on, and the next
    training step of a layer with a constraint would overwrite its latent weights with binary
    ones.
    """
    before = lq.context.should_quantize()
    if quantize is not None:
        lq.context.quantized_scope(quantize).__enter__()
    try:
        yield
    finally:
        lq.context.quantized_scope(before).__enter__()
