"""Settings of Keras and Larq for a while, restored whatever happens."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import larq as lq
from tf_keras.src import backend
from tf_keras.src.mixed_precision.policy import get_policy, policy_scope

_policy = threading.RLock()


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


@contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Makes layers of a policy, whatever that of Keras is, which is the process's: one at a time.

    `None` leaves it as it is.
    """
    if policy is None:
        yield
    else:
        with _policy, policy_scope(get_policy(policy)):
            yield


@contextmanager
def float32_policy() -> Iterator[None]:
    """Makes layers in float32."""
    with dtype_policy("float32"):
        yield


@contextmanager
def fresh_names() -> Iterator[None]:
    """Counts layers without names of their own from the start, as if nothing had been built.

    So a network has the same names whenever it is built, by which its weights are found. Keras
    counts on behind what it counted before and in here.
    """
    # Inputs are counted in a graph of their own.
    graphs, seen = backend.PER_GRAPH_OBJECT_NAME_UIDS, backend.OBSERVED_NAMES
    before, seen_before = {graph: dict(counts) for graph, counts in graphs.items()}, set(seen)
    backend.reset_uids()
    try:
        yield
    finally:
        seen.update(seen_before)
        for graph, counts in before.items():
            counted = graphs.setdefault(graph, defaultdict(int))
            for name, count in counts.items():
                counted[name] = max(counted[name], count)


@contextmanager
def flips_unnoticed(quantizer: Any) -> Iterator[None]:
    """Lets a kernel be quantized without Larq's flip ratio taking that for a step of training."""
    variables = getattr(getattr(quantizer, "flip_ratio", None), "variables", [])
    before = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
