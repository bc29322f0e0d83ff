"""The command line: exit codes, one-line errors, JSON, help without TensorFlow."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import larq_ext as lqx
from larq_ext import cli, commands
from larq_ext.commands._common import read_arrays
from larq_ext.commands._options import DATASETS, DECODINGS, METHODS
from larq_ext.pose import decode
from larq_ext.runtime import Interpreter
from larq_ext.runtime._inputs import random_inputs

pytest.importorskip("larq_compute_engine")

COMMANDS = cli.main.list_commands(None)


def run(*arguments):
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def network(pad_values: float = 1.0) -> tf.keras.Model:
    """One binary convolution; with another border than +1 it becomes a float one."""
    return tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 8)),
            lq.layers.QuantConv2D(
                4,
                3,
                input_quantizer="ste_sign",
                kernel_quantizer="ste_sign",
                padding="same",
                pad_values=pad_values,
                use_bias=False,
                name="conv",
            ),
            tf.keras.layers.GlobalAveragePooling2D(),
        ]
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A good model with its conversion, and a model that does not become binary."""
    folder = tmp_path_factory.mktemp("models")
    tf.keras.utils.set_random_seed(0)
    good, bad = folder / "good.keras", folder / "bad.h5"
    network().save(good)
    network(pad_values=-1.0).save(bad)
    converted, report = folder / "good.tflite", folder / "good.json"
    result = run("convert", good, "-o", converted, "--report", report)
    assert result.exit_code == 0, result.stderr
    assert "Binary: 1/1 layers are binary." in result.stdout
    return SimpleNamespace(good=good, bad=bad, converted=converted, report=report)


def test_help_names_every_command_without_tensorflow():
    """As the installed command starts: what it imports is what every help waits for."""
    program = (
        "import sys\n"
        "sys.argv[0] = 'larq-ext'\n"
        "from larq_ext.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'tensorflow', 'numpy', 'larq', 'larq_ext_recipes', 'larq_ext_zoo'}\n"
        "    assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout


def test_every_file_of_a_command_is_listed():
    files = Path(commands.__file__).parent.glob("[!_]*.py")
    assert sorted(file.stem for file in files) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert f"larq-ext {command}" in re.split("Examples?:", result.stdout)[1]


def test_words_of_the_help_are_those_of_the_library():
    from larq_ext_zoo._data import DATASETS as DATA

    assert decode.METHODS == DECODINGS
    assert list(METHODS) == sorted(lqx.quantizers.METHODS)
    assert list(DATASETS) == sorted(DATA)


def test_convert_writes_file_and_report(files):
    assert files.converted.read_bytes()[4:8] == b"TFL3"
    assert json.loads(files.report.read_text())["binary"] == 1


def test_convert_prints_json(files, tmp_path):
    result = run("convert", files.good, "-o", tmp_path / "x.tflite", "--json")
    values = json.loads(result.stdout)
    assert values["ok"] is True
    assert Path(values["output"]).is_file()


def test_convert_fails_for_a_float_layer_and_writes_only_the_report(files, tmp_path):
    output, report = tmp_path / "bad.tflite", tmp_path / "bad.json"
    result = run("convert", files.bad, "-o", output, "--report", report, "--json")
    assert result.exit_code == 1
    assert "conv: CONV_2D (float32), because" in result.stderr
    assert json.loads(result.stdout) == json.loads(report.read_text())
    assert not output.exists()


def test_convert_allows_float_if_told(files, tmp_path):
    output = tmp_path / "bad.tflite"
    result = run("convert", files.bad, "-o", output, "--allow-float")
    assert result.exit_code == 0
    assert "NOT BINARY: 0/1" in result.stdout
    assert run("audit", output).exit_code == 1


def test_convert_with_8_bit_ends_and_without_a_rewrite(tmp_path):
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 3)),
            tf.keras.layers.Conv2D(32, 3),
            tf.keras.layers.BatchNormalization(),
            lqx.layers.QuantConv2D(8, 3, quantizer="ste_sign"),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(4),
        ]
    )
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(20, 6, 6, 3)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    output = tmp_path / "x.tflite"

    given = ("convert", tmp_path / "model.keras", "-o", output, "--json")
    assert "threshold" in [r["name"] for r in json.loads(run(*given).stdout)["rewrites"]]
    result = run(*given, "--without", "threshold", "--int8", tmp_path / "images.npy")
    assert result.exit_code == 0
    values = json.loads(result.stdout)
    assert values["rewrites"] == []
    assert values["op_counts"]["QUANTIZE"] >= 1
    result = run(*given, "--int8", tmp_path / "images.npy", "--input-type", "int8")
    assert Interpreter(output).input_types == [np.dtype("int8")]
    assert run(*given, "--input-type", "int8").exit_code == 2

    option = next(o for o in cli.main.get_command(None, "convert").params if o.name == "without")
    assert list(option.type.choices) == list(lqx.deploy.REWRITES)


def test_audit_with_and_without_the_model(files):
    assert run("audit", files.converted).exit_code == 0
    result = run("audit", files.converted, "--model", files.good, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["layers"][0]["name"] == "conv"


def test_audit_writes_a_page(files, tmp_path):
    page = tmp_path / "new" / "page.html"
    result = run("audit", files.converted, "--report", page, "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (0, True)
    text = page.read_text()
    assert "<title>good.tflite</title>" in text and "LceBconv2d" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [("report.html", "<svg"), ("report.txt", "[unfused-padding]"), ("report.json", '"cause": ')],
)
def test_the_report_is_what_its_name_says(files, tmp_path, name, content):
    report = tmp_path / name
    result = run("convert", files.bad, "-o", tmp_path / "bad.tflite", "--report", report)
    assert result.exit_code == 1
    assert content in report.read_text()


def test_other_reports_are_wrong_use(files, tmp_path):
    result = run("convert", files.good, "-o", tmp_path / "x.tflite", "--report", "x.pdf")
    assert result.exit_code == 2
    assert ".html or .json or .txt" in result.stderr and "x.pdf" in result.stderr
    assert not (tmp_path / "x.tflite").exists()


def test_lint_needs_no_engine(files, monkeypatch):
    """And imports nothing of it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if "compute" in name else find(name, *a)
    )
    monkeypatch.setitem(sys.modules, "larq_compute_engine", None)
    result = run("lint", files.good)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Binary: 1/1 layers will be binary." in result.stdout


def test_lint_fails_for_a_float_layer(files):
    result = run("lint", files.bad)
    assert result.exit_code == 1
    assert "[unfused-padding]" in result.stdout
    values = json.loads(run("lint", files.bad, "--json").stdout)
    assert values["ok"] is False
    assert values["findings"][0]["cause"] == values["layers"][0]["cause"] == "unfused-padding"


def test_audit_fails_for_another_model(files):
    result = run("audit", files.converted, "--model", files.bad)
    assert result.exit_code == 1
    assert "NOT BINARY: 0/1" in result.stdout


def test_verify_says_that_its_inputs_are_random(files):
    result = run("verify", files.good, files.converted, "--samples", 3, "--seed", 7)
    assert result.exit_code == 0, result.stderr
    assert "3 random inputs, standard normal, seed 7" in result.stdout


def test_verify_reads_inputs(files, tmp_path):
    inputs = tmp_path / "inputs.npy"
    np.save(inputs, np.random.default_rng(0).normal(size=(5, 6, 6, 8)))
    result = run("verify", files.good, files.converted, "--inputs", inputs, "--json")
    values = json.loads(result.stdout)
    assert (result.exit_code, values["samples"], values["inputs"]) == (0, 5, str(inputs))


def test_verify_fails_for_another_model(files):
    result = run("verify", files.bad, files.converted)
    assert result.exit_code == 1
    assert "NOT EQUAL" in result.stdout


def test_verify_needs_inputs_where_their_size_is_open(files, tmp_path):
    tf.keras.Sequential([tf.keras.layers.Conv2D(4, 3, input_shape=(None, 6, 8))]).save(
        tmp_path / "open.keras"
    )
    result = run("verify", tmp_path / "open.keras", files.converted)
    assert result.exit_code == 2
    assert "has the shape (None, None, 6, 8)" in result.stderr and "--inputs FILE" in result.stderr


def test_summary(files):
    assert "conv" in run("summary", files.good).stdout
    values = json.loads(run("summary", files.good, "--json").stdout)
    assert values["weights_by_bits"] == {"1": 3 * 3 * 8 * 4}
    assert values["memory_bits"] * 32 == values["float32_memory_bits"]


def test_summary_of_an_open_size_has_no_multiply_adds(tmp_path):
    model = tf.keras.Sequential(
        [
            tf.keras.Input((None, None, 3)),
            tf.keras.layers.Conv2D(4, 3),
            tf.keras.layers.GlobalAveragePooling2D(),
            tf.keras.layers.Dense(64),
        ]
    )
    model.save(tmp_path / "open.keras")
    text = run("summary", tmp_path / "open.keras").stdout
    assert "MACs" not in text and "Without multiply-adds: the size of a layer is open" in text
    assert json.loads(run("summary", tmp_path / "open.keras", "--json").stdout)["macs"] is None


def test_a_saved_model_folder_is_loaded(files, tmp_path):
    network().save(tmp_path / "folder", save_format="tf")
    assert run("summary", tmp_path / "folder").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["summary", "gone.keras"], "no file gone.keras"),
        (["summary", "."], "neither a SavedModel nor"),
        (["audit", "gone.tflite"], "no file gone.tflite"),
        (["audit", cli.__file__], "damaged or another kind"),
        (["convert", "gone.h5", "-o", "x.tflite"], "no file gone.h5"),
        (["convert", "gone.h5"], "Missing option '-o'"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_wrong_use_is_one_clear_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert "Traceback" not in result.stderr


def test_broken_inputs_are_wrong_use(files, tmp_path):
    inputs = tmp_path / "inputs.npy"
    inputs.write_text("no numbers")
    result = run("verify", files.good, files.converted, "--inputs", inputs)
    assert result.exit_code == 2
    assert "no .npy or .npz file of numbers" in result.stderr
    assert run("verify", files.good, files.converted, "--inputs", "gone.npy").exit_code == 2


def test_a_broken_model_file_is_wrong_use(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("nothing")
    result = run("summary", path)
    assert result.exit_code == 2
    assert f"{path} is not a model that Keras can load" in result.stderr


def test_outputs_have_the_suffix_of_what_they_hold(files, tmp_path):
    before = files.good.read_bytes()
    result = run("convert", files.good, "-o", files.good)
    assert result.exit_code == 2 and "must end in .tflite" in result.stderr
    assert files.good.read_bytes() == before, "the model was not replaced by its file"
    result = run("inspect", files.good, "--picture", tmp_path / "x.svg")
    assert result.exit_code == 2 and "must end in .png" in result.stderr


def test_the_model_that_was_converted_is_what_verify_compares_with(tmp_path):
    images, model = tmp_path / "images.npy", tmp_path / "ends.keras"
    np.save(images, np.random.default_rng(0).normal(size=(9, 6, 6, 3)).astype("float32"))
    stem = tf.keras.layers.Conv2D(8, 3, padding="same", name="stem")
    trained = tf.keras.Sequential([tf.keras.Input((6, 6, 3)), stem, *network().layers])
    trained.save(tmp_path / "trained.keras")
    output = tmp_path / "x.tflite"
    words = ("convert", tmp_path / "trained.keras", "-o", output, "--int8", images)
    before = (tmp_path / "trained.keras").read_bytes()
    result = run(*words, "--save-model", tmp_path / "." / "trained.keras")
    assert result.exit_code == 2 and "latent weights would be lost" in result.output
    assert (tmp_path / "trained.keras").read_bytes() == before
    assert run(*words, "--save-model", model).exit_code == 0
    ends = tf.keras.models.load_model(model)
    assert type(ends.get_layer("stem")).__name__ == "Int8Conv2D"
    assert run("verify", model, output, "--inputs", images, "--samples", 4).exit_code == 0
    result = run("verify", model, output, "--inputs", images, "--seed", 3)
    assert result.exit_code == 2 and "--seed is for random inputs" in result.stderr


@pytest.mark.parametrize("options", [(), ("--int8",)])
def test_the_converted_model_in_the_older_format(options, tmp_path):
    images, model, output = (tmp_path / name for name in ("x.npy", "ends.h5", "x.tflite"))
    np.save(images, np.random.default_rng(0).normal(size=(9, 6, 6, 3)).astype("float32"))
    stem = lqx.layers.QuantConv2D(8, 3, padding="same", name="stem")
    nested = tf.keras.Sequential([tf.keras.Input((6, 6, 8)), *network().layers])
    trained = tf.keras.Sequential([tf.keras.Input((6, 6, 3)), stem, nested])
    trained.save(tmp_path / "trained.keras")
    extra = [*options, images] if options else []
    words = ("convert", tmp_path / "trained.keras", "-o", output, "--save-model", model)
    assert run(*words, *extra).exit_code == 0
    assert run("verify", model, output, "--inputs", images).exit_code == 0


def test_convert_leaves_out_rewrites_of_a_trained_model_of_the_zoo(tmp_path):
    words = ("convert", "digits_net.learnable_scale_digits", "-o", tmp_path / "x.tflite", "--json")
    names = {r["name"] for r in json.loads(run(*words).stdout)["rewrites"]}
    assert "zero_one" in names
    result = run(*words, "--allow-float", "--without", "zero_one")
    assert {r["name"] for r in json.loads(result.stdout)["rewrites"]} == names - {"zero_one"}


def test_several_inputs_in_one_file(tmp_path):
    inputs = [tf.keras.Input((2,), name=name) for name in ("left", "right")]
    model = tf.keras.Model(inputs, inputs[0] - inputs[1])
    one, other = np.ones((3, 2)), np.full((3, 2), 5.0)
    np.savez(tmp_path / "named.npz", right=other, left=one)
    np.savez(tmp_path / "in_order.npz", one, other)
    for name in ("named.npz", "in_order.npz"):
        arrays = read_arrays(tmp_path / name, model)
        np.testing.assert_array_equal(arrays[0], one)
        np.testing.assert_array_equal(arrays[1], other)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"broken\.npz is no \.npy or \.npz file"):
        read_arrays(tmp_path / "broken.npz", model)


@pytest.mark.parametrize("array", [np.array([["a", "b"]]), np.ones((2, 2), complex)])
def test_arrays_of_no_real_numbers(array, files, tmp_path):
    np.save(tmp_path / "x.npy", array)
    for words in (
        ("inspect", files.good, "--inputs"),
        ("verify", files.good, files.converted, "--inputs"),
        ("convert", files.good, "-o", tmp_path / "x.tflite", "--int8"),
    ):
        result = run(*words, tmp_path / "x.npy")
        assert result.exit_code == 2 and "not real numbers" in result.stderr, words


def test_random_integers_are_like_pixels(tmp_path):
    pixels = tf.keras.Input((6, 6, 3), dtype="uint8")
    x = tf.keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
    stem = tf.keras.layers.Conv2D(8, 3, padding="same")
    model = tf.keras.Sequential([stem, *network().layers])
    model = tf.keras.Model(pixels, model(x))
    model.save(tmp_path / "u8.keras")
    assert run("convert", tmp_path / "u8.keras", "-o", tmp_path / "u8.tflite").exit_code == 0
    result = run("verify", tmp_path / "u8.keras", tmp_path / "u8.tflite")
    assert result.exit_code == 0
    assert "16 random inputs, integers of 8 bits, seed 0" in result.stdout
    result = run("inspect", tmp_path / "u8.keras", "--samples", "5")
    assert "5 random inputs, integers of 8 bits, seed 0" in result.stdout
    (array,) = random_inputs([(2000, 1)], ["uint8"])
    assert (array.min(), array.max()) == (0, 255) and 110 < array.mean() < 145


def test_without_standard_error(files):
    """As some supervisors start programs."""
    program = (
        "import os, sys\nos.close(2)\nsys.stderr = None\n"
        f"sys.argv = ['larq-ext', 'lint', {str(files.good)!r}]\n"
        "from larq_ext.cli import main\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0 and "conv" in result.stdout


def test_without_tensorflow_the_error_is_the_line_to_type(monkeypatch):
    monkeypatch.setattr("larq_ext._keras._missing", lambda: ["TensorFlow"])
    result = run("summary", "digits_net.fda")
    assert result.exit_code == 2
    assert "larq_ext needs TensorFlow for this: type `pip install .`" in result.stderr


def test_interruptions_and_disk_errors(files, monkeypatch):
    def fails(error):
        def broken(name):
            raise error

        monkeypatch.setattr("larq_ext._models_io.check_name", broken)
        return run("summary", files.good)

    result = fails(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "Stopped.\n")
    result = fails(PermissionError(13, "Permission denied", "/there"))
    assert result.exit_code == 2
    assert result.stderr == "Error: [Errno 13] Permission denied: '/there'\n"
    with pytest.raises(TypeError):  # a fault of ours shows where it is
        fails(TypeError("a bug"))


def test_untrained_models_say_so_and_are_the_same_every_time(tmp_path):
    output = tmp_path / "x.tflite"
    result = run("convert", "digits_net.ste_sign", "-o", output)
    assert "digits_net.ste_sign is not trained: its weights are random" in result.stderr
    assert run("audit", output, "--model", "digits_net.ste_sign").exit_code == 0
    assert run("verify", "digits_net.ste_sign", output).exit_code == 0


def test_the_folder_of_a_run_is_a_model(files, tmp_path):
    shutil.copy(files.good, tmp_path / "model.keras")
    assert "conv" in run("summary", tmp_path).stdout


def test_zoo_names():
    assert "unit3_conv" in run("summary", "digits_net.fda").stdout
    result = run("summary", "digits_net.fad")
    assert (result.exit_code, "Did you mean digits_net.fda" in result.stderr) == (2, True)


def test_native_messages_are_hidden_unless_the_import_fails(tmp_path):
    (tmp_path / "noisy.py").write_text("import os\nos.write(2, b'native chatter')\n")
    (tmp_path / "broken.py").write_text(
        "import os\nos.write(2, b'native reason')\nraise ImportError('no library')\n"
    )
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "sys.argv[0] = 'larq-ext'\n"
        "from larq_ext.commands import _common\n"
        "_common._import_quietly(sys.argv[1])\n"
    )
    results = [
        subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True)
        for name in ("noisy", "broken")
    ]
    assert (results[0].returncode, results[0].stderr) == (0, "")
    assert results[1].returncode == 1
    assert "native reason" in results[1].stderr
    assert "no library" in results[1].stderr
