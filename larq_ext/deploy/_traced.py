"""The graph of a Keras model as Larq Compute Engine's converter will meet it, before conversion.

Operators bear the names that they have in files, so that `_reasons` reads both. What the
converter computes in advance is constant here, and what it takes for a sign is `LceDequantize`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

from larq_ext.deploy._expected import Kernel
from larq_ext.deploy._filters import WEIGHT_INPUT
from larq_ext.deploy._flatbuffer import Graph, Op, Tensor
from larq_ext.deploy._reasons import SIGN, WRONG_SIGN
from larq_ext.deploy.convert import allow_inlining
from larq_ext.deploy.convert import trace as trace_inference

_NAMES = {
    "AddV2": "ADD",
    "Conv2D": "CONV_2D",
    "Conv2DBackpropInput": "TRANSPOSE_CONV",
    "Conv3D": "CONV_3D",
    "DepthwiseConv2dNative": "DEPTHWISE_CONV_2D",
    "MatMul": "FULLY_CONNECTED",
    "PadV2": "PADV2",
    "RealDiv": "DIV",
    "Select": "SELECT_V2",
    "SelectV2": "SELECT_V2",
}
# How a filter is turned into the order that it has in files.
_FILTER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "CONV_2D": lambda w: w.transpose(3, 0, 1, 2),
    "DEPTHWISE_CONV_2D": lambda w: w.reshape(1, *w.shape[:2], -1),
    "TRANSPOSE_CONV": lambda w: w.transpose(2, 0, 1, 3),
    "CONV_3D": lambda w: w,
    "FULLY_CONNECTED": lambda w: w.T,
}
_PASSING = ("Identity", "IdentityN", "StopGradient", "PreventGradient", "CheckNumerics")
# Arithmetic with these is none.
_NEUTRAL = {"Mul": 1.0, "RealDiv": 1.0, "Add": 0.0, "AddV2": 0.0, "Sub": 0.0}
# The converter computes a larger result in advance only if it is at most twice its operands.
_FOLDED_BITS = 1 << 23


@dataclass
class Traced:
    """A traced model.

    # Arguments
        graph: its operators.
        users: the operators that take a kernel for their filter, by the kernel's name.
        wrong_signs: names of operations that `convert` refuses.
    """

    graph: Graph
    users: dict[str, list[Op]] = field(default_factory=dict)
    wrong_signs: list[str] = field(default_factory=list)


def trace(model: tf.keras.Model, kernels: Sequence[Kernel]) -> Traced:
    """Traces the inference of one sample and reads the graph as the converter will.

    # Arguments
        model: a built model.
        kernels: what is looked for in it.
    """
    concrete = trace_inference(model)
    handles: dict[int, list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        # Of a layer without a binary form everything is said, if it is meant to be binary.
        if not (kernel.cause and kernel.binary_input):
            handles[id(kernel.variable.handle)].append(kernel)
    captured = {inner.op.name: handles[id(outer)] for outer, inner in concrete.graph.captures}
    graph = concrete.graph
    if allow_inlining(concrete):
        graph = convert_variables_to_constants_v2(
            concrete, lower_control_flow=False, aggressive_inlining=True
        ).graph
    return _Reader(graph, captured).read()


class _Reader:
    """Turns the operations of a TensorFlow graph into operators."""

    def __init__(self, graph: Any, captured: dict[str, list[Kernel]]):
        # Inputs come before what uses them.
        self._operations = graph.get_operations()
        self._captured = captured
        self._folded: dict[str, bool] = {}
        self._tensors: list[Tensor] = []
        self._positions: dict[str, int] = {}

    def read(self) -> Traced:
        for operation in self._operations:
            self._folded[operation.name] = self._folds(operation)
        ops: list[Op] = []
        traced = Traced(Graph((), ()))
        for operation in self._operations:
            if not (operation.inputs and operation.outputs) or self._folded[operation.name]:
                continue
            if self._passes(operation.outputs[0]) is not None:
                continue
            kernels = self._kernels(operation)
            op = self._read_op(len(ops), operation, kernels)
            ops.append(op)
            if op.name == WRONG_SIGN:
                traced.wrong_signs.append(operation.name)
            for kernel in kernels:
                traced.users.setdefault(kernel.name, []).append(op)
        traced.graph = Graph(tuple(self._tensors), tuple(ops))
        return traced

    def _folds(self, operation: Any) -> bool:
        """Whether the converter computes an operation in advance."""
        if operation.type == "Placeholder":
            return operation.name in self._captured
        if not all(self._folded[tensor.op.name] for tensor in operation.inputs):
            return False
        operands = sum(_bits(tensor) for tensor in operation.inputs)
        results = sum(_bits(tensor) for tensor in operation.outputs)
        is_read = not operation.inputs or operation.type == "ReadVariableOp"
        return is_read or results <= max(_FOLDED_BITS, 2 * operands)

    def _kernels(self, operation: Any) -> list[Kernel]:
        """The kernel from which an operation's filter is made, by all names of its layer."""
        position = WEIGHT_INPUT.get(_name(operation))
        if position is None:
            return []
        pending, seen = [operation.inputs[position].op], set()
        while pending:
            current = pending.pop()
            if current.name in seen:
                continue
            seen.add(current.name)
            if kernels := self._captured.get(current.name):
                return kernels
            pending.extend(tensor.op for tensor in current.inputs)
        return []

    def _read_op(self, index: int, operation: Any, kernels: list[Kernel]) -> Op:
        name, inputs = _name(operation), list(operation.inputs)
        options: dict[str, Any] = {}
        if self._is_select_of_signs(operation):
            name, inputs = SIGN, inputs[:1]
        elif name == "SIGN" and (parts := self._sum_with_sign(inputs[0])) is not None:
            inner, constant = parts
            plain = constant is not None and np.all((constant > 0) & (constant < 1))
            name, inputs = SIGN if plain else WRONG_SIGN, list(inner.op.inputs)
        elif name == "CONV_2D":
            dilations = operation.get_attr("dilations")[1:3]
            feeding = self._source(inputs[0]).op
            if feeding.type == "SpaceToBatchND":
                # So TensorFlow writes a dilated convolution, and files do not.
                inputs[0], dilations = feeding.inputs[0], self._constant(feeding.inputs[1])
            options = {
                "padding": operation.get_attr("padding").decode(),
                "strides": tuple(operation.get_attr("strides")[1:3]),
                "dilations": tuple(dilations),
            }
        tensors = [self._tensor(tensor) for tensor in inputs]
        position = WEIGHT_INPUT.get(name)
        if position is not None and kernels and self._is_folded(inputs[position]):
            filters, values = inputs[position], kernels[0].values
            # Another shape of as many numbers is that of images with one row.
            if filters.shape.num_elements() == values.size:
                values = _FILTER[name](values.reshape(filters.shape))
                tensors[position] = self._add(filters.name, values.shape, values)
        outputs = tuple(self._tensor(tensor) for tensor in operation.outputs)
        return Op(index, name, tuple(tensors), outputs, options)

    def _is_folded(self, tensor: Any) -> bool:
        return self._folded[tensor.op.name]

    def _constant(self, tensor: Any) -> np.ndarray | None:
        """The value of a constant; `None` for what is computed, from variables too."""
        if not self._is_folded(tensor):
            return None
        value = tf.get_static_value(tensor)
        if value is None and tensor.op.inputs:
            value = self._compute(tensor)
        return None if value is None else np.asarray(value)

    def _compute(self, tensor: Any) -> Any:
        """Runs an operation of one output on constants."""
        operation = tensor.op
        operands = [self._constant(each) for each in operation.inputs]
        definition = operation.op_def
        names = [argument.name for argument in definition.input_arg]
        if any(value is None for value in operands) or len(names) != len(operands):
            return None
        # TensorFlow infers the types of operands.
        inferred = {argument.type_attr for argument in definition.input_arg}
        settings = {
            attribute.name: operation.get_attr(attribute.name)
            for attribute in definition.attr
            if attribute.name not in inferred
        }
        try:
            run = getattr(tf.raw_ops, operation.type)
            return run(**dict(zip(names, operands, strict=True)), **settings)
        except Exception:  # an operation that cannot be run alone
            return None

    def _source(self, tensor: Any) -> Any:
        """The tensor that another is, seen through what passes values on."""
        while (position := self._passes(tensor)) is not None:
            tensor = tensor.op.inputs[position]
        return tensor

    def _passes(self, tensor: Any) -> int | None:
        """Which input of its operation a tensor is equal to, if there is one."""
        operation = tensor.op
        if operation.type in _PASSING:
            return tensor.value_index
        if operation.type not in _NEUTRAL:
            return None
        # 0 - x and 1 / x are not x.
        commutes = operation.type in ("Mul", "Add", "AddV2")
        for position in (0, 1) if commutes else (1,):
            constant = self._constant(operation.inputs[position])
            if constant is not None and (constant == _NEUTRAL[operation.type]).all():
                return 1 - position
        return None

    def _tensor(self, tensor: Any) -> int:
        source = self._source(tensor)
        if source.name not in self._positions:
            shape = source.shape.as_list() if source.shape.rank is not None else ()
            sizes = tuple(-1 if length is None else length for length in shape)
            self._positions[source.name] = self._add(source.name, sizes, self._constant(source))
        return self._positions[source.name]

    def _add(self, name: str, shape: tuple[int, ...], data: np.ndarray | None) -> int:
        dtype = "FLOAT32" if data is None else data.dtype.name.upper()
        self._tensors.append(Tensor(name.removesuffix(":0"), shape, dtype, data))
        return len(self._tensors) - 1

    def _is_select_of_signs(self, operation: Any) -> bool:
        if _name(operation) != "SELECT_V2":
            return False
        branches = [self._constant(tensor) for tensor in operation.inputs[1:]]
        distinct = [np.unique(branch) for branch in branches if branch is not None]
        return sorted(float(v[0]) for v in distinct if v.size == 1) == [-1.0, 1.0]

    def _sum_with_sign(self, tensor: Any) -> tuple[Any, np.ndarray | None] | None:
        """The inner sign of `sign(sign(x) + c)` and c, `None` for a c that is no constant."""
        total = self._source(tensor).op
        if total.type not in ("Add", "AddV2"):
            return None
        for position in (0, 1):
            inner = self._source(total.inputs[position])
            if inner.op.type == "Sign":
                return inner, self._constant(total.inputs[1 - position])
        return None


def _name(operation: Any) -> str:
    """The name in files; an unknown `SpaceToDepth` becomes `SPACE_TO_DEPTH`, as it mostly is."""
    text = "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(operation.type))
    return _NAMES.get(operation.type, text.upper())


def _bits(tensor: Any) -> int:
    if tensor.dtype in (tf.resource, tf.variant, tf.string) or tensor.shape.rank is None:
        return 0
    return (tensor.shape.num_elements() or 0) * (
        1 if tensor.dtype == tf.bool else 8 * tensor.dtype.size
    )
