"""Reads the filters of operators in a converted file."""

from __future__ import annotations

import numpy as np

from larq_ext.deploy._flatbuffer import Graph, Op, unpack_filter

BINARY_OP = "LceBconv2d"

# Where the weights of a float operator are, and which axis of them counts the outputs.
WEIGHT_INPUT = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "TRANSPOSE_CONV": 1,
    "CONV_3D": 1,
    "FULLY_CONNECTED": 1,
}
_OUTPUT_AXIS = {"DEPTHWISE_CONV_2D": 3, "CONV_3D": 4}  # elsewhere the first


def filter_of(graph: Graph, op: Op) -> int:
    return op.inputs[WEIGHT_INPUT.get(op.name, 1)]


def filter_channels(graph: Graph, op: Op) -> int:
    """Input channels of a packed filter; with groups, those of one group."""
    return min(op.options["channels_in"], 32 * graph.tensors[op.inputs[1]].shape[-1])


def _constant(graph: Graph, tensor: int) -> np.ndarray:
    data = graph.tensors[tensor].data
    assert data is not None  # the converter packs constants only
    return data


def canonical(negative: np.ndarray) -> np.ndarray:
    """Rows up to inversion, because the converter inverts a channel with a negative scale."""
    return negative ^ negative[:, :1]


def binary_rows(graph: Graph, op: Op) -> np.ndarray:
    bits = unpack_filter(_constant(graph, op.inputs[1]), filter_channels(graph, op))
    return canonical(bits.reshape(len(bits), -1))


def file_rows(op: Op, values: np.ndarray) -> np.ndarray:
    """Brings the weights of a float operator to a row for each output channel."""
    axis = _OUTPUT_AXIS.get(op.name, 0)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def weight_bytes(graph: Graph, op: Op) -> int:
    tensor = graph.tensors[filter_of(graph, op)]
    if tensor.data is not None:
        return tensor.data.nbytes
    size = int(np.prod(tensor.shape))
    sources = graph.constants_behind(filter_of(graph, op), size)
    return sum(source.data.nbytes for source in sources if source.data is not None)


def saved_bytes(graph: Graph, op: Op) -> int:
    if op.name != BINARY_OP:
        data = graph.tensors[filter_of(graph, op)].data if op.name in WEIGHT_INPUT else None
        return 3 * data.nbytes if data is not None and data.dtype.itemsize == 1 else 0
    packed = _constant(graph, op.inputs[1])
    weights = int(np.prod(packed.shape[:-1])) * filter_channels(graph, op)
    return 4 * weights - packed.nbytes
