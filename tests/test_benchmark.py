"""The benchmark: what is compared, what the result says, what is refused. No times are judged."""

import json
from types import SimpleNamespace

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from larq_ext import cli
from larq_ext.benchmark import _native, _run, benchmark, convert_twin, float_twin
from larq_ext.benchmark._report import read_operations
from larq_ext.benchmark._timing import Spread, Timed, Turn, ratios, take_turns
from larq_ext.deploy._flatbuffer import read_graph
from larq_ext.deploy.convert import convert
from larq_ext.runtime import EngineError

pytest.importorskip("larq_compute_engine")


def quant_conv(filters: int, **kwargs):
    settings = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "padding": "same",
        "pad_values": 1.0,
        "use_bias": False,
        **kwargs,
    }
    return lq.layers.QuantConv2D(filters, 3, **settings)


def network() -> tf.keras.Model:
    return tf.keras.Sequential(
        [
            tf.keras.Input((6, 5, 64)),
            quant_conv(64, strides=2, groups=2, name="conv"),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.GlobalAveragePooling2D(),
        ]
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    model = network()
    flatbuffer = convert(model).flatbuffer
    keras_file, file = folder / "tiny.keras", folder / "tiny.tflite"
    model.save(keras_file)
    file.write_bytes(flatbuffer)
    return SimpleNamespace(model=model, flatbuffer=flatbuffer, keras=keras_file, file=file)


@pytest.fixture
def no_library(monkeypatch):
    def missing():
        raise EngineError("The native kernels of larq_ext are not built.")

    monkeypatch.setattr(_native, "available_kernels", missing)


@pytest.mark.slow
def test_every_contender_has_a_row(tiny):
    report = benchmark(tiny.model, tiny.flatbuffer, rounds=2)
    values = json.loads(json.dumps(report.to_dict()))
    assert {"machine", "rounds", "base", "contenders", "binary_macs", "native"} <= set(values)
    assert {"cpu", "features", "cores", "versions"} <= set(values["machine"])
    rows = {row["name"]: row for row in values["contenders"]}
    assert list(rows) == ["native", "float32", "int8", "lce"]
    for name in ("float32", "int8", "lce"):
        assert rows[name]["milliseconds"]["low"] <= rows[name]["milliseconds"]["high"]
        assert rows[name]["ratio"]["median"] > 0
        assert rows[name]["samples"] >= 2
    assert rows["lce"]["copying_subtracted"] > 0
    assert rows["int8"]["copying_subtracted"] == 0
    assert rows["int8"]["file_bytes"] != rows["float32"]["file_bytes"]
    assert values["binary_macs"] == 3 * 3 * 64 * 3 * 3 * 32  # a filter sees one of two groups
    for text in (*rows, "Median ms", "Quartiles", values["machine"]["cpu"], "tensorflow"):
        assert text in str(report)


def test_native_row_and_operators(tiny):
    try:
        _native.check_kernel("auto")
    except EngineError as error:
        pytest.skip(str(error))
    report = benchmark(tiny.model, tiny.flatbuffer, against=["lce"], num_threads=[1, 2], rounds=2)
    assert report.base == ("native", 1)
    assert report.contest("native").ratio.median == 1.0
    assert report.contest("native").ratio_of_threads.median == 1.0
    assert [(row.name, row.threads) for row in report.contests] == [
        ("native", 1),
        ("lce", 1),
        ("native", 2),
        ("lce", 2),
    ]
    assert report.difference < 1e-3
    native = report.to_dict()["native"]
    assert native["kernel"] in _native.available_kernels()
    assert sum(row["macs"] for row in native["operations"]) == report.binary_macs
    assert sum(row["share"] for row in native["operations"]) == pytest.approx(1.0)
    # The delegate may run operators together; then their names are joined.
    assert any("LceBconv2d" in row["name"] for row in native["operations"])
    assert "GMAC/s" in str(report)


def test_without_the_library_the_table_says_so(tiny, no_library):
    report = benchmark(flatbuffer=tiny.file, rounds=1)
    assert report.base == ("lce", 1)
    assert report.native is None
    assert "native, 1 thread(s): not available, The native kernels" in str(report)
    with pytest.raises(ValueError, match="native cannot run: The native kernels"):
        benchmark(flatbuffer=tiny.file, against=[])


def test_a_file_alone_is_compared_with_lce(tiny, no_library):
    report = benchmark(flatbuffer=tiny.file, rounds=1)
    assert [row.name for row in report.contests] == ["native", "lce"]
    with pytest.raises(ValueError, match=r"int8 cannot be made.*--model"):
        benchmark(flatbuffer=tiny.file, against=["int8", "lce"])


def test_wrong_arguments_name_the_right_ones(tiny, monkeypatch):
    with pytest.raises(ValueError, match=r"'fast': choose from float32, int8, lce\."):
        benchmark(tiny.model, tiny.flatbuffer, against=["lce", "fast"])
    with pytest.raises(ValueError, match="pass a model, a converted file, or both"):
        benchmark()
    with pytest.raises(ValueError, match="pass a model, a converted file, or both"):
        benchmark(num_threads=np.int64(1))
    with pytest.raises(ValueError, match="at least 1"):
        benchmark(tiny.model, num_threads=0)
    with pytest.raises(ValueError, match="not True"):
        benchmark(tiny.model, num_threads=[1, True])
    monkeypatch.setattr(_native, "available_kernels", lambda: ("avx2", "portable"))
    with pytest.raises(ValueError, match=r"'mmx': choose from auto, avx2, portable\."):
        benchmark(tiny.model, tiny.flatbuffer, kernel="mmx")


def _layers_of_all_kinds() -> tf.keras.Model:
    image = x = tf.keras.Input((9, 9, 8))
    x = quant_conv(8, groups=2, name="grouped")(x)
    x = quant_conv(8, dilation_rate=2, use_bias=True, name="dilated")(x)
    x = lq.quantizers.SteSign(name="sign")(x)
    x = lqx.layers.QuantConv2D(16, 3, strides=2, quantizer="learnable_scale", name="learned")(x)
    x = tf.keras.layers.BatchNormalization(name="norm")(x)
    x = lq.layers.QuantDepthwiseConv2D(3, depthwise_quantizer="ste_sign", name="depthwise")(x)
    x = tf.keras.layers.PReLU(name="prelu")(x)
    x = tf.keras.layers.Activation(lq.quantizers.ste_sign, name="activation")(x)
    x = tf.keras.layers.Flatten()(x)
    x = lq.layers.QuantDense(5, kernel_quantizer="ste_sign", name="dense")(x)
    return tf.keras.Model(image, x)


def test_float_twin_has_the_same_shapes_and_no_quantizers():
    model = _layers_of_all_kinds()
    twin = float_twin(model)
    assert [layer.name for layer in twin.layers] == [layer.name for layer in model.layers]
    for layer, new in zip(model.layers, twin.layers, strict=True):
        assert not type(new).__module__.startswith(("larq.", "larq_ext."))
        assert not [key for key in new.get_config() if "quantizer" in key]
        assert new.output_shape == layer.output_shape
        for name in ("kernel", "depthwise_kernel", "bias"):
            if getattr(new, name, None) is not None:
                assert getattr(new, name).shape == getattr(layer, name).shape
        for name in ("strides", "padding", "dilation_rate", "groups"):
            assert getattr(new, name, None) == getattr(layer, name, None)
    for name in ("sign", "activation"):
        assert twin.get_layer(name).activation is tf.keras.activations.linear


def test_float_twin_keeps_the_values():
    """On inputs that are signs already, without padding, binarization changes nothing."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input((5, 5, 8)),
            quant_conv(4, padding="valid", pad_values=0.0),
            tf.keras.layers.BatchNormalization(),
        ]
    )
    model.layers[-1].set_weights([np.random.uniform(0.5, 2.0, 4) for _ in range(4)])
    inputs = np.random.choice([-1.0, 1.0], (3, 5, 5, 8)).astype("float32")
    np.testing.assert_allclose(float_twin(model)(inputs), model(inputs), rtol=1e-5, atol=1e-5)


def test_float_twin_drops_the_parameters_of_activations():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 3)),
            tf.keras.layers.Conv2D(4, 3, activation=lqx.quantizers.LearnableScale()),
            tf.keras.layers.Activation(lqx.quantizers.LearnableScale()),
        ]
    )
    twin = float_twin(model)
    assert [w.shape for w in twin.weights] == [(3, 3, 3, 4), (4,)]
    np.testing.assert_array_equal(twin.layers[0].kernel, model.layers[0].kernel)


def test_a_file_of_another_network_is_refused(tiny):
    other = tf.keras.Sequential([tf.keras.Input((9, 9, 3)), tf.keras.layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match=r"The file is not that of .*its inputs have the shapes"):
        benchmark(other, tiny.flatbuffer)


def test_a_file_for_several_samples_is_refused():
    """Its time would be that of all of them."""
    model = tf.keras.Sequential([tf.keras.Input((4,), batch_size=8), tf.keras.layers.Dense(2)])
    flatbuffer = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    with pytest.raises(ValueError, match=r"shapes \[\(8, 4\)\], and latency is that of one"):
        benchmark(model, flatbuffer)


def test_float_twin_of_layers_without_a_name_in_their_configuration():
    class Times(tf.keras.layers.Layer):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def build(self, shape):
            self.offset = self.add_weight("offset", (shape[-1],), initializer="ones")

        def call(self, inputs):
            return self.factor * inputs + self.offset

    model = tf.keras.Sequential([tf.keras.Input((3,)), Times(2.0), tf.keras.layers.Dense(2)])
    model.layers[0].offset.assign([1.0, 2.0, 3.0])
    x = np.ones((1, 3), np.float32)
    np.testing.assert_allclose(float_twin(model)(x), model(x), rtol=1e-6)


def test_float_twin_goes_into_nested_models_and_refuses_others():
    inner = network()
    model = tf.keras.Sequential([tf.keras.Input((6, 5, 64)), inner])
    nested = float_twin(model).get_layer(inner.name)
    assert type(nested.get_layer("conv")) is tf.keras.layers.Conv2D

    class Subclassed(tf.keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="functional API"):
        float_twin(Subclassed())
    with pytest.raises(ValueError, match="baked already"):
        float_twin(lqx.deploy.bake(network()))


@pytest.mark.parametrize("int8, dtype", [(True, "INT8"), (False, "FLOAT32")])
def test_twin_runs_in_its_type_throughout(int8, dtype):
    graph = read_graph(convert_twin(float_twin(network()), int8=int8))
    conv = next(op for op in graph.ops if op.name == "CONV_2D")
    assert [graph.tensors[i].dtype for i in (*conv.inputs[:2], *conv.outputs)] == [dtype] * 3
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(graph.op_counts())


def test_turns_alternate_and_overhead_is_timed_with_them():
    calls = []
    contenders = {
        "a": Timed(lambda: calls.append("a")),
        "b": Timed(lambda: calls.append("b"), overhead=lambda: calls.append("overhead")),
    }
    turns = take_turns(contenders, rounds=3)
    assert {key: len(value) for key, value in turns.items()} == {"a": 3, "b": 3}
    order = [name for name, before in zip(calls, [None, *calls], strict=False) if name != before]
    # After warming up: forwards, backwards, forwards.
    expected = ["a", "b", "overhead", "b", "overhead", "a", "b", "overhead"]
    assert order[-len(expected) :] == expected
    assert all(seconds > 0 for turn in turns["b"] for seconds in turn.seconds)


def test_what_cannot_run_leaves_the_others(monkeypatch):
    """TensorFlow Lite refuses the int8 twin, and LCE the file: native is still measured."""
    from larq_ext.benchmark import _run

    def no_int8(twin, int8):
        if int8:
            raise RuntimeError("no int8 for GELU\nmore")
        return convert_twin(twin, int8=int8)

    def no_file(flatbuffer, num_threads):
        raise ValueError("an operator that LCE lacks")

    convert_twin = _run.convert_twin
    monkeypatch.setattr(_run, "convert_twin", no_int8)
    monkeypatch.setattr(_run, "lce_contender", no_file)
    model = tf.keras.Sequential([tf.keras.Input((6, 6, 32)), quant_conv(32, pad_values=-1.0)])
    report = benchmark(model, rounds=1)
    assert report.contest("native").seconds is not None
    assert report.contest("float32").seconds is not None
    assert report.contest("int8").unavailable == "no int8 for GELU"
    assert report.contest("lce").unavailable == "an operator that LCE lacks"
    assert any("0/1 layers are binary" in note for note in report.notes)


def test_ratios_compare_turns_of_the_same_round():
    slow = [Turn((2.0, 2.0), 0.0), Turn((20.0, 20.0), 0.0)]
    fast = [Turn((1.0, 1.0), 0.0), Turn((10.0, 10.0), 0.0)]
    assert ratios(slow, fast) == Spread(2.0, 2.0, 2.0)
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)


def test_operators_add_up_to_the_whole():
    node = {"name": "LceBconv2d", "output": "1", "shape": [1, 2, 2, 4], "macs": 500}
    values = {
        "nodes": [
            {**node, "partition": 0, "nanoseconds": 100},
            {**node, "partition": 1, "nanoseconds": 300},
        ],
        "partitions": [{"nanoseconds": 120}, {"nanoseconds": 330}],
        "gaps": [{"after": 0, "nanoseconds": 50}],
    }
    rows = read_operations(_native.Profile(values, invokes=10, seconds=1000e-9), ["x", "y"])
    assert [(row.name, round(row.seconds * 1e10)) for row in rows] == [
        ("LceBconv2d", 100),
        ("(delegate)", 20),
        ("(runtime)", 50),
        ("LceBconv2d", 300),
        ("(delegate)", 30),
        ("(runtime)", 500),
    ]
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert rows[0].output == "y"
    assert rows[0].macs_per_second == pytest.approx(500 / 10e-9)
    assert rows[1].macs_per_second is None


def run(*arguments):
    result = CliRunner().invoke(cli.main, ["benchmark", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_command_prints_json_and_table(tiny):
    result = run(tiny.file, "--model", tiny.keras, "--against", "int8, lce", "--runs", 1, "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["contenders"]
    assert [row["name"] for row in rows] == ["native", "int8", "lce"]
    result = run(tiny.file, "--runs", 1)
    assert result.exit_code == 0
    assert "Contender" in result.stdout


def test_command_converts_a_model(tiny, monkeypatch):
    seen = {}

    def measure(network, file, **options):
        seen.update(network=network, file=file, **options)
        return SimpleNamespace(to_dict=dict)

    monkeypatch.setattr("larq_ext.benchmark.benchmark", measure)
    assert run(tiny.keras, "--threads", 1, "--threads", 2, "--json").exit_code == 0
    assert seen["network"].get_layer("conv") is not None
    assert seen["file"] is None
    assert seen["against"] is None
    assert seen["num_threads"] == (1, 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing.tflite"], "There is no file missing.tflite"),
        (["missing.keras"], "There is no file missing.keras"),
        (["no_such_model"], "no_such_model"),
        (["x.keras", "--model", "y.keras"], "--model belongs to a .tflite file"),
        (["{file}", "--against", "int9"], "choose from float32, int8, lce"),
        (["{file}", "--against", "float32"], "--model"),
    ],
)
def test_command_refuses_wrong_use_in_one_line(tiny, arguments, message):
    result = run(*(argument.format(file=tiny.file) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_conversion_is_part_of_it(monkeypatch):
    """Without a file the model is converted, float layers included."""
    calls = []

    def converted(model, allow_float):
        calls.append((model, allow_float))
        raise ValueError("stop here")

    monkeypatch.setattr(_run, "convert", converted)
    with pytest.raises(ValueError, match="stop here"):
        benchmark("a model", against=["lce"])
    assert calls == [("a model", True)]
