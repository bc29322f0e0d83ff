"""Trained binarization: estimators, golden cases, learned scales."""

import numpy as np
import pytest
import references as ref
import tensorflow as tf

import larq_ext as lqx
from larq_ext.quantizers import LearnableScale, surrogate_sign, surrogate_step

LONG_TAIL = {
    -1.5: 0, -1.0001: 0, -1: 0.4, -0.7: 0.4, -0.4: 0.4, -0.2: 1.2, -1e-6: 1.999996, 0: 2,
    0.1: 1.6, 0.25: 1.0, 0.4: 0.4, 0.41: 0.4, 0.9: 0.4, 1.0: 0.4, 1.0001: 0, 2: 0,
}  # fmt: skip
TRIANGLE = {
    -0.8: 0, -0.5001: 0, -0.5: 0, -0.3: 1.6, -0.05: 3.6, 0: 4, 0.125: 3.0, 0.25: 2.0,
    0.499: 0.008, 0.5: 0, 0.6: 0,
}  # fmt: skip


def slope(function, x):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x).numpy()


def test_long_tailed_estimator_of_the_step():
    """2 - 4|x|, then a tail of 0.4 up to and with 1."""
    np.testing.assert_allclose(slope(surrogate_step, list(LONG_TAIL)), list(LONG_TAIL.values()),
                               atol=1e-6)  # fmt: skip
    np.testing.assert_array_equal(
        surrogate_step(tf.constant([-1.5, -1e-6, 0, 0.1, 2])), [0, 0, 0, 1, 1]
    )


def test_triangle_estimator_of_the_sign():
    """4 - 8|w| on [-0.5, 0.5]."""
    np.testing.assert_allclose(slope(surrogate_sign, list(TRIANGLE)), list(TRIANGLE.values()),
                               atol=1e-6)  # fmt: skip
    np.testing.assert_array_equal(surrogate_sign(tf.constant(list(TRIANGLE), tf.float32)),
                                  [-1] * 5 + [1] * 6)  # fmt: skip


AREAS = {
    (surrogate_sign, "triangle"): 2.0,
    (surrogate_sign, "long_tail"): 2.88,
    (surrogate_sign, "bireal"): 2.0,
    (surrogate_sign, "clip"): 2.0,
    (surrogate_step, "long_tail"): 1.44,
    (surrogate_step, "triangle"): 1.0,
    (surrogate_step, "bireal"): 1.0,
    (surrogate_step, "clip"): 2.0,
}


@pytest.mark.parametrize(("function", "estimator"), AREAS)
def test_areas_over_the_real_line(function, estimator):
    """The jump that a slope stands for; the long tail makes 1.44 of the step's 1."""
    x = (np.arange(40000) + 0.5) * 1e-4 - 2  # midpoints: the slopes jump
    values = slope(lambda x: function(x, estimator), x)
    np.testing.assert_allclose(values.sum() * 1e-4, AREAS[function, estimator], rtol=1e-4)
    if estimator == "long_tail" and function is surrogate_step:
        np.testing.assert_allclose(values[np.abs(x) > 0.4].sum() * 1e-4, 0.48, rtol=1e-3)


def test_soft_functions_at_their_known_points():
    np.testing.assert_allclose(ref.soft_triangle(np.array([-0.25, 0.25])), [-0.75, 0.75])
    points = np.array([-1, -0.4, 0, 0.4, 1])
    np.testing.assert_allclose(ref.soft_long_tail(points), [0, 0.24, 0.72, 1.2, 1.44])
    for function, start, soft in (
        (surrogate_step, 0.0, ref.soft_long_tail),
        (surrogate_sign, -1.0, ref.soft_triangle),
    ):
        for to in points[1:]:
            x = np.linspace(-1, to, 100001)
            area = ref.area(slope(function, x), x)
            np.testing.assert_allclose(start + area, soft(np.array(to)), atol=1e-4)


X = [[0.30, -0.20, 0.05, 1.20], [-0.60, 0.70, 0.10, -0.39], [0, 0.45, -1.10, 0.90]]
W = [[0.10, -0.20, 0], [-0.45, 0.05, 0.30], [0.60, -0.02, -0.25], [-0.005, 0.50, -0.70]]
G = [[1, -1, 2], [0.5, 0.25, -0.5], [-2, 1, 1]]


def dense_case(**kwargs):
    layer = lqx.layers.QuantDense(3, quantizer="learnable_scale", use_bias=False, **kwargs)
    layer.build((None, 4))
    layer.kernel.assign(W)
    layer.kernel_quantizer.scale.assign([0.5, 1.5, -0.25])
    layer.input_quantizer.scale.assign(0.8)
    return layer


def test_dense_golden_case():
    """y = alpha beta (step(X) sign(W)), with a negative alpha; both scales' exact gradients."""
    layer = dense_case()
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(G * y)
    alpha, beta = layer.kernel_quantizer.scale, layer.input_quantizer.scale
    dx, dw, dalpha, dbeta = tape.gradient(loss, [x, *layer.trainable_weights[:1], alpha, beta])

    np.testing.assert_allclose(y, [[0.4, -1.2, 0.2], [0, 0, 0], [-0.8, 2.4, 0]], atol=1e-6)
    np.testing.assert_allclose(dalpha, [4.0, 2.4, -1.6], atol=1e-5)
    np.testing.assert_allclose(dbeta, 7.5, atol=1e-5)
    np.testing.assert_allclose(
        dx, [[0.96, -2.4, 3.6, 0], [0, 0.08, -0.32, 0], [-4.4, 0.72, 0, 0.88]], atol=2e-6
    )
    np.testing.assert_allclose(
        dw,
        [[1.28, -2.88, -1.6], [-0.24, 5.4, -0.16], [0, -3.456, -0.6], [-1.584, 0, 0]],
        atol=2e-6,
    )


def test_penalty_acts_on_the_weight_scales_alone():
    """lambda * sum(alpha ** 2), its gradient 2 lambda alpha."""
    layer = dense_case()
    with tf.GradientTape() as tape:
        loss = tf.add_n(layer.losses)
    np.testing.assert_allclose(loss, 2.5625e-4, rtol=1e-6)
    alpha, beta = layer.kernel_quantizer.scale, layer.input_quantizer.scale
    dalpha, dbeta = tape.gradient(loss, [alpha, beta])
    np.testing.assert_allclose(dalpha, [1e-4, 3e-4, -5e-5], rtol=1e-6)
    assert dbeta is None
    assert len(layer.losses) == 1
    assert not dense_case(kernel_quantizer=LearnableScale(l2=0.0)).losses


def test_convolution_case():
    """3x3, one channel, zero padding: a {0, 1} input loses nothing at the border."""
    layer = lqx.layers.QuantConv2D(
        1, 3, padding="same", use_bias=False, quantizer="learnable_scale"
    )
    layer.build((None, 3, 3, 1))
    kernel = np.float32([[1, -1, 1], [-1, 1, 1], [1, 1, -1]]) * 0.1
    layer.kernel.assign(kernel[..., None, None])
    layer.kernel_quantizer.scale.assign([1.0])
    x = np.float32([[0.2, -0.3, 0], [0.5, -0.1, 1.2], [-2, 0.05, 0.7]])
    z = layer(x[None, ..., None])[0, ..., 0]
    np.testing.assert_array_equal(z, [[2, -1, 1], [-1, 1, 3], [0, 4, -1]])

    # The form that the runtime knows: sign(-x) * -w with a border of +1, and the kernel's sum.
    flipped = np.pad(ref.sign(-x), 1, constant_values=1.0)
    binary = np.array(
        [
            [(flipped[i : i + 3, j : j + 3] * -np.sign(kernel)).sum() for j in range(3)]
            for i in range(3)
        ]
    )
    np.testing.assert_array_equal(binary, [[1, -5, -1], [-5, -1, 3], [-3, 5, -5]])
    np.testing.assert_array_equal((binary + np.sign(kernel).sum()) / 2, z)


@pytest.mark.parametrize(
    ("eps", "alpha", "expected"),
    [
        (1e-3, 1.0, -3.324275e-4),
        (1e-3, 0.1, -0.3232431),
        (1e-3, 0.01, -67.16689),
        (1e-5, 1.0, -3.325215e-6),
        (1e-5, 0.1, -3.324275e-3),
        (1e-5, 0.01, -3.232431),
    ],
)
def test_batch_normalization_hides_the_scale(eps, alpha, expected):
    """Behind a batch norm only its epsilon leaves the scale a gradient: that is no bug."""
    quantizer = LearnableScale(initial_scale=alpha, role="kernel", dtype="float32")
    quantizer.build((1, 1))
    z, g = tf.constant([1.0, 3, -2, 4]), tf.constant([1, -0.5, 0.25, -0.75])
    with tf.GradientTape() as tape:
        y = z * quantizer(tf.constant([[0.1]]))[0, 0]
        # In double precision: the terms cancel but for one part in a million.
        y = tf.cast(y, tf.float64)
        centred = y - tf.reduce_mean(y)
        normal = centred / tf.sqrt(tf.reduce_mean(centred**2) + eps)
        loss = tf.reduce_sum(tf.cast(g, tf.float64) * normal)
    gradient = tape.gradient(loss, quantizer.scale)
    np.testing.assert_allclose(gradient, [expected], rtol=2e-2, atol=3e-6)


def test_bits_form_of_the_product():
    """a = 10110110, w = +++--++-: sum a w = 3 = 2 popcount(a & w) - popcount(a)."""
    a, w = np.float32([1, 0, 1, 1, 0, 1, 1, 0]), np.float32([1, 1, 1, -1, -1, 1, 1, -1])
    inputs = LearnableScale(role="input")(tf.constant(a[None] - 0.5))
    kernels = LearnableScale(role="kernel", initial_scale=1.0)(tf.constant(w[:, None] * 0.2))
    assert float((inputs @ kernels)[0, 0]) == 3 == 2 * 4 - 5


@pytest.mark.parametrize("granularity", ["channel", "layer"])
@pytest.mark.parametrize(("layer", "shape"), [
    (lambda **k: lqx.layers.QuantConv2D(5, 3, **k), (None, 6, 6, 4)),
    (lambda **k: lqx.layers.QuantDense(5, **k), (None, 4)),
])  # fmt: skip
def test_start_values(layer, shape, granularity):
    """XNOR-Net's mean magnitude for alpha, 1 for beta."""
    quantizer = LearnableScale(granularity=granularity)
    layer = layer(quantizer="learnable_scale", kernel_quantizer=quantizer)
    layer.build(shape)
    kernel = layer.kernel.numpy()
    axes = None if granularity == "layer" else ref.leading(kernel)
    np.testing.assert_allclose(quantizer.scale, np.abs(kernel).mean(axes), rtol=1e-6)
    assert float(layer.input_quantizer.scale) == 1.0


def test_a_given_start_value_is_kept():
    quantizer = LearnableScale(initial_scale=0.3)
    layer = lqx.layers.QuantDense(2, quantizer="learnable_scale", kernel_quantizer=quantizer)
    layer.build((None, 4))
    np.testing.assert_allclose(quantizer.scale, [0.3, 0.3])


def test_start_value_in_layers_of_larq():
    """The expected magnitude under Glorot's uniform initializer."""
    quantizer = LearnableScale(role="kernel")
    quantizer.build((3, 3, 128, 128))
    kernel = tf.keras.initializers.GlorotUniform(seed=0)((3, 3, 128, 128))
    np.testing.assert_allclose(quantizer.scale, np.full(128, np.abs(kernel).mean()), rtol=5e-3)


@pytest.mark.parametrize("scale", [0.0, 1e-12, -1e-12])
def test_a_vanishing_scale_stays_binary_and_trains_on(scale):
    """A channel of exact zeros would make the runtime's converter give up the whole layer."""
    quantizer = LearnableScale(role="kernel", initial_scale=scale)
    kernel = tf.constant([[0.1], [-0.2]])
    quantizer.build(kernel.shape)
    with tf.GradientTape() as tape:
        y = quantizer(kernel)
        first = y[0, 0]
    assert np.abs(y).min() > 2.0**-23
    np.testing.assert_array_equal(np.sign(y[:, 0]), [1, -1] if scale >= 0 else [-1, 1])
    np.testing.assert_allclose(tape.gradient(first, quantizer.scale), [1.0])
    np.testing.assert_array_equal(quantizer.kernel_form(kernel.numpy()).signs[:, 0],
                                  [1, -1] if scale >= 0 else [-1, 1])  # fmt: skip


def test_the_penalty_alone_shrinks_scales_as_derived():
    """Without a task each step of SGD multiplies them by `1 - 2 * rate * l2`."""
    quantizer = LearnableScale(role="kernel", l2=0.05)
    layer = lqx.layers.QuantDense(3, input_quantizer="ste_sign", kernel_quantizer=quantizer)
    model = tf.keras.Sequential([tf.keras.Input((4,)), layer])
    start = quantizer.scale.numpy()
    model.compile(tf.keras.optimizers.SGD(0.1), lambda _, outputs: 0.0 * tf.reduce_sum(outputs))
    model.fit(np.ones((8, 4)), np.ones((8, 3)), batch_size=2, epochs=5, verbose=0)
    np.testing.assert_allclose(quantizer.scale, start * (1 - 2 * 0.1 * 0.05) ** 20, rtol=1e-5)
