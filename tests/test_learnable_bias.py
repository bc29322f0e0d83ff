"""The bias that moves thresholds: alone, in files, in Larq's summary, in a deployed model."""

from __future__ import annotations

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_ext.deploy._flatbuffer import read_graph

BIAS = np.array([-2.0, -0.5, 0.0, 0.25], "float32")
START = tf.constant_initializer(BIAS.tolist())  # Keras cannot read arrays in .h5 files


def drawn(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def binary_model():
    """Signs at thresholds, with a shortcut that they do not move."""
    image = tf.keras.Input((6, 6, 4))
    x = lqx.layers.LearnableBias(START)(image)
    x = lqx.layers.QuantConv2D(4, 3, padding="same", use_bias=False, quantizer="ste_sign")(x)
    x = tf.keras.layers.BatchNormalization()(x)
    x = tf.keras.layers.PReLU(shared_axes=[1, 2])(tf.keras.layers.add([x, image]))
    x = lqx.layers.LearnableBias(tf.constant_initializer((-BIAS).tolist()))(x)
    x = lqx.layers.QuantConv2D(8, 3, padding="same", use_bias=False, quantizer="fda")(x)
    return tf.keras.Model(image, tf.keras.layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize("shape", [(3, 4), (2, 5, 4), (2, 3, 5, 4)])
def test_each_channel_has_its_number(shape):
    layer = lqx.layers.LearnableBias()
    inputs = tf.constant(drawn(*shape))
    np.testing.assert_array_equal(layer(inputs), inputs)  # zeros at first
    layer.bias.assign(BIAS)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        weights = drawn(*shape)[::-1].copy()
        loss = tf.reduce_sum(outputs * weights)
    np.testing.assert_array_equal(outputs, inputs + BIAS)
    for_inputs, for_bias = tape.gradient(loss, [inputs, layer.bias])
    np.testing.assert_array_equal(for_inputs, weights)
    np.testing.assert_allclose(for_bias, weights.reshape(-1, 4).sum(0), rtol=1e-5)


def test_it_moves_the_threshold_of_signs():
    bits = lq.quantizers.SteSign()(lqx.layers.LearnableBias(START)(
        tf.constant([[1.9, 0.4, 0.1, -0.3], [2.1, 0.6, -0.1, -0.2]])
    ))  # fmt: skip
    np.testing.assert_array_equal(bits, [[-1, -1, 1, -1], [1, 1, -1, 1]])


@pytest.mark.parametrize("form", ["model.keras", "model.h5"])
def test_files_keep_it(tmp_path, form):
    model = binary_model()
    model.save(tmp_path / form)
    loaded = tf.keras.models.load_model(tmp_path / form)
    kinds = [type(layer) for layer in loaded.layers]
    assert kinds.count(lqx.layers.LearnableBias) == 2
    images = drawn(3, 6, 6, 4)
    np.testing.assert_array_equal(loaded.predict(images), model.predict(images))


def test_it_computes_in_half_precision():
    layer = lqx.layers.LearnableBias(START, dtype="mixed_bfloat16")
    outputs = layer(tf.zeros((1, 4)))
    assert outputs.dtype == tf.bfloat16
    assert layer.bias.dtype == tf.float32
    np.testing.assert_array_equal(tf.cast(outputs[0], tf.float32), BIAS)


def test_the_summary_counts_parameters_and_no_products():
    layer = lqx.layers.LearnableBias()
    layer(tf.keras.Input((6, 6, 4)))
    profile = lq.models.LayerProfile(layer)
    assert (profile.weight_count(32), profile.memory, profile.op_count("mac") or 0) == (4, 128, 0)


@pytest.mark.slow
def test_behind_a_norm_it_is_part_of_the_convolution():
    image = tf.keras.Input((6, 6, 4))
    x = image
    for _ in range(2):
        x = lqx.layers.QuantConv2D(4, 3, padding="same", use_bias=False, quantizer="ste_sign")(x)
        x = tf.keras.layers.BatchNormalization()(x)
        x = lqx.layers.LearnableBias(START)(x)
    flatbuffer = lqx.deploy.convert(tf.keras.Model(image, x)).flatbuffer
    assert [op.name for op in read_graph(flatbuffer).ops] == ["LceQuantize", *2 * ["LceBconv2d"]]


@pytest.mark.slow
def test_the_deployed_file_has_the_same_thresholds():
    model = binary_model()
    conversion = lqx.deploy.convert(model)
    assert conversion.report.binary == conversion.report.expected == 2
    images = drawn(20, 6, 6, 4)
    for engine in ("native", "lce"):
        assert lqx.deploy.verify(model, conversion.flatbuffer, images, engine=engine).ok
    thresholds = [layer for layer in model.layers if "bias" in layer.name]
    for layer in thresholds:
        layer.bias.assign(0 * layer.bias)
    assert not lqx.deploy.verify(model, conversion.flatbuffer, images, engine="native").ok
