"""Layers: a method under one name, and everything that Larq's layers can do besides."""

import logging

import larq as lq
import numpy as np
import pytest
import table
import tensorflow as tf

import larq_ext as lqx
from larq_ext import quantizers as q

METHODS = (*table.METHOD_NAMES, "ste_sign")


def images(channels=4, size=(7, 6), samples=2, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, *size, channels)).astype("float32")


def binary_parts(layer, x):
    """Input and kernel as a plain layer has to see them."""
    inputs = layer.input_quantizer(tf.constant(x)) if layer.input_quantizer else x
    with lq.context.quantized_scope(True):
        kernel = tf.convert_to_tensor(layer.kernel)
    return np.asarray(inputs), np.asarray(kernel)


def randomized(layer, shape, seed=0):
    """Builds a layer and moves its parameters off their start values."""
    layer.build(shape)
    generator = np.random.default_rng(seed)
    for variable in layer.trainable_weights:
        if "bias" in variable.name or "scale" in variable.name:
            variable.assign(generator.uniform(0.5, 1.5, variable.shape).astype("float32"))
    return layer


def pad_same(x, kernel, strides, dilation, value):
    pads = [(0, 0)]
    for axis in (0, 1):
        span = (kernel.shape[axis] - 1) * dilation + 1
        total = max((-(-x.shape[axis + 1] // strides) - 1) * strides + span - x.shape[axis + 1], 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(x, [*pads, (0, 0)], constant_values=value)


def convolution(x, kernel, strides=1, dilation=1, groups=1):
    """Written out as sums, in float64."""
    height, width, per_group, filters = kernel.shape
    rows = (x.shape[1] - (height - 1) * dilation - 1) // strides + 1
    columns = (x.shape[2] - (width - 1) * dilation - 1) // strides + 1
    out = np.zeros((len(x), rows, columns, filters))
    each = filters // groups
    for group in range(groups):
        part = x[..., group * per_group : (group + 1) * per_group].astype(float)
        for i in range(height):
            for j in range(width):
                top, left = i * dilation, j * dilation
                window = part[
                    :,
                    top : top + (rows - 1) * strides + 1 : strides,
                    left : left + (columns - 1) * strides + 1 : strides,
                ]
                filters_of_group = kernel[i, j, :, group * each : (group + 1) * each]
                out[..., group * each : (group + 1) * each] += window @ filters_of_group
    return out


CONVOLUTIONS = [
    {},
    {"padding": "same"},
    {"padding": "same", "pad_values": 0.0},
    {"padding": "same", "pad_values": 1.0, "strides": 2},
    {"padding": "same", "pad_values": -1.0, "strides": 3},
    {"strides": 2, "use_bias": False},
    {"dilation_rate": 2, "padding": "same"},
    {"dilation_rate": (2, 2), "padding": "valid"},
    {"groups": 2, "padding": "same"},
    {"activation": "relu"},
    {"kernel_size": (2, 3), "padding": "same", "activation": "tanh"},
    {"kernel_size": 1, "data_format": "channels_last"},
]


@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_convolution_is_a_plain_one_of_the_binary_parts(name, arguments):
    """All arguments of Larq's layer still work."""
    arguments = {"kernel_size": 3, **arguments}
    layer = lqx.layers.QuantConv2D(6, quantizer=name, **arguments)
    x = images()
    randomized(layer, x.shape)
    inputs, kernel = binary_parts(layer, x)
    strides, dilation = layer.strides[0], layer.dilation_rate[0]
    if layer.padding == "same":
        assert layer.pad_values == arguments.get(
            "pad_values", 0.0 if name == "learnable_scale" else 1.0
        )
        inputs = pad_same(inputs, kernel, strides, dilation, layer.pad_values)

    expected = convolution(inputs, kernel, strides, dilation, layer.groups)
    if name == "siman":
        expected = expected * layer.scale.numpy()
    else:
        assert not hasattr(layer, "scale")
    if layer.use_bias:
        expected = expected + layer.bias.numpy()
    expected = np.asarray(layer.activation(expected))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tf.function(layer)(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"use_bias": False}, {"activation": "relu"}], ids=str)
@pytest.mark.parametrize("shape", [(5, 8), (3, 4, 8)])
@pytest.mark.parametrize("name", METHODS)
def test_dense_is_a_plain_one_of_the_binary_parts(name, shape, arguments):
    layer = lqx.layers.QuantDense(6, quantizer=name, **arguments)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    randomized(layer, x.shape)
    inputs, kernel = binary_parts(layer, x)
    expected = inputs @ kernel.astype(float)
    if name == "siman":
        expected = expected * layer.scale.numpy()
    if layer.use_bias:
        expected = expected + layer.bias.numpy()
    expected = np.asarray(layer.activation(expected))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tf.function(layer)(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [lambda **k: lqx.layers.QuantConv2D(5, 3, **k), lambda **k: lqx.layers.QuantDense(5, **k)],
    ids=["conv", "dense"],
)
def test_learned_scale_starts_at_the_mean_magnitude_and_has_a_gradient(make):
    """SiMaN's official code: one per output channel, after the convolution, no constraint."""
    layer = make(scale="learned", kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    x = tf.constant(images(size=(3, 3)))
    layer.build(x.shape)
    kernel = layer.kernel.numpy()
    np.testing.assert_allclose(
        layer.scale, np.abs(kernel).mean(tuple(range(kernel.ndim - 1))), rtol=1e-6
    )
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    unscaled = layer(x) / layer.scale
    expected = 2 * tf.reduce_sum(unscaled**2 * layer.scale, list(range(len(unscaled.shape) - 1)))
    np.testing.assert_allclose(tape.gradient(loss, layer.scale), expected, rtol=1e-4)
    assert layer.scale.constraint is None


class Steps(lqx.quantizers.BinaryQuantizer):
    alias = "steps"

    def quantize(self, x, training):
        return tf.cast(x > 0, x.dtype)

    def input_form(self):
        return lqx.quantizers.InputForm(zero_one=True)


class Signs(lqx.quantizers.BinaryQuantizer):
    alias = "signs"

    def quantize(self, x, training):
        return lq.math.sign(x)


@pytest.mark.parametrize(
    ("inputs", "padding"),
    [
        ("ste_sign", 1.0),
        (lq.quantizers.approx_sign, 1.0),
        ("siman", 1.0),
        ("ste_heaviside", 0.0),
        (lq.quantizers.ste_heaviside, 0.0),
        (Steps(), 0.0),
        (Signs(), 1.0),
    ],
)
@pytest.mark.parametrize("method", ["learnable_scale", "fda"])
def test_padding_is_of_the_inputs_values(inputs, padding, method):
    layer = lqx.layers.QuantConv2D(4, 3, padding="same", quantizer=method, input_quantizer=inputs)
    assert layer.pad_values == padding


def test_a_layer_without_a_method_is_larqs():
    kwargs = {"kernel_quantizer": "ste_sign", "input_quantizer": "ste_sign", "padding": "same"}
    kwargs["kernel_constraint"] = "weight_clip"
    ours = lqx.layers.QuantConv2D(4, 3, **kwargs)
    larqs = lq.layers.QuantConv2D(4, 3, **kwargs)
    x = images()
    ours(x), larqs(x)
    larqs.set_weights(ours.get_weights())
    np.testing.assert_array_equal(ours(x), larqs(x))
    assert ours.pad_values == larqs.pad_values == 0.0
    assert [w.name.split("/")[-1] for w in ours.weights] == ["kernel:0", "bias:0"]


LARQ = {
    "conv": lambda **k: lq.layers.QuantConv2D(5, 3, kernel_constraint="weight_clip", **k),
    "dense": lambda **k: lq.layers.QuantDense(5, kernel_constraint="weight_clip", **k),
}
OURS = {
    "our-conv": lambda **k: lqx.layers.QuantConv2D(5, 3, **k),
    "our-dense": lambda **k: lqx.layers.QuantDense(5, **k),
}
CLASSES = {
    "fda": q.FDA,
    "learnable_scale": q.LearnableScale,
    "siman": q.SiMaN,
    "mlp_classifier": q.MLPClassifier,
}
SPELLINGS = {
    "alias": lambda name: name,
    "class name": lambda name: CLASSES[name].__name__,
    "instance": lambda name: CLASSES[name](),
    "config": lambda name: lq.quantizers.serialize(CLASSES[name]()),
    "short config": lambda name: {"class_name": name, "config": {}},
    "class": lambda name: CLASSES[name],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", {**LARQ, **OURS})
@pytest.mark.parametrize("name", CLASSES)
def test_every_spelling_works_in_both_roles(name, kind, spelling):
    if spelling == "class" and kind in LARQ:
        pytest.skip("Larq calls a class with the tensor, its own classes too")
    role_in = {"input_quantizer": SPELLINGS[spelling](name)} if name != "mlp_classifier" else {}
    layer = {**LARQ, **OURS}[kind](kernel_quantizer=SPELLINGS[spelling](name), **role_in)
    x = images(size=(3, 3))
    y = layer(x)
    assert np.isfinite(y).all()
    assert type(layer.kernel_quantizer) is CLASSES[name]
    assert layer.kernel_quantizer.role == "kernel"
    if role_in:
        assert type(layer.input_quantizer) is CLASSES[name]
        assert layer.input_quantizer.role == "input"
        assert layer.input_quantizer is not layer.kernel_quantizer
    inputs, kernel = binary_parts(layer, x)
    assert len(np.unique(np.round(np.abs(kernel[..., 0]), 5))) == 1
    if role_in:
        assert len(np.unique(inputs)) == 2


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", {**LARQ, **OURS})
def test_the_classifier_is_no_quantizer_of_inputs(kind, spelling):
    if spelling == "class" and kind in LARQ:
        pytest.skip("Larq calls a class with the tensor, its own classes too")
    with pytest.raises(ValueError, match=r"no quantizer for inputs.*approx_sign"):
        layer = {**LARQ, **OURS}[kind](input_quantizer=SPELLINGS[spelling]("mlp_classifier"))
        layer(images(size=(3, 3)))
    assert not lq.context.should_quantize()


@pytest.mark.parametrize("wrong", ["fdaa", "SiMan", "ste", 3, ["fda"]])
def test_an_unknown_method_is_an_error_that_lists_the_known_ones(wrong):
    with pytest.raises(ValueError) as error:
        lqx.layers.QuantDense(2, quantizer=wrong)
    assert all(name in str(error.value) for name in METHODS)
    assert repr(wrong) in str(error.value)
    if wrong == "fdaa":
        assert "Did you mean fda?" in str(error.value)


def test_an_unknown_scale_is_an_error():
    with pytest.raises(ValueError, match=r"scale.*learned.*fixed"):
        lqx.layers.QuantDense(2, scale="fixed")


@pytest.mark.parametrize(("role", "argument"), [("input", "kernel_quantizer"),
                                                ("kernel", "input_quantizer")])  # fmt: skip
def test_a_quantizer_in_the_other_role_is_an_error(role, argument):
    with pytest.raises(ValueError, match=rf"{argument}.*SiMaN.*role='{role}'"):
        lqx.layers.QuantDense(2, **{argument: q.SiMaN(role=role)})
    both = q.FDA()
    with pytest.raises(ValueError, match=r"kernel_quantizer.*FDA.*input"):
        lqx.layers.QuantDense(2, input_quantizer=both, kernel_quantizer=both)


@pytest.mark.parametrize("name", CLASSES)
def test_one_instance_in_two_layers_shares_its_parameters(name):
    shared = CLASSES[name](role="kernel")
    one = lqx.layers.QuantDense(3, kernel_quantizer=shared)
    two = lqx.layers.QuantDense(3, kernel_quantizer=shared)
    for layer in (one, two):
        layer(tf.ones((1, 6)))
    assert one.kernel_quantizer is two.kernel_quantizer is shared
    mine = {id(v) for v in shared.weights}
    for layer in (one, two):
        assert mine <= {id(v) for v in layer.weights}


@pytest.mark.parametrize("layers", ["lq", "lqx"])
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("learnable_scale", [(6, 3), (6, 4)]),  # one alpha per channel
        ("fda", [(6, 3), (7, 3)]),  # the noise module mixes a filter
    ],
)
def test_one_instance_in_layers_that_disagree_is_a_clear_error(name, shapes, layers):
    shared = CLASSES[name](role="kernel")
    module = {"lq": lq.layers, "lqx": lqx.layers}[layers]
    (first_in, first_out), (second_in, second_out) = shapes
    module.QuantDense(first_out, kernel_quantizer=shared)(tf.ones((1, first_in)))
    with pytest.raises(ValueError, match=r"(?s)shares its parameters.*" + name):
        module.QuantDense(second_out, kernel_quantizer=shared)(tf.ones((1, second_in)))


@pytest.mark.parametrize("name", ["siman", "mlp_classifier"])
def test_parameters_that_know_no_shape_are_shared_by_all_shapes(name):
    shared = CLASSES[name](role="kernel")
    for units, channels in ((3, 6), (4, 7)):
        lqx.layers.QuantDense(units, kernel_quantizer=shared)(tf.ones((1, channels)))


def test_a_clone_begins_as_a_new_layer_does():
    """Scales with the kernel that the clone has drawn, other sizes and names as they are asked."""
    layer = lqx.layers.QuantDense(
        4, kernel_initializer="he_normal", quantizer="learnable_scale", name="first"
    )
    model = tf.keras.Sequential([tf.keras.Input((6,)), layer])
    clone = tf.keras.models.clone_model(model)
    (new,) = clone.layers
    np.testing.assert_allclose(
        new.kernel_quantizer.scale, np.abs(new.kernel.numpy()).mean(0), rtol=1e-6
    )
    assert [v.name for v in clone.variables] == [v.name for v in model.variables]
    config = {**lqx.layers.QuantDense(4, quantizer="fda").get_config(), "units": 5}
    used = lqx.layers.QuantDense(4, quantizer="fda")
    used(tf.ones((1, 6)))
    for settings in (config, {**used.get_config(), "units": 5}):
        assert lqx.layers.QuantDense.from_config(settings)(tf.ones((1, 7))).shape == (1, 5)


def test_a_loaded_model_has_the_names_of_the_one_that_was_saved(tmp_path):
    model = tf.keras.Sequential([tf.keras.Input((6,))])
    for units in (4, 3):
        model.add(lqx.layers.QuantDense(units, quantizer="fda"))
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert [v.name for v in loaded.variables] == [v.name for v in model.variables]
    loaded.compile("adam", "mse")
    loaded.fit(np.ones((4, 6)), np.ones((4, 3)), verbose=0)
    loaded.save(tmp_path / "model.h5")


def test_the_constraint_goes_with_the_class_of_the_kernel_quantizer(caplog):
    siman = lqx.layers.QuantDense(
        3, quantizer="siman", kernel_quantizer=q.SiMaN(selection="median")
    )
    assert isinstance(siman.kernel_constraint, q.MagnitudeClip)
    assert (
        lqx.layers.QuantDense(3, quantizer="siman", kernel_constraint=None).kernel_constraint
        is None
    )
    again = lqx.layers.QuantDense.from_config({**siman.get_config(), "kernel_constraint": None})
    assert again.kernel_constraint is None
    assert not caplog.records
    assert lqx.layers.QuantDense(3, quantizer="fda", kernel_quantizer="ste_sign")
    assert "kernel_constraint" in caplog.text  # Larq's advice


def test_integers_are_numbers():
    x = np.array([[1, 2, -3]])
    for name in ("fda", "learnable_scale", "siman"):  # inputs of the others are for Larq
        layer = lqx.layers.QuantDense(2, quantizer=name)
        np.testing.assert_array_equal(layer(x), layer(x.astype("float32")))
    scaled = q.LearnableScale(role="input", initial_scale=0.7)
    np.testing.assert_allclose(scaled(x), [[0.7, 0.7, 0.0]])


@pytest.mark.parametrize("name", CLASSES)
def test_each_part_of_a_method_can_be_overridden(name):
    layer = lqx.layers.QuantConv2D(
        3,
        3,
        padding="same",
        quantizer=name,
        input_quantizer="ste_sign",
        kernel_quantizer=q.SiMaN(selection="median"),
        kernel_constraint="non_neg",
        scale=None,
        pad_values=-1.0,
    )
    assert isinstance(layer.input_quantizer, lq.quantizers.SteSign)
    assert layer.kernel_quantizer.selection == "median"
    assert isinstance(layer.kernel_constraint, tf.keras.constraints.NonNeg)
    assert layer.scale_mode is None
    assert layer.pad_values == -1.0
    # The constraint belongs to the method's own kernel quantizer.
    other = lqx.layers.QuantDense(3, quantizer=name, kernel_quantizer="ste_sign")
    assert other.kernel_constraint is None
    assert lqx.layers.QuantDense(3, quantizer=name, scale="learned").scale_mode == "learned"


def test_what_each_method_consists_of():
    parts = {
        name: (
            type(layer.input_quantizer).__name__,
            type(layer.kernel_quantizer).__name__,
            type(layer.kernel_constraint).__name__,
            layer.scale_mode,
            layer.pad_values,
        )
        for name in METHODS
        for layer in [lqx.layers.QuantConv2D(2, 3, quantizer=name)]
    }
    assert parts == {
        "fda": ("FDA", "FDA", "NoneType", None, 1.0),
        "learnable_scale": ("LearnableScale", "LearnableScale", "NoneType", None, 0.0),
        "siman": ("SiMaN", "SiMaN", "MagnitudeClip", "learned", 1.0),
        "mlp_classifier": ("ApproxSign", "MLPClassifier", "NoneType", None, 1.0),
        "ste_sign": ("ApproxSign", "SteSign", "WeightClip", None, 1.0),
    }
    assert tuple(q.METHODS) == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_no_warning_of_starved_weights_for_a_method(name, caplog):
    """The methods without a constraint have none in their papers. Larq's logger stays as it is."""
    logger = logging.getLogger("larq.layers_base")
    with caplog.at_level(logging.WARNING, "larq.layers_base"):
        lqx.layers.QuantDense(2, quantizer=name)
        assert not caplog.records
        assert not logger.disabled
        lqx.layers.QuantDense(2, kernel_quantizer="ste_sign")
        assert len(caplog.records) == 1


@pytest.mark.parametrize("name", METHODS)
def test_all_weights_exist_after_build(name):
    layer = lqx.layers.QuantConv2D(3, 3, quantizer=name)
    layer.build((None, 8, 8, 4))
    before = [w.name for w in layer.weights]
    layer(images())
    assert [w.name for w in layer.weights] == before
    assert len(set(before)) == len(before)


@pytest.mark.parametrize("name", METHODS)
def test_an_error_in_a_layer_does_not_leave_the_scope_on(name):
    """Larq's own context manager would: the next step would overwrite latent weights."""

    def fail(x):
        raise RuntimeError("no")

    for layer, x in (
        (lqx.layers.QuantConv2D(2, 3, quantizer=name, activation=fail), images()),
        (lqx.layers.QuantDense(2, quantizer=name, activation=fail), np.ones((2, 4), "float32")),
    ):
        layer.build(x.shape)
        with pytest.raises(RuntimeError, match="no"):
            layer(x)
        assert not lq.context.should_quantize()
        wrong = np.ones((*x.shape[:-1], 3), "float32")
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            layer(wrong)
        assert not lq.context.should_quantize()
        with lq.context.quantized_scope(True):
            with pytest.raises(RuntimeError):
                layer(x)
            assert lq.context.should_quantize()


def test_the_constraint_keeps_latent_weights_latent_when_the_scope_is_on():
    layer = lqx.layers.QuantDense(8, quantizer="siman", use_bias=False)
    layer.build((None, 16))
    before = layer.kernel.numpy()
    optimizer = tf.keras.optimizers.SGD(0.01)
    with lq.context.quantized_scope(True):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(tf.ones((1, 16)))[:, ::2])
        variables = layer.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        direct = layer.kernel_constraint(layer.kernel).numpy()
    assert len(np.unique(np.abs(direct))) > 50
    after = layer.kernel.numpy()
    assert len(np.unique(np.abs(after))) > 50
    np.testing.assert_allclose(after, before, atol=0.2)


def test_quantizers_by_name_are_of_the_layers_own_type():
    layer = lqx.layers.QuantConv2D(
        4, 3, quantizer="fda", input_quantizer="ste_sign", dtype="mixed_bfloat16"
    )
    assert layer(tf.ones((1, 5, 5, 2))).dtype == tf.bfloat16


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_mixed_precision(name, dtype):
    """Variables stay in single precision, outputs are halves and close to those in single."""
    x = images(size=(4, 4))
    x = tf.cast(tf.cast(x, dtype[6:]), tf.float32).numpy()
    single = randomized(lqx.layers.QuantConv2D(5, 3, quantizer=name), x.shape)
    tf.keras.mixed_precision.set_global_policy(dtype)
    try:
        half = lqx.layers.QuantConv2D(5, 3, quantizer=name)
        half.build(x.shape)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    half.set_weights(single.get_weights())
    gradients, missing = [], []
    for layer in (single, half):
        with tf.GradientTape() as tape:
            y = layer(x, training=False)
            loss = tf.reduce_sum(tf.cast(y, tf.float32))
        gradients = tape.gradient(loss, layer.trainable_weights)
        missing.append([gradient is None for gradient in gradients])
    assert missing[0] == missing[1] and not all(missing[0])
    assert y.dtype == dtype[6:]
    assert all(w.dtype == tf.float32 for w in half.weights)
    assert all(g is None or (g.dtype == tf.float32 and np.isfinite(g).all()) for g in gradients)
    # Centred kernels near zero and centred inputs may change their sign by rounding.
    expected, actual = single(x, training=False).numpy(), tf.cast(y, tf.float32).numpy()
    scale = np.abs(expected).max()
    assert np.median(np.abs(expected - actual)) < 0.02 * scale
    assert np.mean(np.abs(expected - actual)) < 0.1 * scale


def test_channels_first_has_the_scale_on_the_right_axis():
    """Compiled, for the CPU has no other convolution of this format; as many columns as filters."""
    x = images(size=(6, 8))
    settings = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    last = lqx.layers.QuantConv2D(6, 3, scale="learned", **settings)
    first = lqx.layers.QuantConv2D(6, 3, scale="learned", data_format="channels_first", **settings)
    expected = randomized(last, x.shape)(x)
    turned = np.moveaxis(x, -1, 1)
    first.build(turned.shape)
    first.set_weights(last.get_weights())
    actual = tf.function(first, jit_compile=True)(turned)
    np.testing.assert_allclose(np.moveaxis(actual, 1, -1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *((name, "mixed_bfloat16") for name in METHODS),
        ("fda", "mixed_float16"),
        *(
            pytest.param(name, "mixed_float16", marks=pytest.mark.exhaustive)
            for name in METHODS
            if name != "fda"
        ),
    ],
)
def test_functional_model_in_mixed_precision(name, policy):
    """Keras builds layers that are called on a symbolic tensor in its autocast scope."""
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        image = tf.keras.Input((6, 6, 3))
        x = lqx.layers.QuantConv2D(4, 3, padding="same", quantizer=name)(image)
        x = tf.keras.layers.BatchNormalization()(x)
        x = lqx.layers.QuantDense(3, quantizer=name)(tf.keras.layers.Flatten()(x))
        model = tf.keras.Model(image, tf.keras.layers.Activation("softmax", dtype="float32")(x))
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(np.ones((4, 6, 6, 3), "float32"), np.arange(4) % 3, verbose=0)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert {weight.dtype for weight in model.trainable_weights} == {tf.float32}


@pytest.mark.parametrize("name", METHODS)
def test_a_scope_left_on_does_not_make_latent_weights_binary(name):
    layer = lqx.layers.QuantDense(3, quantizer=name, input_shape=(8,))
    model = tf.keras.Sequential([layer])
    model.compile("sgd", "mse")
    lq.context.quantized_scope(True).__enter__()
    model.fit(np.ones((4, 8), "float32"), np.ones((4, 3), "float32"), verbose=0)
    lq.context.quantized_scope(False).__enter__()
    assert len(np.unique(np.abs(layer.kernel.numpy()))) > 10


@pytest.mark.parametrize("library", [lq.layers, lqx.layers])
def test_a_quantizer_as_activation_quantizes_an_input(library):
    """Larq calls activations inside the scope in which it quantizes kernels."""
    activation = lqx.quantizers.FDA()
    model = tf.keras.Sequential([library.QuantDense(3, activation=activation, input_shape=(8,))])
    outputs = model.predict(np.random.default_rng(0).normal(size=(5, 8)), verbose=0)
    assert activation.role == "input"
    assert set(np.unique(np.abs(outputs))) == {1.0}


@pytest.mark.parametrize("quantizer", [q.FDA, q.SiMaN, q.LearnableScale, q.Int8])
@pytest.mark.parametrize("library", [lq.layers, lqx.layers])
def test_a_batch_of_known_size_is_no_kernel(library, quantizer):
    activation = quantizer()
    layer = library.QuantDense(6, activation=activation, kernel_quantizer="ste_sign")
    layer(tf.random.normal((4, 8)))
    assert activation.role == "input"


def test_padding_follows_the_quantizer_of_the_input():
    layer = lqx.layers.QuantConv2D
    assert layer(2, 3, quantizer="fda").pad_values == 1.0
    assert layer(2, 3, quantizer="learnable_scale").pad_values == 0.0
    assert layer(2, 3, quantizer="fda", input_quantizer="learnable_scale").pad_values == 0.0
    for name in ("fda", "learnable_scale"):
        assert layer(2, 3, quantizer=name, input_quantizer="ste_sign").pad_values == 1.0
    assert layer(2, 3).pad_values == 0.0

    several = lqx.layers.QuantConv2D(2, 3, quantizer="fda", input_quantizer=lq.quantizers.DoReFa(2))
    assert several.pad_values == 0.0
    bits = layer(2, 3, quantizer="fda", input_quantizer=lq.quantizers.DoReFa(1))
    assert bits.pad_values == 0.0
    assert layer(2, 3, quantizer="fda", input_quantizer="int8").pad_values == 0.0
    assert layer(2, 3, 1, "same", -1.0, quantizer="fda").pad_values == -1.0


@pytest.mark.parametrize("name", METHODS)
def test_an_error_in_a_layer_does_not_change_its_padding(name):
    """Larq sets it to "valid" while it pads by itself, and after an error left it so."""

    def fail(x):
        raise RuntimeError("no")

    layer = lqx.layers.QuantConv2D(
        2, 3, padding="same", pad_values=1.0, quantizer=name, activation=fail
    )
    with pytest.raises(RuntimeError, match="no"):
        layer(images())
    assert layer.get_config()["padding"] == "same"


def test_channels_that_are_not_last_are_refused_where_noise_would_mix_others():
    layer = lqx.layers.QuantConv2D
    with pytest.raises(ValueError, match=r'"channels_last", or input_quantizer=FDA\(noise=False\)'):
        layer(2, 3, quantizer="fda", data_format="channels_first")
    quiet = lqx.quantizers.FDA(noise=False)
    layer(2, 3, quantizer="fda", input_quantizer=quiet, data_format="channels_first")


def test_a_renamed_clone_does_not_share_with_the_original():
    shared = lqx.quantizers.MLPClassifier(hidden=2)
    layers = [
        lqx.layers.QuantDense(4, kernel_quantizer=shared, input_shape=(4,), name=f"dense{i}")
        for i in range(2)
    ]
    model = tf.keras.Sequential(layers)

    def rename(layer):
        return type(layer).from_config({**layer.get_config(), "name": f"{layer.name}_again"})

    for _ in range(2):
        clone = tf.keras.models.clone_model(model, clone_function=rename)
        one, other = (layer.kernel_quantizer for layer in clone.layers)
        assert one is other and one is not shared


def test_layers_that_cannot_share_through_a_file_say_so(tmp_path):
    shared = lqx.quantizers.MLPClassifier(hidden=2)
    layers = [lq.layers.QuantDense(4, kernel_quantizer=shared, input_shape=(4,)) for _ in range(2)]
    tf.keras.Sequential(layers).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"larq_ext\.layers"):
        tf.keras.models.load_model(tmp_path / "model.keras")
