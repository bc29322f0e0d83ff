"""The body of a residual binary network, and what the papers' variants of it differ in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

import larq_ext as lqx
from larq_ext_zoo import _common as common

# ReActNet also has a bias before and one behind each PReLU. The one before is the norm's beta; what
# the one behind adds to a shortcut the next norm takes away, to a sign the bias in front of it, and
# to the last features the norm or the classifier behind them.
REACTNET = ("bias", "conv", "norm")


@dataclass(frozen=True)
class Residual:
    """How a residual network is built; the defaults are those of Bi-Real Net with PReLU.

    # Arguments
        unit: What a binary convolution comes with, in order: `"conv"`, `"norm"`, `"prelu"`
            (which has a single slope here) and `"bias"` (a trained number by channel).
        shortcuts: Shortcuts in a block of two binary convolutions: 2 is one around each, 1 one
            around both.
        activation: After each sum, and between the two convolutions of a block with one
            shortcut: `"prelu"`, `"hard_tanh"` or `None`.
        downsampling: The shortcut where the feature map shrinks: `"pooled"` (2x2 average
            pooling, real 1x1 convolution, norm), `"strided"` (real 1x1 convolution of stride 2,
            norm), `"binary"` (a unit with a 1x1 kernel of stride 2) or `"subsampled"` (every
            second pixel, zeros for new channels).
        stem_activation: After the norm of the stem: `"prelu"`, `"relu"` or `None`.
        last: What follows the last block: `"norm"`, `"relu"` or `None`.
        top_norm: Whether the pooled features are normalized before the classifier.
        initializer: Of the kernels of binary convolutions.
        real_initializer: Of the kernels of real convolutions.
        logits_initializer: Of the classifier's kernel.
        gamma: Where the scales of norms start, but for that of the pooled features.
    """

    unit: tuple[Literal["conv", "norm", "prelu", "bias"], ...] = ("conv", "norm")
    shortcuts: Literal[1, 2] = 2
    activation: Literal["prelu", "hard_tanh"] | None = "prelu"
    downsampling: Literal["pooled", "strided", "binary", "subsampled"] = "pooled"
    stem_activation: Literal["prelu", "relu"] | None = None
    last: Literal["norm", "relu"] | None = None
    top_norm: bool = False
    initializer: Any = "he_normal"
    real_initializer: Any = "he_normal"
    logits_initializer: Any = "glorot_uniform"
    gamma: float = 1.0

    @property
    def is_linear_without_signs(self) -> bool:
        """Whether nothing but the binarization bends what a block computes."""
        return self.activation is None and "prelu" not in self.unit

    def binary_layers(self, quantizer: str | None, pad_values: float | None) -> common.BinaryLayers:
        """What makes the binary layers of a network of this kind."""
        instead = "relu" if self.is_linear_without_signs else None
        return common.BinaryLayers(quantizer, pad_values, self.initializer, instead)


def residual_network(
    name: str,
    style: Residual,
    blocks: tuple[int, ...],
    widths: tuple[int, ...],
    *,
    large_images: bool,
    input_shape,
    input_tensor,
    weights: str | None,
    include_top: bool,
    num_classes: int,
    quantizer: str | None,
    pad_values: float | None,
) -> tf.keras.Model:
    """Makes a residual network.

    # Arguments
        name: Name of the model.
        style: How it is built.
        blocks: Blocks of two binary convolutions per stage.
        widths: Filters per stage.
        large_images: Whether the stem shrinks images by 4, or is a single 3x3 convolution.

    The other arguments are those of the networks.
    """
    image = common.network_input(input_shape, input_tensor)
    layers = style.binary_layers(quantizer, pad_values)
    x = residual_body(image, style, layers, blocks, widths, large_images=large_images)
    if include_top:
        x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
        if style.top_norm:
            x = common.norm(x, "top_norm")
        x = common.classes(x, num_classes, style.logits_initializer)
    return common.finish(image, x, name, weights)


def residual_body(
    image,
    style: Residual,
    layers: common.BinaryLayers,
    blocks: tuple[int, ...],
    widths: tuple[int, ...],
    *,
    large_images: bool,
):
    """The last feature map of a residual network; arguments of `residual_network`."""
    size, strides = (7, 2) if large_images else (3, 1)
    x = common.real_conv(image, widths[0], size, strides, "stem", style.real_initializer)
    x = common.norm(x, "stem_norm", style.gamma)
    x = common.activate(x, style.stem_activation, "stem")
    if large_images:
        x = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, (count, filters) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            strides = 2 if stage > 0 and block == 0 else 1
            names = [f"stage{stage + 1}_unit{2 * block + unit}" for unit in (1, 2)]
            x = _block(x, style, layers, filters, strides, names)
    if style.last == "norm":
        return common.norm(x, "last_norm", style.gamma)
    return common.activate(x, style.last, "last")


def _block(x, style: Residual, layers, filters: int, strides: int, names: list[str]):
    """Two binary convolutions with one or two shortcuts."""
    if style.shortcuts == 1:
        y = _unit(x, style, layers, filters, 3, strides, names[0])
        y = common.activate(y, style.activation, names[0])
        y = _unit(y, style, layers, filters, 3, 1, names[1])
        x = _shortcut(x, style, layers, filters, strides, names[0])
        return _sum(x, y, style, names[1])
    for name, step in zip(names, (strides, 1), strict=True):
        y = _unit(x, style, layers, filters, 3, step, name)
        x = _shortcut(x, style, layers, filters, step, name)
        x = _sum(x, y, style, name)
    return x


def _sum(x, y, style: Residual, name: str):
    x = tf.keras.layers.Add(name=f"{name}_add")([y, x])
    return common.activate(x, style.activation, name)


def _unit(x, style: Residual, layers, filters: int, size: int, strides: int, name: str):
    """A binary convolution with what the style puts before and behind it."""
    for part in style.unit:
        if part == "conv":
            x = layers.conv(x, filters, size, strides, f"{name}_conv")
        elif part == "norm":
            x = common.norm(x, f"{name}_norm", style.gamma)
        elif part == "bias":
            x = lqx.layers.LearnableBias(name=f"{name}_bias")(x)
        else:
            x = common.prelu(x, f"{name}_prelu", shared=True)
    return x


def _shortcut(x, style: Residual, layers, filters: int, strides: int, name: str):
    if strides == 1 and x.shape[-1] == filters:
        return x
    if style.downsampling == "binary":
        return _unit(x, style, layers, filters, 1, strides, f"{name}_shortcut")
    if style.downsampling == "subsampled":
        return _subsampled(x, filters, strides, name)
    name = f"{name}_shortcut"
    if style.downsampling == "pooled":
        x = tf.keras.layers.AveragePooling2D(2, 2, padding="same", name=f"{name}_pool")(x)
        strides = 1
    x = common.real_conv(x, filters, 1, strides, f"{name}_conv", style.real_initializer)
    return common.norm(x, f"{name}_norm", style.gamma)


def _subsampled(x, filters: int, strides: int, name: str):
    """Every second pixel and zeros for the new channels: no parameters."""
    if strides > 1:
        x = tf.keras.layers.MaxPool2D(1, strides=strides, name=f"{name}_subsample")(x)
    missing = filters - x.shape[-1]
    if missing:
        # Keras pads the last two axes of what it takes for channels first: one is the channels.
        padding = ((0, 0), (missing // 2, missing - missing // 2))
        x = tf.keras.layers.ZeroPadding2D(padding, "channels_first", name=f"{name}_pad")(x)
    return x
