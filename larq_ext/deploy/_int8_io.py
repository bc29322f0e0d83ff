"""Files that take and give 8-bit integers."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Literal

from larq_ext.deploy._flatbuffer import Graph, Op, read_graph
from larq_ext.deploy.errors import DeploymentError

EdgeType = Literal["float32", "int8"]


def int8_ends(flatbuffer: bytes, *, inputs: bool, outputs: bool) -> bytes:
    """Leaves out the operators that turn float inputs to int8 and int8 outputs to floats.

    The tensors at the ends change places with those of 8 bits: signature and order stay.

    # Arguments
        flatbuffer: a serialized model.
        inputs: whether its float inputs become int8.
        outputs: whether its float outputs become int8.

    # Returns
        The model, changed in place as far as it was.

    # Raises
        DeploymentError: if a float input or output has no such operator of its own, or there is
            none.
    """
    graph = read_graph(flatbuffer)
    if inputs:
        _check_floats(graph, "input", graph.inputs)
    if outputs:
        _check_floats(graph, "output", graph.outputs)
    ends = [_quantize(graph, i) for i in _floats(graph, graph.inputs) if inputs]
    ends += [_dequantize(graph, i) for i in _floats(graph, graph.outputs) if outputs]
    return _without(flatbuffer, ends)


def _check_floats(graph: Graph, side: str, tensors: Iterable[int]) -> None:
    types = {graph.tensors[i].dtype for i in tensors}
    if types.isdisjoint({"FLOAT32", "INT8"}):
        raise DeploymentError(
            f"No {side} can be int8: {' and '.join(sorted(types)).lower()} is what they hold. Give "
            f"the model a float32 {side}, or keep {side}_type='float32', which leaves it as it is."
        )


def _floats(graph: Graph, tensors: Iterable[int]) -> list[int]:
    return [i for i in dict.fromkeys(tensors) if graph.tensors[i].dtype == "FLOAT32"]


def _quantize(graph: Graph, tensor: int) -> Op:
    taking = [op for op in graph.ops if tensor in op.inputs]
    if len(taking) == 1 and tensor not in graph.outputs and _is_int8(graph, "QUANTIZE", taking[0]):
        return taking[0]
    raise DeploymentError(
        f"The input {graph.tensors[tensor].name!r} cannot be int8: "
        f"{_names(op.name for op in taking)} take it, where a single QUANTIZE to int8 was "
        "expected. Make the first layer one of 8 bits, by larq_ext.deploy.int8_edges or the "
        "quantizer larq_ext.quantizers.Int8; or keep input_type='float32'."
    )


def _dequantize(graph: Graph, tensor: int) -> Op:
    op = graph.producer(tensor)
    alone = not any(tensor in other.inputs for other in graph.ops)
    if op is not None and alone and _is_int8(graph, "DEQUANTIZE", op):
        return op
    raise DeploymentError(
        f"The output {graph.tensors[tensor].name!r} cannot be int8: it is computed in float by "
        f"{op.name if op else 'nothing'}, or used within the model. Make the last layer one of 8 "
        "bits, by larq_ext.deploy.int8_edges or the quantizer larq_ext.quantizers.Int8; or keep "
        "output_type='float32'."
    )


def _is_int8(graph: Graph, name: str, op: Op) -> bool:
    ends = {graph.tensors[i].dtype for i in (op.inputs[0], op.outputs[0])}
    return op.name == name and ends == {"FLOAT32", "INT8"}


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "no operators"


def _without(flatbuffer: bytes, ends: list[Op]) -> bytes:
    from tensorflow.lite.python import schema_py_generated as schema

    data = bytearray(flatbuffer)
    subgraph = schema.Model.GetRootAs(data).Subgraphs(0)
    tensors, operators = _Offsets(data, subgraph, 4), _Offsets(data, subgraph, 10)
    for end in ends:
        (one,), (other,) = end.inputs, end.outputs
        tensors[one], tensors[other] = tensors[other], tensors[one]
        turned = {one: other, other: one}
        for index in range(subgraph.OperatorsLength()):
            op = subgraph.Operators(index)
            for positions in (op.InputsAsNumpy(), op.OutputsAsNumpy()):
                # A view of `data`: assigning changes the file.
                positions[:] = [turned.get(int(i), int(i)) for i in positions]
    # `end` itself now turns int8 to float or back the wrong way round, and goes.
    gone = {end.index for end in ends}
    operators.keep([i for i in range(len(operators)) if i not in gone])
    return bytes(data)


class _Offsets:
    """A vector of tables in a flatbuffer, by where each of them starts."""

    def __init__(self, data: bytearray, parent: Any, field: int):
        self._data = data
        self._start = parent._tab.Vector(parent._tab.Offset(field))

    def __len__(self) -> int:
        return struct.unpack_from("<I", self._data, self._start - 4)[0]

    def __getitem__(self, index: int) -> int:
        place = self._start + 4 * index
        return place + struct.unpack_from("<I", self._data, place)[0]

    def __setitem__(self, index: int, target: int) -> None:
        # What a table holds always lies behind it: the distance is positive.
        place = self._start + 4 * index
        struct.pack_into("<I", self._data, place, target - place)

    def keep(self, indices: list[int]) -> None:
        """Drops all others; what they were stays in the file, unused."""
        targets = [self[index] for index in indices]
        for index, target in enumerate(targets):
            self[index] = target
        struct.pack_into("<I", self._data, self._start - 4, len(targets))
