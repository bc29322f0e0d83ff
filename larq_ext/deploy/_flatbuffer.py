"""Reads TensorFlow Lite files: the graph, the packed filters, the order of the outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from larq_ext._files import IDENTIFIER as IDENTIFIER
from larq_ext._files import load_flatbuffer as load_flatbuffer

_BCONV = ("stride_height", "stride_width", "padding", "pad_values")
_DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph; `data` is its constant value, `None` where it is computed."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None


@dataclass(frozen=True)
class Op:
    """An operator: the positions of its tensors and, for convolutions, their options."""

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """The main subgraph of a file; inputs and outputs are positions of tensors."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()

    @cached_property
    def _producers(self) -> dict[int, Op]:
        return {output: op for op in self.ops for output in op.outputs}

    def producer(self, tensor: int) -> Op | None:
        """The operator that computes a tensor; `None` for inputs and constants."""
        return self._producers.get(tensor)

    def op_counts(self) -> dict[str, int]:
        """How often each operator occurs, the most frequent first."""
        return dict(Counter(op.name for op in self.ops).most_common())

    def constants_behind(self, tensor: int, size: int) -> Iterator[Tensor]:
        """The constants of `size` elements from which a tensor is computed."""
        pending, seen = [tensor], set()
        while pending:
            index = pending.pop()
            if index < 0 or index in seen:
                continue
            seen.add(index)
            value = self.tensors[index]
            if value.data is not None and value.data.size == size:
                yield value
            if op := self.producer(index):
                pending.extend(op.inputs)


def read_graph(flatbuffer: bytes) -> Graph:
    """Parses a serialized TensorFlow Lite model without copying its weights.

    # Arguments
        flatbuffer: the serialized model.

    # Returns
        Its first subgraph, which is the model itself.

    # Raises
        ValueError: if the content is damaged, or the model has variables.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        model = schema.Model.GetRootAs(flatbuffer)
        subgraph = model.Subgraphs(0)
        types = _names(schema.TensorType)
        tensors = tuple(
            _read_tensor(model, subgraph.Tensors(i), types) for i in range(subgraph.TensorsLength())
        )
        codes = [
            _op_name(schema, model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())
        ]
        operators = (subgraph.Operators(i) for i in range(subgraph.OperatorsLength()))
        ops = tuple(_read_op(schema, index, op, codes) for index, op in enumerate(operators))
        inputs = tuple(int(subgraph.Inputs(i)) for i in range(subgraph.InputsLength()))
        outputs = tuple(int(subgraph.Outputs(i)) for i in range(subgraph.OutputsLength()))
        _check(tensors, ops, inputs + outputs)
    except Exception as error:  # the generated reader raises whatever a wrong offset leads to
        raise ValueError(f"The TensorFlow Lite model is damaged: {error}.") from error
    for op in ops:
        if not op.outputs:
            raise ValueError(
                f"Operator {op.index} ({op.name}) has no output: models with variables are not "
                "supported."
            )
    return Graph(tensors, ops, inputs, outputs)


def _check(tensors: tuple[Tensor, ...], ops: tuple[Op, ...], ends: tuple[int, ...]) -> None:
    """Looks for what other modules rely on: positions of tensors, options of binary operators."""
    for op in ops:
        given = [i for i in op.inputs if i != -1]  # others may be left out
        if not all(0 <= i < len(tensors) for i in (*given, *op.outputs)):
            raise ValueError(f"operator {op.index} ({op.name}) has tensors that are not there")
        if op.name == "LceBconv2d" and not {"channels_in", *_BCONV} <= op.options.keys():
            raise ValueError(f"operator {op.index} ({op.name}) has no options")
    if not all(0 <= i < len(tensors) for i in ends):
        raise ValueError("an input or output of the model is not there")


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _op_name(schema: Any, code: Any) -> str:
    # Files keep small codes in the old one-byte field and large ones in the new field.
    builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if builtin == schema.BuiltinOperator.CUSTOM:
        return code.CustomCode().decode()
    return _names(schema.BuiltinOperator)[builtin]


def _read_tensor(model: Any, tensor: Any, types: dict[int, str]) -> Tensor:
    shape = tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))
    dtype = types[tensor.Type()]
    buffer = model.Buffers(tensor.Buffer())
    data = None
    if buffer.DataLength() and dtype in _DTYPES:
        data = buffer.DataAsNumpy().view(_DTYPES[dtype]).reshape(shape)
    return Tensor((tensor.Name() or b"").decode(errors="replace"), shape, dtype, data)


def _read_op(schema: Any, index: int, op: Any, codes: list[str]) -> Op:
    name = codes[op.OpcodeIndex()]
    options: dict[str, Any] = {}
    if name.startswith("Lce") and op.CustomOptionsLength():
        options = flexbuffers.GetRoot(op.CustomOptionsAsNumpy().tobytes()).Value
    elif name == "CONV_2D":
        conv = schema.Conv2DOptions()
        table = op.BuiltinOptions()
        conv.Init(table.Bytes, table.Pos)
        options = {
            "padding": _names(schema.Padding)[conv.Padding()],
            "strides": (conv.StrideH(), conv.StrideW()),
            "dilations": (conv.DilationHFactor(), conv.DilationWFactor()),
        }
    return Op(
        index,
        name,
        tuple(int(op.Inputs(i)) for i in range(op.InputsLength())),
        tuple(int(op.Outputs(i)) for i in range(op.OutputsLength())),
        options,
    )


def unpack_filter(packed: np.ndarray, channels: int) -> np.ndarray:
    """Unpacks the filter of an `LceBconv2d`.

    # Arguments
        packed: int32, shape `(out, height, width, ceil(in / 32))`; the lowest bit is the first
            channel and a set bit stands for -1.
        channels: the number of input channels of a filter.

    # Returns
        Booleans of shape `(out, height, width, in)`, true where the weight is -1.
    """
    words = np.ascontiguousarray(packed, dtype="<i4")
    bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")
    return bits[..., :channels].astype(bool)


def order_by_signature(flatbuffer: bytes) -> bytes:
    """Puts inputs and outputs in the alphabetical order of their names in the signature.

    The converter returns several outputs in an order of its own, so a position says nothing
    unless it is restored in the file.

    # Arguments
        flatbuffer: a serialized model with one signature.

    # Returns
        The same model with its inputs and outputs permuted in place.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    data = bytearray(flatbuffer)
    model = schema.Model.GetRootAs(data)
    signature = model.SignatureDefs(0)
    subgraph = model.Subgraphs(signature.SubgraphIndex())
    for kind in ("Inputs", "Outputs"):
        length = getattr(signature, f"{kind}Length")()
        entries = [getattr(signature, kind)(i) for i in range(length)]
        entries.sort(key=lambda entry: entry.Name())
        # A view of `data`: assigning changes the file and keeps every offset.
        positions = getattr(subgraph, f"{kind}AsNumpy")()
        order = [entry.TensorIndex() for entry in entries]
        if sorted(order) != sorted(positions.tolist()):
            raise ValueError(
                f"The signature names the tensors {sorted(order)} as {kind.lower()}, the graph "
                f"{sorted(positions.tolist())}."
            )
        positions[:] = order
    return bytes(data)
