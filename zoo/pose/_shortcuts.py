"""Shortcuts without parameters, between maps of other sizes and widths."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo.pose import _common as pose


def match(x, filters: int, strides: int, name: str):
    r"""Brings a map to the size and the width of a unit's output.

    Stride 2 takes the mean of each 2x2 pixels. To a larger width the channels are repeated, to a
    smaller one their groups are averaged; with n outputs, channel i is one of group i mod n:
    \\[ y_i = x_{i \bmod c} \quad (c \leq n), \qquad
        y_i = \frac1k \sum_{g=0}^{k-1} x_{i + g n}, \quad
        k = \lfloor c / n \rfloor \quad (c > n) \\]
    so averaging undoes repeating. Channels that fill no group are left out.

    # Arguments
        x: Map with c channels.
        filters: n, the channels of the output.
        strides: 1 or 2.
        name: Prefix of the layers' names.

    # Returns
        A map with `filters` channels.
    """
    name = f"{name}_shortcut"
    if strides > 1:
        x = pose.average_pool(x, f"{name}_pool")
    channels = x.shape[-1]
    if channels < filters:
        repeats = [x] * -(-filters // channels)
        x = tf.keras.layers.Concatenate(name=f"{name}_repeat")(repeats)
        return _channels(x, 0, filters, f"{name}_part")
    groups = channels // filters
    parts = [
        _channels(x, group * filters, filters, f"{name}_part{group + 1}") for group in range(groups)
    ]
    return parts[0] if groups == 1 else tf.keras.layers.Average(name=f"{name}_mean")(parts)


def _channels(x, start: int, count: int, name: str):
    """Some of the channels."""
    total = x.shape[-1]
    if total == count:
        return x
    # Keras crops the last two axes of what it takes for channels first: one is the channels.
    borders = ((0, 0), (start, total - start - count))
    return tf.keras.layers.Cropping2D(borders, "channels_first", name=name)(x)
