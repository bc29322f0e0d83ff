"""Runs models in a stock TensorFlow Lite interpreter with the native delegate."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf


class Library:
    """The delegate's shared library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def kernels(self) -> list[str]:
        function = ctypes.CDLL(str(self.path)).larq_ext_kernels
        function.restype = ctypes.c_char_p
        return function().decode().split(",")

    def delegate(self, **options: object):
        texts = {key: str(value) for key, value in options.items()}
        return tf.lite.experimental.load_delegate(str(self.path), texts)

    def interpreter(self, model: bytes, kernel: str = "auto", threads: int = 1):
        """An interpreter whose tensors are not allocated yet."""
        return self.with_delegate(model, self.delegate(kernel=kernel, num_threads=threads))

    def with_delegate(self, model: bytes, delegate):
        """The same with a delegate that the caller keeps."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tf.lite.Interpreter(
                model_content=model, num_threads=1, experimental_delegates=[delegate]
            )


def feed(interpreter, inputs: Sequence[np.ndarray]) -> None:
    for details, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], array)


def outputs_of(interpreter) -> list[np.ndarray]:
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def invoke(interpreter, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs an allocated interpreter twice: what the first run leaves behind must not matter."""
    for _ in range(2):
        feed(interpreter, inputs)
        interpreter.invoke()
    return outputs_of(interpreter)


def resize(interpreter, inputs: Sequence[np.ndarray]) -> None:
    for details, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.resize_tensor_input(details["index"], array.shape)
    interpreter.allocate_tensors()


def invoke_resized(interpreter, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs with the model's own sizes first, then with those of the inputs."""
    interpreter.allocate_tensors()
    own = [
        np.zeros(details["shape"], details["dtype"]) for details in interpreter.get_input_details()
    ]
    invoke(interpreter, own)
    resize(interpreter, inputs)
    return invoke(interpreter, inputs)
