"""The audit: proof by bits, and a reason for every layer that was lost."""

import json

import flatbuffers
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_ext.deploy._flatbuffer import read_graph, unpack_filter
from larq_ext.deploy.audit import audit
from larq_ext.deploy.convert import convert
from larq_ext.deploy.lint import lint

layers = tf.keras.layers


def test_unpacking_follows_the_bits():
    packed = np.array([0b101, -(2**31), -1, 0], np.int32).reshape(2, 1, 1, 2)
    unpacked = unpack_filter(packed, 40)
    for out in range(2):
        for channel in range(40):
            word = int(packed[out, 0, 0, channel // 32]) & 0xFFFFFFFF
            assert unpacked[out, 0, 0, channel] == bool(word >> channel % 32 & 1)


def test_a_layer_that_is_used_twice_is_one_of_twice_the_work(networks):
    image = tf.keras.Input((8, 8, 8))
    shared = networks.quant_conv(8)
    once, twice = (tf.keras.Model(image, y) for y in (shared(image), shared(shared(image))))
    (single,) = audit(convert(once).flatbuffer, once).layers
    report = audit(convert(twice).flatbuffer, twice)
    assert report.ok and not report.notes
    assert report.op_counts["LceBconv2d"] == 2
    assert [layer.macs for layer in report.layers] == [2 * single.macs]


def test_every_layer_is_found_by_its_bits(classifier, classifier_conversion):
    report = audit(classifier_conversion.flatbuffer, classifier)

    assert report.ok
    assert (report.binary, report.expected) == (2, 2)
    first, second = report.layers
    assert (first.name, first.op, first.kernel) == ("first", "LceBconv2d", (3, 3, 40, 33))
    # 40 channels take two words of 4 bytes, 33 take two as well.
    assert first.weight_bytes == 33 * 3 * 3 * 2 * 4
    assert second.weight_bytes == 16 * 3 * 3 * 2 * 4
    assert report.op_counts["LceBconv2d"] == 2
    unpacked = 4 * 9 * (40 * 33 + 33 * 16)
    packed = first.weight_bytes + second.weight_bytes
    assert report.float_bytes - report.file_bytes == unpacked - packed


def test_one_wrong_bit_is_seen(classifier, classifier_conversion):
    graph = read_graph(classifier_conversion.flatbuffer)
    op = [op for op in graph.ops if op.name == "LceBconv2d"][1]
    packed = graph.tensors[op.inputs[1]].data.tobytes()
    start = classifier_conversion.flatbuffer.index(packed)
    damaged = bytearray(classifier_conversion.flatbuffer)
    damaged[start + 1] ^= 4

    report = audit(bytes(damaged), classifier)

    assert [layer.binary for layer in report.layers] == [True, False]
    assert "no operator of the file holds its weights" in report.layers[1].reason
    assert [layer.cause for layer in report.layers] == ["", "not-in-file"]
    assert "hold the bits of no layer" in report.notes[0]


def test_padding_bits_do_not_matter(classifier, classifier_conversion):
    """Channels 40 to 63 of the second word are padding."""
    graph = read_graph(classifier_conversion.flatbuffer)
    op = next(op for op in graph.ops if op.name == "LceBconv2d")
    start = classifier_conversion.flatbuffer.index(graph.tensors[op.inputs[1]].data.tobytes())
    changed = bytearray(classifier_conversion.flatbuffer)
    changed[start + 7] ^= 0x80
    assert audit(bytes(changed), classifier).ok


def test_the_weights_of_another_model_do_not_pass(classifier, classifier_conversion, networks):
    other = tf.keras.models.clone_model(classifier)
    networks.randomize(other, seed=99)
    report = audit(classifier_conversion.flatbuffer, other)
    assert report.binary == 0
    assert report.expected == 2


def test_layers_with_equal_bits_each_need_an_operator(networks):
    def build(names):
        x = y = tf.keras.Input((6, 6, 16))
        for name in names:
            y = networks.quant_conv(16, name=name)(y)
        model = tf.keras.Model(x, y)
        kernel = np.random.default_rng(5).normal(size=(3, 3, 16, 16))
        model.set_weights([kernel] * len(names))
        return model

    twice = convert(build(["a", "b"])).flatbuffer
    assert audit(twice, build(["a", "b"])).ok
    report = audit(twice, build(["a", "b", "c"]))
    assert [layer.binary for layer in report.layers] == [True, True, False]


def test_without_a_model_binary_operators_count(classifier_conversion):
    report = audit(classifier_conversion.flatbuffer)
    assert report.ok
    # The filter's own order: out, height, width, in.
    assert [layer.kernel for layer in report.layers] == [(33, 3, 3, 40), (16, 3, 3, 33)]


def test_a_path_is_accepted(classifier_conversion, tmp_path):
    path = classifier_conversion.save(tmp_path / "model.tflite")
    assert audit(path) == audit(classifier_conversion.flatbuffer)
    assert audit(str(path)).ok


def test_a_network_without_binary_layers_is_not_ok(networks, tmp_path):
    model = networks.randomize(tf.keras.Sequential([tf.keras.Input((4,)), layers.Dense(8)]))
    flatbuffer = networks.convert_as_it_is(model, tmp_path)
    for report in (audit(flatbuffer), audit(flatbuffer, model)):
        assert not report.ok
        assert report.expected == 0
        assert "no layer is meant to be binary" in str(report)


def test_damaged_content_is_an_error(classifier_conversion):
    with pytest.raises(ValueError, match="damaged"):
        audit(classifier_conversion.flatbuffer[:200])
    with pytest.raises(ValueError, match="damaged or another kind"):
        audit(b"PK\x03\x04 a zip")


def edited(flatbuffer, change) -> bytes:
    """The file with something else in it."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))
    change(model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_a_file_without_names_is_no_damaged_one(classifier, classifier_conversion):
    def strip(graph):
        for tensor in graph.tensors:
            tensor.name = None

    report = audit(edited(classifier_conversion.flatbuffer, strip), classifier)
    assert report.ok and report.binary == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda graph: setattr(graph.operators[0], "inputs", [9999]), "tensors that are not"),
        (lambda graph: setattr(graph, "outputs", [9999]), "an input or output of the model"),
        (
            lambda graph: [setattr(op, "customOptions", None) for op in graph.operators],
            "has no options",
        ),
    ],
)
def test_positions_and_options_that_are_not_there(classifier_conversion, change, message):
    damaged = edited(classifier_conversion.flatbuffer, change)
    with pytest.raises(ValueError, match=f"model is damaged: .*{message}"):
        audit(damaged)


def test_a_model_with_variables_is_not_called_damaged(classifier_conversion):
    def drop(graph):
        graph.operators[-1].outputs = []

    with pytest.raises(ValueError, match=r"has no output: models with variables are not"):
        audit(edited(classifier_conversion.flatbuffer, drop))


def test_the_report_is_json_and_a_narrow_table(classifier, classifier_conversion):
    report = audit(classifier_conversion.flatbuffer, classifier)
    values = json.loads(json.dumps(report.to_dict()))
    assert values["ok"] is True
    assert values["layers"][0]["name"] == "first"
    text = str(report)
    assert max(map(len, text.splitlines())) <= 100
    assert "first   LceBconv2d  3x3x40x33" in text
    assert f"{8 * 8 * 3 * 3 * 40 * 33:,}" in text
    assert "Binary: 2/2 layers are binary." in text


def _scaled(x):
    return lq.quantizers.SteSign()(x) * 2.0


class _Comparison(lq.quantizers.Quantizer):
    """A sign that the converter folds for small kernels only."""

    precision = 1

    def call(self, inputs):
        return tf.where(inputs >= 0, 1.0, -1.0)


def _with_a_zero_channel(kernel):
    return tf.sign(kernel) * tf.constant([1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])


def _unequal(kernel):
    return tf.sign(kernel) * tf.reshape(tf.range(1.0, 10.0), (3, 3, 1, 1))


_DENSE = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
# Name: (channels, function of the network tools that makes the layers, part of the reason, cause).
_LOST = {
    "padding": (
        32,
        lambda n: [n.quant_conv(8, pad_values=-1.0)],
        "its padding with -1",
        "unfused-padding",
    ),
    "groups": (
        32,
        lambda n: [n.quant_conv(8, groups=2)],
        "2 groups has 16 input channels",
        "small-groups",
    ),
    "float input": (
        32,
        lambda n: [n.quant_conv(8, input_quantizer=None)],
        "its input is float",
        "float-input",
    ),
    "scaled": (
        32,
        lambda n: [n.quant_conv(8, input_quantizer=_scaled, padding="valid", pad_values=0.0)],
        "scaled sign",
        "scaled-sign",
    ),
    "permuted": (
        32,
        lambda n: [
            lq.quantizers.SteSign(),
            layers.Permute((2, 1, 3)),
            n.quant_conv(8, input_quantizer=None),
        ],
        "TRANSPOSE stands between",
        "op-after-sign",
    ),
    "bare sign": (
        32,
        lambda n: [n.quant_conv(8, input_quantizer=tf.sign)],
        "bare tf.sign",
        "bare-sign",
    ),
    "relu": (
        32,
        lambda n: [layers.ReLU(), n.quant_conv(8, input_quantizer=None)],
        "RELU feeds the convolution",
        "float-input",
    ),
    "large kernel": (
        256,
        lambda n: [n.quant_conv(256, kernel_quantizer=_Comparison())],
        "no constant: the converter left the kernel quantizer",
        "kernel-left-in-graph",
    ),
    "dense": (
        32,
        lambda n: [layers.Flatten(), lq.layers.QuantDense(8, **_DENSE)],
        "a dense layer has no binary form",
        "dense",
    ),
    "depthwise": (
        32,
        lambda n: [
            lq.layers.QuantDepthwiseConv2D(
                3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", use_bias=False
            )
        ],
        "no binary depthwise",
        "depthwise",
    ),
    "transposed": (
        32,
        lambda n: [lq.layers.QuantConv2DTranspose(8, 4, strides=2, **_DENSE)],
        "no binary transposed",
        "transposed",
    ),
}


@pytest.mark.parametrize("cause", _LOST)
def test_a_lost_layer_is_found_without_the_model(cause, networks, tmp_path):
    channels, make, reason, slug = _LOST[cause]
    model = _build(networks, make, channels)
    report = audit(networks.convert_as_it_is(model, tmp_path))
    assert not report.ok
    (row,) = report.layers
    assert reason in row.reason
    assert row.cause == slug
    assert row.advice
    assert "(float32)" in row.became


@pytest.mark.parametrize("cause", ["padding", "groups", "large kernel", "dense", "transposed"])
def test_a_lost_layer_is_found_with_the_model(cause, networks, tmp_path):
    channels, make, _, slug = _LOST[cause]
    model = _build(networks, make, channels)
    report = audit(networks.convert_as_it_is(model, tmp_path), model)
    (row,) = report.layers
    assert row.cause == slug
    assert row.name == model.layers[-1].name
    assert row.op in ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
    assert row.reason
    assert row.weight_bytes > 0


def test_a_1d_convolution_is_named(networks, tmp_path):
    layer = lq.layers.QuantConv1D(8, 3, name="sound", **_DENSE)
    model = networks.randomize(tf.keras.Sequential([tf.keras.Input((16, 32)), layer]))
    report = audit(networks.convert_as_it_is(model, tmp_path), model)
    (row,) = report.layers
    assert (row.name, row.became) == ("sound", "CONV_2D (float32)")
    assert "1D" in row.reason


@pytest.mark.parametrize(
    ("quantizer", "cause"),
    [(_with_a_zero_channel, "zero-channel-scale"), (_unequal, "unequal-channel-scale")],
)
def test_kernels_without_one_scale_per_channel(quantizer, cause, networks, tmp_path):
    """Such a file holds no hint of what was meant, so the layer has to be known."""

    class Quantizer(lq.quantizers.Quantizer):
        precision = 1

        def call(self, inputs):
            return quantizer(inputs)

    layer = networks.quant_conv(8, kernel_quantizer=Quantizer())
    model = networks.randomize(tf.keras.Sequential([tf.keras.Input((8, 8, 32)), layer]))
    report = audit(networks.convert_as_it_is(model, tmp_path), model)
    (row,) = report.layers
    assert (row.op, row.cause) == ("CONV_2D", cause)


def test_binary_weights_with_float_input_are_noted(networks, tmp_path):
    model = networks.randomize(
        tf.keras.Sequential(
            [
                tf.keras.Input((8, 8, 3)),
                networks.quant_conv(32, name="stem", input_quantizer=None),
                networks.quant_conv(8, name="body"),
            ]
        )
    )
    report = audit(networks.convert_as_it_is(model, tmp_path), model)
    assert report.ok
    assert any("stem: binary weights, but its input is not" in note for note in report.notes)


@pytest.mark.parametrize(
    ("shape", "stem"),
    [
        ((20,), lambda **_: lq.layers.QuantDense(32, name="stem", kernel_quantizer="ste_sign")),
        (
            (16, 3),
            lambda **_: lq.layers.QuantConv1D(8, 3, name="stem", kernel_quantizer="ste_sign"),
        ),
    ],
    ids=["dense", "conv1d"],
)
def test_layers_on_floats_are_not_held_up_by_what_they_are(shape, stem, networks):
    """A network that begins with binary weights on real features is binary as it was meant."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input(shape),
            stem(),
            layers.BatchNormalization(),
            layers.Flatten(),
            lq.layers.QuantDense(8, name="body", **_DENSE),
        ]
    )
    model = networks.randomize(model)
    linted = lint(model)
    notes = [(f.layer, f.cause) for f in linted.findings if f.severity == "note"]
    assert linted.ok and notes == [("stem", "float-input")]
    report = convert(model).report
    assert report.ok and [row.name for row in report.layers] == ["body"]
    assert any("stem: binary weights, but its input is not" in note for note in report.notes)


def test_one_weight_per_channel_is_no_sign_of_a_lost_layer(networks, tmp_path):
    model = tf.keras.Sequential(
        [tf.keras.Input((8, 8, 1)), layers.Conv2D(32, 1), networks.quant_conv(8)]
    )
    assert audit(networks.convert_as_it_is(networks.randomize(model), tmp_path)).ok


def _build(networks, make, channels):
    return networks.randomize(
        tf.keras.Sequential([tf.keras.Input((8, 8, channels)), *make(networks)])
    )


@pytest.mark.exhaustive
def test_xnor_net_loses_a_layer_in_the_plain_converter(networks, tmp_path):
    zoo = pytest.importorskip("larq_zoo")
    model = zoo.literature.XNORNet(weights=None, input_shape=(224, 224, 3))
    report = audit(networks.convert_as_it_is(model, tmp_path), model)
    lost = [layer for layer in report.layers if not layer.binary]
    assert len(lost) == 1
    assert lost[0].kernel == (6, 6, 256, 4096)
    assert "left the kernel quantizer in the graph" in lost[0].reason


@pytest.mark.exhaustive
def test_quicknet_small_is_binary():
    zoo = pytest.importorskip("larq_zoo")
    model = zoo.sota.QuickNetSmall(weights=None, input_shape=(224, 224, 3))
    report = convert(model).report
    assert (report.binary, report.expected) == (16, 16)


def test_a_function_that_does_not_tell_its_bits_is_run(networks):
    """Of a plain function nobody knows what it is, and of a sign in front neither."""
    model = networks.randomize(
        tf.keras.Sequential(
            [
                tf.keras.Input((8, 8, 32)),
                networks.quant_conv(32, input_quantizer=_select, name="function"),
                lq.quantizers.SteSign(),
                networks.quant_conv(8, input_quantizer=None, name="sign_in_front"),
            ]
        )
    )
    report = convert(model).report
    assert report.ok and not report.notes
    assert [layer.name for layer in report.layers] == ["function", "sign_in_front"]


def _select(x):
    return tf.where(x >= 0, 1.0, -1.0)


def test_a_kernel_that_is_not_finite_does_not_pass(networks):
    """The converter takes it for binary, as no comparison with it is true."""
    model = networks.randomize(
        tf.keras.Sequential([tf.keras.Input((8, 8, 32)), networks.quant_conv(8, name="conv")])
    )
    model.layers[0].kernel.assign(np.full((3, 3, 32, 8), np.nan))
    report = convert(model, allow_float=True).report
    assert [layer.cause for layer in report.layers] == ["not-finite-kernel"]
