"""What a quantizer computes, found by running it: people write their own."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import tensorflow as tf

from larq_ext._rebuild import derived_classes
from larq_ext.quantizers import BinaryQuantizer

# `sign`: -1 and +1. `scaled`: -c and +c, one c per channel. `values`: any other two values, as 0
# and 1. `several`: more than two.
Kind = Literal["sign", "scaled", "values", "several"]

CONVERTERS_TOLERANCE = 5e-3  # sizes of weights that differ by less are one size to it
# Both signs, tiny and large. Values near 0 and 1 tell quantizers with thresholds apart.
_SIZES = (1e-30, 1e-6, 1e-3, 0.1, 0.3, 0.49, 0.51, 0.7, 0.99, 1.01, 1.7, 3.0, 50.0, 1e4)
_LARGEST = 64  # rows and columns that are probed of an image


def precision(quantizer: Any) -> int | None:
    """The bits that a quantizer says it has."""
    return getattr(quantizer, "precision", None)


def input_values(quantizer: Any, shape: tuple[int | None, ...]) -> np.ndarray | None:
    """The values an input quantizer gives, sorted, one row per channel.

    # Arguments
        quantizer: what the layer calls.
        shape: the shape of the layer's input.

    # Returns
        Values of shape `(channels, values)`, or `None` if it cannot be run on such an input. Zero
        is not among what it is run on: signs differ in what they make of it.
    """
    sizes = np.asarray(_SIZES, np.float32)
    values = np.concatenate([-sizes, sizes])
    size = [min(length or 8, _LARGEST) for length in shape[1:-1]]
    outer = int(np.prod(size))
    samples = -(-len(values) // outer)
    x = np.resize(values, (samples, *size))[..., None]
    x = np.broadcast_to(x, (*x.shape[:-1], shape[-1] or 1))
    try:
        outputs = np.asarray(quantizer(tf.constant(x)), np.float32)
    except Exception:  # it is somebody else's, and may raise anything for such an input
        return None
    rows = outputs.reshape(-1, outputs.shape[-1]).T if outputs.ndim else outputs.reshape(1, 1)
    return np.unique(np.round(rows, 6), axis=1)


def input_kind(quantizer: Any, shape: tuple[int | None, ...]) -> Kind | None:
    """What an input quantizer makes of numbers; `None` if it cannot be told."""
    if isinstance(quantizer, BinaryQuantizer) and not computes_otherwise(quantizer, "input_form"):
        form = quantizer.input_form()
        return "values" if form.zero_one else "sign" if form.scale == 1 else "scaled"
    values = input_values(quantizer, shape)
    if values is None or not np.isfinite(values).all():
        return None
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    if not np.logical_or(values == low, values == high).all():
        return "several"
    if (high <= 0).any() or (low != -high).any():
        return "values"
    return "sign" if (high == 1).all() else "scaled"


def is_binary_input(quantizer: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether a quantizer says, or shows, that an input has two values."""
    if quantizer is None:
        return False
    if precision(quantizer) is not None:
        return precision(quantizer) == 1
    return input_kind(quantizer, shape) in ("sign", "scaled", "values")


def is_binary_kernel(quantizer: Any, values: np.ndarray) -> bool:
    """Whether a quantizer says, or its values show, that a kernel is of one bit.

    A channel of zeros is one that lost its scale.
    """
    # Baking writes 32 for quantizers that do not say what they have.
    if precision(quantizer) not in (None, 32):
        return precision(quantizer) == 1
    return values.size > values.shape[-1] and 0.0 <= jitter(values) <= CONVERTERS_TOLERANCE


def jitter(values: np.ndarray) -> float:
    """By which share sizes differ within the output channels of a kernel; -1 if all are zero."""
    sizes = np.abs(values).reshape(-1, values.shape[-1])
    largest = sizes.max(axis=0)
    if not np.isfinite(largest).all() or not largest.any():
        return -1.0
    largest, sizes = largest[largest > 0], sizes[:, largest > 0]
    return float(((largest - sizes.min(axis=0)) / largest).max())


def computes_otherwise(quantizer: BinaryQuantizer, form: str) -> bool:
    """Whether a class derived from ours computes by itself, and does not say the form of it."""
    own = derived_classes(quantizer, "larq_ext")
    if any(form in vars(kind) for kind in own):
        return False
    return any(not {"call", "quantize"}.isdisjoint(vars(kind)) for kind in own)
