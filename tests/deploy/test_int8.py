"""8-bit layers around the binary ones: real integer operators, and what they compute."""

import numpy as np
import pytest

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_ext._models_io import load_predictor
from larq_ext.deploy import DeploymentError, bake, convert, float_reasons, int8_edges, verify
from larq_ext.deploy._flatbuffer import read_graph
from larq_ext.deploy._int8_layers import Int8Conv2D, Int8Dense, Int8Range, int8_weights
from larq_ext.deploy.int8 import _Values
from larq_ext.quantizers import Int8
from larq_ext.runtime import Interpreter, Quantization

layers = tf.keras.layers
BOTH = {"input_type": "int8", "output_type": "int8"}


def network(randomize, quant_conv, top=None):
    """A real layer, two binary ones, a real one, with norms and a shortcut."""
    image = tf.keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    y = layers.BatchNormalization(name="shift")(x)
    y = quant_conv(32, name="one")(y)
    y = layers.BatchNormalization(name="one_norm")(y)
    x = layers.Add(name="sum")([x, y])
    x = layers.Conv2D(32, 1, name="middle")(x)
    x = quant_conv(32, strides=2, name="two")(x)
    x = layers.BatchNormalization(name="two_norm")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, name="logits", activation=top)(x)
    model = randomize(tf.keras.Model(image, x))
    # Logits of a size at which a softmax is not of zeros and ones.
    model.get_layer("logits").set_weights(
        [0.1 * value for value in model.get_layer("logits").get_weights()]
    )
    return model


def images(count=24, seed=1, shape=(8, 8, 3)):
    return np.random.default_rng(seed).uniform(-1, 2, size=(count, *shape)).astype("float32")


@pytest.fixture(scope="module")
def model(networks):
    return network(networks.randomize, networks.quant_conv)


@pytest.fixture(scope="module")
def edged(model):
    return int8_edges(model, images())


@pytest.fixture(scope="module")
def conversion(edged):
    return convert(edged)


@pytest.fixture(scope="module")
def integers(edged):
    """The same with int8 inputs and outputs."""
    return convert(edged, **BOTH)


def types(flatbuffer):
    """Operators with the types of their inputs and outputs."""
    graph = read_graph(flatbuffer)
    return [
        (
            op.name,
            [graph.tensors[i].dtype for i in op.inputs if i >= 0],
            [graph.tensors[i].dtype for i in op.outputs],
        )
        for op in graph.ops
    ]


# One layer, computed by hand


def test_a_convolution_is_one_of_integers_computed_by_hand():
    """The file against integers in numpy, with scales that are not those of the layer's code."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(3, 3, 4, 6)).astype("float32") * np.geomspace(0.01, 10, 6)
    bias = generator.normal(size=6) * np.geomspace(0.05, 50, 6)
    ends = Int8Range(-1.0, 1.55), Int8Range(-51.0, 204.0)
    layer = Int8Conv2D(
        6, 3, strides=2, padding="same", activation="relu6", input_quantizer=ends[0],
        output_quantizer=Int8Range(0.0, 6.0), name="conv",
    )  # fmt: skip
    model = tf.keras.Sequential([tf.keras.Input((7, 7, 4)), layer])
    layer.set_weights(int8_weights(kernel, bias, ends[0], layer.output_quantizer))
    x = images(8, shape=(7, 7, 4))

    # 2.55 / 255 and 6 / 255; zero points where 0 is among -128..127.
    q = np.clip(np.round(x / 0.01) - 28, -128, 127)
    steps = np.abs(kernel).max((0, 1, 2)) / 127
    sums = tf.nn.conv2d(
        q + 28, np.round(kernel / steps).astype("float64"), 2, "SAME"
    ).numpy() + np.round(bias / (0.01 * steps))
    expected = np.clip(np.round(sums * 0.01 * steps / (6 / 255)) - 128, -128, 127)

    flatbuffer = convert(model, allow_float=True, **BOTH).flatbuffer
    assert types(flatbuffer) == [("CONV_2D", ["INT8", "INT8", "INT32"], ["INT8"])]
    for engine in ("native", "lce"):
        interpreter = Interpreter(flatbuffer, engine=engine)
        actual = interpreter.predict(q.astype("int8"))
        # Engines may round their sums twice, and what lies halfway to either side.
        assert np.abs(actual - expected).max() <= 1
        assert (actual != expected).mean() < 0.01
    steps_apart = (model.predict(x, verbose=0) / (6 / 255)) - (expected + 128)
    assert np.abs(steps_apart).max() < 1.01 and (np.abs(steps_apart) > 0.01).mean() < 0.01


def test_steps_of_kernels_keep_biases_within_32_bits():
    """A channel that a norm has switched off, with a bias: its sum would overflow."""
    ends = Int8Range(-1.0, 1.0), Int8Range(-2.0, 2.0)
    kernel = np.zeros((1, 1, 2, 3), "float32")
    kernel[..., 1], kernel[..., 2] = 1e-20, 0.5
    layer = Int8Conv2D(3, 1, input_quantizer=ends[0], output_quantizer=ends[1])
    model = tf.keras.Sequential([tf.keras.Input((2, 2, 2)), layer])
    layer.set_weights(int8_weights(kernel, np.array([1.5, -1.5, 0.25]), *ends))
    outputs = Interpreter(convert(model, allow_float=True).flatbuffer).predict(
        np.zeros((1, 2, 2, 2), "float32")
    )
    np.testing.assert_allclose(outputs[0, 0, 0], [1.5, -1.5, 0.25], atol=2 / 255)


# Networks, after training


def test_edges_are_integer_operators_and_the_middle_is_binary(conversion, edged):
    assert conversion.report.verdict == "2/2 layers are binary"
    assert isinstance(edged.get_layer("stem"), Int8Conv2D)
    assert isinstance(edged.get_layer("logits"), Int8Dense)
    assert type(edged.get_layer("middle")) is layers.Conv2D
    found = types(conversion.flatbuffer)
    convs = [ends for name, *ends in found if name == "CONV_2D"]
    integer = [["INT8", "INT8", "INT32"], ["INT8"]]
    assert convs == [integer, [["FLOAT32"] * 3, ["FLOAT32"]], integer]
    names = [name for name, *_ in found]
    assert names[:2] == ["QUANTIZE", "CONV_2D"] and names[-1] == "DEQUANTIZE"
    assert "RELU" not in names  # it is in the convolution


def test_kernels_have_a_scale_for_each_channel(conversion):
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(conversion.flatbuffer)).subgraphs[0]
    kernels = [
        t
        for t in graph.tensors
        if t.type == schema.TensorType.INT8 and t.buffer and len(t.shape) == 4
    ]
    scales = {len(t.quantization.scale) for t in kernels if len(t.quantization.scale) > 1}
    assert scales == {32, 5}


def test_the_file_computes_what_keras_does(conversion, integers, edged):
    x = images(40, seed=2)
    expected = edged.predict(x, verbose=0)
    step = edged.get_layer("logits").output_quantizer.step
    report = verify(edged, conversion.flatbuffer, x)
    assert report.ok and len(report.different) <= 2
    report = verify(edged, integers.flatbuffer, x)
    assert report.ok and len(report.different) <= 2
    actual = Interpreter(conversion.flatbuffer).predict(x)
    apart = np.abs(actual - expected).max(1) / step
    assert np.median(apart) < 0.01  # a sign at a tie may turn in one sample


def test_the_outputs_are_close_to_those_in_floats(model, edged):
    x = images(64, seed=3)
    truth = model.predict(x, verbose=0)
    error = np.abs(edged.predict(x, verbose=0) - truth).mean() / truth.std()
    assert error < 0.2
    # Not because nothing was rounded.
    assert error > 1e-3


def test_ranges_are_those_of_the_samples(model, edged):
    stem = edged.get_layer("stem")
    x = images()
    parts = tf.keras.Model(
        model.inputs, [model.get_layer(n).output for n in ("stem_relu", "logits")]
    )
    relu, logits = (part.numpy() for part in parts(x))
    # The norm and the ReLU are in the layer; its kernel is rounded, too.
    error = np.abs(stem(x).numpy() - relu)
    assert error.mean() < stem.output_quantizer.step and error.max() < relu.max() / 20
    for name, values in (("stem", relu), ("logits", logits)):
        quantizer = edged.get_layer(name).output_quantizer
        assert quantizer.minimum == pytest.approx(min(values.min(), 0), abs=1.01 * quantizer.step)
        assert quantizer.maximum == pytest.approx(values.max(), abs=1.01 * quantizer.step)
    assert stem.input_quantizer.minimum <= x.min() and stem.input_quantizer.maximum >= x.max()
    cut = int8_edges(model, x, percentile=99).get_layer("stem").output_quantizer
    assert cut.maximum == pytest.approx(np.percentile(relu, 99), rel=0.02)


def test_ranges_are_of_all_batches_of_samples(model):
    """More samples than are run at once, of which the last batch has the largest."""
    x = images(count=70)
    x[69, 0, 0, 0] = 9.0
    edged = int8_edges(model, x)
    back = int8_edges(model, x[::-1])
    for name in ("stem", "logits"):
        one, other = edged.get_layer(name), back.get_layer(name)
        for role in ("input_quantizer", "output_quantizer"):
            first, second = getattr(one, role), getattr(other, role)
            assert (first.minimum, first.maximum) == pytest.approx((second.minimum, second.maximum))
    assert 9 <= edged.get_layer("stem").input_quantizer.maximum < 9.5


def test_kept_values_are_of_all_channels():
    values = np.zeros((64, 32, 32, 64), np.float32)
    values[..., 1::2] = 100.0
    seen = _Values(95)
    seen.add(values)
    assert seen.range().maximum == pytest.approx(100, rel=0.01)


def test_signs_lose_nothing_by_rounding(networks):
    """Inputs and kernels of integers: only the outputs are rounded, and in them no sign turns."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 3)),
            layers.Conv2D(32, 3, name="stem"),
            layers.MaxPool2D(2, name="pool"),
            networks.quant_conv(32, name="binary"),
        ]
    )
    generator = np.random.default_rng(0)
    kernel, bias = generator.integers(-126, 127, (3, 3, 3, 32)), generator.normal(0, 99, 32)
    kernel[0, 0, 0] = 127
    model.get_layer("stem").set_weights([kernel, bias])
    x = (generator.integers(-127, 128, (32, 8, 8, 3)) / 127).astype("float32")
    x[0, 0, 0] = [-1, 0, 1]
    edged = int8_edges(model, x, layers=["stem"])
    truth, rounded = (m.get_layer("stem")(x).numpy() for m in (model, edged))
    clear = np.abs(truth) > 0.1
    step = edged.get_layer("stem").output_quantizer.step
    assert (np.abs(truth[clear]) < step / 2).sum() > 100
    np.testing.assert_array_equal(truth[clear] >= 0, rounded[clear] >= 0)


def test_signs_of_exact_zeros_stay(networks):
    """Black pixels without a bias: sums of exactly 0 are signs of +1."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input((12, 12, 3)),
            layers.Conv2D(32, 3, use_bias=False, name="stem"),
            networks.quant_conv(32, name="binary"),
        ]
    )
    networks.randomize(model)
    x = images(16, seed=8)[:, :8, :8]
    x = np.pad(x, [(0, 0), (0, 12 - x.shape[1]), (0, 12 - x.shape[2]), (0, 0)])
    edged = int8_edges(model, x, layers=["stem"])
    truth, rounded = (m.get_layer("stem")(x).numpy() for m in (model, edged))
    assert (truth == 0).sum() > 1000
    assert (rounded[truth == 0] >= 0).all()
    assert verify(edged, convert(edged).flatbuffer, x).ok


@pytest.mark.parametrize("high", [0.9, 1.0, 2.0, 4.0, 3.0])
def test_no_sum_lies_halfway_between_two_outputs(high):
    """Half a step of the output may be a whole number of the steps that sums have."""
    ends = Int8Range(-1.0, 1.0), Int8Range(-high, high)
    kernel = np.ones((1, 1, 1, 2), "float32")
    layer = Int8Conv2D(2, 1, input_quantizer=ends[0], output_quantizer=ends[1])
    layer.build((None, 1, 1, 1))
    bias = np.array([0.0, 0.3])
    layer.set_weights(int8_weights(kernel, bias, *ends, only_signs=True))
    x = ends[0](tf.reshape(tf.linspace(-1.0, 1.0, 801), (-1, 1, 1, 1)))
    truth = x.numpy() * kernel[0, 0] + bias
    clear = (np.abs(truth) > 1e-3) | (x.numpy() == 0)
    np.testing.assert_array_equal(layer(x).numpy()[clear] >= 0, (truth >= 0)[clear])


def test_a_baked_model_gets_ends_too(networks):
    model = network(networks.randomize, networks.quant_conv)
    norm = model.get_layer("shift")
    norm.gamma.assign(tf.abs(norm.gamma))
    baked = bake(model)
    assert lqx.deploy.applied_rewrites(baked)
    x = images()
    edged = int8_edges(baked, x)
    assert [m.name for m in edged.layers if isinstance(m, Int8Conv2D)] == ["stem", "logits"]
    again = int8_edges(edged, x, layers="all")
    assert isinstance(again.get_layer("middle"), Int8Conv2D)


def test_softmax_and_all_layers_and_names(networks):
    model = network(networks.randomize, networks.quant_conv, top="softmax")
    everything = int8_edges(model, images(), layers="all")
    names = {layer.name for layer in everything.layers if isinstance(layer, Int8Conv2D)}
    assert names == {"stem", "middle", "logits"}
    named = int8_edges(model, images(), layers=["logits"])
    assert [m.name for m in named.layers if isinstance(m, Int8Conv2D)] == ["logits"]
    conversion = convert(named, output_type="int8")
    name, *ends = types(conversion.flatbuffer)[-1]
    assert (name, ends) == ("SOFTMAX", [["INT8"], ["INT8"]])
    interpreter = Interpreter(conversion.flatbuffer)
    assert interpreter.output_quantization[0][:2] == (1 / 256, -128)
    x = images(8, seed=4)
    outputs = interpreter.output_quantization[0].dequantize(interpreter.predict(x))
    np.testing.assert_allclose(outputs, named.predict(x, verbose=0), atol=1.01 / 256)


class Standardized(tf.keras.layers.Conv2D):
    """Computes something of its own."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - tf.reduce_mean(kernel))


@pytest.mark.parametrize(
    "stem",
    [
        lambda: Standardized(32, 3, name="stem"),
        lambda: tf.keras.layers.Conv2D(32, 3, activation=tf.keras.layers.PReLU(), name="stem"),
        lambda: lqx.layers.QuantConv2D(32, 3, padding="same", pad_values=1.0, name="stem"),
    ],
    ids=["of a derived class", "an activation with weights", "a border of ones"],
)
def test_convolutions_that_compute_something_else_are_left_alone(networks, stem):
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 3)),
            stem(),
            networks.quant_conv(32),
            tf.keras.layers.GlobalAveragePooling2D(),
            tf.keras.layers.Dense(4, name="logits"),
        ]
    )
    edged = int8_edges(model, np.ones((4, 8, 8, 3), "float32"))
    assert [m.name for m in edged.layers if isinstance(m, Int8Conv2D)] == ["logits"]


def test_an_activation_layer_that_holds_a_layer_stays(networks):
    slopes = tf.keras.layers.PReLU(shared_axes=(1, 2))
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 3)),
            tf.keras.layers.Conv2D(32, 3, name="stem"),
            tf.keras.layers.Activation(slopes, name="prelu"),
            networks.quant_conv(32),
        ]
    )
    networks.randomize(model)
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    edged = int8_edges(model, x)
    assert isinstance(edged.get_layer("stem"), Int8Conv2D)
    np.testing.assert_array_equal(edged.get_layer("prelu").get_weights(), slopes.get_weights())
    assert verify(edged, convert(edged).flatbuffer, x).ok


@pytest.mark.parametrize(
    "layer",
    [
        lambda: lq.layers.QuantDepthwiseConv2D(
            3, input_quantizer="int8", depthwise_quantizer="int8", name="trained"
        ),
        lambda: lqx.layers.QuantConv2D(
            4, 3, groups=2, input_quantizer="int8", kernel_quantizer="int8", name="trained"
        ),
    ],
    ids=["depthwise", "groups"],
)
def test_layers_that_8_bits_are_not_for_are_named(layer):
    model = tf.keras.Sequential([tf.keras.Input((6, 6, 2)), layer()])
    model(tf.ones((1, 6, 6, 2)), training=True)
    with pytest.warns(UserWarning, match="trained stays in float32, with rounded inputs"):
        bake(model)


def test_functions_of_features_keep_their_axis():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6,)),
            tf.keras.layers.Dense(5, activation=lambda x: tf.nn.softmax(x, axis=1), name="logits"),
        ]
    )
    x = images(24, shape=(6,))
    edged = int8_edges(model, x)
    assert isinstance(edged.get_layer("logits"), Int8Dense)
    np.testing.assert_allclose(edged(x), model(x), atol=0.03)


def test_warnings_are_of_the_line_that_calls(networks):
    model = trained(networks.quant_conv, networks.randomize, last_quantizer=False)
    with pytest.warns(UserWarning, match="logits stays") as caught:
        int8_edges(model, images(4))
    assert {w.filename for w in caught if "logits stays" in str(w.message)} == {__file__}


def test_saved_and_loaded(edged, conversion, tmp_path):
    edged.save(tmp_path / "edged.keras")
    again = tf.keras.models.load_model(tmp_path / "edged.keras")
    x = images(8, seed=5)
    np.testing.assert_array_equal(again.predict(x, verbose=0), edged.predict(x, verbose=0))
    assert convert(again).flatbuffer == conversion.flatbuffer


def test_summary_counts_bits(edged, model):
    profile = lq.models.ModelProfile(edged)
    kinds = {layer.name: layer for layer in profile.layer_profiles}
    assert kinds["stem"].weight_count(bitwidth=8) == 3 * 3 * 3 * 32
    assert kinds["stem"].op_count("mac", 8) == 8 * 8 * 32 * 27
    assert not kinds["stem"].op_count("mac", 32)


def test_what_bake_knows_is_kept(networks):
    """Reasons and rewrites, and the other weights, bit for bit."""
    model = network(networks.randomize, networks.quant_conv)
    model.get_layer("shift").gamma.assign(np.abs(model.get_layer("shift").gamma.numpy()))
    edged = int8_edges(model, images())
    assert [(r.name, r.layer) for r in lqx.deploy.applied_rewrites(edged)] == [
        ("threshold", "shift")
    ]
    assert not float_reasons(edged)
    plain = int8_edges(model, images(), without=["threshold"])
    for a, b in zip(
        plain.get_layer("one").weights, bake(model).get_layer("one").weights, strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((0, 8, 8, 3)), "must hold some samples"),
        (np.zeros((4, 8, 8)), r"must have the shape \(samples, 8, 8, 3\), received \(4, 8, 8\)"),
        (np.full((4, 8, 8, 3), np.nan), "not finite"),
    ],
)
def test_wrong_samples(model, samples, message):
    with pytest.raises(ValueError, match=message):
        int8_edges(model, samples)


def test_wrong_names(model):
    for wrong in (["one"], "stem", ["stem", "no"]):
        with pytest.raises(
            ValueError, match=r"names from \['stem', 'middle', 'logits'\], received"
        ):
            int8_edges(model, images(), layers=wrong)
    with pytest.raises(ValueError, match=r"above 50 to 100, received 0\.99"):
        int8_edges(model, images(), percentile=0.99)
    layer = lqx.layers.QuantConv2D(4, 3, quantizer="ste_sign")
    only_binary = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), layer])
    with pytest.raises(ValueError, match="no real-valued Conv2D or Dense"):
        int8_edges(only_binary, images())


# In training


def trained(quant_conv, randomize, last_quantizer=True):
    ends = {"input_quantizer": "int8", "kernel_quantizer": "int8"}
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 3)),
            lq.layers.QuantConv2D(32, 3, padding="same", use_bias=False, **ends, name="stem"),
            layers.BatchNormalization(name="stem_norm"),
            quant_conv(32, name="binary"),
            layers.BatchNormalization(name="norm"),
            layers.GlobalAveragePooling2D(),
            lqx.layers.QuantDense(5, **ends, name="logits"),
            *([Int8(name="outputs")] if last_quantizer else []),
        ]
    )
    model.compile("adam", "mse")
    model.fit(images(64), np.random.default_rng(0).normal(size=(64, 5)), verbose=0, epochs=2)
    return model


@pytest.mark.slow
def test_layers_trained_for_8_bits_become_integer_operators(networks):
    model = trained(networks.quant_conv, networks.randomize)
    baked = bake(model)
    stem, logits = baked.get_layer("stem"), baked.get_layer("logits")
    assert (type(stem), type(logits)) == (Int8Conv2D, Int8Dense)
    found = logits.output_quantizer
    assert (found.minimum, found.maximum) == model.get_layer("outputs").range()
    # Folding the norm has kept the integers that were trained.
    original = model.get_layer("stem")
    kernel = original.kernel_quantizer(original.kernel.value()).numpy()
    steps = np.abs(kernel).max((0, 1, 2)) / 127
    integers = np.round(stem.kernel.numpy() / (stem.limit.numpy() / 127))
    np.testing.assert_array_equal(np.abs(integers), np.abs(np.round(kernel / steps)))
    # Six deviations around the means, of the norm.
    norm = model.get_layer("stem_norm")
    spread = np.abs(norm.gamma) * np.sqrt(
        norm.moving_variance / (norm.moving_variance + norm.epsilon)
    )
    largest = (norm.beta + 6 * spread).numpy().max()
    assert stem.output_quantizer.maximum == pytest.approx(largest, rel=0.02)
    conversion = convert(model, **BOTH)
    assert conversion.report.verdict == "1/1 layers are binary"
    names = [name for name, *_ in types(conversion.flatbuffer)]
    assert names[0] == "CONV_2D" and "DEQUANTIZE" not in names[-2:]
    x = images(32, seed=6)
    assert verify(conversion.model, conversion.flatbuffer, x).ok
    truth = model.predict(x, verbose=0)
    assert np.median(np.abs(baked.predict(x, verbose=0) - truth)) < 0.02


def test_an_unknown_range_is_named_and_found_by_samples(networks):
    model = trained(networks.quant_conv, networks.randomize, last_quantizer=False)
    with pytest.warns(UserWarning, match=r"logits stays in float32: the range of its outputs"):
        baked = bake(model)
    assert type(baked.get_layer("logits")) is lqx.layers.QuantDense
    x = images(16)
    difference = baked.predict(x, verbose=0) - model.predict(x, verbose=0)
    assert np.median(np.abs(difference)) < 0.02
    edged = int8_edges(baked, x)
    assert isinstance(edged.get_layer("logits"), Int8Dense)
    kept = edged.get_layer("logits").input_quantizer
    assert (kept.minimum, kept.maximum) == model.get_layer("logits").input_quantizer.range()


# Integers in and out


def test_integers_go_in_and_out(conversion, integers):
    floats = Interpreter(conversion.flatbuffer)
    assert floats.input_quantization == floats.output_quantization == [None]
    graph = read_graph(integers.flatbuffer)
    assert [graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)] == ["INT8", "INT8"]
    assert len(graph.ops) == len(read_graph(conversion.flatbuffer).ops) - 2
    x = images(9, seed=7)
    for engine in ("native", "lce"):
        interpreter = Interpreter(integers.flatbuffer, engine=engine)
        (before,), (behind,) = interpreter.input_quantization, interpreter.output_quantization
        assert isinstance(before, Quantization) and before.dtype == np.int8
        outputs = interpreter.predict(before.quantize(x))
        assert outputs.dtype == np.int8
        expected = Interpreter(conversion.flatbuffer, engine=engine).predict(x)
        np.testing.assert_allclose(behind.dequantize(outputs), expected, atol=1e-6)
        with pytest.raises(ValueError, match=r"must be int8.*input_quantization\[0\].quantize"):
            interpreter.predict(x)


def test_commands_that_take_any_model_see_numbers(conversion, integers, tmp_path):
    conversion.save(tmp_path / "floats.tflite")
    integers.save(tmp_path / "integers.tflite")
    samples = images()
    floats = load_predictor(tmp_path / "floats.tflite").predict(samples)
    rounded = load_predictor(tmp_path / "integers.tflite").predict(samples)
    assert floats.dtype == rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, floats, atol=0.1 * np.ptp(floats))


def test_only_one_end(edged, conversion):
    inputs = convert(edged, input_type="int8").flatbuffer
    assert Interpreter(inputs).input_types == [np.int8]
    assert Interpreter(inputs).output_types == [np.float32]


def test_several_ends_keep_their_order(networks):
    one, two = tf.keras.Input((4, 4, 2), name="z"), tf.keras.Input((4, 4, 2), name="a")
    left = layers.Conv2D(3, 1, name="left")(one)
    right = layers.Conv2D(5, 1, name="right")(two)
    model = networks.randomize(tf.keras.Model([one, two], [right, left]))
    samples = [images(8, shape=(4, 4, 2)), 10 * images(8, seed=2, shape=(4, 4, 2))]
    edged = int8_edges(model, samples)
    file = convert(edged, allow_float=True, **BOTH).flatbuffer
    assert Interpreter(file).output_shapes == [(1, 4, 4, 5), (1, 4, 4, 3)]
    assert verify(edged, file, samples).ok


def test_quantization_by_hand():
    quantization = Quantization(0.5, -3, np.dtype("int8"))
    x = np.array([0.0, 0.24, 0.25, -0.25, 0.75, 1000.0, -1000.0, 1.0])
    np.testing.assert_array_equal(quantization.quantize(x), [-3, -3, -3, -3, -1, 127, -128, -1])
    np.testing.assert_array_equal(quantization.dequantize([-3, -1]), [0.0, 1.0])
    with pytest.raises(ValueError, match="NaN"):
        quantization.quantize([np.nan])


def test_integer_weights_count_in_what_floats_would_take(conversion):
    graph = read_graph(conversion.flatbuffer)
    filters = {op.inputs[1]: op for op in graph.ops if op.name in ("CONV_2D", "LceBconv2d")}
    # 32 bits take the place of 8, of 1, and of 32.
    times = {"INT8": 3, "INT32": 31, "FLOAT32": 0}
    assert {graph.tensors[i].dtype for i in filters} >= {"INT8", "INT32"}
    saved = sum(times[graph.tensors[i].dtype] * graph.tensors[i].data.nbytes for i in filters)
    report = conversion.report
    assert report.float_bytes - report.file_bytes == saved


def test_an_input_of_other_integers_is_refused():
    image = tf.keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(image))
    model = tf.keras.Model(image, x)
    edged = int8_edges(model, np.zeros((4, 8, 8, 3), "uint8"))
    with pytest.raises(DeploymentError, match=r"No input can be int8: uint8 is what they hold"):
        convert(edged, allow_float=True, **BOTH)


def test_sizes_and_lists_that_do_not_fit():
    unknown = tf.keras.Sequential([tf.keras.Input((None, None, 3)), layers.Conv2D(4, 3)])
    with pytest.raises(DeploymentError, match="height, width and channels must be numbers"):
        int8_edges(unknown, np.zeros((4, 8, 8, 3)))
    known = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match=r"each of the 1 input.*received 4.*np\.stack"):
        int8_edges(known, [np.zeros((8, 8, 3))] * 4)


@pytest.mark.parametrize("ends", [(-1.0, 1.0), (0.0, 1.0), (-3.1, 2.9)])
def test_quantizing_is_what_the_operator_computes(ends):
    """Also where numbers lie halfway between two integers, as pixels often do."""
    pool = tf.keras.Sequential([tf.keras.Input((2048, 1, 1)), layers.MaxPool2D((1, 1))])
    converter = tf.lite.TFLiteConverter.from_keras_model(pool)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [
        [np.resize(np.float32(ends), (1, 2048, 1, 1))] for _ in range(2)
    ]
    flatbuffer = converter.convert()
    assert [op.name for op in read_graph(flatbuffer).ops] == [
        "QUANTIZE",
        "MAX_POOL_2D",
        "DEQUANTIZE",
    ]
    interpreter = tf.lite.Interpreter(model_content=flatbuffer)
    interpreter.allocate_tensors()
    (found,) = [d for d in interpreter.get_tensor_details() if d["dtype"] == np.int8][:1]
    quantization = Quantization(*found["quantization"], np.dtype("int8"))
    halves = (np.arange(-140, 140) + 0.5 - quantization.zero_point) * np.float32(quantization.scale)
    pixels = ends[0] + (ends[1] - ends[0]) * np.arange(256) / 255
    x = np.resize(np.concatenate([halves, pixels]), 2048).astype("float32").reshape(1, -1, 1, 1)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    outputs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_array_equal(quantization.dequantize(quantization.quantize(x)), outputs)


def test_integers_need_8_bit_layers_at_the_ends(model, edged):
    with pytest.raises(DeploymentError, match=r"input .* cannot be int8: CONV_2D.*int8_edges"):
        convert(model, input_type="int8")
    with pytest.raises(DeploymentError, match=r"output .* cannot be int8: it is computed in float"):
        convert(model, output_type="int8")
    with pytest.raises(ValueError, match=r"input_type must be one of \('float32', 'int8'\)"):
        convert(edged, input_type="uint8")


def test_verify_finds_a_wrong_file(edged, integers):
    """A weight of the first layer with another sign."""
    graph = read_graph(integers.flatbuffer)
    kernel = next(graph.tensors[op.inputs[1]].data for op in graph.ops if op.name == "CONV_2D")
    start = integers.flatbuffer.index(kernel.tobytes())
    wrong = bytearray(integers.flatbuffer)
    wrong[start : start + kernel.nbytes] = (-kernel).tobytes()
    assert not verify(edged, bytes(wrong), images(8)).ok
