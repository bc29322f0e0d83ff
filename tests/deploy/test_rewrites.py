"""Rewrites change nothing but the deployed form: random networks, outputs equal."""

import numpy as np
import pytest

import larq_ext as lqx

import larq as lq  # isort: skip
import tensorflow as tf  # isort: skip

from larq_ext.deploy import REWRITES, applied_rewrites, audit, bake, convert
from larq_ext.deploy._transposed import geometry, phase_kernel
from larq_ext.runtime import Interpreter

layers = tf.keras.layers


def binary(filters, kernel_size=3, kernel_quantizer="magnitude_aware_sign", **kwargs):
    settings = {"padding": "same", "pad_values": 1.0, "use_bias": False, **kwargs}
    return lq.layers.QuantConv2D(
        filters,
        kernel_size,
        input_quantizer="ste_sign",
        kernel_quantizer=kernel_quantizer,
        **settings,
    )


def random_weights(model, seed, signs=(1,)):
    """Random weights; scales of norms have the signs that are given."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        values = [generator.normal(size=weight.shape) for weight in layer.get_weights()]
        if isinstance(layer, layers.BatchNormalization):
            values[-1] = 0.5 + np.abs(values[-1])
            values[0] = (0.2 + np.abs(values[0])) * generator.choice(signs, values[0].shape)
            # What a convolution of signs gives is some units large.
            values[2] = 5 * values[2]
        layer.set_weights(values)
    return model


def images(model, seed, count=4):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, *model.input_shape[1:])).astype("float32")


def check(model, expected, without=(), seed=0):
    """All four agree: Keras, baked with and without the rewrites, and the engine."""
    x = images(model, seed)
    truth = model(x, training=False).numpy()  # not `predict`, which would first trace a graph
    scale = np.abs(truth).max()
    rewritten = bake(model, without=without)
    plain = bake(
        model, without=[name for name in REWRITES if name in ("relu", "pool", "threshold")]
    )
    for baked in (rewritten, plain):
        np.testing.assert_allclose(baked(x, training=False), truth, atol=1e-5 * scale)
    assert [(r.name, r.layer) for r in applied_rewrites(rewritten)] == expected
    conversion = convert(rewritten, without=without)
    outputs = np.concatenate(
        [Interpreter(conversion.flatbuffer).predict(x[i : i + 1]) for i in range(len(x))]
    )
    np.testing.assert_allclose(outputs, truth, atol=1e-4 * scale)
    return conversion.report.op_counts


@pytest.mark.parametrize("within", [True, False])
def test_scales_move_behind_relu(within):
    def network():
        return tf.keras.Sequential(
            [
                tf.keras.Input((6, 6, 32)),
                binary(16, activation="relu" if within else None, name="conv"),
                *([] if within else [layers.ReLU(name="relu")]),
                layers.BatchNormalization(name="norm"),
                layers.Conv2D(4, 1),
            ]
        )

    model = random_weights(network(), 1, signs=(1, -1))
    counts = check(model, [("relu", "conv")])
    assert "RELU" not in counts and "MUL" not in counts
    counts = check(model, [], without=["relu"])
    assert counts["RELU"] == 1


def test_a_negative_scale_stays_in_front_of_relu():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 32)),
            lqx.layers.QuantConv2D(
                16, 3, padding="same", use_bias=False, quantizer="ste_sign", scale="learned"
            ),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model.layers[0].scale.assign(np.linspace(-1, 1, 16))
    check(model, [])


def test_norms_move_in_front_of_pooling():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 32)),
            binary(32, name="first"),
            layers.MaxPool2D(3, 2, padding="same", name="pool"),
            layers.BatchNormalization(name="norm"),
            binary(32, name="second"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    counts = check(random_weights(model, 2), [("pool", "norm")])
    assert counts["LceBMaxPool2d"] == 1 and "MUL" not in counts
    # Where a scale is negative, the smallest value would have to be taken.
    random_weights(model, 3, signs=(1, -1))
    assert model.get_layer("norm").gamma.numpy().min() < 0
    counts = check(model, [])
    assert counts["MAX_POOL_2D"] == 1


def test_relu_and_pooling_one_after_the_other():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 32)),
            binary(32, name="first"),
            layers.Activation("relu", name="relu"),
            layers.MaxPool2D(2, name="pool"),
            layers.BatchNormalization(name="norm"),
            binary(32, name="second"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    counts = check(random_weights(model, 4), [("relu", "first"), ("pool", "norm")])
    assert "RELU" not in counts


def residual(gamma_signs, seed, taken_twice=False):
    image = tf.keras.Input((6, 6, 32))
    y = binary(32, name="first")(image)
    x = layers.Add(name="sum")([image, y])
    x = layers.BatchNormalization(name="norm")(x)
    y = binary(32, 1, name="second")(x)
    z = binary(32, 3, strides=2, name="third")(x)
    tops = [layers.GlobalAveragePooling2D()(t) for t in ((y, z, x) if taken_twice else (y, z))]
    return random_weights(tf.keras.Model(image, layers.Concatenate()(tops)), seed, gamma_signs)


@pytest.mark.slow
def test_norms_in_front_of_signs_become_thresholds():
    counts = check(residual((1,), 5), [("threshold", "norm")])
    assert counts["LceQuantize"] == 2 and "MUL" not in counts
    counts = check(residual((1,), 5), [], without=["threshold"])
    assert counts["MUL"] == 1
    check(residual((1, -1), 6), [])
    check(residual((1,), 7, taken_twice=True), [])  # what is added needs the norm itself


def test_norms_behind_a_binary_convolution_are_left_to_the_engine():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 32)),
            binary(32, name="first"),
            layers.BatchNormalization(name="norm"),
            binary(32, name="second"),
        ]
    )
    assert check(random_weights(model, 8), [])["LceQuantize"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_random_networks(seed):
    """Blocks in random order, with scales of either sign."""
    generator = np.random.default_rng(seed)
    image = x = tf.keras.Input((8, 8, 32))
    for _ in range(6):
        kind = generator.integers(5)
        if kind == 0:
            x = layers.BatchNormalization()(x)
        elif kind == 1 and x.shape[1] > 2:
            x = layers.MaxPool2D(2)(x)
        elif kind == 2:
            x = layers.ReLU()(x)
        elif kind == 3:
            x = layers.Add()([x, binary(32)(layers.BatchNormalization()(x))])
        x = layers.BatchNormalization()(binary(32, int(generator.choice([1, 3])))(x))
    model = tf.keras.Model(image, layers.GlobalAveragePooling2D()(x))
    random_weights(model, seed, signs=(1, 1, 1, -1) if seed == 2 else (1,))
    x = images(model, seed, 16)
    truth = model.predict(x, verbose=0)
    baked = bake(model)
    outputs = baked.predict(x, verbose=0)
    assert applied_rewrites(baked) or seed == 2
    # A sign at a tie may turn in one sample or another.
    differences = np.abs(outputs - truth).max(1) / np.abs(truth).max()
    assert np.median(differences) < 1e-5


def test_rewrites_of_nested_models_have_their_paths():
    inner = residual((1,), 9)
    image = tf.keras.Input((6, 6, 32))
    model = tf.keras.Model(image, layers.Dense(3)(inner(image)))
    (rewrite,) = applied_rewrites(bake(model))
    assert rewrite.name == "threshold" and rewrite.layer == f"{inner.name}/norm"
    x = images(model, 9)
    np.testing.assert_allclose(
        bake(model).predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4
    )


def test_what_is_rewritten_cannot_be_left_out(networks):
    model = networks.randomize(
        tf.keras.Sequential(
            [
                tf.keras.Input((6, 6, 8)),
                tf.keras.layers.BatchNormalization(),
                networks.quant_conv(8),
            ]
        )
    )
    model.layers[0].gamma.assign(tf.abs(model.layers[0].gamma))
    baked = bake(model)
    assert {r.name for r in applied_rewrites(baked)} == {"threshold"}
    with pytest.raises(ValueError, match=r"is baked already, with the rewrites \['threshold'\]"):
        convert(baked, without=["threshold", "pool"])
    assert convert(baked, without=["pool"]).report.rewrites
    file = convert(model, without=["threshold"]).flatbuffer
    assert not audit(file, model).rewrites, "nobody knows which ones the file has"
    assert audit(file, model).ok


def test_rewrites_within_a_layer_are_listed_and_switched_off():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8,)),
            lq.layers.QuantDense(
                32, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="one"
            ),
            lqx.layers.QuantDense(32, quantizer="learnable_scale", name="two"),
        ]
    )
    names = [(r.name, r.layer) for r in applied_rewrites(bake(model))]
    assert names == [("dense", "one"), ("dense", "two"), ("zero_one", "two")]
    baked = bake(model, without=["dense"])
    assert applied_rewrites(baked) == ()
    assert "'dense', which was switched off" in lqx.deploy.float_reasons(baked)["one"]
    baked = bake(model, without=["zero_one"])
    assert "'zero_one', which was switched off" in lqx.deploy.float_reasons(baked)["two"]


def test_a_baked_model_is_rewritten_once():
    model = residual((1,), 10)
    stored = bake(model, without=["threshold"])
    assert bake(stored, without=["threshold"]) is stored
    baked = bake(stored)
    assert [r.name for r in applied_rewrites(baked)] == ["threshold"]
    assert bake(baked) is baked


class Negated(layers.BatchNormalization):
    """Computes something of its own."""

    def call(self, inputs, training=None):
        return -super().call(inputs, training=training)


def test_classes_derived_from_a_norm_are_left_alone():
    model = tf.keras.Sequential(
        [tf.keras.Input((6, 6, 32)), Negated(), binary(16), layers.GlobalAveragePooling2D()]
    )
    check(random_weights(model, 13), [])


def test_outputs_keep_their_names():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 32)),
            binary(16),
            layers.MaxPool2D(name="pool"),
            layers.BatchNormalization(name="scores"),
        ]
    )
    check(random_weights(model, 14), [])
    assert bake(model).output_names == ["scores"]


@pytest.mark.parametrize("without", ["pool", ["poool"]])
def test_unknown_names(without):
    with pytest.raises(ValueError, match="`without` is a collection of names from"):
        bake(residual((1,), 0), without=without)


# Transposed convolutions


def transposed(kernel, stride, padding, size=(5, 4), **kwargs):
    return tf.keras.Sequential(
        [
            tf.keras.Input((*size, 32)),
            lq.layers.QuantConv2DTranspose(
                7,
                kernel,
                strides=stride,
                padding=padding,
                input_quantizer="ste_sign",
                kernel_quantizer="ste_sign",
                name="up",
                **kwargs,
            ),
            layers.BatchNormalization(),
        ]
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (4, 2, "same"),
        (2, 2, "same"),
        (4, 2, "valid"),
        (6, 3, "same"),
        ((2, 4), 2, "valid"),
        (8, 2, "same"),
    ],
)
def test_transposed_convolutions(kernel, stride, padding):
    model = random_weights(transposed(kernel, stride, padding, activation="relu"), 11)
    counts = check(model, [("transposed", "up")])
    assert counts["LceBconv2d"] == 1 and "TRANSPOSE_CONV" not in counts


def test_transposed_convolution_is_saved_and_loaded(tmp_path):
    model = random_weights(transposed(4, 2, "same"), 12)
    baked = bake(model)
    baked.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    x = images(model, 12)
    np.testing.assert_array_equal(again.predict(x, verbose=0), baked.predict(x, verbose=0))


@pytest.mark.parametrize("method", ["fda", "siman", "learnable_scale", "mlp_classifier"])
def test_transposed_convolutions_with_quantizers_of_ours(method):
    """Our kernel quantizers take the last axis for the outputs; here it is the inputs."""
    quantizer = lqx.quantizers.METHODS[method].kernel_quantizer()
    up = lq.layers.QuantConv2DTranspose(
        32,
        4,
        strides=2,
        padding="same",
        input_quantizer="ste_sign",
        kernel_quantizer=quantizer,
        name="up",
    )
    model = tf.keras.Sequential([tf.keras.Input((5, 4, 32)), up])
    for weight in up.kernel_quantizer.weights:
        weight.assign(1.0 + np.random.default_rng(3).random(weight.shape))
    baked = bake(model)
    stays_float = method in ("learnable_scale", "mlp_classifier")  # a scale for each input channel
    assert ("up" in lqx.deploy.float_reasons(baked)) == stays_float
    x = images(model, 15)
    truth = model.predict(x, verbose=0)
    np.testing.assert_allclose(baked.predict(x, verbose=0), truth, atol=1e-4 * np.abs(truth).max())


def test_a_transposed_convolution_of_several_sizes_stays_float():
    up = lq.layers.QuantConv2DTranspose(
        8, 4, strides=2, padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign"
    )
    inputs = [tf.keras.Input((4, 4, 32)), tf.keras.Input((8, 8, 32))]
    model = tf.keras.Model(inputs, [layers.GlobalMaxPooling2D()(up(x)) for x in inputs])
    assert "several sizes" in lqx.deploy.float_reasons(bake(model))[up.name]


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("taps", [1, 2, 3])
def test_transposed_geometry_is_that_of_tensorflow(taps, stride, padding):
    """Real images and kernels through the convolution and back, against TensorFlow's operator."""
    generator = np.random.default_rng(0)
    size = (taps * stride, stride)
    kernel = generator.normal(size=(*size, 2, 3)).astype("float32")
    for sides in [(1, 2), (2, 5), (6, 3)]:
        image = generator.normal(size=(1, *sides, 3)).astype("float32")
        axes = geometry(sides, size, stride, padding)
        shape = (1, *(axis.outputs for axis in axes), 2)
        wanted = tf.nn.conv2d_transpose(image, kernel, shape, stride, padding.upper())
        padded = np.pad(image, [(0, 0), *((axis.before, axis.after) for axis in axes), (0, 0)])
        found = tf.nn.conv2d(padded, phase_kernel(kernel, stride), 1, "VALID")
        found = tf.nn.depth_to_space(found, stride).numpy()
        rows, columns = (slice(axis.crop, axis.crop + axis.outputs) for axis in axes)
        np.testing.assert_allclose(found[:, rows, columns], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: transposed(3, 2, "same"), "no multiple of the strides"),
        (lambda: transposed(3, 1, "same"), "use 2 or more"),
        (lambda: transposed(4, (2, 1), "same"), "use 2 or more"),
        (lambda: transposed(4, 2, "same", output_padding=1), "output padding"),
        (lambda: transposed(4, 2, "same", size=(None, 4)), "unknown size"),
    ],
)
def test_other_transposed_convolutions_stay_float_with_a_reason(model, reason):
    assert reason in lqx.deploy.float_reasons(bake(model()))["up"]
