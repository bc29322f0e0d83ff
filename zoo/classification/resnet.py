"""Residual networks for small images."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo.classification import _common as common


def _shortcut(x, filters: int, strides: int, name: str):
    """Every second pixel and zeros for the new channels: no parameters."""
    if strides > 1:
        x = tf.keras.layers.MaxPool2D(1, strides=strides, name=f"{name}_subsample")(x)
    missing = filters - x.shape[-1]
    if missing:
        # Keras pads the last two axes of what it takes for channels first: one is the channels.
        padding = ((0, 0), (missing // 2, missing - missing // 2))
        x = tf.keras.layers.ZeroPadding2D(padding, "channels_first", name=f"{name}_pad")(x)
    return x


def ResNet20(
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    input_tensor=None,
    weights: str | None = None,
    include_top: bool = True,
    num_classes: int = 10,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
    stem_activation: str | None = None,
) -> tf.keras.Model:
    """ResNet-20 for CIFAR with a shortcut around each binary convolution, as in Bi-Real Net.

    A real 3x3 convolution with 16 filters, then three stages of six units with 16, 32 and 64
    filters, each `PReLU(x + BN(binary convolution(x)))`, then average pooling, normalization
    and a real classifier: 18 binary layers, 267,264 binary weights. This is the network in the
    official code of SiMaN but for the stem, whose ReLU only suits a method that centres its
    inputs, and the padding.

    # Arguments
        input_shape: Height, width and channels.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        include_top: Whether to end in the classifier, or in the last feature map.
        num_classes: Number of classes.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.
        stem_activation: `"relu"` for that of SiMaN's code, `None` for none.

    # Returns
        A model from images to probabilities `(samples, num_classes)`, or features
        `(samples, height / 4, width / 4, 64)`.

    # References
        - [Bi-Real Net](https://arxiv.org/abs/1808.00278)
        - [SiMaN](https://arxiv.org/abs/2102.07981)
    """
    convolve = common.binary_convolutions(quantizer, pad_values)
    image = common.network_input(input_shape, input_tensor)
    x = tf.keras.layers.Conv2D(
        16, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name="stem"
    )(image)
    x = common.norm(x, "stem_norm")
    if stem_activation is not None:
        x = tf.keras.layers.Activation(stem_activation, name="stem_activation")(x)
    for stage, filters in enumerate((16, 32, 64)):
        for unit in range(6):
            strides = 2 if stage > 0 and unit == 0 else 1
            name = f"stage{stage + 1}_unit{unit + 1}"
            y = convolve(x, filters, strides, f"{name}_conv")
            y = common.norm(y, f"{name}_norm")
            x = _shortcut(x, filters, strides, name)
            x = tf.keras.layers.Add(name=f"{name}_add")([y, x])
            x = common.prelu(x, f"{name}_prelu")
    if include_top:
        x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = common.norm(x, "top_norm")
        x = common.classes(x, num_classes)
    return common.finish(image, x, "resnet20", weights)
