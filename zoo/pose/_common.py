"""What the pose networks share: the input, resizing by two, and what they end in."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from larq_ext_zoo import _common as common

# Four halvings behind the stem's two, or five in all.
STRIDE = 32
SMALL_NORMAL = common.initializer("RandomNormal", stddev=0.001)


def network_input(input_shape, input_tensor):
    """The input of a pose network.

    # Raises
        ValueError: if its sides do not divide by 32.
    """
    image = common.network_input(input_shape, input_tensor)
    sides = tuple(image.shape[1:3])
    if len(image.shape) != 4 or None in sides or any(side % STRIDE for side in sides):
        raise ValueError(
            f"`input_shape` is (height, width, channels) with sides that divide by {STRIDE}, such "
            f"as (256, 192, 3), received {tuple(image.shape[1:])}."
        )
    return image


def check_real(name: str, quantizer: str | None, binary: str) -> None:
    """Refuses a quantizer for a network that is real-valued."""
    if quantizer is not None:
        raise ValueError(
            f"`quantizer` is None for {name}, which is real-valued, received {quantizer!r}: take "
            f"{binary}."
        )


def padded_conv(
    x, filters: int, kernel_size: int = 3, strides: int = 1, *, name: str, initializer="he_normal"
):
    """A real convolution that pads as PyTorch does, for sides that divide by the stride.

    `padding="same"` has the centres of the kernel on other pixels where the stride is 2.
    """
    if strides > 1:
        x = pad_before(x, kernel_size, f"{name}_pad")
    return tf.keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        kernel_initializer=initializer,
        name=name,
    )(x)


def pad_before(x, kernel_size: int, name: str):
    """The zeros that a window of stride 2 sees if both sides are padded alike: one less behind.

    The Larq Compute Engine's converter takes equal padding for `"same"`, which it is not.
    """
    before = kernel_size // 2
    if before == 0:
        return x
    return tf.keras.layers.ZeroPadding2D(((before, before - 1),) * 2, name=name)(x)


def average_pool(x, name: str):
    """The mean of each 2x2 pixels."""
    return tf.keras.layers.AveragePooling2D(2, 2, name=name)(x)


def upsample(x, factor: int, name: str):
    """Each pixel `factor x factor` times."""
    return tf.keras.layers.UpSampling2D(factor, interpolation="nearest", name=name)(x)


def ending(
    x, features: Sequence, *, num_keypoints: int, num_classes: int | None
) -> tf.keras.layers.Layer:
    """Heatmaps, or class probabilities for a network that is trained to classify first.

    # Arguments
        x: The map that heatmaps are made of, or `None` for a classifier.
        features: The maps that a classifier sees, each averaged over its pixels.
        num_keypoints: Number of heatmaps.
        num_classes: Number of classes, or `None` for heatmaps.
    """
    if num_classes is None:
        return tf.keras.layers.Conv2D(
            num_keypoints, 1, kernel_initializer=SMALL_NORMAL, dtype="float32", name="heatmaps"
        )(x)
    pooled = [tf.keras.layers.GlobalAveragePooling2D()(feature) for feature in features]
    merged = pooled[0] if len(pooled) == 1 else tf.keras.layers.Concatenate(name="pool")(pooled)
    return common.classes(merged, num_classes)
