"""What the operators of a converted file are, and what its bytes hold."""

from __future__ import annotations

from larq_ext.deploy._filters import BINARY_OP, WEIGHT_INPUT, filter_of, weight_bytes
from larq_ext.deploy._flatbuffer import Graph, Op
from larq_ext.deploy._macs import macs_of, precision_of
from larq_ext.deploy._report import OpAudit

_BITS = ("LceQuantize", "LceDequantize", "LceBMaxPool2d")
# What moves numbers and computes none.
_MEMORY = {
    "BATCH_TO_SPACE_ND",
    "BROADCAST_TO",
    "CONCATENATION",
    "DEPTH_TO_SPACE",
    "EXPAND_DIMS",
    "FILL",
    "GATHER",
    "GATHER_ND",
    "MIRROR_PAD",
    "PACK",
    "PAD",
    "PADV2",
    "RESHAPE",
    "REVERSE_V2",
    "SHAPE",
    "SLICE",
    "SPACE_TO_BATCH_ND",
    "SPACE_TO_DEPTH",
    "SPLIT",
    "SPLIT_V",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TILE",
    "TRANSPOSE",
    "UNPACK",
}


def operators(graph: Graph) -> tuple[OpAudit, ...]:
    """A row for each operator, in the order in which they run."""
    return tuple(_operator(graph, op) for op in graph.ops)


def _operator(graph: Graph, op: Op) -> OpAudit:
    output = graph.tensors[op.outputs[0]]
    sources = []
    for tensor in op.inputs:
        producer = graph.producer(tensor)
        if producer is not None:
            sources.append(producer.index)
        elif tensor in graph.inputs:
            sources.append(-1 - graph.inputs.index(tensor))
    has_weights = op.name == BINARY_OP or op.name in WEIGHT_INPUT
    return OpAudit(
        op.index,
        op.name,
        _kind(graph, op),
        output.name,
        output.shape,
        output.dtype,
        tuple(dict.fromkeys(sources)),
        precision_of(graph, op),
        macs_of(graph, op),
        weight_bytes(graph, op) if has_weights else 0,
    )


def _kind(graph: Graph, op: Op) -> str:
    if op.name == BINARY_OP:
        return "binary"
    if op.name in _BITS:
        return "bits"
    if op.name in _MEMORY:
        return "memory"
    types = {graph.tensors[i].dtype for i in (*op.inputs[:1], *op.outputs)}
    return "int8" if types & {"INT8", "UINT8"} else "float"


def file_sizes(graph: Graph, file_bytes: int) -> dict[str, int]:
    """The bytes of a file by what they hold; they add up to its size."""
    filters = {
        filter_of(graph, op): precision_of(graph, op)
        for op in graph.ops
        if op.name == BINARY_OP or op.name in WEIGHT_INPUT
    }
    sizes = {"1-bit weights": 0, "int8 weights": 0, "float32 weights": 0, "other constants": 0}
    seen = set()
    for position, tensor in enumerate(graph.tensors):
        if tensor.data is None:
            continue
        # Tensors may share a buffer.
        address = tensor.data.__array_interface__["data"][0]
        if address in seen:
            continue
        seen.add(address)
        precision = filters.get(position)
        sizes[f"{precision} weights" if precision else "other constants"] += tensor.data.nbytes
    return {**sizes, "structure": file_bytes - sum(sizes.values())}
