"""Multiply-adds of the operators of a converted file, by precision."""

from __future__ import annotations

import numpy as np

from larq_ext.deploy._filters import BINARY_OP, WEIGHT_INPUT, filter_channels, filter_of
from larq_ext.deploy._flatbuffer import Graph, Op

# By what is multiplied: two signs, two small integers, or two floats.
PRECISIONS = ("1-bit", "int8", "float32")

# Each weight meets each position of these: (which tensors, axes of the positions).
_POSITIONS = {
    BINARY_OP: ("output", slice(0, 3)),
    "CONV_2D": ("output", slice(0, 3)),
    "DEPTHWISE_CONV_2D": ("output", slice(0, 3)),
    "CONV_3D": ("output", slice(0, 4)),
    "FULLY_CONNECTED": ("output", slice(0, -1)),
    # Here the inputs are spread over the outputs.
    "TRANSPOSE_CONV": ("input", slice(0, 3)),
}
# Where the first input is not what is multiplied: there it is the shape of the output.
_DATA_INPUT = {"TRANSPOSE_CONV": 2}


def precision_of(graph: Graph, op: Op) -> str:
    """What an operator multiplies; `""` for one without multiply-adds."""
    if op.name == BINARY_OP:
        return "1-bit"
    if op.name not in (*WEIGHT_INPUT, "BATCH_MATMUL"):
        return ""
    data = op.inputs[_DATA_INPUT.get(op.name, 0)]
    return "int8" if graph.tensors[data].dtype in ("INT8", "UINT8") else "float32"


def macs_of(graph: Graph, op: Op) -> int:
    """The multiply-adds of one run of an operator.

    Those on the border count, as Larq's summary counts them.
    """
    if op.name == "BATCH_MATMUL":
        inner = graph.tensors[op.inputs[0]].shape[-1]
        return inner * int(np.prod(graph.tensors[op.outputs[0]].shape))
    if op.name not in _POSITIONS:
        return 0
    weights = graph.tensors[filter_of(graph, op)].shape
    if op.name == BINARY_OP:
        weights = (*weights[:-1], filter_channels(graph, op))
    which, axes = _POSITIONS[op.name]
    positions = graph.tensors[op.outputs[0] if which == "output" else op.inputs[2]].shape[axes]
    return int(np.prod(positions)) * int(np.prod(weights))
