"""Which kernels of a model are meant to be binary in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext.deploy._filters import canonical


@dataclass(frozen=True)
class Kernel:
    """The kernel of a layer that was meant to be binary; rows are output channels."""

    name: str
    layer_type: str
    shape: tuple[int, ...]
    rows: np.ndarray  # true where the quantized weight is negative, in the file's order
    as_is: np.ndarray  # the same in the order of the Keras kernel
    reason: str = ""


def expected_kernels(model: tf.keras.Model, reasons: dict[str, str]) -> Iterator[Kernel]:
    from larq_ext.deploy.layers import BinaryConv2D, BinaryDense

    for name, layer in _leaf_layers(model):
        if isinstance(layer, (BinaryConv2D, BinaryDense)):
            yield _kernel_of(name, type(layer).__name__, layer.kernel.numpy())
        elif _precision(getattr(layer, "input_quantizer", None)) == 1:
            for part, kernel, quantizer in _quantized_kernels(layer):
                if _precision(quantizer) == 1:
                    with lq.context.quantized_scope(False):
                        latent = tf.convert_to_tensor(kernel)
                    yield _kernel_of(
                        f"{name}{part}",
                        type(layer).__name__,
                        np.asarray(quantizer(latent)),
                        depthwise=part == " (depthwise)" or "Depthwise" in type(layer).__name__,
                        reason=reasons.get(name, ""),
                    )


def weight_only_notes(model: tf.keras.Model) -> Iterator[str]:
    for name, layer in _leaf_layers(model):
        binary_kernel = any(_precision(q) == 1 for _, _, q in _quantized_kernels(layer))
        if binary_kernel and _precision(getattr(layer, "input_quantizer", None)) != 1:
            yield (
                f"{name}: binary weights, but its input is not: it runs in float. "
                "Give it an input_quantizer if it was meant to be binary."
            )


def _leaf_layers(
    model: tf.keras.Model, prefix: str = ""
) -> Iterator[tuple[str, tf.keras.layers.Layer]]:
    """The layers with their paths, `model/layer` within nested models."""
    for layer in model.layers:
        name = f"{prefix}{layer.name}"
        if not isinstance(layer, tf.keras.Model):
            inner = getattr(layer, "layer", None)  # wrappers such as TimeDistributed
            layer = inner if isinstance(inner, tf.keras.layers.Layer) else layer
        if isinstance(layer, tf.keras.Model):
            yield from _leaf_layers(layer, f"{name}/")
        else:
            yield name, layer


def _quantized_kernels(layer: tf.keras.layers.Layer) -> Iterator[tuple[str, Any, Any]]:
    """Part, variable and quantizer of each kernel of a Larq layer."""
    has_pointwise = hasattr(layer, "pointwise_quantizer")
    for kind in ("kernel", "depthwise", "pointwise"):
        quantizer = getattr(layer, f"{kind}_quantizer", None)
        variable = getattr(layer, "kernel" if kind == "kernel" else f"{kind}_kernel", None)
        if quantizer is not None and variable is not None:
            yield f" ({kind})" if has_pointwise else "", variable, quantizer


def _precision(quantizer: Any) -> int | None:
    return getattr(quantizer, "precision", None)


def _kernel_of(
    name: str,
    layer_type: str,
    values: np.ndarray,
    depthwise: bool = False,
    reason: str = "",
) -> Kernel:
    return Kernel(
        name,
        layer_type,
        values.shape,
        canonical(_rows_of_keras(values, layer_type, depthwise) < 0),
        values < 0,
        reason,
    )


def _rows_of_keras(values: np.ndarray, layer_type: str, depthwise: bool) -> np.ndarray:
    """Brings a Keras kernel to a row for each output channel, ordered as in the file."""
    if depthwise:  # (height, width, in, multiplier)
        values = values.reshape(*values.shape[:-2], -1)
        return np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)
    # Transposed convolutions have their outputs second to last.
    axis = -2 if "Transpose" in layer_type else -1
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
