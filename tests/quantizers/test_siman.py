"""SiMaN: halves by magnitude, standardization, the clip of latent magnitudes, its schedule."""

import numpy as np
import pytest
import references as ref
import tensorflow as tf

import larq_ext as lqx
from larq_ext.callbacks import linear_percent
from larq_ext.quantizers import MagnitudeClip, SiMaN, centred_sign, magnitude_sign
from larq_ext.quantizers.siman import percentiles, standardize, upper_half


def gradient(function, x, upstream):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x, output_gradients=tf.constant(upstream, tf.float32)).numpy()


@pytest.mark.parametrize(
    ("magnitudes", "topk", "median"),
    [
        ([5, 4, 3, 2, 1], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1], [1] * 4 + [0] * 5, [1] * 4 + [0] * 5),
        ([3, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]),
        ([1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]),
        ([2, 2, 2, 1], [1, 1, 0, 0], [0, 0, 0, 0]),
        ([1, 3, 1, 3], [0, 1, 0, 1], [0, 1, 0, 1]),
        ([7], [0], [0]),
    ],
)
def test_the_larger_half(magnitudes, topk, median):
    """Top-k: exactly floor(n/2); median: strictly above the lower middle element."""
    column = tf.constant(magnitudes, tf.float32)[:, None]
    np.testing.assert_array_equal(upper_half(column, "topk")[:, 0], np.array(topk, bool))
    np.testing.assert_array_equal(upper_half(column, "median")[:, 0], np.array(median, bool))


@pytest.mark.parametrize("selection", ["topk", "median"])
@pytest.mark.parametrize("shape", [(3, 3, 1, 4), (3, 3, 2, 5), (1, 1, 7, 3), (9, 2), (64, 10)])
def test_exactly_half_of_each_filter_without_ties(shape, selection):
    """Odd filters get (n - 1) / 2 ones; 9 weights four."""
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
    signs = magnitude_sign(tf.constant(kernel), selection).numpy()
    n = int(np.prod(shape[:-1]))
    np.testing.assert_array_equal((signs > 0).reshape(n, -1).sum(0), n // 2)
    np.testing.assert_array_equal(signs, 2 * ref.magnitude_bits(kernel.astype(float)) - 1)


def test_a_filter_of_ties_keeps_its_number_of_ones():
    """Clipping makes ties: top-k is safe, the median gives fewer ones."""
    kernel = tf.constant(np.float32([3, -3, 3, -3, 1, -1])[:, None])
    assert (magnitude_sign(kernel, "topk").numpy() > 0).sum() == 3
    assert (magnitude_sign(kernel, "median").numpy() > 0).sum() == 0


F0 = [0.9, -0.7, 0.4, -0.3, 0.2, -0.1, 0.05, -0.45]
F1 = [0.12, -0.6, 0.3, 0.8, -0.2, -0.5, 0.7, 0.18]
S = np.array([[1, 1, 1, -1, -1, -1, -1, 1], [-1, 1, -1, 1, -1, 1, 1, -1]])
PIXELS = [[1, -2, 3, 0.5, -0.5, 2, -1, 4], [0.2, 0.4, -3, 1, 2.5, -1.5, 0.1, -0.7]]
A = np.array([[1, -1, 1, 1, -1, 1, -1, 1], [-1, 1, -1, 1, 1, -1, -1, -1]])
G = np.array([[1, -0.5], [0.25, 2]])  # filter by pixel
TINY = {
    0: {
        "bounds": (0.02, 0.9),
        "kernel": [F0, [0.02, -0.7, 0.2, 0.7, -0.3, -0.6, 0.6, 0.08]],
        "standard": [
            [1.772330, -1.378479, 0.787702, -0.590777, 0.393851, -0.196926, 0.098463, -0.886165],
            [0.039043, -1.366494, 0.390427, 1.366494, -0.585640, -1.171281, 1.171281, 0.156171],
        ],
        "s": [0.507806, 0.512260],
        "median": [0.590777, 0.585640],
        "dw": [
            [0.839077, 2.191864, 1.261823, -0.115588, -1.522961, -1.269314, -0.411510, -0.973391],
            [
                -3.433240,
                -2.821096,
                -3.586276,
                11.605702,
                -3.161176,
                10.758828,
                -5.878491,
                -3.484252,
            ],
        ],
    },
    25: {
        "bounds": (0.175, 0.625),
        "kernel": [
            [0.625, -0.625, 0.4, -0.3, 0.2, -0.175, 0.175, -0.45],
            [0.175, -0.625, 0.2, 0.625, -0.3, -0.6, 0.6, 0.175],
        ],
        "standard": [
            [1.475612, -1.389654, 0.959864, -0.644685, 0.501422, -0.358158, 0.444116, -0.988517],
            [0.293014, -1.337672, 0.343973, 1.210275, -0.675206, -1.286713, 1.159316, 0.293014],
        ],
        "s": [0.436260, 0.490591],
        "median": [0.644685, 0.675206],
        "dw": [
            [1.152865, 2.530647, 1.400866, -0.119789, -1.817008, -1.403673, -0.643346, -1.100561],
            [
                -3.525819,
                -3.755697,
                -3.518636,
                12.910346,
                -3.662309,
                10.519988,
                -5.442054,
                -3.525819,
            ],
        ],
    },
}


@pytest.mark.parametrize("percent", TINY)
def test_tiny_layer_of_the_official_code(percent):
    """A 1x1 convolution, 8 inputs, 2 filters, clipped at `percent`: all that the code computes."""
    expected = TINY[percent]
    layer = lqx.layers.QuantConv2D(
        2, 1, use_bias=False, quantizer="siman", kernel_constraint=MagnitudeClip(percent)
    )
    layer.build((None, 1, 2, 8))
    clipped = layer.kernel_constraint(tf.constant(np.float32([F0, F1]).T[None, None]))
    np.testing.assert_allclose(clipped[0, 0], np.transpose(expected["kernel"]), atol=1e-6)
    layer.kernel.assign(clipped)
    layer.scale.assign([0.5, 2.0])

    standard = standardize(clipped)[0, 0].numpy().T
    np.testing.assert_allclose(standard, expected["standard"], atol=2e-6)
    kernel = np.array(expected["kernel"])
    s = np.sqrt(kernel.var(1, ddof=1) + 1e-5)
    np.testing.assert_allclose(s, expected["s"], atol=1e-6)
    np.testing.assert_allclose(np.sort(np.abs(standard))[:, 3], expected["median"], atol=2e-6)

    x = tf.constant(np.float32(PIXELS)[None, None])
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = layer(x)
        loss = tf.reduce_sum(out * G.T[None, None])
    dx, dw, dalpha = tape.gradient(loss, [x, layer.trainable_weights[0], layer.scale])

    np.testing.assert_array_equal(layer.input_quantizer(x)[0, 0], A)
    for selection in ("topk", "median"):
        np.testing.assert_array_equal(magnitude_sign(clipped, selection)[0, 0], S.T)
    np.testing.assert_allclose(out[0, 0], [[1, -4], [-1, 4]], atol=1e-6)
    np.testing.assert_allclose(dalpha, [3, 3.5], atol=1e-5)
    np.testing.assert_allclose(dw[0, 0], np.transpose(expected["dw"]), atol=2e-5)
    np.testing.assert_allclose(
        dx[0, 0],
        [
            [
                -0.315225,
                -0.073826,
                -0.476157,
                -0.274991,
                -0.763603,
                -0.395691,
                -0.154292,
                -0.556624,
            ],
            [-4.371047, 3.690256, 0.006641, 2.711075, -0.435924, -0.114059, 3.634303, -2.110836],
        ],
        atol=5e-6,
    )


def test_zero_one_version_of_the_tiny_layer():
    """A * B = (A * S + r) / 2, with r the sum of A."""
    layer = lqx.layers.QuantConv2D(
        2, 1, use_bias=False, quantizer="siman", scale=None,
        kernel_quantizer=SiMaN(values="zero_one"),
    )  # fmt: skip
    layer.build((None, 1, 2, 8))
    layer.kernel.assign(np.float32([F0, F1]).T[None, None])
    out = layer(tf.constant(np.float32(PIXELS)[None, None]))[0, 0].numpy()
    np.testing.assert_array_equal(out, [[2, 0], [-2, 0]])
    r = A.sum(1)
    np.testing.assert_array_equal(r, [2, -2])
    np.testing.assert_array_equal(out, (A @ S.T + r[:, None]) / 2)


def test_dot_product_case():
    """A.B = (A.S + sum A) / 2 = 2 popcount(a & b) - popcount(b)."""
    a, kernel = np.float32([[1, 1, -1, 1]]), tf.constant(np.float32([[4], [-3], [2], [-1]]))
    bits = SiMaN(values="zero_one", role="kernel")(kernel).numpy()
    signs = SiMaN(role="kernel")(kernel).numpy()
    np.testing.assert_array_equal(bits[:, 0], [1, 1, 0, 0])
    assert (a @ bits).item() == (a @ signs + a.sum()).item() / 2 == 2
    assert 2 * ((a + 1) / 2 @ bits).item() - bits.sum() == 2


def test_the_sign_of_a_centred_weight_never_matters():
    kernel = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
    kernel = np.concatenate([kernel, -kernel])  # a mean of zero
    np.testing.assert_array_equal(
        magnitude_sign(tf.constant(kernel)), magnitude_sign(-tf.constant(kernel))
    )


def test_centring_case():
    """Mean 4, deviation 3.464103; 0 is +1 here and 0 in the official code."""
    x = np.float32([[0, 1, 2, 3, 4, 5, 6, 11]])
    np.testing.assert_array_equal(centred_sign(tf.constant(x)), [[-1, -1, -1, -1, 1, 1, 1, 1]])
    np.testing.assert_allclose(np.sqrt(x.astype(float).var(ddof=1) + 1e-5), 3.464103, atol=1e-6)
    np.testing.assert_array_equal(centred_sign(tf.fill((2, 3), 5.0)), np.ones((2, 3)))


def test_samples_are_standardized_one_by_one():
    """Mean and variance over height, width and channels of a sample, whatever the others are."""
    x = np.random.default_rng(0).normal(1, 2, (3, 4, 4, 2)).astype("float32")
    upstream = np.random.default_rng(1).normal(size=x.shape)
    alone = [gradient(centred_sign, x[i : i + 1], upstream[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(gradient(centred_sign, x, upstream), alone, rtol=1e-4, atol=1e-6)
    shifted = tf.constant(x + np.float32([[[[5.0]]], [[[-7.0]]], [[[0.0]]]]))
    np.testing.assert_array_equal(centred_sign(shifted), centred_sign(tf.constant(x)))


def test_gradient_of_a_filter_or_a_sample_sums_to_zero():
    """The centring's own gradient."""
    generator = np.random.default_rng(2)
    kernel, upstream = generator.normal(size=(2, 3, 3, 4, 5))
    np.testing.assert_allclose(
        gradient(magnitude_sign, kernel, upstream).sum((0, 1, 2)), 0, atol=1e-4
    )
    np.testing.assert_allclose(
        gradient(centred_sign, kernel, upstream).sum((1, 2, 3)), 0, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(4, 1), (1, 1, 1, 3)])
def test_filters_without_variance_are_finite(shape):
    """All weights equal, or one weight per filter, whose unbiased variance is 0/0."""
    kernel = np.full(shape, 2.0)
    assert set(np.unique(magnitude_sign(tf.constant(kernel, tf.float32)))) <= {-1.0, 1.0}
    np.testing.assert_allclose(gradient(magnitude_sign, kernel, np.ones(shape)), 0, atol=1e-3)


@pytest.mark.parametrize("percent", [0, 0.0375, 5, 15, 25, 37.3, 50])
@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (7, 3), (1, 1)])
def test_percentiles_are_those_of_numpy(shape, percent):
    """rank = p / 100 (N - 1) over the whole layer, linear interpolation."""
    values = np.random.default_rng(0).normal(size=shape).astype("float32")
    actual = percentiles(tf.constant(values), [tf.constant(float(percent)), 100.0 - percent])
    np.testing.assert_allclose(
        actual, np.percentile(values, [percent, 100 - percent]), rtol=1e-4, atol=1e-5
    )


def test_percentiles_where_the_last_position_is_no_float32():
    values = tf.range(2.0**24 + 4)  # float32 rounds the last position, 2^24 + 3, upwards
    (highest,) = percentiles(values, [tf.constant(100.0)])
    assert highest == 2.0**24 + 4  # float32's own rounding of the value


@pytest.mark.parametrize("percent", [0, 15, 50])
def test_clip_of_magnitudes(percent):
    """Centre, then lift the small and cut the large magnitudes; exact zeros stay zero."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype("float32")
    actual = MagnitudeClip(percent)(tf.Variable(kernel)).numpy()
    np.testing.assert_allclose(actual, ref.clip_magnitudes(kernel.astype(float), percent),
                               rtol=1e-4, atol=1e-5)  # fmt: skip
    zero = MagnitudeClip(percent)(tf.constant([[-1.0], [0.0], [1.0]]))
    assert float(zero[1, 0]) == 0.0


def test_applying_the_clip_again_changes_less_and_less():
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype("float32"))
    clip, changes = MagnitudeClip(15.0), []
    kernel = clip(kernel)
    for _ in range(3):
        after = clip(kernel)
        changes.append(float(tf.norm(after - kernel) / tf.norm(kernel)))
        kernel = after
    np.testing.assert_allclose(changes, [1.1e-2, 3.6e-3, 1.2e-3], rtol=0.4)


def test_the_clip_is_applied_before_the_first_step():
    """The official code clips before each forward pass, and a constraint after each update."""
    layer = lqx.layers.QuantDense(6, quantizer="siman")
    layer.build((None, 20))
    magnitudes = np.sort(np.abs(layer.kernel.numpy()).ravel())
    assert (magnitudes[:5] == magnitudes[0]).all()
    assert (magnitudes[-5:] == magnitudes[-1]).all()


def test_schedule_of_the_official_code():
    """15 (1 - e / E): 15, 14.9625, 7.5 and 0.0375 of 400 epochs; 150 epochs end at 0.1."""
    percent = linear_percent(400)
    np.testing.assert_allclose([percent(e) for e in (0, 1, 200, 399)], [15, 14.9625, 7.5, 0.0375])
    percent = linear_percent(150)
    np.testing.assert_allclose([percent(e) for e in (0, 1, 75, 149)], [15, 14.9, 7.5, 0.1])


@pytest.mark.parametrize("values", ["sign", "zero_one"])
@pytest.mark.parametrize("selection", ["topk", "median"])
@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (3, 3, 1, 4), (8, 3), (1, 1, 1, 2)])
def test_quantizing_again_changes_nothing(shape, selection, values):
    """Files saved under the quantized scope hold binary kernels, which have only ties."""
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
    quantizer = SiMaN(selection, values, role="kernel")
    once = quantizer(tf.constant(kernel))
    np.testing.assert_array_equal(quantizer(once), once)
    form = quantizer.kernel_form(once.numpy())
    np.testing.assert_array_equal((form.signs + 1) / 2 if form.zero_one else form.signs, once)


@pytest.mark.parametrize(("percent", "share"), [(15, 0.3), (5, 0.2), (0.0375, 0.01)])
def test_the_clip_changes_few_bits(percent, share):
    """Only the centring after it changes ranks; of a Gaussian kernel this share, in percent."""
    kernel = tf.random.stateless_normal((3, 3, 64, 64), (0, 1))
    before, after = magnitude_sign(kernel), magnitude_sign(MagnitudeClip(percent)(kernel))
    changed = 100 * np.mean(before != after)
    assert changed == pytest.approx(share, rel=0.5, abs=0.01)
