"""The native delegate: loading it, reading its profile, and its arithmetic ceiling."""

from __future__ import annotations

import ctypes
import json
import time
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from larq_ext.benchmark._contenders import Contender, tflite_contender
from larq_ext.runtime import available_kernels, library_path, load_delegate

_PEAK_SECONDS = 0.01
_PROFILED_SECONDS = 0.3
_MOST_PROFILED = 200


@dataclass(frozen=True)
class Profile:
    """What the delegate says of some inferences.

    # Arguments
        values: its own times, summed over `invokes`.
        invokes: the number of inferences.
        seconds: how long they took in all, seen from outside.
    """

    values: dict[str, Any]
    invokes: int
    seconds: float


def check_kernel(kernel: str) -> None:
    """Checks that this machine can run a kernel.

    # Raises
        ValueError: if it cannot, with the kernels that it can run.
        EngineError: if the native library was not built.
    """
    kernels = available_kernels()
    if kernel not in ("auto", *kernels):
        raise ValueError(f"Unknown kernel {kernel!r}: choose from auto, {', '.join(kernels)}.")


def native_contender(flatbuffer: bytes, num_threads: int, kernel: str) -> Contender:
    """A model in TensorFlow Lite with our delegate; only `invoke` is timed.

    # Raises
        EngineError: if the native library was not built.
    """
    delegate = load_delegate(num_threads, kernel, module=tf.lite)
    return tflite_contender(flatbuffer, num_threads, [delegate])


def profile(flatbuffer: bytes, num_threads: int, kernel: str) -> Profile:
    """Runs a model with a delegate that takes times, apart from the runs that are compared.

    # Arguments
        flatbuffer: the serialized model.
        num_threads: the number of threads.
        kernel: name of a kernel or `"auto"`.

    # Returns
        The times of each operator, of each partition, and of what lies between them.
    """
    delegate = load_delegate(num_threads, kernel, profile=True, module=tf.lite)
    contender = tflite_contender(flatbuffer, num_threads, [delegate])
    for _ in range(3):
        contender.timed.run()
    before = _read(delegate)
    start = time.perf_counter()
    invokes = 0
    while invokes < _MOST_PROFILED and time.perf_counter() - start < _PROFILED_SECONDS:
        contender.timed.run()
        invokes += 1
    seconds = time.perf_counter() - start
    return Profile(_difference(_read(delegate), before), invokes, seconds)


def _read(delegate: Any) -> dict[str, Any]:
    function = _library().larq_ext_profile
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    pointer = delegate._get_native_delegate_pointer()
    buffer = ctypes.create_string_buffer(function(pointer, None, 0) + 1)
    function(pointer, buffer, len(buffer))
    return json.loads(buffer.value)


def _difference(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The times between two readings: the first inferences are for warming up."""
    result = dict(after)
    for key in ("nodes", "partitions", "gaps"):
        result[key] = [
            {**new, "nanoseconds": new["nanoseconds"] - old["nanoseconds"]}
            for new, old in zip(after[key], before[key], strict=True)
        ]
    return result


def peak(kernel: str) -> float:
    """Measures what a kernel's inner loop does on registers alone: the ceiling of its arithmetic.

    # Arguments
        kernel: name of a kernel, not `"auto"`.

    # Returns
        Binary multiply-adds per second on one thread; 0 for a kernel without such a loop.
    """
    function = _library().larq_ext_peak
    function.restype = ctypes.c_double
    function.argtypes = [ctypes.c_char_p, ctypes.c_double]
    return function(kernel.encode(), _PEAK_SECONDS)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(library_path()))
