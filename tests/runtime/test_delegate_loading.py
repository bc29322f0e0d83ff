"""The shared library: that it is there, and what an interpreter of one's own does with it."""

import shutil
import warnings

import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf

import larq_ext as lqx
from larq_ext.runtime import (
    EngineError,
    Interpreter,
    available_kernels,
    delegate,
    library_path,
    load_delegate,
)

NAMES = {"avx512vpopcnt", "avx512", "avx2", "neon", "portable"}


@pytest.fixture(scope="module")
def flatbuffer() -> bytes:
    model = tf.keras.Sequential(
        [tf.keras.Input((6, 6, 32)), lqx.layers.QuantConv2D(8, 3, quantizer="ste_sign")]
    )
    return lce.convert_keras_model(model)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((1, 6, 6, 32)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def library():
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler, so the library was not built")
    return library_path()


def test_it_lists_kernels_and_portable_last():
    kernels = available_kernels()
    assert set(kernels) <= NAMES
    assert len(set(kernels)) == len(kernels)
    assert kernels[-1] == "portable"


@pytest.mark.parametrize("module", [None, tf.lite])
def test_a_stock_interpreter_takes_it(flatbuffer, x, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's interpreter is deprecated
        stock = tf.lite.Interpreter(
            model_content=flatbuffer, experimental_delegates=[load_delegate(2, module=module)]
        )
    stock.allocate_tensors()
    stock.set_tensor(stock.get_input_details()[0]["index"], x)
    stock.invoke()
    np.testing.assert_allclose(
        stock.get_tensor(stock.get_output_details()[0]["index"]),
        Interpreter(flatbuffer, engine="lce").predict(x),
        rtol=1e-5,
    )


def test_every_kernel_computes_the_same(flatbuffer, x):
    results = []
    for kernel in available_kernels():
        interpreter = Interpreter(flatbuffer, kernel=kernel)
        assert (interpreter.engine, interpreter.kernel) == ("native", kernel)
        results.append(interpreter.predict(x))
    for result in results:
        np.testing.assert_array_equal(result, results[-1])


def test_the_environment_chooses_where_the_argument_does_not(flatbuffer, monkeypatch):
    monkeypatch.delenv("LARQ_EXT_KERNEL", raising=False)
    assert Interpreter(flatbuffer).kernel == available_kernels()[0]
    monkeypatch.setenv("LARQ_EXT_KERNEL", "portable")
    assert Interpreter(flatbuffer).kernel == "portable"
    first = available_kernels()[0]
    assert Interpreter(flatbuffer, kernel=first).kernel == first
    monkeypatch.setenv("LARQ_EXT_KERNEL", "none")
    with pytest.raises(ValueError, match="none"):
        Interpreter(flatbuffer)


def test_wrong_arguments_are_refused(flatbuffer):
    with pytest.raises(ValueError, match="fastest"):
        load_delegate(kernel="fastest")
    with pytest.raises(ValueError, match="num_threads must be an integer of at least 1"):
        load_delegate(num_threads=0)
    assert load_delegate(num_threads=300), "a machine may have more than the library takes"


def test_a_library_for_another_machine_is_named(monkeypatch, tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(delegate, "_LIBRARY", broken)
    for use in (available_kernels, load_delegate):
        with pytest.raises(EngineError, match=r"cannot be loaded.*Install larq-ext from source"):
            use()


def test_a_checkout_uses_the_library_that_was_installed_from_it(monkeypatch, tmp_path):
    """Python takes the package in the folder where it starts, which has no library."""
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    (checkout / "native").mkdir(parents=True)
    installed = site / "larq_ext" / "runtime" / "gone.so"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(delegate, "_LIBRARY", checkout / "gone.so")
    monkeypatch.syspath_prepend(site)
    with pytest.raises(EngineError, match=r"are not built \(gone\.so is missing\)"):
        library_path()
    installed.touch()
    assert library_path() == installed
    (checkout / "native").rmdir()  # an installed package has no sources: nobody else's library
    with pytest.raises(EngineError):
        library_path()


def test_a_missing_tensorflow_lite_is_named(monkeypatch):
    monkeypatch.setattr(delegate, "_is_installed", lambda package: False)
    with pytest.raises(EngineError, match="pip install ai-edge-litert"):
        load_delegate()
