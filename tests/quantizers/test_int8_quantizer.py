"""8 bits in training: values and gradients by hand, ranges, files, and what Larq says of it."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import larq_ext as lqx
from larq_ext.quantizers import Int8, int8_kernel, int8_range

X = np.array([-3.0, -1.0, -0.51, -0.004, 0.0, 0.003, 0.7, 1.93, 2.0, 5.0], "float32")


def used(quantizer, batch):
    """A quantizer of inputs after training steps on batches."""
    for values in batch:
        quantizer(tf.constant(values, tf.float32), training=True)
    return quantizer


def test_inputs_by_hand():
    """Range -1 to 2: 85 integers below 0 and 170 above, with a step of 2 / 170."""
    quantizer = used(Int8(role="input"), [[-1.0, 2.0]])
    step = 2 / 170
    assert quantizer.range() == pytest.approx((-85 * step, 170 * step), rel=1e-4)
    expected = np.clip(np.round(X / step), -85, 170) * step
    np.testing.assert_allclose(quantizer(X, training=False), expected, rtol=1e-4, atol=1e-6)


def test_gradient_of_inputs_is_one_inside_of_the_range():
    quantizer = used(Int8(role="input"), [[-1.0, 2.0]])
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(3.0 * quantizer(x, training=False))
    inside = (X > -1.001) & (X < 2.001)
    np.testing.assert_array_equal(tape.gradient(y, x), 3.0 * inside)


def test_kernels_by_hand():
    """A largest weight of 127 steps in each channel; channels of zeros stay zeros."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype("float32")
    kernel[..., 1] *= 1e-3
    kernel[..., 2] = 0.0
    steps = np.abs(kernel).max((0, 1, 2)) / 127
    expected = np.zeros_like(kernel)
    for channel in (0, 1, 3, 4, 5):
        expected[..., channel] = np.round(kernel[..., channel] / steps[channel]) * steps[channel]
    rounded = int8_kernel(tf.constant(kernel)).numpy()
    np.testing.assert_allclose(rounded, expected, rtol=1e-6, atol=1e-12)
    assert len(np.unique(np.round(rounded[..., 0] / steps[0]))) <= 255
    np.testing.assert_allclose(int8_kernel(tf.constant(rounded)), rounded, rtol=1e-6)


def test_every_weight_has_a_gradient_the_largest_too():
    kernel = tf.constant(np.random.default_rng(0).normal(size=(5, 300)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y = tf.reduce_sum(2.0 * int8_kernel(kernel))
    np.testing.assert_array_equal(tape.gradient(y, kernel), np.full((5, 300), 2.0))


def test_the_gradient_is_the_slope_over_many_steps():
    """A finite difference much wider than a step, which it is meant to be the slope of."""
    quantizer = used(Int8(role="input"), [[-1.0, 2.0]])
    for x in (-0.5, 0.1, 1.2):
        ends = quantizer(tf.constant([x - 0.4, x + 0.4]), training=False).numpy()
        assert (ends[1] - ends[0]) / 0.8 == pytest.approx(1.0, abs=0.02)
    ends = quantizer(tf.constant([2.5, 3.3]), training=False).numpy()
    assert ends[0] == ends[1]


def test_the_range_moves_in_training_only():
    quantizer = Int8(momentum=0.75, role="input")
    np.testing.assert_array_equal(quantizer(X, training=False), X)  # nothing is known yet
    assert quantizer.range() is None
    used(quantizer, [[-1.0, 2.0]])  # the first batch counts in full
    assert (quantizer.minimum.numpy(), quantizer.maximum.numpy()) == (-1.0, 2.0)
    used(quantizer, [[1.0, 6.0]])  # zero is always in it
    assert (quantizer.minimum.numpy(), quantizer.maximum.numpy()) == (-0.75, 3.0)
    quantizer(100 * X, training=False)
    quantizer(100 * X)
    assert (quantizer.minimum.numpy(), quantizer.maximum.numpy()) == (-0.75, 3.0)


def test_the_range_of_a_frozen_layer_stands_still():
    layer = lqx.layers.QuantDense(1, input_quantizer="int8", kernel_quantizer="int8")
    layer(tf.ones((2, 3)), training=True)
    before = layer.input_quantizer.range()
    layer.trainable = False
    layer(9 * tf.ones((2, 3)), training=True)
    assert layer.input_quantizer.range() == before
    layer.trainable = True
    layer(9 * tf.ones((2, 3)), training=True)
    assert layer.input_quantizer.range() != before
    both = {"input_quantizer": "int8", "kernel_quantizer": "int8"}
    layer = lqx.layers.QuantDense(1, **both, trainable=False)
    layer(tf.ones((2, 3)), training=True)
    assert layer.input_quantizer.range() is None


@pytest.mark.parametrize("low, high", [(-1, 1), (0, 1), (-3, 0), (-0.001, 7), (-5, 0.002), (-2, 3)])
def test_ranges_hold_zero_exactly(low, high):
    """The ends are kept, which would move if zero were rounded to instead."""
    ends = [float(end) for end in int8_range(tf.constant(float(low)), tf.constant(float(high)))]
    step = (ends[1] - ends[0]) / 255
    assert ends[0] <= low and high <= ends[1]
    assert ends[1] - ends[0] <= (high - low) * 256 / 255 + 1.1 * step
    below = -ends[0] / step
    assert below == pytest.approx(round(below), abs=1e-4)


def network():
    return tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 3)),
            lq.layers.QuantConv2D(
                4, 3, input_quantizer="int8", kernel_quantizer="int8", name="conv"
            ),
            lqx.layers.QuantConv2D(
                4, 1, input_quantizer="int8", kernel_quantizer="int8", name="ours"
            ),
            tf.keras.layers.Flatten(),
            lq.layers.QuantDense(
                2, input_quantizer="int8", kernel_quantizer=Int8(role="kernel"), name="dense"
            ),
        ]
    )


@pytest.fixture(scope="module")
def trained():
    generator = np.random.default_rng(0)
    model = network()
    model.compile("sgd", "mse")
    x, y = generator.normal(size=(64, 6, 6, 3)), generator.normal(size=(64, 2))
    model.first_kernel = model.get_layer("conv").kernel.numpy()
    model.fit(x, y, epochs=3, verbose=0)
    return model, x.astype("float32")


def test_names_find_the_quantizer_and_its_role(trained):
    model, _ = trained
    for name in ("conv", "ours", "dense"):
        layer = model.get_layer(name)
        assert isinstance(layer.input_quantizer, Int8) and layer.input_quantizer.role == "input"
        assert isinstance(layer.kernel_quantizer, Int8) and layer.kernel_quantizer.role == "kernel"
        assert not layer.kernel_quantizer.weights
    low, high = model.get_layer("conv").input_quantizer.range()
    assert -6 < low < -2 and 2 < high < 6  # of a normal distribution


def test_it_learns(trained):
    """What the optimizer changes is the latent kernel, and ranges are no parameters."""
    model, _ = trained
    names = [weight.name for weight in model.trainable_weights]
    assert len(names) == 6 and not any("imum" in name for name in names)
    kernel = model.get_layer("conv").kernel
    with lq.context.quantized_scope(False):
        assert len(np.unique(kernel.numpy())) == kernel.numpy().size
        assert (kernel.numpy() != model.first_kernel).all()


@pytest.mark.parametrize("form", ["keras", "h5", "weights.h5"])
def test_ranges_are_saved_with_the_model(trained, tmp_path, form):
    model, x = trained
    path = str(tmp_path / f"model.{form}")
    if form == "weights.h5":
        model.save_weights(path)
        again = network()
        again.load_weights(path)
    else:
        model.save(path)
        again = tf.keras.models.load_model(path)
    kept, found = (m.get_layer("dense").input_quantizer.range() for m in (model, again))
    assert found == kept
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def test_summary_says_8_bits(trained):
    model, _ = trained
    profile = lq.models.ModelProfile(model)
    conv = next(layer for layer in profile.layer_profiles if layer.name == "conv")
    assert conv.input_precision == 8
    assert conv.weight_count(bitwidth=8) == 3 * 3 * 3 * 4
    assert conv.op_count("mac", 8) == 3 * 3 * 3 * 4 * 4 * 4
    assert not conv.op_count("mac", 32)


def test_half_precision():
    """Ranges are kept in float32, whatever the layer computes in."""
    quantizer = used(Int8(role="input", dtype="mixed_float16"), [[-1.0, 2.0]])
    outputs = quantizer(tf.constant(X, tf.float16), training=False)
    assert outputs.dtype == tf.float16 and quantizer.maximum.dtype == tf.float32


def test_wrong_arguments():
    with pytest.raises(ValueError, match="from 0 to below 1, received 1"):
        Int8(momentum=1)
    with pytest.raises(ValueError, match=r"`role` is one of \['input', 'kernel'\], received 'x'"):
        Int8(role="x")
