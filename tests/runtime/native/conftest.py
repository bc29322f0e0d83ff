"""The shared library under test, and the kernels of it that this machine can run."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
from harness import Library


@functools.cache
def _library() -> Library | str:
    """The package's library or the one that LARQ_EXT_TEST_LIBRARY names, or why there is none."""
    path = os.environ.get("LARQ_EXT_TEST_LIBRARY")
    if path is None:
        from larq_ext.runtime import EngineError, library_path

        try:
            path = library_path()
        except EngineError as error:
            return str(error)
    return Library(Path(path))


@pytest.fixture(scope="session")
def library() -> Library:
    found = _library()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for a kernel with each of this CPU's; their names are in the ids."""
    if "kernel" not in metafunc.fixturenames or "kernel" in _own_parameters(metafunc):
        return
    found = _library()
    metafunc.parametrize("kernel", ["none"] if isinstance(found, str) else found.kernels())


def _own_parameters(metafunc: pytest.Metafunc) -> set[str]:
    marks = metafunc.definition.iter_markers("parametrize")
    return {name for mark in marks for name in str(mark.args[0]).replace(" ", "").split(",")}
