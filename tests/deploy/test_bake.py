"""The deployed form of a model computes what the training form does, with kernels of +-1."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import tensorflow as tf

from larq_ext.deploy import (
    BinaryConv2D,
    BinaryDense,
    DeploymentError,
    applied_rewrites,
    bake,
    float_reasons,
)

METHODS = tuple(lqx.quantizers.METHODS)
# Float32 sums of a few hundred terms of size 1.
TOLERANCE = 2e-5


def randomize(model, seed=0):
    """Random weights; scales keep both signs, variances stay positive."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        value = generator.normal(size=weight.shape)
        weight.assign(1 + np.abs(value) if "variance" in weight.name else value)
    return model


def difference(model, baked, shape, seed=1):
    """Largest difference of the outputs, relative to the largest output."""
    inputs = np.random.default_rng(seed).normal(size=(4, *shape)).astype("float32")
    inputs[0, 0] = 0.0  # ties of the sign
    # Not `predict`, which would first trace a graph of each.
    expected, found = (one(inputs, training=False).numpy() for one in (model, baked))
    return np.abs(found - expected).max() / np.abs(expected).max()


def one_layer(layer, shape):
    return randomize(tf.keras.Sequential([tf.keras.Input(shape), layer]))


def check_binary(layer):
    assert isinstance(layer, BinaryConv2D)
    assert layer.kernel_quantizer is None and layer.kernel_constraint is None
    assert set(np.unique(layer.kernel.numpy())) == {-1.0, 1.0}


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("method", METHODS)
def test_convolution(method, padding, strides):
    layer = lqx.layers.QuantConv2D(
        7, 3, strides=strides, padding=padding, quantizer=method, activation="relu"
    )
    model = one_layer(layer, (9, 8, 5))
    baked = bake(model)
    check_binary(baked.layers[0])
    assert difference(model, baked, (9, 8, 5)) < TOLERANCE
    assert not float_reasons(baked)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "learnable_scale"])
def test_zero_padding_of_signs(method):
    model = one_layer(
        lqx.layers.QuantConv2D(4, 3, padding="same", pad_values=0.0, quantizer=method), (6, 6, 3)
    )
    baked = bake(model)
    assert baked.layers[0].pad_values == 0.0
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE


@pytest.mark.parametrize("method", METHODS)
def test_dense(method):
    model = one_layer(lqx.layers.QuantDense(6, quantizer=method), (40,))
    baked = bake(model)
    assert isinstance(baked.layers[0], BinaryDense)
    check_binary(baked.layers[0])
    assert baked.output_shape == model.output_shape
    assert difference(model, baked, (40,)) < TOLERANCE


@pytest.mark.parametrize("inputs", ["sign", "step"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_kernels_of_zeros_and_ones(padding, inputs):
    """(A * S + A * 1) / 2, with the filter of ones in the same convolution."""
    quantizer = (
        lqx.quantizers.SiMaN(role="input")
        if inputs == "sign"
        else lqx.quantizers.LearnableScale(role="input")
    )
    layer = lqx.layers.QuantConv2D(
        5,
        3,
        padding=padding,
        input_quantizer=quantizer,
        kernel_quantizer=lqx.quantizers.SiMaN(role="kernel", values="zero_one"),
        pad_values=0.0,
    )
    model = one_layer(layer, (7, 7, 4))
    baked = bake(model)
    check_binary(baked.layers[0])
    assert baked.layers[0].kernel.shape[-1] == 6
    assert baked.output_shape == model.output_shape
    assert difference(model, baked, (7, 7, 4)) < TOLERANCE


LARQ = [
    ("ste_sign", "ste_sign"),
    ("approx_sign", "magnitude_aware_sign"),
    ("swish_sign", "swish_sign"),
    ("ste_heaviside", "ste_sign"),
    (lq.quantizers.DoReFa(k_bit=1), lq.quantizers.DoReFa(k_bit=1, mode="weights")),
]


@pytest.mark.parametrize("layer_class", [lq.layers.QuantConv2D, lqx.layers.QuantConv2D])
@pytest.mark.parametrize("input_quantizer,kernel_quantizer", LARQ)
def test_larq_quantizers(input_quantizer, kernel_quantizer, layer_class):
    layer = layer_class(
        6,
        3,
        padding="same",
        pad_values=0.0,
        input_quantizer=input_quantizer,
        kernel_quantizer=kernel_quantizer,
        kernel_constraint="weight_clip",
    )
    model = one_layer(layer, (8, 8, 4))
    baked = bake(model)
    check_binary(baked.layers[0])
    assert difference(model, baked, (8, 8, 4)) < TOLERANCE


def test_scale_of_zero_keeps_the_layer_binary():
    model = one_layer(
        lqx.layers.QuantConv2D(4, 3, padding="same", quantizer="learnable_scale"), (6, 6, 3)
    )
    scale = model.layers[0].kernel_quantizer.scale
    scale.assign([0.0, -2.0, 1e-9, 0.5])
    baked = bake(model)
    check_binary(baked.layers[0])
    np.testing.assert_allclose(baked.layers[0].scale.numpy()[0], 0.0, atol=1e-6)
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE


def network(method, batch_norm_first=False):
    image = tf.keras.Input((12, 12, 3))
    x = tf.keras.layers.Conv2D(8, 3)(image)
    x = tf.keras.layers.BatchNormalization()(x)
    y = lqx.layers.QuantConv2D(8, 3, padding="same", quantizer=method, use_bias=False)(x)
    y = tf.keras.layers.BatchNormalization()(y)
    x = tf.keras.layers.Add()([x, y])
    x = tf.keras.layers.Dropout(0.5)(x)
    x = lqx.layers.QuantConv2D(16, 3, strides=2, quantizer=method)(x)
    x = tf.keras.layers.Flatten()(tf.keras.layers.MaxPool2D()(x))
    return randomize(tf.keras.Model(image, tf.keras.layers.Dense(4)(x)))


@pytest.mark.parametrize("method", METHODS)
def test_network_and_its_save_and_load(method, tmp_path):
    model = network(method)
    baked = bake(model)
    assert difference(model, baked, (12, 12, 3)) < TOLERANCE
    assert bake(baked) is baked
    baked.save(tmp_path / "baked.keras")
    loaded = tf.keras.models.load_model(tmp_path / "baked.keras")
    assert difference(baked, loaded, (12, 12, 3)) == 0.0
    assert difference(model, bake(loaded), (12, 12, 3)) < TOLERANCE


def test_layers_used_twice_and_nested_models():
    inner = network("siman")
    layer = lqx.layers.QuantDense(4, quantizer="fda")
    outer_input = tf.keras.Input((12, 12, 3))
    x = layer(layer(inner(outer_input)))
    model = tf.keras.Model(outer_input, x)
    randomize(model)
    baked = bake(model)
    assert difference(model, baked, (12, 12, 3)) < TOLERANCE
    assert len(baked.layers) == len(model.layers)


@pytest.mark.parametrize(
    ("policy", "rounding"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2)]
)
def test_mixed_precision_becomes_float32(policy, rounding):
    """With the scales of kernels that the model computes itself, which are halves."""
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        model = network("fda")
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    single = network("fda")
    randomize(single)
    model.set_weights(single.get_weights())
    baked = bake(model)
    assert {layer.dtype_policy.name for layer in baked.layers} == {"float32"}
    assert baked.output.dtype == tf.float32
    assert difference(single, baked, (12, 12, 3)) < rounding


def test_scope_left_on_does_not_reach_the_latent_weights():
    model = network("siman")
    expected = bake(model).get_weights()
    lq.context.quantized_scope(True).__enter__()
    for one, other in zip(bake(model).get_weights(), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_binary_weights_alone_become_constants():
    layer = lq.layers.QuantConv2D(
        4, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip"
    )
    model = one_layer(layer, (6, 6, 3))
    baked = bake(model)
    assert not isinstance(baked.layers[0], BinaryConv2D)
    assert set(np.unique(baked.layers[0].kernel.numpy())) == {-1.0, 1.0}
    assert not float_reasons(baked)
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE


@pytest.mark.parametrize(
    "layer,reason",
    [
        (
            lambda: lq.layers.QuantDepthwiseConv2D(
                3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign"
            ),
            "no binary kernel",
        ),
        (
            lambda: lq.layers.QuantSeparableConv2D(
                8,
                3,
                input_quantizer="ste_sign",
                depthwise_quantizer="ste_sign",
                pointwise_quantizer="ste_sign",
            ),
            "no binary kernel",
        ),
        (
            lambda: lq.layers.QuantConv2D(
                4, 3, input_quantizer="magnitude_aware_sign", kernel_quantizer="ste_sign"
            ),
            "not known to be a plain sign",
        ),
        (
            lambda: lqx.layers.QuantConv2D(
                4, 3, padding="same", pad_values=1.0, quantizer="learnable_scale"
            ),
            "set pad_values=0.0",
        ),
    ],
)
def test_what_stays_float_has_a_reason(layer, reason):
    model = one_layer(layer(), (6, 6, 4))
    baked = bake(model)
    assert reason in float_reasons(baked)[model.layers[0].name]
    assert difference(model, baked, (6, 6, 4)) < TOLERANCE


class Shifted(lq.layers.QuantConv2D):
    """Computes something of its own."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel) + 1.0


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (Shifted(8, 3), (6, 6, 32), "a `convolution_op` of its own"),
        (lq.layers.QuantDense(8), (2, 2, 32), "more than two dimensions"),
    ],
)
def test_layers_that_compute_something_else_stay_as_they_are(layer, shape, reason):
    layer.input_quantizer = lq.quantizers.SteSign()
    layer.kernel_quantizer = lq.quantizers.SteSign()
    model = tf.keras.Sequential([tf.keras.Input(shape), layer])
    baked = lqx.deploy.bake(model)
    assert reason in lqx.deploy.float_reasons(baked)[layer.name]
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(baked(x), model(x), atol=1e-5)


def test_layers_inside_a_layer_are_refused_by_name():
    class Block(tf.keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = lqx.layers.QuantConv2D(4, 3, quantizer="fda", name="hidden_one")

        def call(self, inputs):
            return self.inner(inputs)

    model = tf.keras.Sequential([tf.keras.Input((6, 6, 3)), Block()])
    with pytest.raises(DeploymentError, match="hidden_one"):
        bake(model)


def test_functions_as_quantizers():
    layer = lq.layers.QuantConv2D(
        4,
        3,
        input_quantizer=lq.quantizers.approx_sign,
        kernel_quantizer=lq.quantizers.ste_sign,
    )
    model = one_layer(layer, (6, 6, 3))
    baked = bake(model)
    check_binary(baked.layers[0])
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE


@pytest.mark.parametrize("method", METHODS)
def test_a_kernel_that_is_not_finite_stays_as_it_is(method):
    model = one_layer(lqx.layers.QuantDense(3, quantizer=method), (8,))
    model.layers[0].kernel.assign(np.full((8, 3), np.nan))
    assert "not finite" in float_reasons(bake(model))[model.layers[0].name]


def test_channels_first_has_a_reason():
    layer = lqx.layers.QuantConv2D(4, 3, quantizer="siman", data_format="channels_first")
    model = tf.keras.Sequential([tf.keras.Input((3, 6, 6)), layer])
    assert "channels_last" in float_reasons(bake(model))[layer.name]


def test_the_callers_scope_is_kept():
    with lq.context.quantized_scope(True):
        bake(network("fda"))
        assert lq.context.should_quantize()


def test_models_that_cannot_be_baked():
    class Subclassed(tf.keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(DeploymentError, match="functional API"):
        bake(Subclassed())
    with pytest.raises(DeploymentError, match="input shape"):
        bake(tf.keras.Sequential([tf.keras.layers.Dense(3)]))
    with pytest.raises(DeploymentError, match="received str"):
        bake("model")


def test_summary_of_the_baked_model_counts_bits():
    model = network("siman")
    lines = []
    lq.models.summary(bake(model), print_fn=lines.append)
    rows = {line.split()[1]: line.split() for line in lines[0].splitlines() if "conv2d" in line}
    binary = [row for name, row in rows.items() if name.startswith("quant_conv2d")]
    assert [row[2] for row in binary] == ["1", "1"]  # input precision
    training = []
    lq.models.summary(model, print_fn=training.append)
    for fact in ("Number of MACs", "Ratio of MACs that are binarized"):
        of_baked, of_training = (
            next(line for line in text[1].splitlines() if fact in line)
            for text in (lines, training)
        )
        assert of_baked == of_training


def test_statistics_of_an_adapted_layer_are_kept():
    normalization = tf.keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(100, 20, (64, 8, 8, 3)))
    layers = [normalization, lqx.layers.QuantConv2D(4, 3, quantizer="ste_sign")]
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), *layers])
    x = np.random.default_rng(1).normal(100, 20, (2, 8, 8, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    assert np.ptp(expected) > 0
    conversion = lqx.deploy.convert(model)
    np.testing.assert_allclose(conversion.model.predict(x, verbose=0), expected)
    np.testing.assert_allclose(lqx.runtime.Interpreter(conversion.flatbuffer).predict(x), expected)


class _Shifted(lq.quantizers.ApproxSign):
    def call(self, inputs):
        return super().call(inputs - 0.5)


class _ShiftedSeries(lqx.quantizers.FDA):
    def quantize(self, x, training):
        return super().quantize(x - 0.5, training)


class _Renamed(lq.quantizers.SteSign):
    """Computes nothing else."""


class _Described(_ShiftedSeries):
    def input_form(self):
        return lqx.quantizers.InputForm()


@pytest.mark.parametrize("quantizer", [_Shifted, _ShiftedSeries, _Renamed, _Described])
def test_a_class_derived_from_a_sign_is_one_only_if_it_computes_the_same(quantizer):
    layer = lqx.layers.QuantConv2D(
        4, 3, input_quantizer=quantizer(), kernel_quantizer="ste_sign", name="it"
    )
    model = one_layer(layer, (6, 6, 8))
    baked = bake(model)
    known = quantizer in (_Renamed, _Described)
    assert isinstance(baked.layers[0], BinaryConv2D) is known
    if not known:
        assert "is not known to be a plain sign" in float_reasons(baked)["it"]
        assert difference(model, baked, (6, 6, 8)) < TOLERANCE


class _Inverted(lqx.quantizers.SiMaN):
    def quantize(self, x, training):
        return -super().quantize(x, training)


def test_kernels_of_a_derived_class_are_what_it_computes():
    layer = lqx.layers.QuantConv2D(
        4, 3, input_quantizer="ste_sign", kernel_quantizer=_Inverted(role="kernel")
    )
    model = one_layer(layer, (6, 6, 8))
    baked = bake(model)
    check_binary(baked.layers[0])
    assert difference(model, baked, (6, 6, 8)) < TOLERANCE


def test_a_norm_of_the_batch_is_not_one_of_moving_statistics():
    image = tf.keras.Input((6, 6, 8))
    x = tf.keras.layers.BatchNormalization()(image, training=True)
    x = lqx.layers.QuantConv2D(4, 3, quantizer="ste_sign")(x)
    model = tf.keras.Model(image, x)
    images = np.random.default_rng(0).normal(5.0, 1.0, (4, 6, 6, 8)).astype("float32")
    expected = model(images).numpy()
    assert np.ptp(expected) > 0
    baked = bake(model)
    np.testing.assert_allclose(baked(images), expected, atol=TOLERANCE)
    assert applied_rewrites(baked) == ()


def test_a_call_of_its_own_is_refused():
    class Scaled(tf.keras.Sequential):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs / 255.0, training, mask)

    layers = [tf.keras.Input((6, 6, 8)), lqx.layers.QuantConv2D(4, 3, quantizer="fda")]
    with pytest.raises(DeploymentError, match=r"\(Scaled\) has a `call` of its own"):
        bake(Scaled(layers, name="scaled"))

    class Trained(tf.keras.Sequential):
        def train_step(self, data):
            return {}

    assert bake(Trained(layers))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_digits_from_training_form_to_interpreter(method):
    """Real images through Keras, the baked form and the real interpreter."""
    from sklearn.datasets import load_digits

    import larq_ext_zoo as zoo

    images = (load_digits().images[:64, ..., None] / 8.0 - 1.0).astype("float32")
    model = zoo.DigitsNet(quantizer=method)
    for layer in model.layers:  # trained networks have no sums of exactly zero
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.beta.assign(0.3 * tf.random.stateless_normal(layer.beta.shape, (0, 1)))
    expected = model.predict(images, verbose=0)
    conversion = lqx.deploy.convert(model)
    assert (conversion.report.binary, conversion.report.expected) == (3, 3)
    # A sum that float32 rounds across zero turns a sign, in one image of a hundred or so.
    equal = np.isclose(conversion.model.predict(images, verbose=0), expected, atol=1e-5).all(-1)
    assert equal.mean() > 0.9
    report = lqx.deploy.verify(model, conversion.flatbuffer, images)
    assert report.ok, report
    outputs = lqx.runtime.Interpreter(conversion.flatbuffer).predict(images)
    assert (outputs.argmax(-1) == expected.argmax(-1)).mean() > 0.98


def test_a_global_policy_of_half_precision_changes_nothing():
    model = network("siman")
    samples = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("float32")
    makes = (bake, lambda model: lqx.deploy.int8_edges(model, samples))
    expected = [make(model)(samples) for make in makes]
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        found = [make(model)(samples) for make in makes]
        assert lqx.deploy.lint(model).ok
        assert tf.keras.mixed_precision.global_policy().name == "mixed_float16"
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == tf.float32
        np.testing.assert_array_equal(one, other)


def test_layers_in_wrappers_become_float32_as_well():
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layer = tf.keras.layers.TimeDistributed(tf.keras.layers.Conv2D(4, 3))
        model = tf.keras.Sequential([tf.keras.Input((2, 6, 6, 3)), layer])
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    baked = bake(model)
    assert baked.output.dtype == tf.float32
    assert baked.layers[0].layer.compute_dtype == "float32"


def test_integers_stay_integers():
    lookup = tf.keras.layers.IntegerLookup(vocabulary=[3, 5])
    model = tf.keras.Sequential([tf.keras.Input((2,), dtype="int64"), lookup])
    values = tf.constant([[3, 5]], tf.int64)
    np.testing.assert_array_equal(bake(model)(values), model(values))


class Shifting(lq.quantizers.Quantizer):
    """A sign with a threshold that is trained, which is not known to be a plain sign."""

    precision = 1

    def build(self, input_shape):
        self.bias = self.add_weight("bias", (), initializer="ones")

    def call(self, inputs):
        return lq.math.sign(inputs + self.bias)


def test_a_baked_model_shares_nothing_with_its_original():
    quantizer = lqx.quantizers.LearnableScale()
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 3)),
            lq.layers.QuantConv2D(8, 3, input_quantizer=Shifting(), kernel_quantizer="ste_sign"),
            lqx.layers.QuantConv2D(4, 3, input_quantizer=quantizer),
        ]
    )
    randomize(model)
    baked = bake(model)
    assert not {id(v) for v in model.variables} & {id(v) for v in baked.variables}
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE
    assert quantizer.users == [model.layers[1].name] and quantizer.sharing is None


def own_function(x):
    return 2.0 * tf.nn.tanh(x)


def own_initializer(shape, dtype=None, **kwargs):
    return tf.ones(shape, dtype)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tf.keras.layers.Conv2D(4, 3, activation=own_function),
        lambda: tf.keras.layers.Conv2D(4, 3, kernel_initializer=own_initializer),
        lambda: lqx.layers.QuantConv2D(4, 3, activation=own_function, quantizer="siman"),
        lambda: lqx.layers.QuantConv2D(4, 3, activation=own_function, input_quantizer="ste_sign"),
        lambda: tf.keras.layers.Activation(lambda x: 3.0 * x),
        lambda: tf.keras.layers.Lambda(lambda x: 3.0 * x),
    ],
)
def test_functions_that_keras_cannot_find_by_name(make):
    model = one_layer(make(), (6, 6, 3))
    assert difference(model, bake(model), (6, 6, 3)) < TOLERANCE


def test_a_layer_that_cannot_be_made_again_is_named():
    class Nameless(tf.keras.layers.Layer):
        def __init__(self, factors):
            super().__init__(name="nameless")

    model = tf.keras.Sequential([tf.keras.Input((6,)), Nameless(tf.ones(3))])
    with pytest.raises(DeploymentError, match=r"'nameless' \(Nameless\).*needs a `get_config`"):
        bake(model)


@pytest.mark.parametrize(
    "activation",
    [lambda: tf.keras.layers.PReLU(shared_axes=[1, 2]), lqx.quantizers.LearnableScale],
)
@pytest.mark.parametrize(
    "kind", [lqx.layers.QuantConv2D, partial(lq.layers.QuantConv2DTranspose, strides=3)]
)
def test_activations_with_weights(kind, activation):
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    model = one_layer(kind(8, 3, activation=activation(), **quantizers), (6, 6, 3))
    baked = bake(model)
    check_binary(baked.layers[0])
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE


class Doubled(lqx.quantizers.BinaryQuantizer):
    alias = "doubled"

    def quantize(self, x, training):
        return 2.0 * lq.math.sign(x)

    def input_form(self):
        return lqx.quantizers.InputForm(scale=2.0)


@pytest.mark.parametrize("pad_values", [0.0, 1.0, 2.0, -2.0])
def test_borders_of_scaled_signs(pad_values):
    layer = lqx.layers.QuantConv2D(
        8,
        3,
        padding="same",
        pad_values=pad_values,
        input_quantizer=Doubled(),
        kernel_quantizer="ste_sign",
    )
    model = one_layer(layer, (6, 6, 3))
    baked = bake(model)
    if pad_values == 1.0:
        assert "set pad_values=2" in float_reasons(baked)[layer.name]
    else:
        check_binary(baked.layers[0])
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_transposed_convolutions_of_scaled_signs(padding):
    layer = lq.layers.QuantConv2DTranspose(
        8, 4, strides=2, padding=padding, input_quantizer=Doubled(), kernel_quantizer="ste_sign"
    )
    model = one_layer(layer, (6, 6, 3))
    baked = bake(model)
    check_binary(baked.layers[0])
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE


@pytest.mark.parametrize("layers", [lq.layers, lqx.layers])
def test_the_function_of_zeros_and_ones(layers):
    layer = layers.QuantConv2D(
        8,
        3,
        padding="same",
        pad_values=0.0,
        input_quantizer=lq.quantizers.ste_heaviside,
        kernel_quantizer="ste_sign",
    )
    model = one_layer(layer, (6, 6, 3))
    baked = bake(model)
    check_binary(baked.layers[0])
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE


class Clipped(tf.keras.layers.Layer):
    """What is named as if it were for training acts in `call`; functions have names."""

    def __init__(self, output_constraint="non_neg", activation="relu6", **kwargs):
        super().__init__(**kwargs)
        self.output_constraint = tf.keras.constraints.get(output_constraint)
        self.activation = getattr(tf.nn, activation)

    def call(self, inputs):
        return self.activation(self.output_constraint(inputs))

    def get_config(self):
        return {**super().get_config(), "output_constraint": "non_neg", "activation": "relu6"}


def test_layers_of_others_are_left_as_they_say():
    model = tf.keras.Sequential([tf.keras.Input((3,)), Clipped()])
    np.testing.assert_array_equal(bake(model)(tf.constant([[-1.0, 2.0, 9.0]])), [[0.0, 2.0, 6.0]])


class Positive(tf.keras.constraints.Constraint):
    def __call__(self, w):
        return tf.nn.relu(w)


def test_derived_classes_lose_what_is_for_latent_kernels():
    class Own(lq.layers.QuantConv2D):
        def call(self, inputs):
            return 2.0 * super().call(inputs)

    layer = Own(
        4,
        3,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        kernel_constraint=Positive(),
        kernel_regularizer="l2",
    )
    model = one_layer(layer, (6, 6, 3))
    baked = bake(model)
    assert baked.layers[0].kernel_constraint is None and not baked.losses
    assert difference(model, baked, (6, 6, 3)) < TOLERANCE


class Above(lqx.quantizers.FDA):
    def __init__(self, threshold=0.0, **kwargs):
        super().__init__(**kwargs)
        self.threshold = threshold

    def quantize(self, x, training):
        return super().quantize(x - self.threshold, training)


class AboveWithConfig(Above):
    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}


class FewTerms(lqx.quantizers.FDA):
    def __init__(self, n=5, **kwargs):
        super().__init__(n=n, **kwargs)


class WithMetrics(lqx.quantizers.FDA):
    """Keras' configuration names the metrics only where there are some."""

    def __init__(self, metrics=None, sharing=None, **kwargs):
        super().__init__(metrics=metrics, sharing=sharing, **kwargs)


def test_derived_quantizers_keep_their_arguments_or_are_named():
    def network(quantizer):
        layer = lqx.layers.QuantConv2D(4, 3, input_quantizer=quantizer, name="conv")
        return one_layer(layer, (6, 6, 3))

    for quantizer in (AboveWithConfig(0.5), FewTerms(), FewTerms(4), WithMetrics()):
        model = network(quantizer)
        assert difference(model, bake(model), (6, 6, 3)) < TOLERANCE
    with pytest.raises(DeploymentError, match=r"'conv' .*Above does not name \['threshold'\]"):
        bake(network(Above(0.5)))


def test_threads_leave_the_policy_as_it_was():
    model = one_layer(lqx.layers.QuantConv2D(4, 3, quantizer="fda"), (6, 6, 3))
    expected = bake(model)(tf.ones((1, 6, 6, 3)))
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(bake, [model] * 8))
        assert tf.keras.mixed_precision.global_policy().name == "mixed_float16"
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    for baked in found:
        np.testing.assert_array_equal(baked(tf.ones((1, 6, 6, 3))), expected)


@pytest.mark.parametrize(
    "activation",
    [
        tf.keras.layers.PReLU,
        lqx.quantizers.LearnableScale,
        lambda: lambda x: tf.math.l2_normalize(x, axis=1),
    ],
)
def test_activations_of_dense_layers_see_features(activation):
    layer = lqx.layers.QuantDense(4, activation=activation(), quantizer="learnable_scale")
    model = one_layer(layer, (6,))
    baked = bake(model)
    check_binary(baked.layers[0])
    assert difference(model, baked, (6,)) < TOLERANCE


def test_later_copies_share_among_themselves():
    shared = lqx.quantizers.LearnableScale(role="input")
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6,)),
            lqx.layers.QuantDense(6, input_quantizer=shared, kernel_quantizer="ste_sign"),
            lqx.layers.QuantDense(6, input_quantizer=shared),
        ]
    )
    baked = bake(model)
    one, other = tf.keras.models.clone_model(model).layers
    assert one.input_quantizer is other.input_quantizer
    assert one.input_quantizer is not baked.layers[1].input_quantizer


def test_what_only_training_needs_is_gone():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 3)),
            tf.keras.layers.Conv2D(4, 3, kernel_regularizer="l2", kernel_constraint="non_neg"),
            tf.keras.layers.BatchNormalization(gamma_regularizer="l2"),
            lqx.layers.QuantConv2D(4, 3, quantizer="siman", kernel_regularizer="l2"),
        ]
    )
    baked = bake(model)
    assert len(model.losses) == 3 and not baked.losses
    assert baked.layers[0].kernel_constraint is None


@pytest.mark.parametrize("quantizer", ["ste_sign", "siman", "magnitude_aware_sign"])
def test_metrics_of_training_do_not_notice(quantizer):
    with lq.context.metrics_scope(["flip_ratio"]):
        layer = lqx.layers.QuantConv2D(4, 3, input_quantizer="ste_sign", kernel_quantizer=quantizer)
        model = one_layer(layer, (6, 6, 3))
    metric = layer.kernel_quantizer.flip_ratio
    before = [variable.numpy() for variable in metric.variables]
    bake(model)
    lqx.deploy.lint(model)
    for variable, value in zip(metric.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_dense_layers_where_channels_come_first_by_default():
    tf.keras.backend.set_image_data_format("channels_first")
    try:
        quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        model = one_layer(lq.layers.QuantDense(4, **quantizers), (6,))
        baked = bake(model)
    finally:
        tf.keras.backend.set_image_data_format("channels_last")
    check_binary(baked.layers[0])
    assert difference(model, baked, (6,)) < TOLERANCE
