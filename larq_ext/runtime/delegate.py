"""The native delegate: a shared library with binary kernels for a stock TensorFlow Lite."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from numbers import Integral
from pathlib import Path
from typing import Any

from larq_ext.runtime.errors import EngineError

_LIBRARY = Path(__file__).parent / "liblarq_ext_delegate.so"
# Of the library; more would not help, and TensorFlow Lite waits for ever for threads that the
# system does not give it.
_MAX_THREADS = 256
_VARIABLE = "LARQ_EXT_KERNEL"


def library_path() -> Path:
    """Finds the shared library, which any TensorFlow Lite loads as an external delegate.

    In a checkout, that of the package as it was installed.

    # Returns
        Its path.

    # Raises
        EngineError: if it was not built, because the installation found no C++ compiler.
    """
    places = [_LIBRARY]
    if (_LIBRARY.parent / "native").is_dir():  # Python was started in a checkout
        places += [Path(entry, "larq_ext", "runtime", _LIBRARY.name) for entry in sys.path]
    for place in places:
        if place.is_file():
            return place
    raise EngineError(
        f"The native kernels of larq_ext are not built ({_LIBRARY.name} is missing): install GCC "
        "(9 or newer) or Clang (`apt install g++`, `dnf install gcc-c++`, `xcode-select "
        "--install`), then larq-ext again: `pip install --force-reinstall --no-deps .` in its "
        "folder. If it is missing still, add `-v` to see what the compiler says; another one is "
        "named by the environment variables CC and CXX."
    )


def available_kernels() -> tuple[str, ...]:
    """Lists the implementations of the binary convolution that this machine's CPU can run.

    # Returns
        Their names, the fastest first. `"auto"` takes the first.

    # Raises
        EngineError: if the shared library was not built, or cannot be loaded.
    """
    list_kernels = _loaded().larq_ext_kernels
    list_kernels.restype = ctypes.c_char_p
    return tuple(list_kernels().decode().split(","))


def load_delegate(
    num_threads: int = 1, kernel: str = "auto", profile: bool = False, module: Any = None
) -> Any:
    """Creates a delegate for an interpreter of your own.

    ```python
    from ai_edge_litert.interpreter import Interpreter
    from larq_ext.runtime import load_delegate

    interpreter = Interpreter("model.tflite", experimental_delegates=[load_delegate()])
    ```

    # Arguments
        num_threads: the number of threads for the binary operators, from 1 to 256 (more count as
            256). The interpreter's own number counts for the others.
        kernel: one of `available_kernels()`; `"auto"` takes the one that the environment variable
            `LARQ_EXT_KERNEL` names, or else the fastest.
        profile: whether to measure the time of each operator.
        module: where the interpreter comes from, `ai_edge_litert.interpreter` or `tf.lite`; by
            default TensorFlow if it is already imported or alone there, else `ai_edge_litert`.

    # Returns
        The delegate. It belongs to one interpreter.

    # Raises
        EngineError: if the shared library was not built or cannot be loaded, or there is no
            TensorFlow Lite.
        ValueError: if an argument is wrong, or the CPU cannot run the kernel.
    """
    options = {
        "num_threads": checked_threads(num_threads),
        "kernel": kernel,
        "profile": int(profile),
    }
    path = library_path()
    _loaded()
    source = find_tflite() if module is None else module
    # TensorFlow has the function one level below.
    load = getattr(source, "load_delegate", None) or source.experimental.load_delegate
    return load(str(path), options)


def find_tflite() -> Any:
    """Finds the TensorFlow Lite of this installation.

    Two of them in one process would be a waste of memory, so an imported TensorFlow goes first.

    # Returns
        A module with `Interpreter`: `ai_edge_litert.interpreter` or `tf.lite`.

    # Raises
        EngineError: if there is neither.
    """
    if "tensorflow" not in sys.modules and _is_installed("ai_edge_litert"):
        return importlib.import_module("ai_edge_litert.interpreter")
    if _is_installed("tensorflow"):
        return importlib.import_module("tensorflow").lite
    raise EngineError("No TensorFlow Lite is installed: type `pip install ai-edge-litert`.")


def chosen_kernel(kernel: str) -> str:
    """Names the kernel that a delegate takes when it is created with this option now."""
    forced = os.environ.get(_VARIABLE) or "auto"
    name = forced if kernel == "auto" else kernel
    return available_kernels()[0] if name == "auto" else name


def checked_threads(num_threads: Any) -> int:
    """Returns a number of threads that engines take, or raises a `ValueError` if it is none."""
    # NumPy's integers are as good as Python's.
    if isinstance(num_threads, bool) or not isinstance(num_threads, Integral) or num_threads < 1:
        raise ValueError(f"num_threads must be an integer of at least 1, not {num_threads!r}.")
    return min(int(num_threads), _MAX_THREADS)


def _is_installed(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def _loaded() -> ctypes.CDLL:
    path = library_path()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(
            f"The native kernels of larq_ext cannot be loaded ({error}): they were built for "
            "another machine. Install larq-ext from source here, where GCC or Clang is."
        ) from error
