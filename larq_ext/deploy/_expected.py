"""Which kernels of a model are meant to be binary in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext._scope import flips_unnoticed, quantized_scope
from larq_ext.deploy._filters import canonical
from larq_ext.deploy._probe import (
    Kind,
    input_kind,
    is_binary_input,
    is_binary_kernel,
)

# Layers that have no binary form, and their causes; those behind win over those they inherit from.
_LAYER_CAUSES = {
    lq.layers.QuantConv1D: "conv1d",
    lq.layers.QuantConv3D: "conv3d",
    lq.layers.QuantDense: "dense",
    lq.layers.QuantConv2DTranspose: "transposed",
    lq.layers.QuantConv3DTranspose: "transposed",
    lq.layers.QuantDepthwiseConv2D: "depthwise",
    lq.layers.QuantSeparableConv1D: "depthwise",
    lq.layers.QuantSeparableConv2D: "depthwise",
    lq.layers.QuantLocallyConnected1D: "locally-connected",
    lq.layers.QuantLocallyConnected2D: "locally-connected",
}


@dataclass(frozen=True)
class Kernel:
    """The kernel of a layer that was meant to be binary; rows are output channels."""

    name: str
    layer: tf.keras.layers.Layer
    rows: np.ndarray  # true where the quantized weight is negative, in the file's order
    values: np.ndarray  # the quantized weights in the order of the Keras kernel
    variable: Any
    reason: str = ""  # why the layer could not be baked
    cause: str = ""  # what can be said of the layer alone
    input_kind: Kind | None = None
    # Whether its input is quantized in the layer; else a layer in front may have taken the sign.
    binary_input: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def has_signs(self) -> bool:
        """Whether each weight is above or below zero; not a number is neither."""
        return bool((np.abs(self.values) > 0).all())


def expected_kernels(model: tf.keras.Model, reasons: dict[str, str]) -> Iterator[Kernel]:
    """The kernels of one bit whose input has one bit, or may have: see `Kernel.binary_input`."""
    from larq_ext.deploy.layers import BinaryConv2D

    for name, layer in _leaf_layers(model):
        if isinstance(layer, BinaryConv2D):
            yield _kernel_of(name, layer, layer.kernel, layer.kernel.numpy(), values_in="sign")
            continue
        quantizer = getattr(layer, "input_quantizer", None)
        shape = input_shape(layer)
        binary_input = is_binary_input(quantizer, shape)
        if quantizer is not None and not binary_input:
            continue
        kind_of_input = input_kind(quantizer, shape) if binary_input else None
        for part, variable, values in binary_kernels(layer):
            yield _kernel_of(
                f"{name}{part}",
                layer,
                variable,
                values,
                depthwise=part == " (depthwise)" or "Depthwise" in type(layer).__name__,
                reason=reasons.get(name, ""),
                cause=_layer_cause(layer, part, values),
                values_in=kind_of_input,
                binary_input=binary_input,
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


# What tells the second kernel of a separable layer from its first.
POINTWISE = " (pointwise)"


def input_shape(layer: tf.keras.layers.Layer) -> tuple[int | None, ...]:
    """The shape of a layer's input, as far as it is known."""
    try:
        return tuple(layer.input_shape)
    except (AttributeError, RuntimeError):  # used several times, or inside another layer
        spec = layer.input_spec
        channels = (getattr(spec, "axes", None) or {}).get(-1)
        return (None,) * ((getattr(spec, "ndim", None) or 2) - 1) + (channels,)


def _quantized_kernels(layer: tf.keras.layers.Layer) -> Iterator[tuple[str, Any, Any]]:
    """Part, variable and quantizer of each quantized kernel of a Larq layer."""
    has_pointwise = hasattr(layer, "pointwise_quantizer")
    for kind in ("kernel", "depthwise", "pointwise"):
        quantizer = getattr(layer, f"{kind}_quantizer", None)
        variable = getattr(layer, "kernel" if kind == "kernel" else f"{kind}_kernel", None)
        if quantizer is not None and variable is not None:
            yield f" ({kind})" if has_pointwise else "", variable, quantizer


def kernels_of_one_bit(
    layer: tf.keras.layers.Layer,
) -> Iterator[tuple[str, Any, Any, np.ndarray]]:
    """Part, variable, quantizer and quantized values of each kernel that is quantized to a bit."""
    for part, variable, quantizer in _quantized_kernels(layer):
        with quantized_scope(False):
            latent = tf.cast(tf.convert_to_tensor(variable), tf.float32)
        with flips_unnoticed(quantizer):
            values = np.asarray(quantizer(latent), np.float32)
        if is_binary_kernel(quantizer, values):
            yield part, variable, quantizer, values


def binary_kernels(layer: tf.keras.layers.Layer) -> Iterator[tuple[str, Any, np.ndarray]]:
    """Part, variable and quantized values of each kernel of one bit of a Larq layer."""
    for part, variable, _, values in kernels_of_one_bit(layer):
        yield part, variable, values
    if getattr(layer, "kernel_quantizer", True) is None and hasattr(layer, "kernel"):
        # Baked by somebody else.
        values = np.asarray(layer.kernel, np.float32)
        if values.size > values.shape[-1] and is_binary_kernel(None, values):
            yield "", layer.kernel, values


def _layer_cause(layer: tf.keras.layers.Layer, part: str, values: np.ndarray) -> str:
    if part == POINTWISE:
        return "pointwise"
    for kind, cause in _LAYER_CAUSES.items():
        if isinstance(layer, kind):
            return cause
    if getattr(layer, "data_format", None) == "channels_first":
        return "channels-first"
    return "" if np.isfinite(values).all() else "not-finite-kernel"


def _kernel_of(
    name: str,
    layer: tf.keras.layers.Layer,
    variable: Any,
    values: np.ndarray,
    *,
    depthwise: bool = False,
    reason: str = "",
    cause: str = "",
    values_in: Kind | None = None,
    binary_input: bool = True,
) -> Kernel:
    from larq_ext.deploy.layers import BinaryConv2D

    # Whatever a baked layer is, its kernel is that of a convolution.
    kind = BinaryConv2D if isinstance(layer, BinaryConv2D) else type(layer)
    return Kernel(
        name,
        layer,
        canonical(_rows_of_keras(values, kind.__name__, depthwise) < 0),
        values,
        variable,
        reason,
        cause,
        values_in,
        binary_input,
    )


def _rows_of_keras(values: np.ndarray, layer_type: str, depthwise: bool) -> np.ndarray:
    """Brings a Keras kernel to a row for each output channel, ordered as in the file."""
    if depthwise:  # (height, width, in, multiplier)
        values = values.reshape(*values.shape[:-2], -1)
        return np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)
    # Transposed convolutions have their outputs second to last.
    axis = -2 if "Transpose" in layer_type else -1
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
