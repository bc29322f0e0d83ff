"""examples/cpp: it is built as its README says, and answers like the interpreter in Python."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import larq_ext as lqx
import larq_ext_zoo as zoo
from larq_ext.runtime import Interpreter

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"
NAME = "digits_net.fda_digits"
# What the page of the model says of its images.
PREPARATION = ("--scale", "0.00392157", "--mean", "0.5", "--std", "0.5")


def run(*command: object, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess:
    return run("cmake", "-S", EXAMPLE, "-B", folder, *options)


def write_image(path: Path, pixels: np.ndarray) -> Path:
    """Writes pixels of shape (height, width, channels) as a PGM or PPM file."""
    height, width, channels = pixels.shape
    kind = {1: "P5", 3: "P6"}[channels]
    path.write_bytes(f"{kind}\n# a comment\n{width} {height}\n255\n".encode() + pixels.tobytes())
    return path


def classes(output: str) -> dict[int, float]:
    """The printed classes and their values, in their order."""
    return {int(name): float(value) for name, value in map(str.split, output.splitlines())}


@pytest.fixture(scope="module", autouse=True)
def tools():
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if importlib.util.find_spec("pymicro_wakeword") is None:
        pytest.skip("no TensorFlow Lite C library: pip install pymicro-wakeword")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    warnings = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Wshadow -Werror"
    configured = configure(folder, f"-DLARQ_EXT_PYTHON={sys.executable}", warnings)
    assert configured.returncode == 0, configured.stderr
    built = run("cmake", "--build", folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "classify"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.tflite"
    lqx.deploy.convert(zoo.get(NAME)).save(path)
    return path


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    from sklearn.datasets import load_digits

    return np.round(load_digits().images[:10, ..., None] * (255 / 16)).astype(np.uint8)


def assert_same(program: Path, model: Path, image: Path, values: np.ndarray, *options: str):
    """Compares what the program prints with an interpreter's outputs."""
    done = run(program, model, image, *options, "--top", "1000")
    assert done.returncode == 0, done.stderr
    printed = classes(done.stdout)
    # Two builds of TensorFlow Lite round its float layers in two ways.
    actual = [printed[index] for index in range(len(values))]
    np.testing.assert_allclose(actual, values, rtol=1e-3, atol=1e-5)
    assert list(printed.values()) == sorted(printed.values(), reverse=True)


@pytest.mark.parametrize("options", [(), ("--threads", "2"), ("--kernel", "portable")])
def test_it_prints_what_the_interpreter_computes(program, model, digits, tmp_path, options):
    expected = Interpreter(model, engine="native").predict(zoo.preprocess(NAME, digits))
    for pixels, values in zip(digits, expected, strict=True):
        image = write_image(tmp_path / "digit.pgm", pixels)
        assert_same(program, model, image, values, *PREPARATION, *options)


def test_it_takes_colours_and_numbers_for_each_channel(program, tmp_path):
    network = tf.keras.Sequential(
        [
            tf.keras.Input((7, 6, 3)),
            tf.keras.layers.Conv2D(32, 3),
            lqx.layers.QuantConv2D(32, 3, quantizer="ste_sign"),
            tf.keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = tmp_path / "colours.tflite"
    lqx.deploy.convert(network).save(model)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 6, 3), np.uint8)
    x = ((pixels - np.array([127.5, 120, 100])) / [60, 50, 40]).astype(np.float32)
    image = write_image(tmp_path / "image.ppm", pixels)
    numbers = ("--mean", "127.5,120,100", "--std", "60,50,40")
    (values,) = Interpreter(model, engine="native").predict(x[None])
    assert_same(program, model, image, values, *numbers)


def test_it_prints_the_best_classes_and_the_latency(program, model, digits, tmp_path):
    image = write_image(tmp_path / "digit.pgm", digits[3])
    done = run(program, model, image, *PREPARATION, "--top", "1", "--runs", "3")
    best, latency = done.stdout.splitlines()
    assert best.split()[0] == "3"
    assert latency.startswith("median of 3 runs: ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "a model and an image are needed"),
        (("nowhere.tflite", "digit.pgm"), 1, "cannot read 'nowhere.tflite'"),
        (("model.tflite", "nowhere.pgm"), 1, "cannot read 'nowhere.pgm'"),
        (("digit.pgm", "digit.pgm"), 1, "'digit.pgm' is no TensorFlow Lite model"),
        (("model.tflite", "model.tflite"), 1, "is no binary PGM or PPM file"),
        (
            ("model.tflite", "wide.pgm"),
            1,
            "is 8 x 9 x 1 (height, width, channels), the model takes",
        ),
        (("model.tflite", "colour.ppm"), 1, "is 8 x 8 x 3"),
        (("model.tflite", "short.pgm"), 1, "ends before its last pixel"),
        (("model.tflite", "huge.pgm"), 1, "has a damaged header"),
        (("model.tflite", "digit.pgm", "--delegate", "./no.so"), 1, "cannot load the delegate"),
        (
            ("model.tflite", "digit.pgm", "--delegate", "libm.so.6"),
            1,
            "the delegate has no function",
        ),
        (("model.tflite", "digit.pgm", "--kernel", "best"), 2, "kernel must be auto or one of"),
        (("model.tflite", "digit.pgm", "--mean", "1,2"), 2, "one for each of 1 channels"),
        (("model.tflite", "digit.pgm", "--std", "0"), 2, "--std must not be 0"),
        (("model.tflite", "digit.pgm", "--top", "0"), 2, "--top takes a whole number"),
        (("model.tflite", "digit.pgm", "--colour", "1"), 2, "--colour is no option"),
        (("model.tflite", "digit.pgm", "--top"), 2, "--top needs a value"),
    ],
)
def test_wrong_use_is_named(
    program, model, digits, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "model.tflite")
    image = write_image(Path("digit.pgm"), digits[0]).read_bytes()
    write_image(Path("wide.pgm"), np.zeros((8, 9, 1), np.uint8))
    write_image(Path("colour.ppm"), np.zeros((8, 8, 3), np.uint8))
    Path("short.pgm").write_bytes(image[:-1])
    Path("huge.pgm").write_bytes(b"P5 99999999999 8 255 ")
    done = run(program, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_the_delegate_beside_the_program_comes_first(program, model, digits, tmp_path):
    moved = shutil.copy(program, tmp_path)
    image = write_image(tmp_path / "digit.pgm", digits[0])
    assert run(moved, model, image).returncode == 0
    (tmp_path / "liblarq_ext_delegate.so").write_bytes(b"no library")
    done = run(moved, model, image)
    assert done.returncode == 1
    assert "cannot load the delegate" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-DTFLITE_LIBRARY=/nowhere.so"], "pip install --no-deps pymicro-wakeword"),
        (["-DLARQ_EXT_DELEGATE=/nowhere.so"], "There is no delegate at LARQ_EXT_DELEGATE"),
        (["-DLARQ_EXT_PYTHON=/nowhere/python"], "There is no program at LARQ_EXT_PYTHON"),
    ],
)
def test_a_missing_library_is_named(tmp_path, options, message):
    done = configure(tmp_path, f"-DLARQ_EXT_PYTHON={sys.executable}", *options)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())


@pytest.mark.exhaustive
def test_it_builds_the_delegate_from_the_checkout(model, digits, tmp_path):
    (package,) = importlib.util.find_spec("pymicro_wakeword").submodule_search_locations
    library = f"-DTFLITE_LIBRARY={package}/lib/libtensorflowlite_c.so"
    assert configure(tmp_path, library).returncode == 0
    assert run("cmake", "--build", tmp_path, "--parallel", "2").returncode == 0
    assert (tmp_path / "liblarq_ext_delegate.so").is_file()
    (values,) = Interpreter(model, engine="native").predict(zoo.preprocess(NAME, digits[:1]))
    image = write_image(tmp_path / "digit.pgm", digits[0])
    assert_same(tmp_path / "classify", model, image, values, *PREPARATION)
