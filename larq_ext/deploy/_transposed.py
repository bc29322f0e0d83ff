"""A transposed convolution of signs as a convolution, for which there is a binary kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from larq_ext._summary import no_operand
from larq_ext.deploy.layers import BinaryConv2D
from larq_ext.quantizers._base import register_class


class Phases(NamedTuple):
    """How a transposed convolution of stride s is a convolution along one axis.

    Outputs whose positions are equal modulo s have the same taps, `taps` of them: the convolution
    computes all s of them as channels, depth-to-space interleaves them, and `crop` outputs in
    front of the `outputs` kept are dropped. Around the image are `before` and `after` more pixels.
    """

    taps: int
    before: int
    after: int
    crop: int
    outputs: int


def phases(inputs: int, kernel: int, stride: int, padding: str) -> Phases:
    """The geometry along one axis; the kernel's size must be a multiple of the stride."""
    taps = kernel // stride
    outputs = inputs * stride if padding == "same" else (inputs - 1) * stride + kernel
    # As the gradient of a convolution has it, which starts `front` pixels before the image.
    front = (kernel - stride) // 2 if padding == "same" else 0
    first, last = front // stride, (outputs - 1 + front) // stride
    return Phases(
        taps, taps - 1 - first, max(last - inputs + 1, 0), front - first * stride, outputs
    )


def geometry(
    image: Iterable[int], kernel: Iterable[int], stride: int, padding: str
) -> list[Phases]:
    """`phases` along rows and columns."""
    return [
        phases(inputs, size, stride, padding) for inputs, size in zip(image, kernel, strict=True)
    ]


def phase_kernel(kernel: np.ndarray, stride: int) -> np.ndarray:
    """The kernel of the convolution, with `stride x stride x out` outputs.

    # Arguments
        kernel: Kernel of the transposed convolution, `(height, width, out, in)`.
        stride: Its stride.
    """
    height, width, outputs, inputs = kernel.shape
    taps = height // stride, width // stride
    split = kernel.reshape(taps[0], stride, taps[1], stride, outputs, inputs)
    # Taps run backwards: the first of the kernel meets the last of the pixels.
    turned = split[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    return turned.reshape(*taps, inputs, -1)


@register_class
class BinaryConv2DTranspose(BinaryConv2D):
    r"""A transposed convolution of signs with a kernel of +-1.

    One convolution computes for each pixel the `stride x stride` outputs that it becomes, and
    depth-to-space puts them in their places. Outside the image a transposed convolution has
    nothing, while a sign is +1 there: what the border adds is a constant per output, which is
    subtracted (`border`).

    # Arguments
        filters: Number of output channels.
        kernel_size: Height and width of the kernel of the transposed convolution, multiples of
            the stride.
        strides: Height and width of the stride, the same.
        padding: `"same"` or `"valid"`.
        **kwargs: Arguments of `BinaryConv2D`.

    # Input shape
        `(samples, rows, columns, channels)`

    # Output shape
        `(samples, new_rows, new_columns, filters)`
    """

    def __init__(self, filters, kernel_size, *, strides, padding, **kwargs):
        sizes = tf.nest.flatten(kernel_size) * (1 if np.ndim(kernel_size) else 2)
        self.stride = int(tf.nest.flatten(strides)[0])
        self._settings = {
            "filters": filters,
            "kernel_size": tuple(sizes),
            "strides": (self.stride, self.stride),
            "padding": padding,
        }
        taps = [size // self.stride for size in sizes]
        settings = {"padding": "valid", "data_format": "channels_last"}
        super().__init__(filters * self.stride**2, taps, **{**kwargs, **settings})

    def build(self, input_shape):
        super().build(input_shape)
        settings = self._settings
        self._axes = self._geometry(input_shape)
        shape = [axis.outputs for axis in self._axes] + [settings["filters"]]
        self.border = no_operand(self.add_weight("border", shape, initializer="zeros"))

    @property
    def kernel_positions(self) -> int:
        """Where its convolution puts its kernel, for Larq's summary."""
        inputs = self.input_shape[1:3]
        sizes = [
            size + axis.before + axis.after - axis.taps + 1
            for size, axis in zip(inputs, self._axes, strict=True)
        ]
        return sizes[0] * sizes[1]

    def call(self, inputs):
        # Before the sign: the converter accepts nothing between it and the convolution.
        borders = [[axis.before, axis.after] for axis in self._axes]
        signs = self.input_quantizer(tf.pad(inputs, [[0, 0], *borders, [0, 0]]))
        outputs = tf.nn.depth_to_space(self.convolution_op(signs, self.kernel), self.stride)
        begin = [0, *(axis.crop for axis in self._axes), 0]
        size = [-1, *(axis.outputs for axis in self._axes), -1]
        return self.activation(tf.slice(outputs, begin, size) - self.border)

    def _geometry(self, input_shape) -> list[Phases]:
        settings = self._settings
        return geometry(input_shape[1:3], settings["kernel_size"], self.stride, settings["padding"])

    def compute_output_shape(self, input_shape):
        outputs = [axis.outputs for axis in self._geometry(input_shape)]
        return tf.TensorShape([input_shape[0], *outputs, self._settings["filters"]])

    def get_config(self):
        return {**super().get_config(), **self._settings}


def transposed_weights(
    kernel: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    image: tuple[int, int],
    stride: int,
    padding: str,
) -> list[np.ndarray]:
    """The weights of a `BinaryConv2DTranspose`.

    # Arguments
        kernel: Signs `(height, width, out, in)`.
        scale: Scale per output channel.
        bias: Bias per output channel.
        image: Rows and columns of the input.
        stride: The stride.
        padding: `"same"` or `"valid"`.

    # Returns
        `[kernel, scale, offset, border]`, for `set_weights`.
    """
    axes = geometry(image, kernel.shape[:2], stride, padding)
    # An image of +1 with a border of +1, less the same without: what the border adds.
    taps = kernel.sum(-1, keepdims=True)
    shape = (1, *(axis.outputs for axis in axes), len(scale))
    inside = tf.nn.conv2d_transpose(tf.ones((1, *image, 1)), taps, shape, stride, padding.upper())
    per_phase = taps.reshape(axes[0].taps, stride, axes[1].taps, stride, -1).sum((0, 2))
    rows, columns = ((axis.crop + np.arange(axis.outputs)) % stride for axis in axes)
    border = (per_phase[rows][:, columns] - inside.numpy()[0]) * scale
    return [
        phase_kernel(kernel, stride),
        np.tile(scale, stride**2).astype("float32"),
        np.tile(bias, stride**2).astype("float32"),
        border.astype("float32"),
    ]
