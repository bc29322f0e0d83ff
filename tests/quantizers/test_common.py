"""What holds for all quantizers: values, slopes, compilation, precision, strange numbers."""

import larq as lq
import numpy as np
import pytest
import references as ref
import table
import tensorflow as tf

import larq_ext as lqx
from larq_ext import quantizers as q
from larq_ext.quantizers.mlp_classifier import classify


@pytest.mark.parametrize("name", table.CASES)
def test_value_and_gradients_are_those_of_the_reference(name):
    """The surrogate's gradient is by definition that of a soft function: central differences."""
    case = table.CASES[name]
    x = table.sample(case.role)
    quantizer, parameters = table.built(case, x)
    upstream = np.random.default_rng(2).normal(size=x.shape)

    y, dx, gradients = table.value_and_gradients(quantizer, x, upstream, case.training)

    np.testing.assert_allclose(y, case.value(x, parameters, x), rtol=1e-5, atol=1e-6)

    def loss(function, x, parameters, start=x):
        return np.sum(upstream * function(x, parameters, start))

    np.testing.assert_allclose(
        dx, ref.differences(lambda t: loss(case.soft, t, parameters), x), rtol=1e-3, atol=2e-4
    )
    function = case.soft_of_parameters or case.soft
    for key, gradient in gradients.items():
        expected = ref.differences(
            lambda t, key=key: loss(function, x, {**parameters, key: t}), parameters[key]
        )
        if gradient is None:  # the noise module outside of training
            gradient = np.zeros_like(expected)
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=2e-4, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", table.MAIN)
def test_eager_graph_and_compiled_agree(name):
    case = table.CASES[name]
    x = table.sample(case.role, seed=3)
    quantizer, _ = table.built(case, x)
    upstream = np.random.default_rng(2).normal(size=x.shape)

    def run(wrap):
        y, dx, gradients = table.value_and_gradients(quantizer, x, upstream, case.training, wrap)
        return [y, dx, *(g for g in gradients.values() if g is not None)]

    eager = run(lambda f: f)
    for wrap in (tf.function, lambda f: tf.function(f, jit_compile=True)):
        for expected, actual in zip(eager, run(wrap), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", table.MAIN)
def test_half_precision_is_computed_in_single_precision(name, dtype):
    case = table.CASES[name]
    x = table.sample(case.role, seed=4)
    x = tf.cast(tf.cast(x, dtype), tf.float32).numpy()  # the same numbers in both
    quantizer, _ = table.built(case, x)
    upstream = np.random.default_rng(2).normal(size=x.shape)
    expected = table.value_and_gradients(quantizer, x, upstream, case.training)

    half = type(quantizer).from_config({**quantizer.get_config(), "dtype": f"mixed_{dtype}"})
    half.build(x.shape)
    half.set_weights(quantizer.get_weights())
    actual = table.value_and_gradients(half, x, upstream, case.training, dtype=tf.as_dtype(dtype))

    assert actual[0].dtype == dtype
    assert actual[1].dtype == dtype
    assert all(v.dtype == "float32" for v in half.weights)
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2}[dtype]
    for one, other in zip(expected[:2], actual[:2], strict=True):
        np.testing.assert_allclose(tf.cast(other, tf.float32), one, rtol=tolerance, atol=tolerance)
    for key, gradient in actual[2].items():
        assert gradient.dtype == "float32"
        np.testing.assert_allclose(gradient, expected[2][key], rtol=tolerance, atol=tolerance)


STRANGE = np.float32([0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 1e-30, 0.5, -0.5, 0.4])


@pytest.mark.parametrize("name", table.CASES)
def test_strange_numbers_give_finite_bits_and_gradients(name):
    """Zeros of both signs, edges of the windows, denormals."""
    case = table.CASES[name]
    shape = (len(STRANGE), 1) if case.role == "kernel" else (1, len(STRANGE))
    x = STRANGE.reshape(shape)
    quantizer, _ = table.built(case, x)
    y, dx, gradients = table.value_and_gradients(quantizer, x, np.ones(shape), case.training)
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert all(g is None or np.isfinite(g).all() for g in gradients.values())


@pytest.mark.parametrize("name", [n for n, case in table.CASES.items() if case.role == "kernel"])
def test_a_kernel_of_nan_shows_in_the_outputs(name):
    case = table.CASES[name]
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    quantizer, _ = table.built(case, x)
    x[3, 1] = np.nan
    y = quantizer(x, training=False).numpy()
    assert np.isnan(y[:, 1]).any()


@pytest.mark.parametrize("value", [3e38, -3e38, np.inf, -np.inf])
@pytest.mark.parametrize(
    "function",
    [
        q.fda_sign,
        lambda x: q.fda_sign(x, omega=np.pi, n=18),
        *(
            lambda x, e=e: q.surrogate_sign(x, e)
            for e in ("triangle", "long_tail", "bireal", "clip")
        ),
        *(
            lambda x, e=e: q.surrogate_step(x, e)
            for e in ("triangle", "long_tail", "bireal", "clip")
        ),
        q.polynomial_sign,
    ],
)
def test_numbers_beyond_the_window_pass_no_gradient(function, value):
    x = tf.constant([value, 0.25])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    gradient = tape.gradient(y, x)
    assert y[0] in (np.sign(value), max(0.0, np.sign(value)))
    assert gradient[0] == 0
    assert np.isfinite(gradient[1])


def test_arguments_of_functions():
    x = tf.constant([0.25, -2.0])
    for n in (tf.constant(9), tf.Variable(9)):
        np.testing.assert_array_equal(q.fda_sign(x, n=n), q.fda_sign(x))
    for function in (q.surrogate_sign, q.surrogate_step):
        with pytest.raises(ValueError, match=r"`estimator` is one of .*received 'typo'"):
            function(x, "typo")
    parameters = tuple(tf.zeros(shape) for shape in ((2,), (2,), (2, 2), (2,)))
    open_size = tf.function(
        lambda x: classify(x, parameters), input_signature=[tf.TensorSpec([None])]
    )
    with pytest.raises(ValueError, match="`x` has a known shape"):
        open_size(x)


@pytest.mark.parametrize("name", table.CASES)
def test_two_values_even_at_zero(name):
    """The runtime's sign of 0 is +1; `step` gives 0 at 0, and argmax gives ties to -1."""
    case = table.CASES[name]
    x = np.array([[0.0, -0.0], [0.0, 1.0], [-1.0, 0.0]])  # filters with a mean of zero, or not
    if case.role == "kernel":
        x = np.array([[0.0, -0.0, 0.0], [1.0, 0.5, 1.0], [-1.0, -0.5, -1.0]])
    quantizer, _ = table.built(case, x)
    y = quantizer(tf.constant(x, tf.float32), training=False).numpy()
    zeros = y[x == 0]
    if name.startswith("scale-input") or name == "siman-kernel-zero_one":
        assert set(np.unique(np.sign(y))) == {0.0, 1.0}
    elif name != "siman-kernel-median":  # ties: no weight is above the median
        assert set(np.unique(np.sign(y))) == {-1.0, 1.0}
    if name.startswith(("fda", "scale-kernel", "siman-input-not")) or name in ("mlp", "mlp-linear"):
        assert (zeros > 0).all()
    elif name.startswith(("scale-input", "mlp-argmax", "mlp-linear-argmax", "siman-kernel")):
        assert (zeros <= 0).all()


CONFIGURED = {
    "fda": q.FDA(12, 0.2, None, False, 0.05, 8, "linear", 0.2, "channel", True),
    "learnable_scale": q.LearnableScale("clip", 0.5, "layer", 0.01),
    "siman": q.SiMaN("median", "zero_one", False),
    "mlp_classifier": q.MLPClassifier(
        hidden=0,
        activation="relu",
        gate=False,
        outputs=3,
        use_bias=True,
        slope_init="official",
        slope_floor=None,
        slope_cap=50.0,
        center=False,
        scale=False,
        table_size=None,
    ),
}


@pytest.mark.parametrize("alias", CONFIGURED)
def test_configuration_keeps_every_argument(alias):
    quantizer = CONFIGURED[alias]
    config = quantizer.get_config()
    default = type(quantizer)().get_config()
    changed = {k for k in config if config[k] != default[k]} - {"name"}
    assert changed == set(default) - {"name", "trainable", "dtype", "role"} - (
        {"forward"} if alias == "mlp_classifier" else set()
    )
    again = type(quantizer).from_config(config)
    assert again.get_config() == config
    assert lq.quantizers.get(lq.quantizers.serialize(quantizer)).get_config() == config


@pytest.mark.parametrize("alias", CONFIGURED)
def test_every_spelling_of_a_quantizer_is_the_same(alias):
    cls = type(CONFIGURED[alias])
    for identifier in (
        alias,
        cls.__name__,
        {"class_name": cls.__name__, "config": {}},
        {"class_name": alias, "config": {}},
    ):
        assert type(lq.quantizers.get(identifier)) is cls
    assert f"larq_ext>{cls.__name__}" in tf.keras.utils.get_custom_objects()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: q.FDA(role="output"), ["role", "input", "kernel", "output"]),
        (lambda: q.FDA(omega=0), ["omega", "0"]),
        (lambda: q.FDA(reduction=0), ["reduction", "0"]),
        (lambda: q.FDA(shortcut="cos"), ["shortcut", "sin", "linear", "none", "cos"]),
        (lambda: q.FDA(scale="row"), ["scale", "layer", "channel", "row"]),
        (lambda: q.FDA(n=-1), ["`n`", "FDA", "-1"]),
        (lambda: q.FDA(n=9.5), ["`n`", "integer", "9.5"]),
        (lambda: q.FDA(alpha=-0.1), ["`alpha`", "-0.1"]),
        (lambda: q.LearnableScale("sine"), ["estimator", "triangle", "long_tail", "sine"]),
        (lambda: q.LearnableScale(granularity="row"), ["granularity", "channel", "layer", "row"]),
        (lambda: q.LearnableScale(l2=-1), ["l2", "-1"]),
        (lambda: q.SiMaN("sort"), ["selection", "topk", "median", "sort"]),
        (lambda: q.SiMaN(values="bits"), ["values", "sign", "zero_one", "bits"]),
        (lambda: q.MagnitudeClip(51), ["percent", "0", "50", "51"]),
        (lambda: q.MLPClassifier(-1), ["hidden", "-1"]),
        (lambda: q.MLPClassifier(activation="gelu"), ["activation", "tanh", "relu", "gelu"]),
        (lambda: q.MLPClassifier(forward="max"), ["forward", "sign", "argmax", "max"]),
        (lambda: q.MLPClassifier(outputs=0), ["outputs", "0"]),
        (lambda: q.MLPClassifier(forward="argmax", outputs=3), ["outputs", "2", "3"]),
        (lambda: q.MLPClassifier(slope_init="zero"), ["slope_init", "positive-unit", "zero"]),
        (lambda: q.MLPClassifier(slope_cap=50), ["slope_cap", "hidden"]),
        (lambda: q.MLPClassifier(table_size=1), ["table_size", "1"]),
    ],
)
def test_a_wrong_argument_is_one_clear_error(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in words)


def test_the_role_is_found_out_at_first_use():
    """Larq's layers quantize kernels inside the quantized scope, inputs outside."""
    layer = lq.layers.QuantDense(3, input_quantizer="siman", kernel_quantizer="siman")
    layer(tf.ones((1, 4)))
    assert layer.input_quantizer.role == "input"
    assert layer.kernel_quantizer.role == "kernel"


@pytest.mark.parametrize("alias", table.METHOD_NAMES)
def test_hyperparameters_are_no_weights_but_are_in_checkpoints(alias, tmp_path):
    quantizer = type(CONFIGURED[alias])(role="kernel")
    quantizer.build((4, 3))
    assert all("noise" in v.name or v.trainable for v in quantizer.weights)
    assert not {"n", "alpha"} & {v.name.split("/")[-1].split(":")[0] for v in quantizer.weights}
    if alias != "fda":
        return
    quantizer.n = 15
    path = tf.train.Checkpoint(quantizer=quantizer).save(tmp_path / "checkpoint")
    other = q.FDA(role="kernel")
    other.build((4, 3))
    tf.train.Checkpoint(quantizer=other).restore(path).assert_consumed()
    assert other.n == 15
    assert isinstance(other.n, int)


def test_graphs_read_a_hyperparameter_at_run_time():
    quantizer = q.FDA(role="input", noise=False)
    traces = []

    @tf.function
    def slope(x):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x)
        return tape.gradient(y, x)

    x = tf.constant([[0.25]])
    values = []
    for n in (9, 17, 18):
        quantizer.n = n
        values.append(float(slope(x)[0, 0]))
    np.testing.assert_allclose(values, [1.220974, 1.994933, 2.071561], rtol=1e-5)
    assert len(traces) == 1


def test_a_kernel_is_split_into_signs_and_one_number_per_channel():
    signs = ref.sign(np.random.default_rng(0).normal(size=(3, 3, 2, 4))).astype("float32")
    scale = np.float32([0.5, 2.0, 1e-3, 7.0])
    form = lqx.quantizers.factor_kernel(signs * scale)
    np.testing.assert_array_equal(form.signs, signs)
    np.testing.assert_allclose(form.scale, scale)
    assert not form.zero_one
    for wrong in (0.0, np.nan, np.inf, 0.6):
        kernel = signs * scale
        kernel[0, 0, 0, 0] = wrong
        assert lqx.quantizers.factor_kernel(kernel) is None


@pytest.mark.parametrize(
    "name", [n for n in table.CASES if n.startswith(("fda-k", "scale-k", "siman-k", "mlp"))]
)
def test_quantizing_again_changes_nothing(name):
    """Files saved under Larq's quantized scope hold binary kernels, whatever a scale's sign."""
    x = table.sample("kernel", seed=5)
    quantizer, _ = table.built(table.CASES[name], x)
    if name.startswith("scale"):
        quantizer.scale.assign(quantizer.scale * np.float32(-1.0))
    once = quantizer(tf.constant(x, tf.float32), training=False)
    np.testing.assert_allclose(quantizer(once, training=False), once, rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in table.CASES if table.CASES[n].role == "kernel"])
def test_the_form_of_a_kernel_is_what_it_is_at_inference(name):
    case = table.CASES[name]
    x = table.sample("kernel")
    quantizer, _ = table.built(case, x)
    form = quantizer.kernel_form(x.astype("float32"))
    assert set(np.unique(form.signs)) == {-1.0, 1.0}
    assert (form.scale > 0).all()
    bits = (form.signs + 1) / 2 if form.zero_one else form.signs
    actual = quantizer(tf.constant(x, tf.float32), training=False)
    np.testing.assert_allclose(form.scale * bits, actual, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in table.CASES if table.CASES[n].role == "input"])
def test_the_form_of_an_input_is_what_it_is_at_inference(name):
    case = table.CASES[name]
    x = table.sample("input")
    quantizer, _ = table.built(case, x)
    form = quantizer.input_form()
    centred = x - x.mean((1, 2, 3), keepdims=True) if form.center else x
    expected = (centred > form.threshold) if form.zero_one else ref.sign(centred)
    actual = quantizer(tf.constant(x, tf.float32), training=False)
    np.testing.assert_allclose(form.scale * expected, actual, rtol=1e-6)


class Mine(q.BinaryQuantizer):
    def quantize(self, x, training):
        return lq.math.sign(x)


def test_a_class_of_ones_own_needs_no_alias():
    quantizer = Mine(role="kernel")
    assert quantizer.name.startswith("mine_")
    np.testing.assert_array_equal(quantizer(tf.constant([[-2.0, 3.0]])), [[-1.0, 1.0]])


@pytest.mark.parametrize("kind", [q.SiMaN, q.LearnableScale, lambda: q.FDA(noise=False)])
def test_one_instance_cannot_quantize_inputs_and_kernels(kind):
    """Larq's own quantizers can; it would quantize the kernel as if it were an input."""
    shared = kind()
    layer = lq.layers.QuantDense(4, input_quantizer=shared, kernel_quantizer=shared)
    with pytest.raises(ValueError, match=r"`kernel_quantizer` is a .* for inputs"):
        layer(tf.ones((2, 3)))
    lq.context.quantized_scope(False).__enter__()
    kernel = kind()
    lq.layers.QuantDense(4, kernel_quantizer=kernel)(tf.ones((2, 3)))
    with pytest.raises(ValueError, match=r"`input_quantizer` is a .* for kernels"):
        lq.layers.QuantDense(3, input_quantizer=kernel)(tf.ones((2, 4)))


@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        tf.float32,
        np.float32,
        tf.keras.mixed_precision.Policy("float32"),
        "mixed_bfloat16",
    ],
)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("method", q.METHODS)
def test_a_layers_own_precision_is_that_of_its_quantizers(method, policy, dtype):
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        layer = lqx.layers.QuantDense(8, quantizer=method, dtype=dtype)
        outputs = layer(tf.ones((2, 5)))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert outputs.dtype == ("bfloat16" if dtype == "mixed_bfloat16" else "float32")


def test_alone_it_casts_as_layers_of_keras_do():
    assert q.FDA()(np.ones((2, 3))).dtype == "float32"
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        assert q.FDA()(tf.ones((2, 3))).dtype == "float16"
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
