"""The runtime on a device: a fresh environment with ai-edge-litert and NumPy alone."""

import os
import pathlib
import shutil
import subprocess
import venv

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_ext.runtime import Interpreter, library_path

lce = pytest.importorskip("larq_compute_engine")
pytestmark = pytest.mark.slow

UNREACHABLE = (
    "Retrying (Retry(",
    "Temporary failure in name resolution",
    "Could not fetch URL",
    "No matching distribution found",
)

PROGRAM = """
import importlib.util
import numpy as np
for package in ("tensorflow", "tf_keras", "larq", "larq_compute_engine", "rich", "click"):
    assert importlib.util.find_spec(package) is None, package
import larq_ext
interpreter = larq_ext.runtime.Interpreter("model.tflite", num_threads=2, engine="native")
np.save("outputs.npy", interpreter.predict(np.load("inputs.npy"), verbose=1))
try:
    larq_ext.layers
except ImportError as error:
    print(error, np.__version__)
"""


class Device:
    """A fresh virtual environment."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=True)

    def run(self, *arguments: object, **variables: object) -> subprocess.CompletedProcess:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment.update({k: str(v) for k, v in variables.items()})
        return subprocess.run(
            [str(self.folder / "venv" / "bin" / "python"), *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def pip_install(self, *arguments: object, **variables: object) -> None:
        """Runs pip; where the registry cannot be reached, the test is skipped."""
        done = self.run("-m", "pip", "install", *arguments, **variables)
        if done.returncode and any(sign in done.stdout + done.stderr for sign in UNREACHABLE):
            pytest.skip("the package registry cannot be reached")
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def device(tmp_path_factory) -> Device:
    created = Device(tmp_path_factory.mktemp("device"))
    created.pip_install("ai-edge-litert", "numpy>=2,<3")
    return created


@pytest.fixture(scope="module")
def package(device, request) -> pathlib.Path:
    """The package as it is installed where there is no C++ compiler."""
    sources = device.folder / "sources"  # an installation writes to the folder it is built from
    built = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in ("larq_ext", "zoo", "recipes"):
        shutil.copytree(request.config.rootpath / name, sources / name, ignore=built)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(request.config.rootpath / name, sources)
    folder = device.folder / "package"
    nothing = {"CC": "/bin/false", "CXX": "/bin/false", "LARQ_EXT_REQUIRE_NATIVE": "0"}
    device.pip_install("--no-deps", "-t", folder, sources, **nothing)
    return folder


def test_without_a_compiler_it_installs_and_says_what_is_missing(device, package):
    program = "from larq_ext.runtime import library_path; library_path()"
    done = device.run("-c", program, PYTHONPATH=package)
    last = done.stderr.strip().splitlines()[-1]
    assert "EngineError" in last
    assert "install GCC" in last


def test_poses_are_there(device, package):
    done = device.run(
        "-c", "import larq_ext; print(larq_ext.pose.KEYPOINTS[0])", PYTHONPATH=package
    )
    assert done.stdout == "nose\n", done.stderr[-3000:]


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler built the library")
def test_it_computes_what_the_engine_computes(device, package):
    complete = shutil.copytree(package, device.folder / "complete")
    shutil.copy(library_path(), complete / "larq_ext" / "runtime")
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 32)),
            lq.layers.QuantConv2D(
                40, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
            ),
            tf.keras.layers.BatchNormalization(),
            lq.layers.QuantConv2D(
                8, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
            ),
        ]
    )
    flatbuffer = lce.convert_keras_model(model)
    inputs = np.random.default_rng(0).standard_normal((5, 8, 8, 32)).astype(np.float32)
    (device.folder / "model.tflite").write_bytes(flatbuffer)
    np.save(device.folder / "inputs.npy", inputs)

    done = device.run("-c", PROGRAM, PYTHONPATH=complete)

    assert done.returncode == 0, done.stderr[-3000:]
    assert "needs TensorFlow" in done.stdout
    assert done.stdout.split()[-1].startswith("2.")
    np.testing.assert_array_equal(
        np.load(device.folder / "outputs.npy"),
        Interpreter(flatbuffer, engine="lce").predict(inputs),
    )
