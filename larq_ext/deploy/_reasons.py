"""Why an operator is not, or will not be, a binary convolution.

It reads a converted file, and as well the graph of a Keras model that is to be converted
(`_traced`): signs are `LceDequantize` in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from larq_ext.deploy._causes import Why
from larq_ext.deploy._expected import Kernel, input_shape
from larq_ext.deploy._filters import BINARY_OP, WEIGHT_INPUT, file_rows, filter_of
from larq_ext.deploy._flatbuffer import Graph, Op
from larq_ext.deploy._probe import CONVERTERS_TOLERANCE, input_values

SIGN = "LceDequantize"
WRONG_SIGN = "SIGN_OF_SIGN"  # in traced graphs only: files hold it as a sign

# Where the data of a float operator are.
_DATA_INPUT = {"TRANSPOSE_CONV": 2}  # elsewhere the first
_PADS = ("PAD", "PADV2")
_FACTORS = ("MUL", "DIV", "NEG")
# What gives a few values, none of which the converter knows.
_STEPS = ("CAST", "ROUND", "SELECT", "SELECT_V2", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")
_NO_BINARY_FORM = {
    "DEPTHWISE_CONV_2D": "depthwise",
    "TRANSPOSE_CONV": "transposed",
    "CONV_3D": "conv3d",
    "FULLY_CONNECTED": "dense",
}


def why_float(graph: Graph, op: Op, kernel: Kernel | None) -> Why:
    """The cause of a float operator of a file, the first that the converter met."""
    found = find_cause(graph, op, kernel)
    if found is not None:
        return found
    # Everything looks right, so what is wrong was folded away: a summand into the bias, a factor
    # into the weights, a border of zeros into the convolution.
    if kernel is not None and kernel.input_kind in ("values", "several"):
        return Why("input-values", offender(graph, op), {"values": _values(kernel)})
    data = graph.tensors[filter_of(graph, op)].data
    if op.options.get("padding") == "SAME" and data is not None and (np.abs(data) == 1).all():
        return Why("unfused-padding", offender(graph, op), {"value": 0.0})
    return Why("scaled-sign", offender(graph, op))


def find_cause(graph: Graph, op: Op, kernel: Kernel | None) -> Why | None:
    """Why an operator is no binary convolution; `None` if nothing is in the way."""
    if kernel is not None and not kernel.binary_input:
        # A layer on floats is not held up by what it is.
        why = _why_input(graph, op, kernel)
        if why is not None and why.cause == "float-input":
            return why
    return (
        _why_kind(graph, op, kernel)
        or _why_weights(graph, op)
        or _why_groups(graph, op)
        or _why_input(graph, op, kernel)
    )


def offender(graph: Graph, op: Op) -> str:
    """An operator with its type, its position and what it computes."""
    return f"{op.name} (op {op.index}: {graph.tensors[op.outputs[0]].name})"


def _why_kind(graph: Graph, op: Op, kernel: Kernel | None) -> Why | None:
    """Layers that have no binary form at all."""
    cause = kernel.cause if kernel is not None else ""
    cause = cause or _NO_BINARY_FORM.get(op.name, "")
    return Why(cause, offender(graph, op)) if cause else None


def _why_weights(graph: Graph, op: Op) -> Why | None:
    tensor = graph.tensors[filter_of(graph, op)]
    if tensor.data is None:
        producer = graph.producer(filter_of(graph, op))
        return Why(
            "kernel-left-in-graph",
            offender(graph, producer or op),
            {"shape": tensor.shape},
        )
    rows = file_rows(op, tensor.data)
    if not np.isfinite(rows).all():
        return Why("not-finite-kernel", offender(graph, op))
    sizes = np.abs(rows)
    # The converter takes a scale below float32's epsilon for zero.
    zero = np.flatnonzero((sizes <= np.finfo(np.float32).eps).all(axis=1))
    if zero.size:
        facts = {"count": zero.size, "first": int(zero[0])}
        return Why("zero-channel-scale", offender(graph, op), facts)
    unequal = np.flatnonzero(np.ptp(sizes, axis=1) > CONVERTERS_TOLERANCE * sizes[:, 0])
    if unequal.size:
        facts = {"count": unequal.size, "first": int(unequal[0])}
        return Why("unequal-channel-scale", offender(graph, op), facts)
    return None


def _why_groups(graph: Graph, op: Op) -> Why | None:
    channels = graph.tensors[op.inputs[0]].shape[-1]
    per_group = graph.tensors[filter_of(graph, op)].shape[-1]
    if per_group != channels and per_group % 32:
        facts = {"groups": channels // per_group, "channels": per_group}
        return Why("small-groups", offender(graph, op), facts)
    return None


def _why_input(graph: Graph, op: Op, kernel: Kernel | None) -> Why | None:
    feeding = graph.producer(op.inputs[_DATA_INPUT.get(op.name, 0)])
    if feeding is not None and feeding.name in _PADS:
        pad, feeding = feeding, graph.producer(feeding.inputs[0])
        if feeding is not None and feeding.name == SIGN:
            return None if _fuses(graph, pad, op) else _why_padding(graph, pad)
    kind = kernel.input_kind if kernel is not None else None
    if feeding is None:
        return Why("float-input", facts={"feeding": "an input of the model"})
    if feeding.name == SIGN:
        return None
    here = offender(graph, feeding)
    if feeding.name == WRONG_SIGN:
        return Why("sign-of-sign", here)
    if kind in ("values", "several"):
        return Why("input-values", here, {"values": _values(kernel)})
    if kind == "scaled":
        return Why("scaled-sign", here)
    if feeding.name == "SIGN":
        relu = graph.producer(feeding.inputs[0])
        if kind is None and relu is not None and relu.name == "RELU":
            return Why("input-values", here, {"values": ": 0 and 1"})
        return Why("bare-sign", here)
    if _is_detached(graph, feeding):
        return Why("detach-trick", here)
    between = list(_after_sign(graph, feeding))
    if between and all(name in _FACTORS for name in between):
        return Why("scaled-sign", here)
    if between:
        return Why("op-after-sign", here, {"feeding": feeding.name})
    if kind == "sign":
        return Why("sign-form", here, {"feeding": feeding.name})
    if any(name in _STEPS for name in _upstream(graph, feeding)):
        return Why("input-values", here, {"values": f" ({feeding.name} feeds the convolution)"})
    return Why("float-input", here, {"feeding": feeding.name})


def _values(kernel: Kernel | None) -> str:
    """The values that the input quantizer was seen to give."""
    assert kernel is not None
    quantizer = getattr(kernel.layer, "input_quantizer", None)
    found = input_values(quantizer, input_shape(kernel.layer))
    if found is None:
        return ""
    distinct = [f"{value:g}" for value in np.unique(found)]
    return ": " + (", ".join(distinct[:4]) + (" ..." if len(distinct) > 4 else ""))


def _why_padding(graph: Graph, pad: Op) -> Why:
    return Why("unfused-padding", offender(graph, pad), {"value": _pad_value(graph, pad)})


def _pad_value(graph: Graph, pad: Op) -> float:
    if pad.name == "PADV2" and (data := graph.tensors[pad.inputs[2]].data) is not None:
        return float(data)
    return 0.0


def _fuses(graph: Graph, pad: Op, op: Op) -> bool:
    """Whether a border is the one that a convolution with the same output size would have."""
    amounts = graph.tensors[pad.inputs[1]].data
    if amounts is None or _pad_value(graph, pad) != 1.0 or op.options.get("padding") != "VALID":
        return False
    image = graph.tensors[pad.inputs[0]].shape
    sizes = graph.tensors[filter_of(graph, op)].shape[1:3]
    border = [[0, 0]]
    for length, size, stride, dilation in zip(
        image[1:3], sizes, op.options["strides"], op.options["dilations"], strict=True
    ):
        missing = (-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length
        border.append([max(missing, 0) // 2, max(missing, 0) - max(missing, 0) // 2])
    return bool(np.array_equal(amounts, [*border, [0, 0]]))


def _is_detached(graph: Graph, op: Op) -> bool:
    """Whether it is x + (sign(x) - x), or the same with another function of x than x."""
    if op.name != "ADD":
        return False
    for x, rest in (op.inputs[:2], op.inputs[1::-1]):
        inner = graph.producer(rest)
        if inner is None or inner.name != "SUB":
            continue
        sign = graph.producer(inner.inputs[0])
        if inner.inputs[1] == x or (sign is not None and sign.name == SIGN):
            return True
    return False


def _after_sign(graph: Graph, op: Op) -> Iterator[str]:
    """The operators from `op` back to a sign a few steps upstream; none if there is no sign."""
    path: list[str] = []
    current: Op | None = op
    for _ in range(4):
        if current is None or current.name in WEIGHT_INPUT or current.name == BINARY_OP:
            return
        if current.name == SIGN:
            yield from path
            return
        path.append(current.name)
        producers = [p for i in current.inputs if (p := graph.producer(i)) is not None]
        current = next((p for p in producers if p.name == SIGN), next(iter(producers), None))


def _upstream(graph: Graph, op: Op, depth: int = 4) -> Iterator[str]:
    """The operators a few steps upstream."""
    yield op.name
    for tensor in op.inputs if depth else ():
        producer: Any = graph.producer(tensor)
        if producer is not None and producer.name not in (*WEIGHT_INPUT, BINARY_OP):
            yield from _upstream(graph, producer, depth - 1)
