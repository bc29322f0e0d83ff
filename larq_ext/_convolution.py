"""A convolution that trains faster on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import tensorflow as tf

_TYPE: ContextVar[tf.DType | None] = ContextVar("type of convolutions", default=None)


@contextmanager
def convolutions_in(dtype: tf.DType | None) -> Iterator[None]:
    """Lets `convolve` compute in another type what is built inside, gradients too.

    For bfloat16 on CPUs with instructions for it: signs are exact in it, and so are their sums up
    to 256, and even ones up to 512.

    # Arguments
        dtype: The type, or `None` for that of the images.
    """
    token = _TYPE.set(dtype)
    try:
        yield
    finally:
        _TYPE.reset(token)


def convolve(x: tf.Tensor, kernel: tf.Tensor, padding: str) -> tf.Tensor:
    """`tf.nn.conv2d` with stride 1, whose gradient for `x` is a convolution as well.

    That is the convolution of the output's gradient with the kernel turned by 180 degrees and its
    channels swapped. TensorFlow's own operation for it, which gives the same, has kernels for CPUs
    with AVX2 that take up to four times as long.

    # Arguments
        x: Images `(samples, rows, columns, in)`.
        kernel: `(height, width, in, out)`.
        padding: `"VALID"` or `"SAME"`.

    # Returns
        `(samples, new_rows, new_columns, out)`.
    """

    def border(size: int) -> list[int]:
        """Zeros around the gradient: what "SAME" pads the image with, turned around as well."""
        return [size // 2, (size - 1) // 2] if padding == "SAME" else [size - 1, size - 1]

    borders = [[0, 0], border(kernel.shape[0]), border(kernel.shape[1]), [0, 0]]
    outside = x.dtype
    inside = _TYPE.get() or outside

    @tf.custom_gradient
    def forward(x: tf.Tensor, kernel: tf.Tensor):
        x, kernel = tf.cast(x, inside), tf.cast(kernel, inside)

        def backward(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            gradient = tf.cast(gradient, inside)
            turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
            of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=x,
                filter_sizes=kernel.shape,
                out_backprop=gradient,
                strides=[1, 1, 1, 1],
                padding=padding,
            )
            of_x = tf.nn.conv2d(gradient, turned, 1, borders)
            return tf.cast(of_x, outside), tf.cast(of_kernel, outside)

        return tf.cast(tf.nn.conv2d(x, kernel, 1, padding), outside), backward

    return forward(x, kernel)


def on_cpu() -> bool:
    """Whether there is no accelerator, so that what is built now runs on a CPU."""
    return {device.device_type for device in tf.config.list_logical_devices()} == {"CPU"}
