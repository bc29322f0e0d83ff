"""The convolution of the layers against TensorFlow's own, whose gradients are other operations."""

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import numpy as np
import pytest
import tensorflow as tf

from larq_ext import _convolution
from larq_ext._convolution import convolutions_in, convolve
from larq_ext_recipes._environment import lacks_for_bfloat16


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 2), (5, 2), (1, 4)])
def test_values_and_gradients(kernel, padding):
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(3, 7, 6, 4)), tf.float32)
    w = tf.constant(random.normal(size=(*kernel, 4, 5)), tf.float32)
    found = []
    for operation in (convolve, lambda x, w, padding: tf.nn.conv2d(x, w, 1, padding)):
        with tf.GradientTape() as outer:
            outer.watch((x, w))
            with tf.GradientTape() as tape:
                tape.watch((x, w))
                y = operation(x, w, padding)
                loss = tf.reduce_sum(tf.sin(y))
            first = tape.gradient(loss, (x, w))
            again = tf.reduce_sum(first[0] ** 2) + tf.reduce_sum(first[1] ** 2)
        found.append([y, *first, *outer.gradient(again, (x, w))])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def _rounded(x):
    return tf.cast(tf.cast(x, tf.bfloat16), tf.float32)


def test_in_bfloat16():
    """Signs and their small sums are exact; a gradient is rounded once on its way in, once out."""
    random = np.random.default_rng(0)
    x = tf.constant(random.choice([-1.0, 1.0], size=(2, 6, 5, 16)), tf.float32)
    w = tf.constant(random.choice([-1.0, 1.0], size=(3, 3, 16, 8)), tf.float32)
    upstream = tf.constant(random.normal(size=(2, 4, 3, 8)), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((x, w))
        with convolutions_in(tf.bfloat16):
            inside = convolve(x, w, "VALID")
        outside = convolve(x, w, "VALID")
    np.testing.assert_array_equal(inside, outside)
    assert inside.dtype == tf.float32
    found = tape.gradient(inside, (x, w), upstream)
    exact = tape.gradient(outside, (x, w), _rounded(upstream))
    for ours, expected in zip(found, exact, strict=True):
        assert ours.dtype == tf.float32
        if lacks_for_bfloat16() is None:  # elsewhere sums are rounded at each step, 8 bits
            np.testing.assert_allclose(ours, expected, rtol=2**-8, atol=1e-5)
        assert np.linalg.norm(ours - expected) < 0.05 * np.linalg.norm(expected)
        assert np.any(ours.numpy() != expected.numpy())


def test_the_type_ends_with_the_block():
    x, w = tf.fill((1, 1, 1, 1), 1.001), tf.ones((1, 1, 1, 1))
    with pytest.raises(RuntimeError), convolutions_in(tf.bfloat16):
        assert convolve(x, w, "VALID") == 1.0
        raise RuntimeError
    assert convolve(x, w, "VALID") != 1.0


def test_sizes_that_are_not_known():
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2))])
    def gradient(x):
        return tf.gradients(convolve(x, tf.ones((3, 3, 2, 4)), "SAME"), x)[0]

    assert gradient(tf.zeros((2, 5, 4, 2)))[0, 0, 0, 0] == 4 * 4
    assert gradient(tf.zeros((1, 8, 8, 2)))[0, 4, 4, 1] == 4 * 9


def test_more_than_one_dimension_of_samples():
    layer = lqx.layers.QuantConv2D(4, 3, quantizer="ste_sign")
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 8, 8, 4)), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    assert np.any(tape.gradient(loss, layer.kernel))


@pytest.mark.parametrize(
    ("options", "ours"),
    [
        ({}, True),
        ({"padding": "same"}, True),
        ({"padding": "same", "pad_values": 0.0}, True),
        ({"strides": 2}, False),
        ({"dilation_rate": 2}, False),
        ({"groups": 2}, False),
    ],
)
def test_layers_use_it_where_they_can(options, ours, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "larq_ext.layers.convolve", lambda *a: calls.append(a) or _convolution.convolve(*a)
    )
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 9, 9, 4)), tf.float32)
    results = []
    for on_cpu in (True, False):
        monkeypatch.setattr("larq_ext.layers.on_cpu", lambda here=on_cpu: here)
        tf.keras.utils.set_random_seed(0)
        layer = lqx.layers.QuantConv2D(6, 3, quantizer="ste_sign", **options)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y**2)
        results.append([y, *tape.gradient(loss, [x, *layer.trainable_variables])])
    assert len(calls) == ours
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
