"""Real-valued layers with what follows them, as one 8-bit operator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext.deploy._int8_layers import (
    FUSED,
    Int8Conv2D,
    Int8Dense,
    Int8Range,
    int8_weights,
)
from larq_ext.deploy._surgery import (
    Links,
    affine_of,
    again,
    is_linear,
    nothing,
    replaced,
    takes_plain_signs,
)
from larq_ext.layers import QuantConv2D, QuantDense
from larq_ext.quantizers import Int8, int8_range

_RELU, _RELU6 = FUSED[1:]
# Classes derived from these may compute something else.
_REAL = (
    tf.keras.layers.Conv2D,
    tf.keras.layers.Dense,
    lq.layers.QuantConv2D,
    lq.layers.QuantDense,
    QuantConv2D,
    QuantDense,
)


@dataclass
class Folded:
    """A real-valued layer and the layers behind it that become one operator with it.

    # Arguments
        layer: the convolution or dense layer.
        kernel: its kernel in HWIO, with the norm.
        bias: its bias, with the norm.
        activation: `None`, `"relu"` or `"relu6"`.
        behind: an activation that is an operator of its own.
        absorbed: the names of the layers that are gone.
        normal: mean and deviation per channel of what comes out before the activation, as far
            as a norm tells.
        trained: the range of a quantizer behind it.
        only_signs: whether nothing of the outputs is used but their signs.
    """

    layer: Any
    kernel: np.ndarray
    bias: np.ndarray
    activation: str | None = None
    behind: Any = None
    absorbed: list[str] = field(default_factory=list)
    normal: tuple[np.ndarray, np.ndarray] | None = None
    trained: Int8Range | None = None
    only_signs: bool = False


def is_real(layer: Any) -> bool:
    """Whether a layer of a baked model is a convolution or dense layer that 8 bits are for."""
    if type(layer) not in _REAL or getattr(layer, "scale_mode", None) is not None:
        return False
    if getattr(layer.activation, "weights", None):
        return False
    kernel = getattr(layer, "kernel_quantizer", None)
    if kernel is not None and getattr(kernel, "precision", None) != 8:
        return False
    if not isinstance(getattr(layer, "input_quantizer", None), (type(None), Int8, Int8Range)):
        return False
    if isinstance(layer, tf.keras.layers.Dense):
        return len(layer.input_shape) == 2
    if layer.padding == "same" and getattr(layer, "pad_values", 0.0):
        return False  # integers may have no such value, and another one would turn signs
    return layer.groups == 1 and layer.data_format == "channels_last"


def fold(links: Links, layer: Any) -> Folded:
    """Gathers what can become one operator with a layer.

    A symmetric range per output channel grows with the channel: folding a norm into a kernel
    that is rounded already keeps its integers.
    """
    kernel = layer.kernel.numpy().astype("float64")
    if kernel.ndim == 2:
        kernel = kernel[None, None]
    bias = layer.bias.numpy().astype("float64") if layer.use_bias else np.zeros(kernel.shape[-1])
    folded = Folded(layer, kernel, bias)
    if not is_linear(layer):
        _take_activation(folded, layer.activation)
    last = layer
    while folded.behind is None and folded.trained is None:
        following = links.after(last)
        if len(following) != 1 or following[0] not in links.layers:
            break
        if not _take(folded, following[0]):
            break
        last = following[0]
        folded.absorbed.append(last.name)
    folded.only_signs = _gives_signs(links, last)
    return folded


def _gives_signs(links: Links, layer: Any) -> bool:
    """Whether plain signs are all that the next layers take."""
    following = links.after(layer)
    return bool(following) and all(
        n is not None
        and (
            takes_plain_signs(n)
            or (type(n) is tf.keras.layers.MaxPooling2D and _gives_signs(links, n))
        )
        for n in following
    )


def _take(folded: Folded, layer: Any) -> bool:
    """Adds a layer, if it can be a part of the operator."""
    if isinstance(layer, Int8):
        folded.trained = _fixed(layer)
        return folded.trained is not None
    if type(layer) is tf.keras.layers.Activation and is_linear(layer):
        return True
    if folded.activation is not None:
        return False
    if getattr(getattr(layer, "activation", None), "weights", None):
        return False  # which would be lost
    affine = affine_of(layer)
    if affine is not None:
        folded.kernel = folded.kernel * affine[0]
        folded.bias = folded.bias * affine[0] + affine[1]
        deviation = np.sqrt(layer.moving_variance.numpy().astype("float64"))
        mean = layer.moving_mean.numpy() * affine[0] + affine[1]
        folded.normal = (mean, np.abs(affine[0]) * deviation)
        return True
    if type(layer) is tf.keras.layers.ReLU:
        plain = not layer.negative_slope and not layer.threshold
        if plain and layer.max_value in (None, 6):
            folded.activation = "relu" if layer.max_value is None else "relu6"
            return True
        return False
    if type(layer) is tf.keras.layers.Softmax and layer.axis == -1:
        _take_activation(folded, tf.keras.activations.softmax)
        return True
    if type(layer) is tf.keras.layers.Activation and not isinstance(
        layer.activation, lq.quantizers.Quantizer
    ):
        _take_activation(folded, layer.activation)
        return True
    return False


def _take_activation(folded: Folded, activation: Any) -> None:
    if activation in (_RELU, _RELU6):
        folded.activation = "relu" if activation is _RELU else "relu6"
    else:
        folded.behind = activation


def in_floats(folded: Folded) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function of a folded layer in floats, in front of `behind`."""
    layer = lq.layers.QuantConv2D(**_convolution(folded), activation=folded.activation)
    dense = isinstance(folded.layer, tf.keras.layers.Dense)
    quantizer = getattr(folded.layer, "input_quantizer", None)
    layer.build((None, 1, 1, folded.kernel.shape[2]) if dense else folded.layer.input_shape)
    layer.set_weights([folded.kernel, folded.bias])

    def compute(x: tf.Tensor) -> tf.Tensor:
        x = x if quantizer is None else quantizer(x)
        return layer(x[:, None, None] if dense else x)

    return compute


def _convolution(folded: Folded) -> dict[str, Any]:
    """The arguments of a convolution that computes what the folded layer does."""
    layer = folded.layer
    arguments: dict[str, Any] = {"filters": folded.kernel.shape[-1], "kernel_size": 1}
    arguments["data_format"] = "channels_last"
    if isinstance(layer, tf.keras.layers.Conv2D):
        for name in ("kernel_size", "strides", "padding", "dilation_rate"):
            arguments[name] = getattr(layer, name)
        arguments["pad_values"] = getattr(layer, "pad_values", 0.0)
    return arguments


def trained_int8(model: tf.keras.Model) -> tf.keras.Model:
    """Gives the layers of a baked model that were trained for 8 bits their deployed form."""
    links = Links(model)
    ready = []
    for layer in links.layers:
        quantizer = getattr(layer, "input_quantizer", None)
        if not isinstance(quantizer, Int8):
            continue
        if not is_real(layer):
            warnings.warn(
                f"{layer.name} stays in float32, with rounded inputs: 8 bits are for Conv2D "
                "(channels last, one group, borders of zeros) and Dense (one row of features), "
                "with an 8-bit kernel, no learned scale and no activation that has weights.",
                stacklevel=4,  # who calls `convert` or `int8_edges`
            )
            continue
        folded = fold(links, layer)
        inputs, outputs = _fixed(quantizer), folded.trained or normal_range(folded)
        if getattr(layer, "kernel_quantizer", None) is None:
            warnings.warn(
                f'{layer.name} stays in float32: give it kernel_quantizer="int8" as well.',
                stacklevel=4,
            )
            continue
        if inputs and outputs:
            ready.append((folded, inputs, outputs))
            continue
        missing = "inputs (train it)" if inputs is None else "outputs"
        warnings.warn(
            f"{layer.name} stays in float32: the range of its {missing} is not known. A "
            "`larq_ext.quantizers.Int8()` or a batch normalization behind it tells that of its "
            "outputs, and `larq_ext.deploy.int8_edges` finds both with samples.",
            stacklevel=4,
        )
    return fixed_ranges(as_int8(model, ready))


def normal_range(folded: Folded, deviations: float = 6.0) -> Int8Range | None:
    """The range of the outputs as far as weights tell: a norm's mean and deviations."""
    if folded.normal is None:
        return None
    mean, deviation = folded.normal
    low, high = (mean - deviations * deviation).min(), (mean + deviations * deviation).max()
    if folded.activation:
        low, high = 0.0, min(high, 6.0 if folded.activation == "relu6" else high)
    return range_of(low, high)


def range_of(low: float, high: float) -> Int8Range:
    """A range that includes 0 and is not empty."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    ends = int8_range(tf.constant(low), tf.constant(high if high > low else 1.0))
    return Int8Range(*map(float, ends))


def as_int8(
    model: tf.keras.Model, layers: Iterable[tuple[Folded, Int8Range, Int8Range]]
) -> tf.keras.Model:
    """Rebuilds a baked model with 8-bit layers, each given with the ranges at both ends."""
    new: dict[str, Any] = {}
    weights: dict[str, list[np.ndarray]] = {}
    for folded, inputs, outputs in layers:
        name = folded.layer.name
        dense = isinstance(folded.layer, tf.keras.layers.Dense)
        new[name] = (Int8Dense if dense else Int8Conv2D)(
            **_convolution(folded),
            name=name,
            activation=folded.activation,
            behind=folded.behind,
            input_quantizer=inputs,
            output_quantizer=outputs,
        )
        weights[name] = int8_weights(
            folded.kernel, folded.bias, inputs, outputs, only_signs=folded.only_signs
        )
        for gone in folded.absorbed:
            new[gone] = nothing(model.get_layer(gone))
            weights[gone] = []
    return replaced(model, new, weights) if new else model


def fixed_ranges(model: tf.keras.Model) -> tf.keras.Model:
    """Rebuilds a baked model with numbers instead of ranges that training moves."""
    new: dict[str, Any] = {}
    weights: dict[str, list[np.ndarray]] = {}
    for layer in model.layers:
        quantizer = getattr(layer, "input_quantizer", None)
        if isinstance(layer, Int8):
            new[layer.name] = _fixed(layer) or nothing(layer)
            weights[layer.name] = []
        elif isinstance(quantizer, Int8):
            new[layer.name] = again(layer, input_quantizer=_fixed(quantizer))
            owned = {id(weight) for weight in quantizer.weights}
            weights[layer.name] = [w.numpy() for w in layer.weights if id(w) not in owned]
    return replaced(model, new, weights) if new else model


def _fixed(quantizer: Int8) -> Int8Range | None:
    found = quantizer.range()
    return None if found is None else Int8Range(*found, name=quantizer.name)
