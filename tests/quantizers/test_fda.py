"""FDA: the Fourier slope, the noise adaptation module, and the schedules."""

import math

import numpy as np
import pytest
import references as ref
import tensorflow as tf

from larq_ext.callbacks import fourier_terms, noise_rate
from larq_ext.quantizers import FDA, fda_sign, fourier_slope

POINTS = [0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5]
SLOPES = {
    (0.1, 0): [0.127324, 0.127318, 0.127284, 0.127165, 0.126966, 0.126688, 0.125894],
    (0.1, 1): [0.254648, 0.254584, 0.254250, 0.253059, 0.251081, 0.248325, 0.240543],
    (0.1, 9): [1.273240, 1.264789, 1.220974, 1.071841, 0.847494, 0.579843, 0.060118],
    (0.1, 17): [2.291831, 2.242685, 1.994933, 1.240458, 0.363112, -0.282187, -0.329205],
    (0.1, 18): [2.419155, 2.361392, 2.071561, 1.205369, 0.244248, -0.390171, -0.234597],
    (1.0, 1): [2.546479, 2.483251, 2.165273, 1.207438, 0.131800, -0.572563, -0.178328],
    (1.0, 9): [12.732395, 5.798426, -2.467504, -0.722395, 0.607339, 0.690694, -0.630580],
    (math.pi / 2, 1): [4, 3.757390, 2.613126, 0, -1.082392, 0, 0],
    (math.pi, 9): [40, 0, 0, 0, 0, -40, 0],
}


def gradient(function, x, upstream=None):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x, output_gradients=upstream).numpy()


@pytest.mark.parametrize(("omega", "n"), SLOPES)
def test_slope_table(omega, n):
    """Equation 10: the derivative of the series, with n + 1 cosines; it is even."""
    # At omega = pi the argument of the numerator is about 100, whose sine is off by 1e-5.
    tolerance = 2e-4 if omega > 1 else 5e-6
    for sign in (1, -1):
        actual = fourier_slope(sign * tf.constant(POINTS), n, omega)
        np.testing.assert_allclose(actual, SLOPES[omega, n], rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("clip_value", [None, 1.0])
@pytest.mark.parametrize(("omega", "n"), [(0.1, 9), (0.1, 18), (1.0, 9), (math.pi, 9)])
def test_gradient_of_the_sign_is_the_slope_in_its_window(omega, n, clip_value):
    x = np.linspace(-1.6, 1.6, 65)
    expected = ref.fourier_slope(x, n, omega)
    if clip_value is not None:
        expected[np.abs(x) > clip_value] = 0
    actual = gradient(lambda x: fda_sign(x, n, omega, clip_value), x)
    np.testing.assert_allclose(actual, expected, atol=2e-4 * max(1, omega**2 * n))


def test_the_slope_is_that_of_the_series():
    x = np.linspace(-2, 2, 41)
    for n in (0, 9, 18):
        step = 1e-5
        rise = ref.fourier_series(x + step, n) - ref.fourier_series(x - step, n)
        np.testing.assert_allclose(fourier_slope(tf.constant(x, tf.float32), n), rise / (2 * step),
                                   atol=2e-6)  # fmt: skip


def test_the_edge_of_the_window_is_inside():
    """As in the third-party implementation: x = +-1 passes, beyond it nothing does."""
    actual = gradient(fda_sign, [-1.5, -1.0, 1.0, np.nextafter(np.float32(1), np.float32(2)), 1.5])
    np.testing.assert_allclose(actual, [0, 0.579843, 0.579843, 0, 0], atol=1e-6)


@pytest.mark.parametrize(("n", "mean"), [(9, 1.02249991), (18, 1.14188367)])
def test_mean_over_the_window_is_the_series_at_one(n, mean):
    x = np.linspace(-1, 1, 20001)
    np.testing.assert_allclose(ref.area(gradient(lambda x: fda_sign(x, n), x), x) / 2, mean,
                               rtol=1e-5)  # fmt: skip
    np.testing.assert_allclose(ref.fourier_series(np.array(1.0), n), mean, rtol=1e-8)


@pytest.mark.parametrize(
    ("n", "half", "first"), [(9, 0.60237509, 1.179814), (18, 0.99182525, 1.179211)]
)
def test_the_series_climbs_to_its_gibbs_maximum(n, half, first):
    """The first zero of the slope is at pi / (2 (n + 1) omega), where the series overshoots."""
    zero = math.pi / (2 * (n + 1) * 0.1)
    np.testing.assert_allclose(fourier_slope(tf.constant(zero), n), 0, atol=1e-5)
    for to, expected in ((0.5, half), (zero, first)):
        x = np.linspace(0, to, 20001)
        slope = fourier_slope(tf.constant(x, tf.float32), n).numpy()
        np.testing.assert_allclose(ref.area(slope, x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("n", "share"), [(0, 0.810569), (1, 0.900633), (9, 0.979753), (18, 0.989337)]
)
def test_energy_of_the_truncated_slope(n, share):
    """Share of the square wave's energy; read off the slope's cosines over one period."""
    omega, points = 1.0, 4096
    t = np.arange(points) * 2 * np.pi / points
    slope = fourier_slope(tf.constant(t, tf.float32), n, omega).numpy()
    cosines = [2 / points * slope @ np.cos(i * t) for i in range(1, 2 * n + 4)]
    series = [c / i for i, c in enumerate(cosines, 1)]
    np.testing.assert_allclose(np.square(series).sum() / 2, share, rtol=1e-5)


def test_poles_tiny_numbers_and_the_sign():
    """The closed form is 0/0 at multiples of pi / omega, with the sign of the spike alternating."""
    spikes = tf.constant([0.0, 1e-30, -1e-40, 10 * math.pi, -10 * math.pi, 20 * math.pi])
    peak = 4 * 0.1 * 10 / math.pi
    np.testing.assert_allclose(
        fourier_slope(spikes, 9), [peak, peak, peak, -peak, -peak, peak], rtol=1e-4
    )
    np.testing.assert_array_equal(fda_sign(tf.constant([-1.0, -1e-30, 0.0, 2.0])), [-1, -1, 1, 1])


W1 = [[0.5, -0.25], [0.1, 0.3], [-0.2, 0.4], [0.3, 0.2]]
W2 = [[0.2, -0.1, 0.4, 0.3], [-0.5, 0.25, 0.1, 0.2]]
T = np.float32([[0.2, -0.6, 0.9, -1.4], [-0.3, 0.5, 0.1, 0.7]])
G = np.float32([[1.0, -2.0, 0.5, 1.5], [0.25, 1.0, -1.0, 2.0]])


def noise_case(role, clip_value):
    """The same rows as pixels with four channels, or as two filters of four weights."""
    quantizer = FDA(
        role=role, reduction=2, clip_value=clip_value, scale=None, alpha=0.1, n=9, omega=0.1
    )
    turn = (lambda t: t) if role == "input" else (lambda t: t.T.reshape(2, 2, 1, 2))
    quantizer.build(turn(T).shape)
    quantizer.noise_w1.assign(W1)
    quantizer.noise_w2.assign(W2)
    back = (lambda t: t) if role == "input" else (lambda t: np.reshape(t, (4, 2)).T)
    return quantizer, turn, back


@pytest.mark.parametrize("clip_value", [None, 1.0])
@pytest.mark.parametrize("role", ["input", "kernel"])
def test_noise_module(role, clip_value):
    """Equations 13 and 14, and the derivative of 14, on two rows of four numbers."""
    quantizer, turn, back = noise_case(role, clip_value)
    x = tf.constant(turn(T))
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = quantizer(x, training=True)
    dt, dw1, dw2 = tape.gradient(
        z, [x, quantizer.noise_w1, quantizer.noise_w2], output_gradients=tf.constant(turn(G))
    )
    np.testing.assert_allclose(
        back(quantizer.noise_term(x).numpy()),
        [[0.019867, -0.056464, 0.078333, -0.098545], [-0.214052, 0.140193, 0.086483, 0.172422]],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        back(z.numpy()),
        [[1.001987, -1.005646, 1.007833, -1.009854], [-1.021405, 1.014019, 1.008648, 1.017242]],
        atol=1e-6,
    )
    expected = np.array(
        [[1.249440, -1.995542, 0.348002, 0.231791], [0.298860, 1.094867, -1.260739, 1.822209]]
    )
    if clip_value is not None:
        expected[0, 3] = 0.002550
    np.testing.assert_allclose(back(dt.numpy()), expected, atol=2e-6)
    np.testing.assert_allclose(
        dw1,
        [[-0.0045, -0.01275], [0.0075, 0.02125], [0.0015, 0.00425], [0.0105, 0.02975]],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        dw2, [[0.00225, 0.009, -0.009, 0.018], [0.010125, 0.0405, -0.0405, 0.081]], atol=1e-6
    )


@pytest.mark.parametrize("training", [False, None])
@pytest.mark.parametrize("role", ["input", "kernel"])
def test_the_noise_module_is_gone_at_inference(role, training):
    quantizer, turn, back = noise_case(role, 1.0)
    np.testing.assert_array_equal(back(quantizer(turn(T), training=training).numpy()), ref.sign(T))


def test_no_noise_where_alpha_is_zero():
    quantizer, turn, back = noise_case("kernel", 1.0)
    quantizer.alpha = 0.0
    np.testing.assert_array_equal(back(quantizer(turn(T), training=True).numpy()), ref.sign(T))


@pytest.mark.parametrize(
    ("shortcut", "expected"), [("sin", np.sin), ("linear", lambda t: t), ("none", np.zeros_like)]
)
def test_shortcuts_of_the_noise_module(shortcut, expected):
    quantizer = FDA(role="input", shortcut=shortcut, shortcut_scale=0.2)
    quantizer.build(T.shape)
    quantizer.noise_w2.assign(tf.zeros_like(quantizer.noise_w2))
    np.testing.assert_allclose(quantizer.noise_term(T), 0.2 * expected(T), atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "parameters"), [(16, 576), (32, 2304), (64, 10368), (512, 663552)]
)
def test_size_of_the_noise_module(channels, parameters):
    """k = 64: 2 d floor(d / 64) parameters for a row of d = 9 channels."""
    quantizer = FDA(role="kernel")
    quantizer.build((3, 3, channels, channels))
    assert sum(int(np.prod(v.shape)) for v in quantizer.weights) == parameters


def test_narrow_rows_keep_one_hidden_unit():
    """A silent zero would leave only the shortcut."""
    quantizer = FDA(role="input")
    quantizer.build((None, 8, 8, 16))
    assert quantizer.noise_w1.shape == (16, 1)
    assert quantizer.noise_w2.shape == (1, 16)


def test_the_noise_module_starts_small_and_with_zero_mean():
    """The third-party implementation's uniform distribution within 1 / sqrt(fan_in)."""
    quantizer = FDA(role="input", reduction=4)
    quantizer.build((1, 64))
    for weights, limit in ((quantizer.noise_w1, 1 / 8), (quantizer.noise_w2, 1 / 4)):
        assert np.abs(weights).max() <= limit
        assert np.abs(weights).max() > 0.9 * limit
        assert abs(np.mean(weights)) < 0.1 * limit


def test_unknown_channels_are_one_clear_error():
    with pytest.raises(ValueError, match=r"known number of channels.*FDA\(noise=False\)"):
        FDA(role="input").build((None, 4, 4, None))
    FDA(role="input", noise=False).build((None, 4, 4, None))


@pytest.mark.parametrize("in_gradient", [False, True])
@pytest.mark.parametrize("scale", ["layer", "channel"])
def test_kernel_scale(scale, in_gradient):
    """Official code: one mean magnitude per layer, which does not enter the gradient."""
    kernel = np.random.default_rng(0).normal(0, 0.3, (3, 3, 2, 5)).astype("float32")
    quantizer = FDA(role="kernel", noise=False, scale=scale, scale_in_gradient=in_gradient)
    factor = np.abs(kernel).mean(None if scale == "layer" else (0, 1, 2))
    np.testing.assert_allclose(quantizer(kernel), ref.sign(kernel) * factor, rtol=1e-6)
    expected = ref.fourier_slope(kernel, 9) * (np.abs(kernel) <= 1)
    np.testing.assert_allclose(
        gradient(quantizer, kernel), expected * (factor if in_gradient else 1), rtol=1e-4, atol=1e-6
    )


def test_schedules_of_bibench():
    """(alpha, n) of a run of ten epochs; n ends at 17 there, and at 18 in the paper."""
    n, alpha = fourier_terms(10, end=17), noise_rate(10, rest=0)
    assert [n(e) for e in range(10)] == [9, 9, 10, 11, 12, 13, 14, 15, 16, 17]
    np.testing.assert_allclose(
        [alpha(e) for e in range(10)],
        [0.097553, 0.090451, 0.079389, 0.065451, 0.05, 0.034549, 0.020611, 0.009549, 0.002447, 0],
        atol=1e-6,
    )
    terms = [fourier_terms(400, end=17)(e) for e in range(400)]
    changes = [e for e in range(1, 400) if terms[e] != terms[e - 1]]
    assert changes == [45, 89, 134, 178, 223, 267, 312, 356]
    np.testing.assert_allclose(noise_rate(400, rest=0)(0), 0.09999846, atol=1e-8)
    assert noise_rate(400, rest=0)(399) == 0


@pytest.mark.parametrize("epochs", [1, 5, 10, 120, 400])
def test_schedules_of_the_package(epochs):
    """n rises from 9 to the paper's 18, alpha falls to 0 and stays there a while."""
    n = [fourier_terms(epochs)(e) for e in range(epochs)]
    alpha = [noise_rate(epochs)(e) for e in range(epochs)]
    assert n[0] == 9
    assert n == sorted(n)
    assert n[-1] == 18 or epochs < 10
    assert alpha == sorted(alpha, reverse=True)
    assert alpha[-1] == 0
    assert sum(a == 0 for a in alpha) >= epochs // 20


@pytest.mark.parametrize(
    "arguments", [{"clip_value": -1.0}, {"clip_value": 0.0}, {"n": float("inf")}, {"alpha": np.inf}]
)
def test_numbers_that_mean_nothing_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        FDA(**arguments)
