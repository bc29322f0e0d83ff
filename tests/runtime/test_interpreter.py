"""The interpreter: what it accepts, what it refuses and with which words, on both engines."""

import os
import subprocess
import sys
import threading
import warnings

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_ext.deploy.convert import convert
from larq_ext.runtime import EngineError, Interpreter, delegate, library_path
from larq_ext.runtime import interpreter as module
from larq_ext.runtime._progress import progress

lce = pytest.importorskip("larq_compute_engine")


def build() -> tf.keras.Model:
    """Two inputs, two outputs; sums of signs, so that results are exact."""
    conv = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    one, two = tf.keras.Input((4, 5, 3)), tf.keras.Input((4, 5, 3))
    both = tf.keras.layers.Concatenate()([one, two])
    convolved = lq.layers.QuantConv2D(6, 3, **conv)(both)
    return tf.keras.Model([one, two], [convolved, tf.keras.layers.Flatten()(convolved)])


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    one = tf.keras.Input((4, 5, 3))
    layer = lq.layers.QuantConv2D(
        6, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
    )
    return tf.keras.Model(one, layer(one))


@pytest.fixture(scope="module")
def flatbuffer(model) -> bytes:
    return lce.convert_keras_model(model)


@pytest.fixture(scope="module", params=["native", "lce"])
def engine(request) -> str:
    if request.param == "native":
        try:
            library_path()
        except EngineError:
            pytest.skip("the native library is not built")
    return request.param


@pytest.fixture(scope="module")
def interpreter(flatbuffer, engine) -> Interpreter:
    return Interpreter(flatbuffer, engine=engine)


@pytest.fixture(scope="module")
def two_by_two():
    """A model with two inputs and two outputs, and its file."""
    model = build()
    return model, convert(model).flatbuffer


@pytest.fixture(scope="module")
def pair(two_by_two, engine):
    model, flatbuffer = two_by_two
    return model, Interpreter(flatbuffer, engine=engine)


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(-9, 10, size=(7, 4, 5, 3)).astype(np.float32)


def test_it_computes_what_keras_computes(model, interpreter, x):
    np.testing.assert_array_equal(interpreter.predict(x), model.predict(x, verbose=0))


def test_its_properties(interpreter, engine):
    assert interpreter.engine == engine
    assert interpreter.input_shapes == [(1, 4, 5, 3)]
    assert interpreter.output_shapes == [(1, 2, 3, 6)]
    assert interpreter.input_types == [np.float32]
    assert interpreter.output_types == [np.float32]


def test_threads_and_paths(flatbuffer, engine, tmp_path, model, x):
    path = tmp_path / "model.tflite"
    path.write_bytes(flatbuffer)
    for source in (path, str(path)):
        result = Interpreter(source, num_threads=2, engine=engine).predict(x)
        np.testing.assert_array_equal(result, model.predict(x, verbose=0))


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_are_checked(flatbuffer, threads):
    with pytest.raises(ValueError, match="num_threads must be an integer of at least 1"):
        Interpreter(flatbuffer, num_threads=threads)


def test_more_threads_than_engines_take(flatbuffer, engine, model, x, monkeypatch):
    """TensorFlow Lite would wait for ever for threads that the system does not give it."""
    monkeypatch.setattr(delegate, "_MAX_THREADS", 3)
    result = Interpreter(flatbuffer, num_threads=2**40, engine=engine).predict(x)
    np.testing.assert_array_equal(result, model.predict(x, verbose=0))


def test_several_inputs_and_outputs(pair, x):
    model, interpreter = pair
    inputs = [x, -x[::-1]]
    for one, other in zip(
        interpreter.predict(inputs), model.predict(inputs, verbose=0), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_iterators_of_batches(interpreter, pair, x):
    expected = interpreter.predict(x)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(3)
    for batches in ((x[i : i + 2] for i in range(0, 7, 2)), dataset):
        np.testing.assert_array_equal(interpreter.predict(batches), expected)
    _, two = pair
    for one, other in zip(two.predict(iter([(x, x)])), two.predict([x, x]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_list_of_one_and_tensors(interpreter, x):
    expected = interpreter.predict(x)
    np.testing.assert_array_equal(interpreter.predict([x]), expected)
    np.testing.assert_array_equal(interpreter.predict(tf.constant(x)), expected)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int64"])
def test_types_that_fit_are_converted(interpreter, x, dtype):
    np.testing.assert_array_equal(interpreter.predict(x.astype(dtype)), interpreter.predict(x))


def test_uint8_images_are_converted(interpreter):
    image = np.random.default_rng(1).integers(0, 256, size=(2, 4, 5, 3)).astype(np.uint8)
    expected = interpreter.predict(image.astype(np.float32))
    np.testing.assert_array_equal(interpreter.predict(image), expected)


@pytest.mark.parametrize("bad", [np.full((1, 4, 5, 3), 2**24 + 1), np.zeros((1, 4, 5, 3), complex)])
def test_types_that_lose_something_are_refused(interpreter, bad):
    with pytest.raises(ValueError, match=f"Input 0 must be float32.*received {bad.dtype}"):
        interpreter.predict(bad)


def test_an_empty_batch_gives_an_empty_result(interpreter, pair, x):
    result = interpreter.predict(x[:0])
    assert (result.shape, result.dtype) == ((0, 2, 3, 6), np.float32)
    assert interpreter.predict(iter([])).shape == (0, 2, 3, 6)
    assert [r.shape for r in pair[1].predict([x[:0], x[:0]])] == [(0, 2, 3, 6), (0, 36)]


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (2, 4, 5, 1), (2, 4, 5), ()])
def test_wrong_shapes_are_named(interpreter, shape):
    with pytest.raises(ValueError) as caught:
        interpreter.predict(np.zeros(shape, np.float32))
    assert "must have the shape (samples, 4, 5, 3)" in str(caught.value)
    assert f"received {shape}" in str(caught.value)


def test_a_missing_batch_dimension_is_named(interpreter, x):
    with pytest.raises(ValueError, match=r"Add the batch dimension: x\[None\]"):
        interpreter.predict(x[0])


def test_the_number_of_inputs_is_checked(interpreter, pair, x):
    with pytest.raises(ValueError, match=r"has 1 input\(s\).*received 2"):
        interpreter.predict([x, x])
    with pytest.raises(ValueError, match=r"has 2 input\(s\).*received 1"):
        pair[1].predict(x)
    with pytest.raises(ValueError, match=r"same number of samples; received \[7, 6\]"):
        pair[1].predict([x, x[:6]])


@pytest.mark.parametrize("bad", [None, 3, "image.png", {"x": 1}])
def test_other_things_are_refused(interpreter, bad):
    with pytest.raises(ValueError, match="Expected an array, a list of arrays or an iterable"):
        interpreter.predict(bad)


def test_int8_models_demand_int8(model, engine, x):
    with pytest.warns(UserWarning, match="latency tests"):
        flatbuffer = lce.convert_keras_model(
            model,
            inference_input_type=tf.int8,
            inference_output_type=tf.int8,
            experimental_default_int8_range=(-9.0, 9.0),
        )
    interpreter = Interpreter(flatbuffer, engine=engine)
    assert interpreter.input_types == [np.int8]
    np.testing.assert_array_equal(
        interpreter.predict(x.astype(np.int8)),
        Interpreter(flatbuffer, engine="lce").predict(x.astype(np.int8)),
    )
    for dtype in ("float32", "uint8", "bool"):
        with pytest.raises(ValueError, match=r"must be int8.*round\(x / "):
            interpreter.predict(x.astype(dtype))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.tflite"):
        Interpreter(tmp_path / "gone.tflite")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"<html>not found</html>"])
def test_other_files_are_refused_before_native_code(tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.tflite.*damaged or another kind"):
        Interpreter(path)


def test_a_progress_bar_is_shown_on_request(interpreter, x, capsys, monkeypatch):
    totals = []

    def recorded(pieces, total):
        totals.append(total)
        return progress(pieces, total)

    monkeypatch.setattr("larq_ext.runtime.interpreter.progress", recorded)
    interpreter.predict(x)
    assert totals == []
    interpreter.predict(x, verbose=1)
    assert totals == [len(x)]
    assert capsys.readouterr().out == ""


FORK = """
import os, sys, threading
import numpy as np
from larq_ext.runtime import Interpreter

interpreter = Interpreter(sys.argv[1], num_threads=2, engine=sys.argv[2])
x = np.random.default_rng(0).normal(size=(1, *interpreter.input_shapes[0][1:])).astype("float32")
expected = interpreter.predict(x)
working = True

def work():
    while working:
        interpreter.predict(x)

other = threading.Thread(target=work)
other.start()
codes = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(interpreter.predict(x), expected) else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
working = False
other.join()
sys.exit(f"{codes}" if any(codes) else 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_processes_share_an_interpreter(engine, tmp_path):
    """Pools of threads that engines keep do not survive a fork; large float layers need them.

    Nor does who holds the lock, or works in the engine, at that time.
    """
    model = tf.keras.Sequential(
        [
            tf.keras.Input((64, 64, 8)),
            tf.keras.layers.Conv2D(32, 3),
            lq.layers.QuantConv2D(
                32, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
            ),
        ]
    )
    path = convert(model).save(tmp_path / "model.tflite")
    command = [sys.executable, "-c", FORK, str(path), engine]
    # Elsewhere than among the sources, which have no native library where they are not installed
    # for editing, and would come first.
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: data[:-100]])
def test_a_damaged_file_is_refused(flatbuffer, engine, damage):
    if engine == "lce":
        pytest.skip("Larq Compute Engine does not verify files")
    with pytest.raises(ValueError, match="cannot load this model"):
        Interpreter(damage(flatbuffer), engine=engine)


def test_a_model_without_a_batch_is_refused(engine):
    scalar = tf.lite.TFLiteConverter.from_concrete_functions(
        [tf.function(lambda x: x + 1.0).get_concrete_function(tf.TensorSpec((), tf.float32))]
    )
    with pytest.raises(ValueError, match="no input with a batch dimension"):
        Interpreter(scalar.convert(), engine=engine)


def test_an_output_without_dimensions(engine):
    spec = tf.TensorSpec((1, 3), tf.float32)
    total = tf.function(lambda x: tf.reduce_sum(x)).get_concrete_function(spec)
    file = tf.lite.TFLiteConverter.from_concrete_functions([total]).convert()
    samples = np.arange(12, dtype=np.float32).reshape(4, 3)
    interpreter = Interpreter(file, engine=engine)
    np.testing.assert_array_equal(interpreter.predict(samples), samples.sum(1))
    assert interpreter.predict(samples[:0]).shape == (0,)


@pytest.fixture(scope="module", params=[False, True], ids=["resizable", "fixed"])
def four(request):
    """A model for batches of four, its file, and whether its graph allows no other batch."""
    inputs = tf.keras.Input((4, 5, 3), batch_size=4)
    outputs = lq.layers.QuantConv2D(
        6, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
    )(inputs)
    if request.param:
        outputs = tf.reshape(outputs, (4, 36))
    model = tf.keras.Model(inputs, outputs)
    return model, lce.convert_keras_model(model), request.param


def test_samples_beyond_the_batch_of_the_file(four, engine, x):
    model, flatbuffer, is_fixed = four
    interpreter = Interpreter(flatbuffer, engine=engine)
    expected = model.predict(np.concatenate([x, x[:1]]), batch_size=4)
    if is_fixed or engine == "lce":
        with pytest.raises(ValueError, match=r"takes batches of 4.*no multiple"):
            interpreter.predict(x)
    else:
        np.testing.assert_array_equal(interpreter.predict(x), expected[:7])
        np.testing.assert_array_equal(interpreter.predict(x[:1]), expected[:1])
    np.testing.assert_array_equal(interpreter.predict(np.concatenate([x, x[:1]])), expected)
    assert interpreter.input_shapes == [(4, 4, 5, 3)]


def test_threads_share_an_interpreter_or_have_their_own(flatbuffer, interpreter, engine, x):
    expected = [interpreter.predict(x), interpreter.predict(-x)]
    own = [Interpreter(flatbuffer, num_threads=2, engine=engine) for _ in range(2)]
    wrong = []

    def work(number: int) -> None:
        for _ in range(50):
            for candidate in (interpreter, own[number]):
                result = candidate.predict([x, -x][number])
                if not np.array_equal(result, expected[number]):
                    wrong.append(candidate)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_engine_and_kernel_are_checked(flatbuffer):
    with pytest.raises(ValueError, match="engine must be 'auto', 'native' or 'lce', not 'gpu'"):
        Interpreter(flatbuffer, engine="gpu")
    with pytest.raises(ValueError, match="kernel='avx2' is one of the native engine's"):
        Interpreter(flatbuffer, engine="lce", kernel="avx2")


@pytest.fixture
def no_library(monkeypatch, tmp_path):
    monkeypatch.setattr(delegate, "_LIBRARY", tmp_path / "gone.so")
    module._warn_once.cache_clear()


def test_without_the_library_it_warns_once_and_falls_back(no_library, flatbuffer):
    with pytest.warns(UserWarning, match=r"times slower.*install GCC") as seen:
        assert Interpreter(flatbuffer).engine == "lce"
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Interpreter(flatbuffer).kernel in ("indirect", "default")


def test_what_was_asked_for_is_not_replaced(no_library, flatbuffer):
    for arguments in ({"engine": "native"}, {"kernel": "portable"}):
        with pytest.raises(EngineError, match=r"gone\.so is missing.*pip install"):
            Interpreter(flatbuffer, **arguments)


def test_without_any_engine_one_error_says_what_to_install(no_library, flatbuffer, monkeypatch):
    monkeypatch.setattr(module, "is_installed", lambda: False)
    with pytest.raises(EngineError, match=r"install GCC.*Larq Compute Engine.*not installed"):
        Interpreter(flatbuffer)
