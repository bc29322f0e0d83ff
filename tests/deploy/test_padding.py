"""Explicit borders in front of convolutions: the file computes what Keras does."""

import larq_ext  # noqa: F401  isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_ext.deploy import _padding
from larq_ext.deploy._flatbuffer import order_by_signature, read_graph
from larq_ext.deploy.convert import convert, freeze
from larq_ext.deploy.int8 import int8_edges
from larq_ext.deploy.verify import verify
from larq_ext.runtime import Interpreter

# Kernel, stride, dilation, borders.
CASES = [
    *((kernel, 2, 1, (kernel // 2, kernel // 2)) for kernel in (3, 5, 7)),
    (3, 3, 1, (1, 1)),
    (3, 2, 1, (0, 1)),
    (3, 2, 1, (1, 0)),
    (4, 2, 1, (1, 1)),
    (4, 2, 1, (1, 2)),
    (2, 2, 1, (1, 1)),
    (3, 1, 1, (1, 1)),
    (3, 1, 2, (2, 2)),
]


def network(networks, kind: str, size: int) -> tf.keras.Model:
    """Each case is an output, with a border of its own: the engine leaves shared ones alone.

    Equal borders of equal pixels would be shared.
    """
    image = tf.keras.Input((size, size, 3))
    outputs = []
    for number, (kernel, stride, dilation, border) in enumerate(CASES, 1):
        own = tf.keras.layers.Rescaling(number)(image)
        bordered = tf.keras.layers.ZeroPadding2D((border, border))(own)
        options = {"strides": stride, "dilation_rate": dilation}
        if kind == "grouped":
            layer = tf.keras.layers.Conv2D(6, kernel, groups=3, **options)
        elif kind == "depthwise":
            layer = tf.keras.layers.DepthwiseConv2D(kernel, **options)
        else:
            layer = tf.keras.layers.Conv2D(4, kernel, **options)
        outputs.append(layer(bordered))
    return networks.randomize(tf.keras.Model(image, outputs))


def largest_difference(model, flatbuffer) -> list[float]:
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    found = Interpreter(flatbuffer).predict(images)
    expected = model.predict(images, verbose=0)
    return [float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("size", [16, 15])
@pytest.mark.parametrize("kind", ["convolution", "depthwise", "grouped"])
def test_a_border_stays_where_it_is(networks, kind, size):
    model = network(networks, kind, size)
    conversion = convert(model, allow_float=True)
    assert max(largest_difference(model, conversion.flatbuffer)) < 1e-4


def test_the_converter_alone_moves_it(networks, tmp_path):
    """If this fails, the engine has learned it and nothing need be trimmed any more."""
    model = network(networks, "convolution", 16)
    flatbuffer = order_by_signature(networks.convert_as_it_is(model, tmp_path))
    differences = largest_difference(model, flatbuffer)
    assert [case[:2] for case, d in zip(CASES, differences, strict=True) if d > 1] == [
        (3, 2),
        (5, 2),
        (7, 2),
    ]


def test_a_border_of_ones_in_front_of_a_binary_convolution(networks):
    image = tf.keras.Input((16, 16, 32))
    bordered = tf.pad(tf.sign(image), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0)
    layer = networks.quant_conv(32, strides=2, padding="valid", pad_values=0.0)
    model = networks.randomize(tf.keras.Model(image, [layer(bordered), layer(bordered[:, 1:, 1:])]))
    conversion = convert(model)
    assert max(largest_difference(model, conversion.flatbuffer)) < 1e-3


@pytest.mark.parametrize(
    "size, kernel, stride, dilation, border",
    [(8, 3, 2, 1, 1), (16, 5, 2, 1, 2), (16, 7, 2, 1, 3), (12, 5, 3, 1, 2), (10, 3, 2, 2, 2)],
)
def test_what_is_trimmed_is_never_used(size, kernel, stride, dilation, border):
    """TensorFlow itself computes the same, from fewer pixels."""
    image = tf.keras.Input((size, size + 1, 2))
    padded = tf.keras.layers.ZeroPadding2D(border)(image)
    weights = tf.random.stateless_normal((kernel, kernel, 2, 3), (1, 2))
    outputs = tf.nn.conv2d(padded, weights, stride, "VALID", dilations=dilation)
    model = tf.keras.Model(image, outputs)
    frozen = freeze(model)
    before = len(frozen.graph_def.node)
    _padding.trim_strided(frozen.graph_def)
    assert len(frozen.graph_def.node) == before + 2
    graph = tf.compat.v1.wrap_function(
        lambda x: tf.import_graph_def(
            frozen.graph_def,
            input_map={frozen.inputs[0].name: x},
            return_elements=[frozen.outputs[0].name],
        ),
        [tf.TensorSpec((1, size, size + 1, 2))],
    )
    pixels = tf.random.stateless_normal((1, size, size + 1, 2), (3, 4))
    np.testing.assert_allclose(graph(pixels)[0], model(pixels), atol=1e-5)


# Kernel, stride: of 30 x 31 pixels, the last kernel leaves some over, at least in one axis.
BEYOND = [
    ((2, 2), (3, 3)),
    ((3, 3), (4, 4)),
    ((1, 3), (3, 3)),
    ((3, 1), (2, 2)),
    ((1, 5), (2, 2)),
    ((1, 1), (2, 2)),
]


def strided(kind: str) -> tf.keras.Model:
    image = tf.keras.Input((30, 31, 4))
    outputs = []
    for kernel, stride in BEYOND:
        options = {"strides": stride, "padding": "same"}
        if kind == "depthwise":
            layer = tf.keras.layers.DepthwiseConv2D(kernel, **options)
        else:
            groups = 2 if kind == "grouped" else 1
            layer = tf.keras.layers.Conv2D(6, kernel, groups=groups, **options)
        outputs.append(layer(image))
    return tf.keras.Model(image, outputs)


@pytest.mark.parametrize("kind", ["convolution", "depthwise", "grouped"])
def test_pixels_behind_the_last_kernel(networks, kind):
    model = networks.randomize(strided(kind))
    conversion = convert(model, allow_float=True)
    assert max(largest_difference(model, conversion.flatbuffer)) < 1e-4


def test_the_engine_alone_takes_them_for_a_border(networks, tmp_path):
    """If this fails, XNNPACK has learned it and nothing need be cut any more."""
    model = networks.randomize(strided("convolution"))
    flatbuffer = order_by_signature(networks.convert_as_it_is(model, tmp_path))
    differences = largest_difference(model, flatbuffer)
    assert [case for case, d in zip(BEYOND, differences, strict=True) if d > 0.1]


@pytest.mark.parametrize("kernel", [2, (1, 4)])
def test_pixels_behind_the_last_kernel_of_8_bits(networks, kernel):
    model = networks.randomize(
        tf.keras.Sequential(
            [
                tf.keras.Input((30, 31, 3)),
                tf.keras.layers.Conv2D(32, kernel, strides=3, padding="same"),
                networks.quant_conv(16),
                tf.keras.layers.GlobalAveragePooling2D(),
            ]
        )
    )
    images = np.random.default_rng(0).normal(size=(6, 30, 31, 3)).astype("float32")
    edged = int8_edges(model, images)
    conversion = convert(edged)
    assert verify(edged, conversion.flatbuffer, images).ok
    graph = read_graph(conversion.flatbuffer)
    (first,) = [op for op in graph.ops if op.name == "CONV_2D"]
    assert graph.tensors[first.inputs[0]].dtype == "INT8"
    assert conversion.report.op_counts["SLICE"] == 1


def test_float_kernels_on_signs(networks):
    image = tf.keras.Input((30, 30, 3))
    layer = lq.layers.QuantConv2D(8, (1, 3), strides=2, padding="same", input_quantizer="ste_sign")
    model = networks.randomize(tf.keras.Model(image, [layer(image), layer(-image)]))
    conversion = convert(model, allow_float=True)
    assert max(largest_difference(model, conversion.flatbuffer)) < 1e-4


def test_binary_convolutions_pad_by_themselves(networks):
    layers = [
        networks.quant_conv(32, kernel, strides=3, pad_values=value)
        for kernel in ((2, 2), (1, 4))
        for value in (0.0, 1.0)
    ]
    image = tf.keras.Input((30, 31, 32))
    model = networks.randomize(tf.keras.Model(image, [layer(image) for layer in layers]))
    conversion = convert(model)
    assert max(largest_difference(model, conversion.flatbuffer)) < 1e-3


def test_a_size_that_depends_on_the_data_is_left_alone():
    image = tf.keras.Input((None, None, 3))
    outputs = tf.keras.layers.Conv2D(2, 3, 2)(tf.keras.layers.ZeroPadding2D(1)(image))
    outputs = tf.keras.layers.Conv2D(2, 2, 3, padding="same")(outputs)
    graph_def = freeze(tf.keras.Model(image, outputs)).graph_def
    before = graph_def.SerializeToString(deterministic=True)
    _padding.trim_strided(graph_def)
    assert graph_def.SerializeToString(deterministic=True) == before
