"""Conversion: the same numbers, the same order, and clear refusals."""

import importlib
import importlib.util
import os
import signal
import threading
import time
from pathlib import Path

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_ext.deploy.convert import Conversion, convert
from larq_ext.deploy.errors import DeploymentError
from larq_ext.runtime import Interpreter

# The package offers the function under the module's name.
convert_module = importlib.import_module("larq_ext.deploy.convert")


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def reference_conv(x, kernel):
    """A binary convolution, border +1, written out as sums."""
    height, width, _, filters = kernel.shape
    pad = ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0))
    x, kernel = np.pad(sign(x), pad, constant_values=1.0), sign(kernel)
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    result = np.zeros((len(x), rows, columns, filters))
    for i in range(height):
        for j in range(width):
            result += x[:, i : i + rows, j : j + columns] @ kernel[i, j]
    return result


def test_a_binary_convolution_is_exact(networks):
    layer = networks.quant_conv(9)
    model = networks.randomize(tf.keras.Sequential([tf.keras.Input((5, 6, 37)), layer]))
    with lq.context.quantized_scope(False):
        kernel = layer.kernel.numpy()
    x = np.random.default_rng(1).normal(size=(3, 5, 6, 37)).astype(np.float32)
    x[0, 0] = 0.0  # larq's sign of 0 is +1

    result = Interpreter(convert(model).flatbuffer).predict(x)

    np.testing.assert_array_equal(result, reference_conv(x, kernel))


def test_the_result_has_flatbuffer_report_and_model(classifier, classifier_conversion):
    assert classifier_conversion.flatbuffer[4:8] == b"TFL3"
    assert classifier_conversion.report.ok
    assert classifier_conversion.report.binary == 2
    x = np.random.default_rng(2).normal(size=(4, 8, 8, 40)).astype(np.float32)
    expected = classifier.predict(x, verbose=0)
    np.testing.assert_allclose(
        classifier_conversion.model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        Interpreter(classifier_conversion.flatbuffer).predict(x), expected, rtol=1e-4, atol=1e-4
    )


def test_inputs_and_outputs_keep_the_order_of_keras(branches, branches_conversion):
    generator = np.random.default_rng(3)
    inputs = [generator.normal(size=(2, 6, 6, 32)).astype(np.float32) for _ in range(2)]
    expected = branches.predict(inputs, verbose=0)
    # Equal shapes alone would not tell the outputs apart.
    assert not np.allclose(expected[0], expected[3])

    actual = Interpreter(branches_conversion.flatbuffer).predict(inputs)

    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


def test_a_float_layer_is_refused_unless_allowed(networks):
    model = networks.randomize(
        tf.keras.Sequential(
            [
                tf.keras.Input((6, 6, 32)),
                networks.quant_conv(8, name="good"),
                networks.quant_conv(8, name="bad", pad_values=-1.0),
            ]
        )
    )
    with pytest.raises(DeploymentError, match=r"1/2 layers are binary(.|\n)*bad") as caught:
        convert(model)
    assert caught.value.report is not None
    assert [row.binary for row in caught.value.report.layers] == [True, False]

    conversion = convert(model, allow_float=True)
    assert not conversion.report.ok
    assert conversion.flatbuffer


def test_a_float_network_is_refused():
    model = tf.keras.Sequential([tf.keras.Input((4, 4, 3)), tf.keras.layers.Conv2D(2, 3)])
    with pytest.raises(DeploymentError, match="no layer is meant to be binary"):
        convert(model)


def test_other_things_than_keras_models_are_refused():
    with pytest.raises(DeploymentError, match=r"Expected a tf\.keras\.Model.*str"):
        convert("model.keras")


def test_a_model_without_inputs_is_refused():
    with pytest.raises(DeploymentError, match="no known inputs"):
        convert(tf.keras.Sequential([tf.keras.layers.Dense(2)]))


def test_unknown_height_and_width_are_refused(networks):
    model = tf.keras.Sequential(
        [
            tf.keras.Input((None, None, 32)),
            networks.quant_conv(8, padding="valid", pad_values=0.0),
        ]
    )
    with pytest.raises(DeploymentError, match="height, width"):
        convert(model)


def test_the_target_is_checked(classifier):
    with pytest.raises(ValueError, match=r"\('arm', 'xcore'\), not 'gpu'"):
        convert(classifier, target="gpu")


def test_a_missing_engine_is_named(classifier, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *args: None if name == "larq_compute_engine" else real(name, *args),
    )
    with pytest.raises(DeploymentError, match=r"pip install 'larq-comp.*convert .* on an x86-64"):
        convert(classifier)


def test_a_scale_with_height_and_width_is_refused(networks):
    scale = np.random.default_rng(4).normal(size=(6, 6, 8)).astype(np.float32)
    model = networks.randomize(
        tf.keras.Sequential(
            [
                tf.keras.Input((6, 6, 32)),
                networks.quant_conv(8),
                tf.keras.layers.Lambda(lambda x: x * scale),
            ]
        )
    )
    with pytest.raises(DeploymentError, match="depends on height and width"):
        convert(model)


# The engine takes all of these for a plain sign.
@pytest.mark.parametrize(
    "quantizer",
    [
        lambda x: tf.sign(tf.sign(x) + 2.0),
        lambda x: tf.sign(tf.sign(x) + 1.0),
        lambda x: tf.sign(tf.sign(x) + -0.1),
        lambda x: tf.sign([0.5] * 15 + [-0.5] + tf.sign(x)),
        lambda x: tf.sign(tf.sign(x) + x),
        lq.quantizers.SteTern(),
        tf.function(lambda x: tf.sign(tf.sign(x) + 2.0), jit_compile=True),
    ],
    ids=["above 1", "1", "negative", "one channel", "no constant", "ste_tern", "compiled"],
)
def test_sums_of_signs_that_the_engine_gets_wrong_are_refused(quantizer):
    with pytest.raises(DeploymentError, match=r"wrong_one.*strictly between 0 and 1"):
        check_signs_of(quantizer)


def test_numbers_of_the_graph_are_no_inputs(networks):
    x = tf.keras.Input((4, 4, 32))
    y = networks.quant_conv(8)(0.5 * tf.abs(x) - 0.25)
    model = tf.keras.Model(x, y)
    interpreter = Interpreter(convert(model).flatbuffer)
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 32)).astype("float32")
    np.testing.assert_allclose(interpreter.predict(images), model.predict(images, verbose=0))


@pytest.mark.parametrize(
    "quantizer",
    [
        lambda x: tf.sign(tf.sign(x) + 0.9),
        lambda x: tf.sign(0.2 + tf.sign(x)),
        lambda x: tf.where(x >= 0, 1.0, -1.0),
        tf.sign,
        lq.quantizers.SteSign(),
        lq.quantizers.ApproxSign(),
        lq.quantizers.SwishSign(),
    ],
)
def test_plain_signs_pass(quantizer):
    check_signs_of(quantizer)


def test_a_ternary_kernel_passes():
    x = tf.keras.Input((4, 4, 16))
    y = lq.layers.QuantConv2D(2, 3, kernel_quantizer="ste_tern")(x)
    check_graph(tf.keras.Model(x, y))


def check_signs_of(quantizer):
    x = tf.keras.Input((4, 4, 16))
    check_graph(tf.keras.Model(x, tf.keras.layers.Lambda(quantizer, name="wrong_one")(x)))


def check_graph(model):
    frozen = convert_module.freeze(model)
    convert_module._check_signs(frozen.graph_def)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "print('convert', flush=True); os.kill(os.getpid(), signal.SIGSEGV)",
            r"killed by SIGSEGV at the stage 'convert'(.|\n)*crash of the converter",
        ),
        (
            "print('convert'); sys.exit('cannot create std::vector larger than max_size()')",
            r"exit code 1\)(.|\n)*std::vector(.|\n)*crash of the converter",
        ),
        (
            "print('import'); raise ImportError('GLIBC_2.34 not found')",
            r"'import'(.|\n)*GLIBC_2.34(.|\n)*install it again",
        ),
        (
            "print('convert'); sys.exit('error: op FooBar is unknown')",
            r"FooBar(.|\n)*Replace the operation",
        ),
        (
            "pathlib.Path(sys.argv[2]).touch(); print('run'); sys.exit('FooBar failed to invoke')",
            r"'run'(.|\n)*FooBar(.|\n)*cannot run it",
        ),
    ],
    ids=["segfault", "vector", "import", "unknown op", "run"],
)
def test_a_failing_converter_is_explained(classifier, tmp_path, monkeypatch, program, message):
    child = tmp_path / "child.py"
    child.write_text(f"import os, pathlib, signal, sys\n{program}\n")
    monkeypatch.setattr(convert_module, "_CHILD", child)
    with pytest.raises(DeploymentError, match=message):
        convert(classifier)


def test_whole_packages_do_where_their_binaries_alone_cannot(
    classifier, classifier_conversion, tmp_path, monkeypatch
):
    child = tmp_path / "child.py"
    child.write_text(
        "import importlib.util, runpy, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if 'larq' in name else find(name)\n"
        "sys.path.insert(0, '')  # the child removes one\n"
        f"runpy.run_path({str(convert_module._CHILD)!r}, run_name='__main__')\n"
        "assert 'tensorflow.keras' in sys.modules or 'tensorflow.python.keras' in sys.modules\n"
    )
    monkeypatch.setattr(convert_module, "_CHILD", child)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 40)).astype("float32")
    np.testing.assert_array_equal(
        Interpreter(convert(classifier).flatbuffer).predict(x),
        Interpreter(classifier_conversion.flatbuffer).predict(x),
    )


def _has_ended(child: int) -> bool:
    """Whether it ends soon. Killed children stay in the process table until somebody asks."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            ended, _ = os.waitpid(child, os.WNOHANG)
        except ChildProcessError:  # somebody asked already
            return True
        if ended:
            return True
        time.sleep(0.05)
    return False


def test_an_interrupt_ends_the_converter(classifier, tmp_path, monkeypatch):
    pid_file = tmp_path / "pid"
    child = tmp_path / "child.py"
    child.write_text(
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"path = pathlib.Path({str(pid_file)!r})\n"
        "path.with_suffix('.new').write_text(str(os.getpid()))\n"
        "path.with_suffix('.new').rename(path)\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(convert_module, "_CHILD", child)
    # Shells make background jobs ignore Ctrl-C, and Python leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        while not pid_file.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            convert(classifier)
    finally:
        signal.signal(signal.SIGINT, before)
    assert _has_ended(int(pid_file.read_text()))


def test_save_writes_the_whole_file(classifier_conversion, tmp_path):
    path = classifier_conversion.save(tmp_path / "new" / "model.tflite")
    assert path.read_bytes() == classifier_conversion.flatbuffer
    assert [entry.name for entry in path.parent.iterdir()] == ["model.tflite"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        Conversion(b"new", None, None).save(path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tflite"]
