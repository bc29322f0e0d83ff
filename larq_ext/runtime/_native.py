"""A stock TensorFlow Lite interpreter with the native delegate."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from larq_ext.runtime._engine import TensorInfo, batch_of
from larq_ext.runtime.delegate import chosen_kernel, find_tflite, load_delegate

_creation = threading.Lock()


def _after_fork() -> None:
    global _creation
    _creation = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class NativeEngine:
    """Runs a model in a stock TensorFlow Lite, binary operators in the native delegate.

    # Arguments
        flatbuffer: the serialized model.
        num_threads: the number of threads.
        kernel: one of `available_kernels()`, or `"auto"`.

    # Raises
        EngineError: if the delegate or TensorFlow Lite is missing.
        ValueError: if the model cannot be loaded, or there is no such kernel.
    """

    name = "native"
    takes_any_batch = True

    def __init__(self, flatbuffer: bytes, num_threads: int, kernel: str) -> None:
        tflite = find_tflite()
        delegate = load_delegate(num_threads, kernel, module=tflite)
        self.kernel = chosen_kernel(kernel)
        try:
            self._tflite = _create(tflite, flatbuffer, num_threads, delegate)
            self._tflite.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"TensorFlow Lite cannot load this model ({' '.join(str(error).split())}): the "
                "file is damaged, or holds an operator or a form of one that larq_ext's delegate "
                "does not run (Larq Compute Engine may: engine='lce')."
            ) from error
        inputs, outputs = self._tflite.get_input_details(), self._tflite.get_output_details()
        self.inputs = [_info(details) for details in inputs]
        self.outputs = [_info(details) for details in outputs]
        self._inputs = [details["index"] for details in inputs]
        self._outputs = [details["index"] for details in outputs]
        self._own_batch = self._batch = batch_of(self.inputs)

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Computes the outputs of one batch of any size."""
        if len(arrays[0]) != self._batch:
            self._change_batch(len(arrays[0]))
        for index, array in zip(self._inputs, arrays, strict=True):
            self._tflite.set_tensor(index, array)
        self._tflite.invoke()
        return [self._tflite.get_tensor(index) for index in self._outputs]

    def _change_batch(self, batch: int) -> None:
        """Resizes to another batch, or to the file's again where its graph does not allow it."""
        cause = None
        if all(info.shape for info in self.outputs):
            try:
                if self._resized(batch):
                    return
            except (RuntimeError, ValueError) as error:
                if batch == self._own_batch:
                    raise  # it fits the graph: memory has run out, say
                cause = error
            with contextlib.suppress(RuntimeError, ValueError):  # tried again at the next batch
                self._resized(self._own_batch)
        raise ValueError(
            f"The model takes batches of {self._own_batch}; received {batch} samples, "
            "which is no multiple of it."
        ) from cause

    def _resized(self, batch: int) -> bool:
        """Allocates for another batch; returns whether all outputs have it, too."""
        self._batch = 0  # until it is known to fit
        for index, info in zip(self._inputs, self.inputs, strict=True):
            self._tflite.resize_tensor_input(index, [batch, *info.shape[1:]])
        self._tflite.allocate_tensors()
        expected = [
            (info.shape[0] * batch // self._own_batch, *info.shape[1:]) for info in self.outputs
        ]
        actual = [tuple(details["shape"]) for details in self._tflite.get_output_details()]
        if actual != expected:
            return False
        self._batch = batch
        return True


def _create(tflite: Any, flatbuffer: bytes, num_threads: int, delegate: Any) -> Any:
    # TensorFlow 2.19 warns that its interpreter moves to another package. The filters of
    # `warnings` belong to the whole process.
    with _creation, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter is dep")
        return tflite.Interpreter(
            model_content=flatbuffer, num_threads=num_threads, experimental_delegates=[delegate]
        )


def _info(details: dict[str, Any]) -> TensorInfo:
    quantization = details["quantization_parameters"]
    scales, zero_points = quantization["scales"], quantization["zero_points"]
    return TensorInfo(
        tuple(int(size) for size in details["shape"]),
        np.dtype(details["dtype"]),
        float(scales[0]) if len(scales) else None,
        int(zero_points[0]) if len(zero_points) else None,
    )
