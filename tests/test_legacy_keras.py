"""`import larq_ext` makes `tf.keras` be Keras 2, or says in one sentence why it cannot."""

import os
import subprocess
import sys
import textwrap

import pytest

UNSET = "TF_USE_LEGACY_KERAS"

PROVE = """
import tensorflow as tf
assert tf.keras.layers.Layer.__module__.startswith("tf_keras."), tf.keras.layers.Layer
from tensorflow.keras.layers import Dense
assert issubclass(larq_ext.layers.QuantDense, Dense)
assert issubclass(larq_ext.layers.QuantDense, tf.keras.layers.Layer)
print("Keras 2")
"""
# Hides one package from the import system.
WITHOUT = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "{0}" else found(name, *rest)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "{0}":
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Finder())
"""


def run(program, **variables):
    """Runs a program in a fresh process, with the variable unset unless given."""
    environment = {k: v for k, v in os.environ.items() if k != UNSET}
    environment.update(TF_CPP_MIN_LOG_LEVEL="3", **variables)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


WORKS = {
    "first, variable unset": ("import larq_ext", {}),
    "first, variable 1": ("import larq_ext", {UNSET: "1"}),
    "after tensorflow": ("import tensorflow\nimport larq_ext", {}),
    "after from tensorflow import keras, untouched": (
        "from tensorflow import keras\nimport larq_ext\n"
        "assert keras.layers.Layer.__module__.startswith('tf_keras.')\n",
        {},
    ),
    "after tf.keras was used as Keras 2": (
        "import tensorflow as tf\ntf.keras.layers.Dense(1)\nimport larq_ext",
        {UNSET: "1"},
    ),
    "after tf_keras": ("import tf_keras\nimport larq_ext", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WORKS)
def test_tf_keras_is_keras_2(case):
    program, variables = WORKS[case]
    done = run(program + "\n" + PROVE, **variables)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("Keras 2")


FAILS = {
    "after Keras 3 was used": (
        "import tensorflow as tf\ntf.keras.layers.Dense(1)\nimport larq_ext",
        {},
        ["Keras 3 is already in use", "import larq_ext before", f"export {UNSET}=1"],
    ),
    "after a module of Keras 3 was imported": (
        "from tensorflow.keras.layers import Dense\nimport larq_ext",
        {},
        ["Keras 3 is already in use", "import larq_ext before", f"export {UNSET}=1"],
    ),
    "variable 0": ("import larq_ext", {UNSET: "0"}, ["'0'", f"unset {UNSET}", f"export {UNSET}=1"]),
    "variable false, after tensorflow": (
        "import tensorflow\nimport larq_ext",
        {UNSET: "false"},
        ["'false'", f"unset {UNSET}"],
    ),
    "no tf_keras": (
        WITHOUT.format("tf_keras") + "import larq_ext",
        {},
        ["Keras 2, which is not installed", "pip install 'tf_keras>=2.17,<2.20'"],
    ),
    "no tf_keras, variable 1": (
        WITHOUT.format("tf_keras") + "import larq_ext",
        {UNSET: "1"},
        ["Keras 2, which is not installed", "pip install 'tf_keras>=2.17,<2.20'"],
    ),
    "no tensorflow": (
        WITHOUT.format("tensorflow") + "import larq_ext\nlarq_ext.layers",
        {},
        ["needs TensorFlow", "pip install .", "larq_ext.runtime"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FAILS)
def test_an_import_that_cannot_work_is_one_clear_error(case):
    """Larq's own words would be `has no attribute 'LocallyConnected1D'`."""
    program, variables, words = FAILS[case]
    done = run(program, **variables)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: larq_ext needs ")
    assert all(word in last for word in words), last
    assert "LocallyConnected1D" not in done.stderr
    assert "AttributeError" not in done.stderr
