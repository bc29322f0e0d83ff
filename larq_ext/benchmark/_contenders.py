"""What can run a network: TensorFlow Lite, Larq Compute Engine, our delegate in the former."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_ext._files import IDENTIFIER
from larq_ext.benchmark._timing import Timed
from larq_ext.runtime._engine import TensorInfo
from larq_ext.runtime._inputs import random_inputs
from larq_ext.runtime._lce import LceEngine

NATIVE = "native"
CONTENDERS = ("float32", "int8", "lce")
NEED_MODEL = ("float32", "int8")


@dataclass(frozen=True)
class Contender:
    """A loaded model.

    # Arguments
        timed: one inference, with the inputs already set where the interpreter allows it.
        outputs: runs once and returns the outputs.
    """

    timed: Timed
    outputs: Callable[[], list[np.ndarray]]


def check_against(against: Sequence[str]) -> tuple[str, ...]:
    """Checks names of contenders; each is kept once.

    # Raises
        ValueError: if one is unknown.
    """
    for name in against:
        if name not in CONTENDERS:
            raise ValueError(f"Unknown contender {name!r}: choose from {', '.join(CONTENDERS)}.")
    return tuple(dict.fromkeys(against))


def tflite_contender(
    flatbuffer: bytes, num_threads: int, delegates: Sequence[Any] | None = None
) -> Contender:
    """A model in TensorFlow Lite, which hands what it can to XNNPACK.

    The inputs are set once, only `invoke` is timed.
    """
    with warnings.catch_warnings():
        # TensorFlow 2.19 warns that its interpreter moves to another package.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter is dep")
        interpreter = tf.lite.Interpreter(
            model_content=flatbuffer, num_threads=num_threads, experimental_delegates=delegates
        )
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()
    inputs = random_inputs([d["shape"] for d in details], [d["dtype"] for d in details])
    for detail, value in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)

    def outputs() -> list[np.ndarray]:
        interpreter.invoke()
        return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]

    return Contender(Timed(interpreter.invoke), outputs)


def lce_contender(flatbuffer: bytes, num_threads: int) -> Contender:
    """A model in Larq Compute Engine's interpreter, with the kernels `runtime` takes there.

    Its Python wrapper has no call that only runs: `predict` also copies the inputs in and makes
    arrays of the outputs. An empty model with the same inputs and outputs, which does nothing
    but that in the same wrapper, is timed along with it and subtracted.

    # Raises
        EngineError: if Larq Compute Engine is not installed.
        ValueError: if it cannot load the model.
    """
    engine = LceEngine(flatbuffer, num_threads)
    empty = LceEngine(_empty_model(engine.inputs, engine.outputs), num_threads)
    inputs = random_inputs(
        [info.shape for info in engine.inputs], [info.dtype for info in engine.inputs]
    )
    return Contender(
        Timed(lambda: engine.run(inputs), overhead=lambda: empty.run(inputs)),
        lambda: engine.run(inputs),
    )


def _empty_model(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> bytes:
    """A model without operators, whose outputs are constants of zeros."""
    model, subgraph = schema.ModelT(), schema.SubGraphT()
    model.version = 3
    model.operatorCodes, model.subgraphs = [], [subgraph]
    model.buffers = [schema.BufferT()]  # the first one means: not constant
    subgraph.tensors, subgraph.operators = [], []
    subgraph.inputs = [_add_tensor(model, info, constant=False) for info in inputs]
    subgraph.outputs = [_add_tensor(model, info, constant=True) for info in outputs]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _add_tensor(model: Any, info: TensorInfo, constant: bool) -> int:
    tensors, tensor = model.subgraphs[0].tensors, schema.TensorT()
    tensor.name = f"tensor_{len(tensors)}".encode()
    tensor.shape = list(info.shape)
    tensor.type = getattr(schema.TensorType, info.dtype.name.upper())
    tensor.buffer = 0
    if constant:
        tensor.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = np.zeros(info.shape, info.dtype).ravel().view(np.uint8)
    tensors.append(tensor)
    return len(tensors) - 1
