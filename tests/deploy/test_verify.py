"""Verification: equal files pass, one wrong weight does not."""

import json
import sys

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import larq_ext as lqx
from larq_ext.deploy._flatbuffer import read_graph
from larq_ext.deploy._parting import first_parting
from larq_ext.deploy.bake import bake
from larq_ext.deploy.convert import convert
from larq_ext.deploy.verify import (
    DEFAULT_TOLERANCE,
    VerifyReport,
    _compare,
    _shake_biases,
    _unstable,
    verify,
)


@pytest.fixture
def inputs():
    return np.random.default_rng(0).normal(size=(20, 8, 8, 40)).astype(np.float32)


def test_a_right_file_passes(classifier, classifier_conversion, inputs):
    report = verify(classifier, classifier_conversion.flatbuffer, inputs, batch_size=7)
    assert report.ok
    assert (report.samples, report.equal_top1, report.share) == (20, 20, 1.0)
    assert report.relative_difference < 1e-4
    assert "equal" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_half_precision_is_compared_in_float32(inputs, policy):
    """Its own outputs are rounded by more than a file may be off."""
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        tf.keras.utils.set_random_seed(0)
        model = tf.keras.Sequential(
            [
                tf.keras.Input((8, 8, 40)),
                lqx.layers.QuantConv2D(32, 3, quantizer="ste_sign", use_bias=False),
                tf.keras.layers.BatchNormalization(),
                tf.keras.layers.Flatten(),
                tf.keras.layers.Dense(10, dtype="float32"),
            ]
        )
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    conversion = convert(model)
    report = verify(model, conversion.flatbuffer, inputs)
    assert report.ok and not report.unstable and report.relative_difference < 1e-4
    half = policy.removeprefix("mixed_")
    assert report.precision == half
    assert f"the deployed form in float32: the model has {half}" in str(report)
    assert verify(conversion.model, conversion.flatbuffer, inputs).precision is None


def test_the_baked_model_and_a_path_are_accepted(classifier_conversion, inputs, tmp_path):
    path = classifier_conversion.save(tmp_path / "model.tflite")
    assert verify(classifier_conversion.model, path, inputs).ok


def test_a_wrong_file_fails(classifier, classifier_conversion, inputs):
    graph = read_graph(classifier_conversion.flatbuffer)
    op = [op for op in graph.ops if op.name == "LceBconv2d"][1]
    packed = graph.tensors[op.inputs[1]].data
    start = classifier_conversion.flatbuffer.index(packed.tobytes())
    wrong = bytearray(classifier_conversion.flatbuffer)
    wrong[start : start + packed.nbytes // 2] = (~packed).tobytes()[: packed.nbytes // 2]

    report = verify(classifier, bytes(wrong), inputs)

    assert not report.ok
    assert report.different
    assert not report.unstable
    assert "NOT EQUAL" in str(report)
    # The norm is in the operator; the convolution in front of it gives packed bits.
    assert report.parting.layer == classifier.layers[3].name
    assert report.parting.op == "LceBconv2d"
    assert json.loads(json.dumps(report.to_dict()))["parting"]["layer"] == report.parting.layer


@pytest.mark.parametrize(
    ("changed", "layer", "op", "last", "engine"),
    [
        ("stem", "stem_norm", "CONV_2D", "", "native"),
        ("stage2_unit3_conv", "stage2_unit3_norm", "LceBconv2d", "stage2_unit2_prelu", "native"),
        ("stage3_unit1_prelu", "stage3_unit1_prelu", "PRELU", "stage3_unit1_add", "native"),
        ("logits", "logits", "FULLY_CONNECTED", "top_norm", "lce"),
    ],
)
def test_the_layer_where_file_and_model_part_is_named(resnet20, changed, layer, op, last, engine):
    model, flatbuffer, images = resnet20
    other = tf.keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    target = other.get_layer(changed)
    kernel, *rest = target.get_weights()
    kernel[..., 0] *= -1
    target.set_weights([kernel, *rest])
    parting = first_parting(other, flatbuffer, [images], DEFAULT_TOLERANCE, engine)
    assert (parting.layer, parting.op, parting.last_equal) == (layer, op, last)
    assert 0 < parting.share <= 1
    assert first_parting(model, flatbuffer, [images], DEFAULT_TOLERANCE, engine) is None


def test_layers_with_several_outputs_are_passed_over(networks):
    image = tf.keras.Input((6, 6, 32))
    x = networks.quant_conv(32, name="first")(image)
    parts = tf.keras.layers.Lambda(lambda x: tf.split(x, 2, axis=-1))(x)
    x = tf.keras.layers.GlobalAveragePooling2D()(tf.keras.layers.Concatenate()(parts))
    model = networks.randomize(tf.keras.Model(image, tf.keras.layers.Dense(3, name="top")(x)))
    flatbuffer = convert(model).flatbuffer
    model.get_layer("top").kernel.assign_add(tf.ones((32, 3)))
    images = np.random.default_rng(0).normal(size=(4, 6, 6, 32)).astype("float32")
    report = verify(model, flatbuffer, images)
    assert not report.ok and report.parting.layer == "top"


@pytest.fixture(scope="module")
def resnet20():
    import larq_ext_zoo as zoo

    generator = np.random.default_rng(0)
    model = bake(zoo.ResNet20(quantizer="ste_sign"))
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            # No sum of signs is exactly zero behind it, where rounding would turn the next sign.
            layer.beta.assign(generator.normal(size=layer.beta.shape))
    images = generator.normal(size=(2, 32, 32, 3)).astype("float32")
    return model, convert(model).flatbuffer, images


def test_several_outputs_are_compared(branches, branches_conversion):
    generator = np.random.default_rng(1)
    inputs = [generator.normal(size=(3, 6, 6, 32)) for _ in range(2)]
    report = verify(branches, branches_conversion.flatbuffer, inputs)
    assert report.ok
    assert report.samples == 3


def test_another_models_file_is_an_error(classifier_conversion, inputs):
    other = tf.keras.Sequential([tf.keras.Input((8, 8, 40)), tf.keras.layers.Flatten()])
    with pytest.raises(ValueError, match="made from another model"):
        verify(other, classifier_conversion.flatbuffer, inputs)


def test_no_inputs_are_an_error(classifier, classifier_conversion, inputs):
    with pytest.raises(ValueError, match="hold no sample"):
        verify(classifier, classifier_conversion.flatbuffer, inputs[:0])


@pytest.mark.parametrize("settings", [{"tolerance": -1.0}, {"batch_size": 0}])
def test_settings_are_checked(classifier, classifier_conversion, inputs, settings):
    with pytest.raises(ValueError, match="tolerance >= 0 and batch_size >= 1"):
        verify(classifier, classifier_conversion.flatbuffer, inputs, **settings)


def test_the_largest_difference_is_located():
    keras = np.array([[1.0, 2.0], [4.0, 3.0], [0.0, 1.0]])
    file = keras.copy()
    file[1, 0] -= 0.5
    report = _compare([np.zeros((3, 1)), keras], [np.zeros((3, 1)), file], [0.1, 0.1])
    assert report.max_difference == 0.5
    assert report.max_difference_at == (1, 1, 0)
    assert report.relative_difference == 0.5 / 4.0
    assert report.different == (1,)
    assert report.equal_top1 == 3
    assert _compare([keras], [file], [0.2]).ok


def test_another_top1_fails_within_the_tolerance():
    keras, file = np.array([[1.0, 1.001]]), np.array([[1.001, 1.0]])
    report = _compare([keras], [file], [0.1])
    assert not report.ok
    assert (report.equal_top1, report.different) == (0, (0,))


def test_maps_have_no_top1():
    output = np.ones((2, 4, 4, 3))
    report = _compare([output], [output], [0.0])
    assert report.ok
    assert report.equal_top1 is None
    assert report.share is None


def test_nothing_is_proven_of_what_is_no_number():
    output = np.array([[1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0]])
    report = _compare([output], [output], [0.5])
    assert not report.ok and not report.different
    assert report.verdict == "NOT PROVEN: Keras gives NaN for 1 samples"
    assert report.verdict in str(report) and report.to_dict()["without_numbers"] == 1
    assert _compare([output[::2]], [output[::2]], [0.5]).ok
    other = np.zeros_like(output)
    assert _compare([output], [other], [0.5]).verdict == "NOT EQUAL"


def test_what_is_no_number_counts_as_different():
    keras, file = np.array([[np.nan], [1.0], [np.inf]]), np.array([[np.nan], [np.nan], [np.inf]])
    report = _compare([keras], [file], [0.5])
    assert report.different == (1,)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["max_difference"] == "inf"


class _Fake:
    """Stands for the interpreter: Keras's results, with some samples turned."""

    turned: tuple[int, ...] = ()
    model: tf.keras.Model
    input_quantization = output_quantization = (None,)

    def __init__(self, flatbuffer, engine):
        pass

    def predict(self, inputs, verbose):
        outputs = self.model.predict(inputs[0], verbose=0).copy()
        outputs[list(self.turned)] *= -1.0
        return outputs


@pytest.mark.parametrize(("turned", "ok"), [((), True), ((1,), True), ((0,), False)])
def test_only_rounding_excuses_a_difference(monkeypatch, turned, ok):
    """Sample 1 lies on the threshold, where a rounding error turns the sign."""
    model = tf.keras.Sequential(
        [tf.keras.Input((3,)), tf.keras.layers.Lambda(lambda x: tf.sign(x - 1.0 + 1e-9))]
    )
    monkeypatch.setattr(_Fake, "model", model, raising=False)
    monkeypatch.setattr(_Fake, "turned", turned)
    monkeypatch.setattr("larq_ext.runtime.Interpreter", _Fake)
    module = sys.modules[verify.__module__]
    monkeypatch.setattr(module, "first_parting", lambda *_: None)
    monkeypatch.setattr(module, "load_flatbuffer", lambda flatbuffer: flatbuffer)
    inputs = np.array([[2, 0, 3], [1 + 1e-7, 1, 2], [3, 2, 0], [0, 5, 2]], np.float32)

    report = verify(model, b"", inputs)

    assert report.different == turned
    assert report.unstable == (turned if ok else ())
    assert report.ok is ok


def test_a_large_variance_is_no_large_rounding_error(monkeypatch):
    """It is in squared units: of a norm behind pixels it would move the sign of anything."""
    norm = tf.keras.layers.BatchNormalization(center=True)
    model = tf.keras.Sequential([tf.keras.Input((3,)), norm, tf.keras.layers.Lambda(tf.sign)])
    norm.moving_variance.assign([1e6] * 3)
    inputs = np.array([[2e3, -2e3, 2e3], [2e3, 2e3, -2e3]], np.float32)
    expected = [model.predict(inputs, verbose=0)]
    assert _unstable(bake(model), [inputs], expected, (0, 1), [1e-3]) == ()


def test_a_fault_of_baking_is_no_rounding_error():
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    baked = bake(model)
    inputs = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    expected = [1.5 * model.predict(inputs, verbose=0)]
    assert _unstable(baked, [inputs], expected, (0, 1, 2, 3), [1e-3]) == ()


def test_a_function_that_keras_cannot_find_again_is_no_obstacle(networks):
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 8)),
            lq.layers.QuantConv2D(4, 3, input_quantizer=_halved),
            tf.keras.Sequential([networks.quant_conv(16)]),
        ]
    )
    inputs = np.random.default_rng(0).normal(size=(4, 8, 8, 8)).astype("float32")
    flatbuffer = convert(model).flatbuffer
    other = networks.randomize(tf.keras.models.clone_model(model, clone_function=_as_it_is))
    assert verify(model, flatbuffer, inputs).ok
    assert not verify(other, flatbuffer, inputs).ok


def _halved(x):
    return 0.5 * x


def _as_it_is(layer):
    if isinstance(layer, lq.layers.QuantConv2D):
        return lq.layers.QuantConv2D(4, 3, input_quantizer=_halved)
    return tf.keras.models.clone_model(layer)


def test_norms_over_several_axes_are_shaken():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((4, 4, 3)),
            tf.keras.layers.LayerNormalization(axis=[1, 2, 3]),
            tf.keras.layers.BatchNormalization(axis=[1, 2, 3]),
        ]
    )
    before = model.get_weights()
    _shake_biases(model, np.random.default_rng(0))
    names = [weight.name.split("/")[-1] for weight in model.weights]
    changed = [(a != b).any() for a, b in zip(before, model.get_weights(), strict=True)]
    expected = [name in ("beta:0", "moving_mean:0") for name in names]
    assert changed == expected


def test_too_many_unstable_samples_prove_nothing():
    report = VerifyReport(4, 4, 0.1, (0, 0, 0), 0.1, 1e-3, (0, 1, 2), (0, 1, 2))
    assert not report.ok
    assert "NOT PROVEN" in str(report)


def test_sums_of_exactly_zero_make_an_untrained_network_unstable_in_lce(networks):
    """At a border of zeros LCE rounds a sum of zero to a tiny number of either sign; we do not."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 32)),
            networks.quant_conv(16, pad_values=0.0),
            tf.keras.layers.BatchNormalization(),
            networks.quant_conv(16, pad_values=0.0),
        ]
    )
    flatbuffer = convert(model).flatbuffer
    inputs = np.random.default_rng(2).normal(size=(4, 8, 8, 32)).astype(np.float32)
    report = verify(model, flatbuffer, inputs, engine="lce")
    assert report.different
    assert report.different == report.unstable
    assert not verify(model, flatbuffer, inputs, engine="native").different
