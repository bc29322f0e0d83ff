"""Bottlenecks with a shortcut around each of their three binary convolutions."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.pose import _common as pose
from larq_ext_zoo.pose._units import Units

# Channels of the wide stream for each of the narrow one.
EXPANSION = 4


def real_bottleneck(x, width: int, units: Units, strides: int, name: str):
    """The bottleneck of a real ResNet: 1x1, 3x3 (with the stride), 1x1, and their sum with x."""
    filters = EXPANSION * width
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = units.real(
            x, filters, 1, strides, name=f"{name}_unit3_shortcut", activated=False
        )
    y = units.real(x, width, 1, name=f"{name}_unit1")
    y = units.real(y, width, 3, strides, name=f"{name}_unit2")
    return units.real(y, filters, 1, name=f"{name}_unit3", shortcut=shortcut)


def binary_bottleneck(
    wide, narrow, width: int, units: Units, strides: int, name: str, *, projection, first=None
):
    """A bottleneck in the manner of Bi-Real-50: a wide and a narrow stream, both unbroken.

    The narrow stream goes around the first convolution (from the block before) and around the
    second, the wide one around the third.

    # Arguments
        wide: The wide stream.
        narrow: The narrow stream of the block before, or the stem's output.
        width: Channels of the narrow stream.
        units: Makes the units.
        strides: Stride of the 3x3 convolution.
        name: Prefix of the layers' names.
        projection: Makes the shortcut of the wide stream where its shape changes, from the
            stream, filters, stride and name.
        first: Makes the first convolution's unit; `None` makes a binary one.

    # Returns
        The wide and the narrow stream behind the block.
    """
    if narrow.shape[-1] != width:
        narrow = real_projection(narrow, width, 1, f"{name}_unit1_shortcut")
    y = (first or units.binary)(wide, width, 1, name=f"{name}_unit1", shortcut=narrow)
    narrow = units.binary(y, width, 3, strides, name=f"{name}_unit2")
    filters = EXPANSION * width
    if strides > 1 or wide.shape[-1] != filters:
        wide = projection(wide, filters, strides, f"{name}_unit3_shortcut")
    return units.binary(narrow, filters, 1, name=f"{name}_unit3", shortcut=wide), narrow


def real_projection(x, filters: int, strides: int, name: str):
    """2x2 average pooling where the map shrinks, a real 1x1 convolution and a norm."""
    if strides > 1:
        x = pose.average_pool(x, f"{name}_pool")
    return common.norm(common.real_conv(x, filters, 1, name=f"{name}_conv"), f"{name}_norm")


def bottleneck_body(image, blocks: tuple[int, ...], widths: tuple[int, ...], units: Units):
    """The last feature map of a binary ResNet of bottlenecks; its very first 1x1 is real."""
    x = common.norm(common.real_conv(image, widths[0], 7, 2, "stem"), "stem_norm")
    x = units.activate(x, "stem")
    wide = narrow = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            wide, narrow = binary_bottleneck(
                wide,
                narrow,
                width,
                units,
                2 if stage > 0 and block == 0 else 1,
                f"stage{stage + 1}_block{block + 1}",
                projection=real_projection,
                first=units.real if stage == block == 0 else None,
            )
    return wide
