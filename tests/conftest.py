"""What all tests share: Keras 2, quiet logs, fixed seeds, and Larq's scope as it was found."""

from __future__ import annotations

import atexit
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import larq_ext  # noqa: F401  isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import pytest
import tensorflow as tf

# The quantizers' table of cases and references is used by tests of this folder too.
sys.path.insert(0, str(pathlib.Path(__file__).parent / "quantizers"))


def pytest_configure():
    """A developer's own models must not be seen."""
    os.environ["LARQ_EXT_HOME"] = tempfile.mkdtemp(prefix="larq_ext_home")
    atexit.register(shutil.rmtree, os.environ["LARQ_EXT_HOME"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    if not os.environ.get("LARQ_EXT_TEST_ALL"):
        skip = pytest.mark.skip(reason="runs with LARQ_EXT_TEST_ALL=1")
        for item in items:
            if item.get_closest_marker("exhaustive"):
                item.add_marker(skip)


@pytest.fixture(autouse=True, scope="module")
def fixed_seed_of_fixtures():
    tf.keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def fixed_seed():
    tf.keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def scope_left_as_it_was():
    """A failing layer of Larq's leaves its quantized scope on, which would fail later tests."""
    before = lq.context.should_quantize()
    yield
    if lq.context.should_quantize() != before:
        lq.context.quantized_scope(before).__enter__()
