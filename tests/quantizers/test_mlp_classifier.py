"""Binarizing by classification: the learned estimator, its forms, its table and its memory."""

import numpy as np
import pytest
import references as ref
import tensorflow as tf

import larq_ext as lqx
from larq_ext.quantizers import MLPClassifier, classify
from larq_ext.quantizers.mlp_classifier import CHUNK

U = np.float32([0.5, -1, 2])
V = np.float32([[0.3, -0.2, 0.4], [0.1, 0.6, -0.1]])


def gradients(x, upstream, v=V, u=U, b=None, d=None, **kwargs):
    """Bits, and gradients of x, u, b, v and d."""
    linear = u is None
    parameters = [
        tf.zeros((0,)) if linear else tf.constant(u),
        tf.zeros((0,)) if linear else tf.zeros_like(u) if b is None else tf.constant(b),
        tf.constant(v, tf.float32),
        tf.zeros((len(v),)) if d is None else tf.constant(d),
    ]
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([x, *parameters])
        y = classify(x, tuple(parameters), **kwargs)
    grads = tape.gradient(y, [x, *parameters], output_gradients=tf.constant(upstream, tf.float32))
    return y.numpy(), *(g.numpy() for g in grads)


CHECK_A = ([-1.5, -0.2, 0, 0.3], [1, -2, 0.5, 3])


def test_check_a_all_gates_open():
    """The sign form of the official code, three hidden units."""
    f = ref.classifier(CHECK_A[0], U, V)
    np.testing.assert_allclose(
        f,
        [[-0.7695962, 0.5790796], [-0.2213551, 0.1464533], [0, 0], [0.3177479, -0.2136040]],
        atol=1e-7,
    )
    y, dx, du, _, dv, _ = gradients(*CHECK_A)
    np.testing.assert_array_equal(y, [-1, -1, 1, 1])  # sign(0) is +1 here
    np.testing.assert_allclose(dx, [0.0529541, -0.6539587, 0.2, 0.7693756], atol=2e-7)
    np.testing.assert_allclose(du, [0.1524791, 0.3747922, 0.2903630], atol=1e-6)
    np.testing.assert_allclose(dv, [[0.0108422, -0.3635403, 1.3759921]] * 2, atol=1e-6)


def test_check_b_gates_closed():
    """V times four: an output outside (-1, 1) passes nothing, each on its own."""
    _, dx, du, _, dv, _ = gradients(*CHECK_A, v=4 * V)
    np.testing.assert_allclose(dx, [0, -2.6158347, 0.8, -7.7100730], atol=2e-6)
    np.testing.assert_allclose(
        dv, [[0.1993360, -0.3947507, 0.7598979], [0.6459911, -1.2686886, 2.3710468]], atol=1e-6
    )
    np.testing.assert_allclose(du, [0.9856625, 2.5917635, 0.1545387], atol=2e-6)


@pytest.mark.parametrize(
    ("slopes", "dx", "da"),
    [
        ([[0.5], [0.5]], [0, 1, 1, 1, 0], [-1.5, -1.5]),
        ([[2.0], [0.5]], [0, 0.5, 2.5, 2.5, 0], [0.4, -1.5]),
    ],
)
def test_check_c_linear(slopes, dx, da):
    """A clipped identity of learned slope; the gate is strict."""
    result = gradients([-2.5, -1.9, 0, 0.4, 2], np.ones(5), v=slopes, u=None)
    np.testing.assert_allclose(result[1], dx, atol=1e-6)
    np.testing.assert_allclose(result[4][:, 0], da, atol=1e-6)


@pytest.mark.parametrize(
    ("slopes", "bits"), [([[0.2], [0.7]], [-1, -1, 1]), ([[0.7], [0.2]], [1, -1, -1])]
)
def test_check_d_argmax(slopes, bits):
    """Ties go to the first class; the gradient does not know which output is larger."""
    result = gradients([-1, 0, 2], [1, 1, -3], v=slopes, u=None, forward="argmax")
    np.testing.assert_array_equal(result[0], bits)
    np.testing.assert_allclose(result[1], [1.8, 1.8, -5.4], atol=1e-6)
    np.testing.assert_allclose(result[4][:, 0], [-14, -14], atol=1e-5)


def test_check_e_convolution():
    """Centring with its gradient, alpha without; the classifier of check A."""
    layer = lqx.layers.QuantConv2D(
        2, 1, use_bias=False, quantizer="mlp_classifier", kernel_quantizer=MLPClassifier(hidden=3)
    )
    layer.build((None, 1, 1, 2))
    layer.kernel.assign(np.float32([[0.3, -0.1], [0.05, 0.45]]).T[None, None])
    layer.kernel_quantizer.u.assign(U)
    layer.kernel_quantizer.v.assign(V)
    with tf.GradientTape() as tape:
        y = layer(tf.constant([[[[1.0, -1.0]]]]))
        loss = tf.reduce_sum(y * [1.0, 2.0])
    dw, dv = tape.gradient(loss, [layer.trainable_weights[0], layer.kernel_quantizer.v])
    np.testing.assert_allclose(y[0, 0, 0], [0.4, -0.4], atol=1e-6)
    np.testing.assert_allclose(
        dw[0, 0], np.transpose([[0.0653959, -0.0653959], [0.1307917, -0.1307917]]), atol=1e-6
    )
    np.testing.assert_allclose(dv, [[-0.0398672, 0.0789501, -0.1519795]] * 2, atol=1e-6)


def test_check_f_inputs_have_the_estimator_of_bi_real_net():
    layer = lqx.layers.QuantDense(1, quantizer="mlp_classifier")
    layer.build((None, 7))
    x = tf.constant([[-1.5, -1, -0.5, 0, 0.25, 1, 1.5]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer.input_quantizer(x)
    np.testing.assert_allclose(tape.gradient(y, x)[0], [0, 0, 1, 2, 1.5, 0, 0], atol=1e-6)


def test_a_network_has_300_parameters():
    """100 hidden units, two outputs, no biases."""
    quantizer = MLPClassifier(role="kernel")
    quantizer.build((3, 3, 8, 8))
    assert sum(int(np.prod(v.shape)) for v in quantizer.trainable_weights) == 300


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("forward", ["sign", "argmax"])
@pytest.mark.parametrize("hidden", [0, 1, 7, 100])
def test_the_start_slope_is_positive(hidden, forward, seed):
    """A negative slope climbs the loss and never recovers: the sum of slopes at 0 starts at +1."""
    tf.keras.utils.set_random_seed(seed)
    quantizer = MLPClassifier(hidden, forward=forward, role="kernel")
    quantizer.build((4, 4))
    v = quantizer.v.numpy()
    slopes = v[:, 0] if hidden == 0 else (v * quantizer.u.numpy()).sum(1)
    if hidden == 0 and forward == "argmax":
        np.testing.assert_allclose(slopes, [0, 0.5])
    else:
        np.testing.assert_allclose(slopes.sum(), 1.0, rtol=1e-5)
    if forward == "argmax":
        assert slopes[1] > slopes[0] >= 0  # forward and backward agree


def test_the_official_start_slope_has_a_random_sign():
    """Its standard deviation is sqrt(200 / 900) = 0.4714, and half of all draws are negative."""
    slopes = []
    for _ in range(300):
        quantizer = MLPClassifier(slope_init="official", role="kernel")
        quantizer.build((4, 4))
        slopes.append(np.sum(quantizer.v.numpy() * quantizer.u.numpy()))
    np.testing.assert_allclose(np.std(slopes), 0.4714, rtol=0.15)
    assert 0.4 < np.mean(np.array(slopes) < 0) < 0.6


def test_official_start_weights_are_those_of_pytorch():
    """Uniform within 1 / sqrt(fan_in): 1 for the first layer, 0.1 for the second."""
    quantizer = MLPClassifier(slope_init="official", role="kernel")
    quantizer.build((4, 4))
    assert 0.9 < np.abs(quantizer.u).max() <= 1
    assert 0.09 < np.abs(quantizer.v).max() <= 0.1


def test_a_cap_on_the_slopes():
    """50 in a disabled line of the official code."""
    quantizer = MLPClassifier(0, slope_cap=50.0, role="kernel")
    quantizer.build((4, 4))
    capped = quantizer.v.constraint(tf.constant([[70.0], [-60.0], [3.0]]))
    np.testing.assert_array_equal(capped[:, 0], [50, -50, 3])
    assert MLPClassifier(0, role="kernel").slope_cap is None


@pytest.mark.parametrize("hidden", [0, 5])
def test_the_slope_at_zero_stays_above_a_floor(hidden):
    """Ours: the nearest v whose slopes at 0 have a large enough sum; untouched if they have."""
    quantizer = MLPClassifier(hidden, slope_floor=0.25, role="kernel")
    quantizer.build((4, 4))
    v = quantizer.v.numpy()
    u = quantizer.u.numpy() if hidden else np.ones(1, "float32")
    np.testing.assert_array_equal(quantizer.v.constraint(tf.constant(v)), v)
    after = quantizer.v.constraint(tf.constant(-v)).numpy()
    np.testing.assert_allclose((after * u).sum(), 0.25, rtol=1e-5)
    np.testing.assert_allclose(after + v, np.broadcast_to((after + v)[0], v.shape), rtol=1e-5)
    np.testing.assert_allclose((after + v)[0] / u, ((after + v)[0] / u)[0], rtol=1e-4)
    assert MLPClassifier(slope_floor=None).slope_floor is None


@pytest.mark.parametrize(
    ("activation", "u", "b"),
    [
        ("tanh", [1.0, -1.0], [0.0, 5.0]),
        ("relu", [1.0, -1.0], [0.0, 0.0]),
        ("relu", [2.0, -1.0], [0.5, -1.0]),
    ],
)
def test_the_floor_holds_on_both_sides_and_with_biases(activation, u, b):
    quantizer = MLPClassifier(
        2, activation=activation, use_bias=True, slope_floor=0.25, role="kernel"
    )
    quantizer.build((4, 4))
    quantizer.u.assign(u)
    quantizer.b.assign(b)
    v = quantizer.v.constraint(tf.constant([[-1.0, -2.0], [-1.0, 2.0]]))
    function = np.tanh if activation == "tanh" else lambda x: np.maximum(x, 0)

    def outputs(x):
        return (function(x * np.array(u) + np.array(b)) @ v.numpy().T).sum()

    h = 1e-4
    assert (outputs(h) - outputs(0)) / h > 0.249
    assert (outputs(0) - outputs(-h)) / h > 0.249


def test_a_binary_kernel_stays_what_it_is_whatever_the_classifier_says():
    quantizer = MLPClassifier(0, forward="argmax", role="kernel")
    quantizer.build((8, 3))
    quantizer.v.assign([[0.7], [0.2]])  # the first output is larger above 0
    kernel = tf.constant(np.random.default_rng(0).normal(size=(8, 3)), tf.float32)
    once = quantizer(kernel)
    with tf.GradientTape() as tape:
        tape.watch(once)
        twice = quantizer(once)
    np.testing.assert_allclose(twice, once, rtol=1e-6)
    gradients = tape.gradient(twice, [once, quantizer.v])
    assert all(np.abs(gradient).sum() > 0 for gradient in gradients)


def test_the_classifier_is_shared_by_a_network_and_sums_its_gradients():
    """One classifier for all layers: its gradient is the sum over them."""
    arguments = lqx.quantizers.network_arguments("mlp_classifier")
    one, two = (lqx.layers.QuantDense(3, use_bias=False, **arguments()) for _ in range(2))
    one.build((None, 4))
    two.build((None, 6))
    assert one.kernel_quantizer is two.kernel_quantizer
    v = one.kernel_quantizer.v

    def gradient(*layers):
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(layer(tf.ones((1, layer.kernel.shape[0])))[:, 1:])
                             for layer in layers])  # fmt: skip
        return tape.gradient(loss, v).numpy()

    np.testing.assert_allclose(
        gradient(one, two), gradient(one) + gradient(two), rtol=1e-4, atol=1e-6
    )
    assert np.abs(gradient(one)).max() > 0


def big_case(size):
    generator = np.random.default_rng(0)
    x, upstream = generator.normal(0, 0.3, (2, size))
    u, v = generator.normal(size=20), generator.normal(0, 0.3, (2, 20))
    b, d = generator.normal(size=20), generator.normal(0, 0.1, 2)
    return x, upstream, {k: np.float32(p) for k, p in zip("uvbd", (u, v, b, d), strict=True)}


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK - 5])
@pytest.mark.parametrize("forward", ["sign", "argmax"])
def test_chunks_give_the_gradients_of_the_whole(size, forward):
    x, upstream, p = big_case(size)
    hidden = np.tanh(x[:, None] * p["u"] + p["b"])
    f = hidden @ p["v"].T + p["d"]
    g = upstream[:, None] * (np.full_like(f, 2.0) if forward == "argmax" else np.abs(f) < 1)
    by_argument = (g @ p["v"]) * (1 - hidden**2)
    _, dx, du, db, dv, dd = gradients(x, upstream, **p, forward=forward)
    # A value at the very edge of the gate may fall to either side in single precision.
    wrong = ~np.isclose(dx, by_argument @ p["u"], rtol=1e-3, atol=1e-4)
    assert wrong.sum() <= 1
    for actual, expected in ((du, x @ by_argument), (db, by_argument.sum(0)), (dv, g.T @ hidden),
                             (dd, g.sum(0))):  # fmt: skip
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("gate", [True, False])
def test_the_table_agrees_with_the_exact_gradient(gate):
    """Values between the grid's points are interpolated, the gate's edge too."""
    x, upstream, p = big_case(20_000)
    exact = gradients(x, upstream, **p, gate=gate)
    table = gradients(x, upstream, **p, gate=gate, table_size=1024)
    np.testing.assert_array_equal(table[0], exact[0])
    close = np.isclose(table[1], exact[1], rtol=1e-3, atol=1e-3)
    assert close.mean() > (0.999 if gate else 0.99999)
    for one, other in zip(exact[2:], table[2:], strict=True):
        np.testing.assert_allclose(other, one, rtol=0.02, atol=0.02 * np.abs(one).max())


def test_a_kernel_of_equal_weights_has_a_table_too():
    x = np.zeros(5000)
    result = gradients(x, np.ones(5000), table_size=64)
    assert all(np.isfinite(part).all() for part in result)
    np.testing.assert_allclose(result[1], np.full(5000, (V * U).sum()), rtol=1e-4)


def shapes_in(graph):
    """Shapes of all tensors of a graph and of the functions that it calls."""
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            if tensor.shape.rank is not None:
                yield tuple(tensor.shape.as_list())
    for name in graph._functions if hasattr(graph, "_functions") else ():
        function = graph._get_function(name)
        if function is not None and hasattr(function, "graph"):
            yield from shapes_in(function.graph)


@pytest.mark.parametrize("table_size", [None, 4096])
def test_hidden_values_are_not_kept(table_size):
    """100 numbers per weight would be 4 GB for a ResNet-18: no tensor is weights x hidden."""
    quantizer = MLPClassifier(hidden=100, table_size=table_size, role="kernel")
    kernel = tf.Variable(tf.random.normal((3, 3, 64, 64)))  # 36864 weights
    quantizer.build(kernel.shape)

    @tf.function
    def step(upstream):
        with tf.GradientTape() as tape:
            y = quantizer(kernel)
        return tape.gradient(y, [kernel, quantizer.u, quantizer.v], output_gradients=upstream)

    concrete = step.get_concrete_function(tf.TensorSpec(kernel.shape))
    sizes = [np.prod([d or 1 for d in shape]) for shape in shapes_in(concrete.graph)]
    assert max(sizes) <= 100 * CHUNK * 1.01
    assert 100 * CHUNK * 1.01 < 100 * 36864 / 8
