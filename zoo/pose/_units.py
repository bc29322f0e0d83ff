"""The two kinds of units that pose networks are made of: real ones and binary ones."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.pose import _common as pose
from larq_ext_zoo.pose._shortcuts import match


class Units:
    """Makes the units of one network.

    # Arguments
        layers: Makes the binary convolutions, if there are any.
        activation: After real units, `"relu"` or `"prelu"`: where signs follow it must not be a
            ReLU, behind which all of them are +1.
        initializer: Initializer of the kernels of real convolutions.
    """

    def __init__(
        self,
        layers: common.BinaryLayers | None = None,
        activation: str = "prelu",
        initializer="he_normal",
    ):
        self.layers, self._activation, self._initializer = layers, activation, initializer

    def real(
        self,
        x,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        *,
        name: str,
        shortcut=None,
        activated: bool = True,
    ):
        r"""A real convolution: \\( \mathrm{act}(\mathrm{norm}(x * K) + \mathrm{shortcut}) \\)."""
        x = pose.padded_conv(
            x, filters, kernel_size, strides, name=f"{name}_conv", initializer=self._initializer
        )
        return self.joined(common.norm(x, f"{name}_norm"), shortcut, name, activated)

    def binary(
        self,
        x,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        *,
        name: str,
        shortcut=None,
        activated: bool = True,
    ):
        r"""A binary convolution: \\( \mathrm{act}(\mathrm{norm}(\mathrm{sign}(x) * K) + r) \\).

        r is `shortcut`, or else x, brought to the shape of the output where it has another.
        """
        if shortcut is None:
            shortcut = match(x, filters, strides, name)
        x = self.layers.conv(x, filters, kernel_size, strides, f"{name}_conv")
        return self.joined(common.norm(x, f"{name}_norm"), shortcut, name, activated)

    def joined(self, x, shortcut, name: str, activated: bool = True):
        """The sum with the shortcut, if there is one, and the activation."""
        if shortcut is not None:
            x = tf.keras.layers.Add(name=f"{name}_add")([x, shortcut])
        return self.activate(x, name) if activated else x

    def activate(self, x, name: str):
        """The activation of the network."""
        return common.activate(x, self._activation, name)
