"""Networks with another method: latent weights, float layers, sharing and names stay."""

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_ext.deploy.bake import float_reasons
from larq_ext.models import requantize
from larq_ext.quantizers import METHODS, LearnableScale

CONVOLUTIONS = (lq.layers.QuantConv2D, lq.layers.QuantDense)


def binary(layer=lq.layers.QuantConv2D, *args, **kwargs):
    return layer(
        *args,
        **{
            "input_quantizer": lq.quantizers.SteSign(1.25),
            "kernel_quantizer": "magnitude_aware_sign",
            "kernel_constraint": "weight_clip",
            **kwargs,
        },
    )


def randomize(model, seed=0):
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.1, 1.0, w.shape) for w in model.get_weights()])
    for layer in model._flatten_layers():
        if isinstance(layer, CONVOLUTIONS):
            layer.kernel.assign(generator.normal(size=layer.kernel.shape, scale=0.5))
    return model


def network(quantizer=None, **kwargs):
    """Convolutions with everything that can be set, a dense layer and float layers between."""
    layers, arguments = lq.layers, dict
    if quantizer is not None:
        layers, arguments = lqx.layers, lqx.quantizers.network_arguments(quantizer)

    def quant(kind, *args, **settings):
        make = getattr(layers, kind)
        if quantizer is None:
            return binary(make, *args, **settings)
        return make(*args, **settings, **arguments())

    image = tf.keras.Input((12, 12, 3))
    x = lq.layers.QuantConv2D(8, 3, name="stem")(image)
    x = quant(
        "QuantConv2D", 16, 3, strides=2, groups=2, padding="same", use_bias=True, name="a", **kwargs
    )(x)
    x = tf.keras.layers.BatchNormalization(name="norm")(x)
    y = quant(
        "QuantConv2D", 16, 3, dilation_rate=2, padding="same", activation="relu", name="b", **kwargs
    )
    x = x + y(x)
    x = tf.keras.layers.Flatten(name="flat")(x)
    x = quant("QuantDense", 7, name="c", kernel_regularizer="l2")(x)
    x = tf.keras.layers.Dense(3, activation="softmax", name="top")(x)
    return randomize(tf.keras.Model(image, x, name="net"))


def images(model, samples=3):
    return np.random.default_rng(1).normal(size=(samples, *model.input_shape[1:])).astype("float32")


def latent(layer):
    return layer.kernel.numpy()


@pytest.mark.parametrize("method", METHODS)
def test_weights_names_and_settings_stay(method):
    source = network(pad_values=-1.0)
    model = requantize(source, method)
    assert model.name == "net"
    assert [layer.name for layer in model.layers] == [layer.name for layer in source.layers]
    for layer in source.layers:
        new = model.get_layer(layer.name)
        own = {v.name.split(":")[0]: v.numpy() for v in layer.weights}
        kept = {v.name.split(":")[0]: v.numpy() for v in new.weights}
        for name, value in own.items():
            np.testing.assert_array_equal(kept[name], value)
    zero_one = method == "learnable_scale"
    for name in "abc":
        old, new = source.get_layer(name), model.get_layer(name)
        assert type(new).__module__ == "larq_ext.layers"
        for setting in ("strides", "groups", "dilation_rate", "padding", "activation", "use_bias"):
            assert getattr(new, setting, None) == getattr(old, setting, None)
        if name != "c":
            assert new.pad_values == (0.0 if zero_one else -1.0)
        assert new.quantizer == method
        expected = METHODS[method].arguments()
        for part in ("input_quantizer", "kernel_quantizer", "kernel_constraint"):
            assert type(getattr(new, part)) is type(expected[part])
    assert isinstance(model.get_layer("c").kernel_regularizer, tf.keras.regularizers.L2)
    assert type(model.get_layer("stem")) is lq.layers.QuantConv2D
    # The old one is as it was.
    assert isinstance(source.get_layer("a").input_quantizer, lq.quantizers.SteSign)


@pytest.mark.parametrize("method", METHODS)
def test_the_method_it_has_changes_no_bit_of_the_output(method):
    source = network(method)
    if method == "learnable_scale":  # parameters that have been trained
        source.get_layer("a").input_quantizer.scale.assign(0.7)
        alpha = source.get_layer("b").kernel_quantizer.scale
        alpha.assign(np.linspace(-1, 1, 16))
    model = requantize(source, method)
    x = images(source)
    np.testing.assert_array_equal(model(x, training=False), source(x, training=False))
    assert len(model.weights) == len(source.weights)


def test_another_method_is_the_layer_built_with_it():
    """Against the definition: plain numpy for a kernel by magnitude with a learned scale."""
    source = network()
    model = requantize(source, "siman")
    kernel = latent(source.get_layer("b"))
    columns = kernel.reshape(-1, kernel.shape[-1])
    columns = np.abs(columns - columns.mean(0))
    rank = columns.argsort(0, kind="stable").argsort(0)
    signs = np.where(rank >= (len(columns) + 1) // 2, 1.0, -1.0).reshape(kernel.shape)
    layer = model.get_layer("b")
    np.testing.assert_array_equal(layer.kernel_quantizer(tf.constant(kernel)), signs)
    np.testing.assert_allclose(layer.scale, np.abs(kernel).mean((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_half_precision_stays_one(method):
    """Though Keras' own policy is another by now, as after loading a file."""
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        source = network()
        expected = requantize(source, method)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    model = requantize(source, method)
    for layer in model.layers[1:]:
        assert layer.dtype_policy.name == "mixed_bfloat16"
    x = images(source)
    np.testing.assert_array_equal(model(x), expected(x))


class Above(lqx.quantizers.FDA):
    """Has no configuration of its own."""

    def __init__(self, threshold=0.0, **kwargs):
        super().__init__(**kwargs)
        self.threshold = threshold


@pytest.mark.parametrize("choice", [{"kernel_quantizer": "siman"}, lambda layer: None])
def test_arguments_that_would_be_lost_are_named(choice):
    layer = lqx.layers.QuantConv2D(
        4, 3, input_quantizer=Above(0.5), kernel_quantizer="fda", name="a"
    )
    model = tf.keras.Sequential([tf.keras.Input((6, 6, 3)), layer])
    with pytest.raises(ValueError, match=r"Above does not name \['threshold'\]"):
        requantize(model, choice)
    replaced = requantize(model, "siman").get_layer("a")
    assert isinstance(replaced.input_quantizer, lqx.quantizers.SiMaN), "nothing of it was kept"


def test_float_layers_compute_what_they_did():
    source = network()
    model = requantize(source, "fda")
    x = images(source)
    stems = [tf.keras.Model(m.input, m.get_layer("stem").output)(x) for m in (source, model)]
    np.testing.assert_array_equal(*stems)
    features = np.random.default_rng(2).normal(size=(2, 7)).astype("float32")
    tops = [m.get_layer("top")(features) for m in (source, model)]
    np.testing.assert_array_equal(*tops)


def test_learned_scales_begin_with_the_kernels():
    model = requantize(network(), "learnable_scale")
    for name, axes in (("a", (0, 1, 2)), ("c", (0,))):
        layer = model.get_layer(name)
        expected = np.abs(latent(layer)).mean(axes)
        np.testing.assert_allclose(layer.kernel_quantizer.scale, expected, rtol=1e-6)


def test_one_classifier_serves_the_whole_network_models_inside_included():
    inner = tf.keras.Sequential(
        [tf.keras.Input((8, 8, 8)), binary(lq.layers.QuantConv2D, 8, 3)], name="inner"
    )
    model = tf.keras.Sequential(
        [tf.keras.Input((8, 8, 8)), inner, binary(lq.layers.QuantConv2D, 4, 3, name="outer")]
    )
    new = requantize(model, "mlp_classifier")
    first = new.get_layer("inner").layers[0].kernel_quantizer
    assert first is new.get_layer("outer").kernel_quantizer
    np.testing.assert_array_equal(latent(new.get_layer("inner").layers[0]), latent(inner.layers[0]))


@pytest.mark.parametrize("method", ["fda", "learnable_scale", "siman"])
def test_a_half_that_is_float_stays_float(method):
    image = tf.keras.Input((8, 8, 4))
    x = binary(lq.layers.QuantConv2D, 4, 3, input_quantizer=None, pad_values=1.0, name="w")(image)
    x = binary(
        lq.layers.QuantConv2D,
        4,
        3,
        padding="same",
        kernel_quantizer=None,
        kernel_constraint="non_neg",
        name="x",
    )(x)
    x = binary(lq.layers.QuantConv2D, 4, 3, input_quantizer=lq.quantizers.DoReFa(2), name="d")(x)
    model = requantize(tf.keras.Model(image, x), method)
    weights_only, inputs_only, two_bits = (model.get_layer(name) for name in "wxd")
    assert weights_only.input_quantizer is None
    assert weights_only.kernel_quantizer.alias == method
    assert weights_only.pad_values == 1.0
    assert inputs_only.kernel_quantizer is None
    assert inputs_only.scale_mode is None
    assert isinstance(inputs_only.kernel_constraint, tf.keras.constraints.NonNeg)
    assert inputs_only.input_quantizer.alias == method
    assert two_bits.input_quantizer.precision == 2
    assert two_bits.kernel_quantizer.alias == method


def test_padding():
    def padding(source, *args, **kwargs):
        return requantize(source, *args, **kwargs).layers[0].pad_values

    def one(make=lq.layers.QuantConv2D, **kwargs):
        layer = make(2, 3, padding="same", **kwargs)
        return tf.keras.Sequential([tf.keras.Input((5, 5, 2)), layer])

    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    zeros, ones = one(**signs), one(**signs, pad_values=1.0)
    bits = one(lqx.layers.QuantConv2D, quantizer="learnable_scale")
    assert padding(zeros, "fda") == 0.0
    assert padding(ones, "fda") == 1.0
    assert padding(ones, "learnable_scale") == 0.0  # 1 would be a third value
    assert padding(bits, "fda") == 1.0
    assert padding(ones, None) == 0.0
    assert padding(zeros, "fda", pad_values=1.0) == 1.0
    assert padding(zeros, {"quantizer": "fda", "pad_values": 0.5}) == 0.5
    alone = requantize(zeros, {"pad_values": 1.0}).layers[0]
    assert alone.pad_values == 1.0 and isinstance(alone.kernel_quantizer, lq.quantizers.SteSign)
    np.testing.assert_array_equal(latent(alone), latent(zeros.layers[0]))
    assert padding(zeros, lambda layer: {"pad_values": 1.0}) == 1.0
    with pytest.raises(ValueError, match="no layer to requantize"):
        requantize(ones, {"pad_values": 1.0})  # as they are


def test_arguments_instead_of_a_name():
    quantizer = LearnableScale(role="kernel", initial_scale=0.5)
    source = network()
    model = requantize(source, {"kernel_quantizer": quantizer})
    a, b = model.get_layer("a"), model.get_layer("b")
    assert a.kernel_quantizer is not b.kernel_quantizer is not quantizer
    assert a.kernel_quantizer.initial_scale == 0.5
    assert a.kernel_constraint is None
    assert isinstance(a.input_quantizer, lq.quantizers.SteSign)
    assert a.input_quantizer.clip_value == 1.25
    only_inputs = requantize(source, {"input_quantizer": "fda"}).get_layer("a")
    assert isinstance(only_inputs.input_quantizer, lqx.quantizers.FDA)
    assert isinstance(only_inputs.kernel_quantizer, lq.quantizers.MagnitudeAwareSign)
    assert isinstance(only_inputs.kernel_constraint, lq.constraints.WeightClip)


def test_a_function_chooses_by_layer():
    source = network()
    model = requantize(source, lambda layer: {"a": "fda", "b": None}.get(layer.name, "siman"))
    assert [getattr(model.get_layer(name), "quantizer", "old") for name in "abc"] == [
        "fda",
        "old",
        "siman",
    ]
    np.testing.assert_array_equal(latent(model.get_layer("b")), latent(source.get_layer("b")))


def test_none_is_the_float_network_of_the_latent_weights():
    source = network()
    model = requantize(source, None)
    x = images(source)
    conv = source.get_layer("a")
    before = tf.keras.Model(model.input, model.get_layer("stem").output)(x)
    after = tf.keras.Model(model.input, model.get_layer("a").output)(x)
    expected = tf.nn.conv2d(before, latent(conv), 2, "SAME") + conv.bias
    np.testing.assert_allclose(after, expected, atol=1e-5)


def signs_apart(sign, followers=2, pool=False):
    image = tf.keras.Input((8, 8, 4))
    x = tf.keras.layers.BatchNormalization()(image)
    x = sign(x)
    if pool:
        x = tf.keras.layers.MaxPool2D(2)(x)
    outputs = [
        binary(
            lq.layers.QuantConv2D,
            6,
            3,
            input_quantizer=None,
            padding="same",
            use_bias=False,
            name=f"c{i}",
        )(x)
        for i in range(followers)
    ]
    return randomize(tf.keras.Model(image, outputs))


@pytest.mark.parametrize(
    "sign",
    [
        lambda: lq.quantizers.SteSign(name="sign"),
        lambda: tf.keras.layers.Activation(lq.quantizers.ApproxSign(), name="sign"),
    ],
)
def test_one_sign_before_two_convolutions_is_one_quantizer(sign):
    source = signs_apart(sign())
    model = requantize(source, "learnable_scale")
    first, second = (model.get_layer(f"c{i}").input_quantizer for i in range(2))
    assert first is second
    assert isinstance(first, LearnableScale)
    x = images(source)
    np.testing.assert_array_equal(model.get_layer("sign")(x), x)
    back = requantize(model, "ste_sign", pad_values=0.0)
    scales = [latent(source.get_layer(f"c{i}")) for i in range(2)]
    for kernel, old, new in zip(scales, source(x), back(x), strict=True):
        np.testing.assert_allclose(new * np.abs(kernel).mean((0, 1, 2)), old, rtol=1e-5, atol=1e-5)
    bits = lqx.deploy.bake(model)
    for old, new in zip(model(x), bits(x), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
    assert not float_reasons(bits)


def test_a_sign_with_another_follower_stays_a_layer():
    source = signs_apart(lq.quantizers.SteSign(name="sign"), pool=True)
    model = requantize(source, "fda")
    assert isinstance(model.get_layer("sign"), lqx.quantizers.FDA)
    assert model.get_layer("c0").input_quantizer is None
    assert model.get_layer("c0").kernel_quantizer.alias == "fda"
    np.testing.assert_array_equal(model.get_layer("sign")(images(source)), np.sign(images(source)))


def test_a_sign_layer_used_twice_becomes_two_quantizers():
    """One with parameters could not serve 4 and 6 channels."""
    sign = lq.quantizers.SteSign(name="sign")
    image = tf.keras.Input((8, 8, 4))
    x = binary(lq.layers.QuantConv2D, 6, 3, input_quantizer=None, name="c0")(sign(image))
    x = binary(lq.layers.QuantConv2D, 6, 3, input_quantizer=None, name="c1")(sign(x))
    model = requantize(tf.keras.Model(image, x), "fda")
    assert model.get_layer("c0").input_quantizer is not model.get_layer("c1").input_quantizer


def test_an_activation_of_signs_is_replaced():
    image = tf.keras.Input((8, 8, 4))
    sign = lq.quantizers.SteSign()
    x = tf.keras.layers.Conv2D(6, 3, activation=sign, name="stem")(image)
    x = binary(lq.layers.QuantConv2D, 6, 3, input_quantizer=None, name="c")(x)
    source = randomize(tf.keras.Model(image, x))
    model = requantize(source, "fda")
    assert isinstance(model.get_layer("stem").activation, lqx.quantizers.FDA)
    np.testing.assert_array_equal(
        model.get_layer("stem")(images(source)), source.get_layer("stem")(images(source))
    )


def test_shared_layers_stay_shared_across_models():
    conv = binary(lq.layers.QuantConv2D, 4, 3, padding="same", name="shared")
    head = tf.keras.Input((8, 8, 4))
    inner = tf.keras.Model(head, conv(head), name="inner")
    left, right = tf.keras.Input((8, 8, 4)), tf.keras.Input((8, 8, 4))
    outputs = [conv(left), inner(conv(right)), inner(left)]
    source = randomize(tf.keras.Model([left, right], outputs))
    model = requantize(source, "ste_sign")
    assert model.get_layer("shared") is model.get_layer("inner").get_layer("shared")
    assert model.count_params() == source.count_params()
    x = np.random.default_rng(0).normal(size=(2, 2, 8, 8, 4)).astype("float32")
    expected = requantize(tf.keras.Model(head, conv(head)), "ste_sign")
    one, two, three = model(list(x))
    np.testing.assert_array_equal(one, expected(x[0]))
    np.testing.assert_array_equal(two, expected(expected(x[1])))
    np.testing.assert_array_equal(three, expected(x[0]))


def depthwise(name="depthwise"):
    return lq.layers.QuantDepthwiseConv2D(
        3,
        input_quantizer="ste_sign",
        depthwise_quantizer="ste_sign",
        depthwise_constraint="weight_clip",
        name=name,
    )


def test_other_kinds_of_layers_stay_and_are_named():
    class Own(lq.layers.QuantConv2D):
        pass

    source = tf.keras.Sequential(
        [
            tf.keras.Input((9, 9, 4)),
            depthwise(),
            binary(Own, 4, 3, name="own"),
            binary(lq.layers.QuantConv2DTranspose, 4, 3, name="transposed"),
            binary(lq.layers.QuantConv2D, 4, 3, name="conv"),
        ]
    )
    with pytest.warns(UserWarning, match=r"depthwise \(QuantDepthwiseConv2D\), own \(Own\), tran"):
        model = requantize(source, "fda")
    x = images(source)
    for name in ("depthwise", "own", "transposed"):
        np.testing.assert_array_equal(source.get_layer(name)(x), model.get_layer(name)(x))
    assert model.get_layer("conv").quantizer == "fda"
    with pytest.raises(ValueError, match="depthwise"):
        requantize(source, "fda", unsupported="raise")


def test_functions_of_derived_classes_stay():
    class Own(lq.layers.QuantConv2D):
        pass

    own = Own(
        4,
        3,
        activation=own_function,
        input_quantizer=lq.quantizers.ste_sign,
        kernel_quantizer=lq.quantizers.ste_sign,
        name="own",
    )
    source = tf.keras.Sequential([tf.keras.Input((7, 7, 4)), own, binary(filters=4, kernel_size=3)])
    with pytest.warns(UserWarning, match=r"own \(Own\)"):
        model = requantize(source, "fda")
    x = images(source)
    np.testing.assert_array_equal(model.get_layer("own")(x), own(x))


def test_no_method_among_arguments_is_no_choice_of_inputs():
    source = signs_apart(lq.quantizers.SteSign(), pool=True)
    with pytest.raises(ValueError, match="no layer to requantize"):
        requantize(source, {"quantizer": None})
    model = requantize(source, {"quantizer": None, "kernel_quantizer": "fda"})
    assert not any(isinstance(layer, lqx.quantizers.FDA) for layer in model.layers)


def test_saves_and_trains_further(tmp_path):
    model = requantize(network(), "learnable_scale")
    x, y = images(model, 8), np.arange(8) % 3
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    before = [w.numpy() for w in model.trainable_weights]
    model.train_on_batch(x, y)
    assert all(
        (old != new.numpy()).any() for old, new in zip(before, model.trainable_weights, strict=True)
    )
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))


def subclassed():
    class Model(tf.keras.Model):
        pass

    return Model()


def wrapped():
    inner = binary(lq.layers.QuantDense, 2, name="inside")
    return tf.keras.Sequential([tf.keras.Input((3, 4)), tf.keras.layers.TimeDistributed(inner)])


def test_what_was_adapted_to_data_stays():
    norm = tf.keras.layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(5.0, 2.0, size=(256, 3)))
    dense = lq.layers.QuantDense(4, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
    source = tf.keras.Sequential([tf.keras.Input((3,)), norm, dense])
    x = np.random.default_rng(1).normal(5.0, 2.0, size=(4, 3)).astype("float32")
    new = requantize(source, "fda").layers[0]
    np.testing.assert_allclose(new(x), norm(x), rtol=1e-6)


def test_parameters_of_a_sign_that_is_dissolved_stay():
    image = tf.keras.Input((6,))
    sign = lqx.quantizers.LearnableScale(role="input")
    dense = lq.layers.QuantDense(4, kernel_quantizer=lqx.quantizers.LearnableScale(role="kernel"))
    source = tf.keras.Model(image, dense(sign(image)))
    sign.scale.assign(0.3)
    model = requantize(source, "learnable_scale")
    assert model.layers[-1].input_quantizer.scale.numpy() == np.float32(0.3)
    np.testing.assert_allclose(model(images(source)), source(images(source)), rtol=1e-5)


def own_function(x):
    return 2.0 * tf.nn.tanh(x)


def test_activations_that_keras_cannot_find_by_name():
    source = tf.keras.Sequential(
        [
            tf.keras.Input((3,)),
            tf.keras.layers.Dense(4, activation=own_function),
            lq.layers.QuantDense(
                2, activation=own_function, input_quantizer="ste_sign", kernel_quantizer="ste_sign"
            ),
        ]
    )
    model = requantize(source, "ste_sign")
    np.testing.assert_array_equal(model(images(source)), source(images(source)))


def plain():
    return tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda: "model.keras", {}, "tf.keras.Model, received str"),
        (subclassed, {}, "subclass of tf.keras.Model"),
        (wrapped, {}, "holds quantized layers .inside."),
        (plain, {}, "no layer to requantize"),
        (lambda: lqx.deploy.bake(network()), {}, "baked already"),
        (network, {"quantizer": "fdaa"}, "Did you mean fda"),
        (network, {"quantizer": {"kernel_quantiser": "fda"}}, "Did you mean kernel_quantizer"),
        (network, {"quantizer": lambda layer: None}, "that `quantizer` chooses"),
        (network, {"quantizer": lqx.quantizers.FDA()}, r"received FDA: .*kernel_quantizer.: FDA"),
        (network, {"quantizer": lqx.quantizers.SiMaN}, "received SiMaN: say what it is for"),
        (network, {"quantizer": lambda layer: lqx.quantizers.FDA()}, "received FDA: say"),
        (network, {"unsupported": "ignore"}, r"\['warn', 'raise'\], received 'ignore'"),
    ],
)
def test_wrong_use(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        requantize(make(), **arguments)


# Larq Zoo: a few up to their fourth binary kernel, and with LARQ_EXT_TEST_ALL=1 all of all.
NETWORKS = {
    "QuickNetSmall": ("sota", 96),
    "BiRealNet": ("literature", 64),
    "BinaryResNetE18": ("literature", 64),
    "BinaryDenseNet28": ("literature", 64),
    "MeliusNet22": ("literature", 64),
    "BinaryAlexNet": ("literature", 99),
    "RealToBinaryNet": ("literature", 64),
    "XNORNet": ("literature", 227),
    "DoReFaNet": ("literature", 227),
}
CONVERTED = [("QuickNetSmall", "learnable_scale"), ("BiRealNet", "fda")]
BAKED = [("MeliusNet22", "mlp_classifier")]
FLOAT_INPUTS = {"DoReFaNet"}  # inputs of two bits stay: no method makes such layers binary


def larq_zoo_network(name, kernels=None):
    zoo = pytest.importorskip("larq_zoo")
    family, size = NETWORKS[name]
    build = getattr(getattr(zoo, family), name)
    model = build(weights=None, input_shape=(size, size, 3), num_classes=10)
    if kernels is None:
        return model
    last = [la for la in model.layers if getattr(la, "kernel_quantizer", None)][kernels - 1]
    return tf.keras.Model(model.input, last.output)


def check(source, method):
    """Requantizes, takes a step and bakes; returns the model and images."""
    model = requantize(source, method)
    for old, new in zip(source.layers, model.layers, strict=True):
        assert new.name == old.name
        if hasattr(old, "kernel"):
            np.testing.assert_array_equal(latent(new), latent(old))
    x = images(source, 2)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(np.isfinite(np.asarray(g)).all() for g in gradients if g is not None)
    optimizer = tf.keras.optimizers.SGD(0.01, jit_compile=False)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    for layer in model.layers:  # no sums that are exactly zero: rounding would decide on the sign
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            mean = layer.moving_mean
            mean.assign_add(tf.random.normal(mean.shape, stddev=0.1 * tf.math.reduce_std(mean)))
    expected = model(x).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(lqx.deploy.bake(model)(x), expected, atol=1e-5 * scale)
    return model, x


def check_converted(model, x):
    pytest.importorskip("larq_compute_engine")
    conversion = lqx.deploy.convert(model)
    assert conversion.report.ok
    assert lqx.deploy.verify(model, conversion.flatbuffer, x).ok


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), CONVERTED + BAKED)
def test_the_beginning_of_larq_zoo_networks(name, method):
    model, x = check(larq_zoo_network(name, kernels=4), method)
    if (name, method) in CONVERTED:
        check_converted(model, x)


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_of_larq_zoo(name, method):
    model, x = check(larq_zoo_network(name), method)
    if name not in FLOAT_INPUTS:
        check_converted(model, x)
        return
    with pytest.raises(lqx.deploy.DeploymentError):
        lqx.deploy.convert(model)


def test_a_network_that_shares_less_is_not_filled_up_by_the_next_copy():
    """The layer that was given another method left a place among those that share."""
    shared = lqx.quantizers.MLPClassifier(hidden=2)
    layers = [
        lqx.layers.QuantDense(4, kernel_quantizer=shared, input_shape=(4,), name=f"dense{i}")
        for i in range(3)
    ]
    model = tf.keras.Sequential(layers)
    other = requantize(model, lambda layer: "siman" if layer.name == "dense0" else None)
    clone = tf.keras.models.clone_model(model)
    parts = [layer.kernel_quantizer for layer in clone.layers]
    assert parts[0] is parts[1] is parts[2] is not other.layers[1].kernel_quantizer
    assert other.layers[1].kernel_quantizer is other.layers[2].kernel_quantizer
    again = tf.keras.models.clone_model(other)
    assert again.layers[1].kernel_quantizer is again.layers[2].kernel_quantizer
    assert again.layers[1].kernel_quantizer is not other.layers[1].kernel_quantizer
