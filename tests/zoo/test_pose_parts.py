"""The parts of pose networks against NumPy and TensorFlow's own operators."""

from __future__ import annotations

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import numpy as np
import pytest
import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.pose import _common as pose
from larq_ext_zoo.pose._heads import transposed
from larq_ext_zoo.pose._shortcuts import match
from larq_ext_zoo.pose._units import Units

assert lqx


def signs(generator, *shape):
    return np.where(generator.random(shape) < 0.5, -1.0, 1.0).astype("float32")


def test_phases_are_a_transposed_convolution():
    """TensorFlow's transposed convolution of the map with a border of +1."""
    generator = np.random.default_rng(0)
    x, kernel = signs(generator, 2, 3, 5, 6), signs(generator, 4, 4, 4, 6)  # out, in
    image = tf.keras.Input((3, 5, 6))
    head = transposed(image, 4, Units(common.BinaryLayers("ste_sign")), "head")
    model = tf.keras.Model(image, head)
    interleaved = tf.keras.Model(image, model.get_layer("head_rows").output)
    for row in (0, 1):
        for column in (0, 1):
            phase = f"head_phase{row}{column}"
            # y[2t] = x[t-1] w[3] + x[t] w[1]; y[2t+1] = x[t] w[2] + x[t+1] w[0]
            taps = [(3, 1), (2, 0)]
            part = kernel[np.ix_(taps[row], taps[column])].swapaxes(-1, -2)
            model.get_layer(f"{phase}_conv").set_weights([part])
            norm = model.get_layer(f"{phase}_norm")
            norm.set_weights([np.full(4, np.sqrt(1 + 1e-5)), *(np.full(4, v) for v in (0, 0, 1))])
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)
    expected = tf.nn.conv2d_transpose(padded, kernel, (2, 12, 16, 4), 2, "VALID")[:, 3:9, 3:13]
    np.testing.assert_allclose(interleaved(x), expected, atol=1e-4)
    framework = tf.nn.conv2d_transpose(x, kernel, (2, 6, 10, 4), 2, "SAME")
    np.testing.assert_allclose(interleaved(x)[:, 1:-1, 1:-1], framework[:, 1:-1, 1:-1], atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "filters"), [(6, 6), (4, 16), (4, 6), (16, 4), (16, 3), (6, 4)]
)
@pytest.mark.parametrize("strides", [1, 2])
def test_shortcuts(channels, filters, strides):
    x = np.random.default_rng(0).normal(size=(2, 4, 6, channels)).astype("float32")
    image = tf.keras.Input(x.shape[1:])
    model = tf.keras.Model(
        image, tf.keras.layers.Activation("linear")(match(image, filters, strides, "a"))
    )
    assert not model.weights
    expected = x
    if strides == 2:
        expected = sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    if channels < filters:
        expected = np.stack([expected[..., i % channels] for i in range(filters)], -1)
    else:
        k = channels // filters
        expected = np.stack(
            [expected[..., i : filters * k : filters].mean(-1) for i in range(filters)], -1
        )
    np.testing.assert_allclose(model(x), expected, atol=1e-6)


def test_averaging_undoes_repeating():
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 4)).astype("float32")
    image = tf.keras.Input(x.shape[1:])
    model = tf.keras.Model(image, match(match(image, 16, 1, "a"), 4, 1, "b"))
    np.testing.assert_allclose(model(x), x, atol=1e-6)


@pytest.mark.parametrize(("size", "strides"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_padding_is_that_of_pytorch(size, strides):
    """Kernels centred at pixels 0, 2, 4 ... of a map that is padded alike on both sides."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, 8, 12, 2)).astype("float32")
    image = tf.keras.Input(x.shape[1:])
    model = tf.keras.Model(image, pose.padded_conv(image, 3, size, strides, name="conv"))
    kernel = model.get_layer("conv").kernel.numpy()
    half = size // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    windows = windows[:, :8:strides, :12:strides]
    expected = np.einsum("nhwcij,ijco->nhwo", windows, kernel)
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_a_binary_unit():
    """PReLU(norm(sign(x) * K) + x), border +1."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, 4, 4, 3)).astype("float32")
    image = tf.keras.Input(x.shape[1:])
    units = Units(common.BinaryLayers("ste_sign"))
    model = tf.keras.Model(image, units.binary(image, 3, name="u"))
    kernel = np.where(model.get_layer("u_conv").kernel.numpy() >= 0, 1.0, -1.0)
    padded = np.pad(
        np.where(x >= 0, 1.0, -1.0), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    total = np.einsum("nhwcij,ijco->nhwo", windows, kernel) / np.sqrt(1 + 1e-5) + x
    np.testing.assert_allclose(model(x), np.where(total > 0, total, 0.25 * total), atol=1e-4)
