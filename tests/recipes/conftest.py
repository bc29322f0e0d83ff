"""Shared data: CIFAR-10 in its official forms, small and synthetic, and the real one if given."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

import larq_ext  # noqa: F401  (before anything that uses tf.keras)

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))  # `tiny` is imported by the tests and run as a program by them


def load_tool(name: str):
    """Imports a program of `tests/tools`."""
    spec = importlib.util.spec_from_file_location(name, HERE.parent / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def official():
    """The tool that writes CIFAR-10 in its official forms."""
    return load_tool("cifar10_official")


@pytest.fixture(scope="session")
def synthetic_cifar10(official, tmp_path_factory):
    """A folder with both official forms, 20 pictures a file, and the arrays that are in it."""
    folder = tmp_path_factory.mktemp("cifar10")
    generator = np.random.default_rng(0)
    images, labels = [], []
    for name in official.SHA1:
        rows = generator.integers(0, 256, (20, 3072), np.uint8)
        numbers = np.arange(20, dtype=np.uint8) % 10
        official.write_bin(name, rows, numbers, folder / "cifar-10-batches-bin")
        official.write_py(name, rows, numbers, folder / "cifar-10-batches-py")
        images.append(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(numbers)
    (folder / "cifar-10-batches-bin" / "batches.meta.txt").write_text("\n".join(official.CLASSES))
    train = np.concatenate(images[:5]), np.concatenate(labels[:5])
    return folder, train, (images[5], labels[5])


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real test data."""
    if "LARQ_EXT_DATA" not in os.environ:
        pytest.skip("needs real data: export LARQ_EXT_DATA=FOLDER, see CONTRIBUTING.md")
    return pathlib.Path(os.environ["LARQ_EXT_DATA"])
