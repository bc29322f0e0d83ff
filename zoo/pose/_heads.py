"""Stages that double the size of a map, from the features of a backbone to those of heatmaps."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.pose import _common as pose
from larq_ext_zoo.pose._shortcuts import match
from larq_ext_zoo.pose._units import Units

STAGES = 3


def nearest(x, filters: int, units: Units, name: str):
    """Each pixel 2x2 times, then a binary 3x3 convolution."""
    return units.binary(pose.upsample(x, 2, f"{name}_upsample"), filters, name=name)


def transposed(x, filters: int, units: Units, name: str):
    r"""A binary 4x4 transposed convolution of stride 2, as a convolution for each phase.

    With the taps w of the transposed kernel along an axis,
    \\[ y_{2t} = x_{t-1} w_3 + x_t w_1, \qquad y_{2t+1} = x_t w_2 + x_{t+1} w_0 \\]
    so each of the 2x2 phases of the output is a 2x2 convolution. The border is what signs make
    of 0: +1, or 0 for a method with inputs of 0 and 1; `"siman"` centres its inputs with the zeros
    among them, so there it is the sign of minus the mean. Each phase has a norm of its own, which
    the runtime joins with the convolution; behind the interleaving it could not.
    """
    rows = []
    for row in (0, 1):
        phases = []
        for column in (0, 1):
            phase = f"{name}_phase{row}{column}"
            # An even output needs the pixel before the map, an odd one the pixel behind it.
            border = ((1 - row, row), (1 - column, column))
            padded = tf.keras.layers.ZeroPadding2D(border, name=f"{phase}_pad")(x)
            y = units.layers.conv(padded, filters, 2, name=f"{phase}_conv", padding="valid")
            phases.append(common.norm(y, f"{phase}_norm"))
        rows.append(tf.keras.layers.Concatenate(name=f"{name}_row{row}")(phases))
    height, width = x.shape[1:3]
    # Two pixels as channels of one lie in memory as two pixels do; two rows within one likewise.
    rows = [
        tf.keras.layers.Reshape((height, 2 * width, filters), name=f"{name}_row{row}_columns")(part)
        for row, part in enumerate(rows)
    ]
    y = tf.keras.layers.Concatenate(axis=2, name=f"{name}_both")(rows)
    y = tf.keras.layers.Reshape((2 * height, 2 * width, filters), name=f"{name}_rows")(y)
    shortcut = pose.upsample(match(x, filters, 1, name), 2, f"{name}_shortcut_upsample")
    return units.joined(y, shortcut, name)


def real_transposed(x, filters: int, units: Units, name: str):
    """A real 4x4 transposed convolution of stride 2, as SimpleBaseline has it."""
    x = tf.keras.layers.Conv2DTranspose(
        filters,
        4,
        strides=2,
        padding="same",
        use_bias=False,
        kernel_initializer=pose.SMALL_NORMAL,
        name=f"{name}_conv",
    )(x)
    return units.joined(common.norm(x, f"{name}_norm"), None, name)


HEADS = {"nearest": nearest, "transposed": transposed, "real_transposed": real_transposed}
