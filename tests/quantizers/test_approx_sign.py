"""Bi-Real Net's sign against its formula, and against Larq's."""

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext.quantizers import ApproxSign, polynomial_sign


def _with_gradient(function, x, upstream):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y.numpy(), tape.gradient(y, x, upstream).numpy()


def test_formula():
    """Bi-Real Net's 2 - 2|x|."""
    x = tf.constant([-1.5, -1, -0.75, -0.5, 0, 0.25, 0.5, 1, 1.5])
    signs, gradient = _with_gradient(polynomial_sign, x, tf.ones(9))
    np.testing.assert_array_equal(signs, [-1, -1, -1, -1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(gradient, [0, 0, 0.5, 1, 2, 1.5, 1, 0, 0])


def test_equals_larqs_bit_for_bit():
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=100_000), tf.float32)
    upstream = tf.constant(random.normal(size=100_000), tf.float32)
    ours, theirs = (
        _with_gradient(quantizer, x, upstream)
        for quantizer in (ApproxSign(), lq.quantizers.ApproxSign())
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_counts_flips_and_is_saved(tmp_path):
    image = tf.keras.Input((6, 6, 4))
    quantizer = ApproxSign(metrics=["flip_ratio"])
    layer = lqx.layers.QuantConv2D(3, 3, kernel_quantizer=quantizer)
    model = tf.keras.Model(image, layer(image))
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 6, 6, 4)), tf.float32)
    model(x)
    layer.kernel.assign(-layer.kernel)
    model(x)
    assert quantizer.flip_ratio.result() > 0
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[-1].kernel_quantizer) is ApproxSign
    np.testing.assert_array_equal(again(x), model(x))


def test_deploys_as_a_plain_sign():
    image = tf.keras.Input((6, 6, 4))
    outputs = lqx.layers.QuantConv2D(3, 3, quantizer="ste_sign")(image)
    baked = lqx.deploy.bake(tf.keras.Model(image, outputs))
    assert [type(layer).__name__ for layer in baked.layers[1:]] == ["BinaryConv2D"]
