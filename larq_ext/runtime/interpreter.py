"""The interpreter that runs converted models on this machine."""

from __future__ import annotations

import functools
import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from larq_ext._files import load_flatbuffer
from larq_ext.runtime._engine import Engine, batch_of
from larq_ext.runtime._inputs import batches, checked
from larq_ext.runtime._lce import LceEngine, is_installed
from larq_ext.runtime._native import NativeEngine
from larq_ext.runtime._progress import progress
from larq_ext.runtime._quantization import Quantization
from larq_ext.runtime.delegate import checked_threads
from larq_ext.runtime.errors import EngineError

EngineName = Literal["auto", "native", "lce"]
_ALIVE: weakref.WeakSet[Interpreter] = weakref.WeakSet()
_INHERITED: list[Engine] = []


class Interpreter:
    """Runs a model that `larq_ext.deploy.convert` (or Larq Compute Engine) made.

    The engine `"native"` is a stock TensorFlow Lite interpreter (of `ai_edge_litert`, or of
    TensorFlow where that is already imported or alone there) with larq_ext's delegate for the
    binary operators. `"lce"` is Larq Compute Engine's own interpreter. `"auto"` takes the native
    one; where it is missing, it warns once and takes the other.

    Threads may share an interpreter: it runs one batch at a time. So may forked processes, each
    of which loads the model once more when it first uses it.

    # Arguments
        flatbuffer_or_path: the serialized model, or the path of a `.tflite` file.
        num_threads: the number of threads, at least 1.
        engine: `"auto"`, `"native"` or `"lce"`.
        kernel: one of `larq_ext.runtime.available_kernels()`, for the native engine; `"auto"`
            takes the one that the environment variable `LARQ_EXT_KERNEL` names, or else the
            fastest.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if the content is no TensorFlow Lite model or none that the engine runs, or an
            argument is wrong.
        EngineError: if the engine, or with `"auto"` both, are not installed.
    """

    def __init__(
        self,
        flatbuffer_or_path: bytes | bytearray | str | Path,
        num_threads: int = 1,
        *,
        engine: EngineName = "auto",
        kernel: str = "auto",
    ) -> None:
        num_threads = checked_threads(num_threads)
        flatbuffer = load_flatbuffer(flatbuffer_or_path)
        self._load = functools.partial(_load, flatbuffer, num_threads, engine, kernel)
        self._engine = self._load()
        self._step = batch_of(self._engine.inputs)
        self._lock = threading.Lock()
        self._is_forked = False
        _ALIVE.add(self)

    @property
    def engine(self) -> str:
        """The engine in use, `"native"` or `"lce"`."""
        return self._engine.name

    @property
    def kernel(self) -> str:
        """The binary kernel in use; with Larq Compute Engine `"indirect"` or `"default"`."""
        return self._engine.kernel

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the inputs, batch dimension first."""
        return [info.shape for info in self._engine.inputs]

    @property
    def input_types(self) -> list[np.dtype]:
        """The NumPy types of the inputs."""
        return [info.dtype for info in self._engine.inputs]

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the outputs, batch dimension first."""
        return [info.shape for info in self._engine.outputs]

    @property
    def output_types(self) -> list[np.dtype]:
        """The NumPy types of the outputs."""
        return [info.dtype for info in self._engine.outputs]

    @property
    def input_quantization(self) -> list[Quantization | None]:
        """What the integers of each input stand for; `None` for inputs that are not quantized."""
        return [info.quantization for info in self._engine.inputs]

    @property
    def output_quantization(self) -> list[Quantization | None]:
        """What the integers of each output stand for; `None` for those not quantized."""
        return [info.quantization for info in self._engine.outputs]

    def predict(self, x: Any, verbose: int = 0) -> np.ndarray | list[np.ndarray]:
        """Computes the outputs for inputs with a batch dimension.

        The samples are run in pieces of the batch that the file was made for, usually 1. What
        is left over needs a resized graph: the native engine resizes it and keeps it so until
        another size comes; with Larq Compute Engine it is an error.

        A file with int8 inputs takes and gives integers only: `input_quantization[0].quantize`
        makes them of numbers, and `output_quantization[0].dequantize` numbers of them.

        # Arguments
            x: an array; a list of arrays for a model with several inputs; or an iterable
                (generator, `tf.data.Dataset`) of batches, each an array or a tuple of arrays.
            verbose: 1 shows a progress bar on standard error.

        # Returns
            One array of shape `(samples, ...)`, or a list of them for several outputs.

        # Raises
            ValueError: if number, shape or type of the inputs is not what the model takes.
        """
        results: list[list[np.ndarray]] = [[] for _ in self._engine.outputs]
        pieces = self._pieces(x)
        for piece in progress(pieces, _count(x, self._step)) if verbose else pieces:
            with self._lock:
                if self._is_forked:
                    self._engine, self._is_forked = self._load(), False
                outputs = self._engine.run(piece)
            for result, output in zip(results, outputs, strict=True):
                result.append(output)
        arrays = [
            # An output without dimensions has one value for each piece.
            np.concatenate([np.atleast_1d(piece) for piece in result])
            if result
            else np.empty((0, *info.shape[1:]), info.dtype)
            for result, info in zip(results, self._engine.outputs, strict=True)
        ]
        return arrays[0] if len(arrays) == 1 else arrays

    def _pieces(self, x: Any) -> Iterator[list[np.ndarray]]:
        """Cuts the inputs into pieces of the batch size that the file was made for."""
        step = self._step
        for batch in batches(x):
            arrays = checked(batch, self._engine.inputs)
            if len(arrays[0]) % step and not self._engine.takes_any_batch:
                raise ValueError(
                    f"The model takes batches of {step}; received {len(arrays[0])} samples, "
                    "which is no multiple of it."
                )
            for start in range(0, len(arrays[0]), step):
                yield [array[start : start + step] for array in arrays]


def _after_fork() -> None:
    """Only the thread that forked is in the child: neither those of engines, nor who held locks."""
    for interpreter in _ALIVE:
        interpreter._lock, interpreter._is_forked = threading.Lock(), True
        # Kept for good: at its end an engine waits for its threads.
        _INHERITED.append(interpreter._engine)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _load(flatbuffer: bytes, num_threads: int, engine: str, kernel: str) -> Engine:
    if engine not in ("auto", "native", "lce"):
        raise ValueError(f"engine must be 'auto', 'native' or 'lce', not {engine!r}.")
    if engine == "lce":
        if kernel != "auto":
            raise ValueError(f"kernel={kernel!r} is one of the native engine's, not of 'lce'.")
        return LceEngine(flatbuffer, num_threads)
    try:
        return NativeEngine(flatbuffer, num_threads, kernel)
    except EngineError as error:
        if engine == "native" or kernel != "auto":
            raise
        if not is_installed():
            raise EngineError(
                f"{error} (Larq Compute Engine, which would do instead, is not installed either.)"
            ) from error
        _warn_once(f"Running in Larq Compute Engine, which is several times slower. {error}")
    return LceEngine(flatbuffer, num_threads)


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=4)  # where the interpreter is created


def _count(x: Any, step: int) -> int | None:
    arrays = x if isinstance(x, (list, tuple)) else [x]
    if not arrays or not getattr(arrays[0], "shape", ()):
        return None
    return -(-len(arrays[0]) // step)
