"""Borders and images of strided convolutions, as the converter and the engines take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext.quantizers import factor_kernel

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_PADS = ("Pad", "PadV2")
_SPATIAL = (1, 2)


def trim_strided(graph_def: Any) -> None:
    """Leaves out the pixels that no kernel of a strided convolution reaches.

    They change nothing by themselves, but make the converter and an engine compute something else:

    - A padded convolution that gives as many pixels as `padding="same"` would is made one by the
      converter if it pads both sides alike, or one more behind. With a stride, "same" may begin at
      another pixel: for a kernel of 3, a stride of 2 and an even size it pads (0, 1), so (1, 1) is
      not the same, although the last pixel of it is never used. (1, 0) computes what (1, 1) does
      and is left alone.
    - With `padding="same"` and a stride larger than the kernel, the last kernel may end before the
      image does. XNNPACK, which runs float and 8-bit convolutions in TensorFlow Lite, then computes
      wrong numbers: the pixels that are too many are a padding below zero. A convolution that needs
      no padding at all is made a "valid" one, which gives as many outputs; else the image is cut.

    # Arguments
        graph_def: a frozen graph, changed in place.
    """
    nodes = {node.name: node for node in graph_def.node}
    strided = [node for node in graph_def.node if _is_strided(node)]
    if not strided:
        return
    graph = graph_of(graph_def)
    for node in strided:
        conv = graph.get_operation_by_name(node.name)
        source = source_node(node.input[0], nodes)
        if not _is_sized(conv.inputs[1].shape, slice(0, 2)):
            continue
        if node.attr["padding"].s == b"SAME":
            _trim_image(graph_def, node, conv, source)
        elif source is not None and source.op in _PADS:
            _trim_padding(graph_def, node, conv, source, graph.get_operation_by_name(source.name))


def graph_of(graph_def: Any) -> tf.Graph:
    """The graph of a definition, which knows the shapes."""
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    return graph


def _is_strided(node: Any) -> bool:
    return (
        node.op in _CONVOLUTIONS
        and node.attr["padding"].s in (b"SAME", b"VALID")
        and max(node.attr["strides"].list.i) > 1
        and node.attr["data_format"].s != b"NCHW"
    )


def _is_sized(shape: tf.TensorShape, spatial: slice = slice(1, 3)) -> bool:
    """Whether height and width are known, and do not depend on the data."""
    return shape.rank == 4 and None not in shape[spatial]


def _trim_padding(
    graph_def: Any, node: Any, conv: tf.Operation, pad_node: Any, pad: tf.Operation
) -> None:
    paddings = tf.get_static_value(pad.inputs[1])
    size = pad.inputs[0].shape
    if paddings is None or not _is_sized(size):
        return
    trimmed = _trimmed(conv, paddings, size)
    if (trimmed != paddings).any():
        _pad_anew(graph_def, node, pad_node, trimmed)


def _trim_image(graph_def: Any, node: Any, conv: tf.Operation, source: Any) -> None:
    if not _is_sized(conv.inputs[0].shape):
        return
    size = conv.inputs[0].shape[1:3]
    used = [_used(conv, axis) for axis in _SPATIAL]
    trimmed = [min(pair) for pair in zip(used, size, strict=True)]
    if trimmed == used and used != list(size):
        node.attr["padding"].s = b"VALID"
    elif trimmed != list(size) and not _is_binary(conv, source):  # whose kernels know
        _cut(graph_def, node, source, trimmed)


def _is_binary(conv: tf.Operation, source: Any) -> bool:
    """Whether the engine's own kernels run it: signs, and one magnitude per output channel."""
    if source is None or source.op != "Sign":
        return False
    kernel = tf.get_static_value(conv.inputs[1])
    return kernel is not None and factor_kernel(kernel) is not None


def _reach(conv: tf.Operation, axis: int) -> int:
    """How many pixels a kernel lies on, with the gaps of its dilation."""
    return (conv.inputs[1].shape[axis - 1] - 1) * conv.get_attr("dilations")[axis] + 1


def _used(conv: tf.Operation, axis: int) -> int:
    """How many pixels the kernels of a "same" convolution reach over, the padding included."""
    stride = conv.get_attr("strides")[axis]
    outputs = -(-conv.inputs[0].shape[axis] // stride)
    return (outputs - 1) * stride + _reach(conv, axis)


def _cut(graph_def: Any, conv: Any, source: Any, size: list[int]) -> None:
    """Gives a convolution only the first pixels, in front of what rounds them to 8 bits."""
    taker = conv
    if source is not None and source.op.startswith("FakeQuant"):
        taker = graph_def.node.add()
        taker.CopyFrom(source)
        taker.name = f"{conv.name}/rounded"
        conv.input[0] = taker.name
    sliced = graph_def.node.add(name=f"{conv.name}/cut", op="Slice")
    for part, values in (("begin", [0, 0, 0, 0]), ("size", [-1, *size, -1])):
        constant = graph_def.node.add(name=f"{conv.name}/{part}", op="Const")
        constant.attr["dtype"].type = tf.int32.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values, tf.int32))
    sliced.input.extend([taker.input[0], f"{conv.name}/begin", f"{conv.name}/size"])
    sliced.attr["T"].CopyFrom(conv.attr["T"])
    sliced.attr["Index"].type = tf.int32.as_datatype_enum
    taker.input[0] = sliced.name


def _trimmed(conv: tf.Operation, paddings: np.ndarray, size: tf.TensorShape) -> np.ndarray:
    """The paddings without what would be misunderstood, `(4, 2)`."""
    trimmed = np.array(paddings)
    for axis in _SPATIAL:
        pixels, stride = size[axis], conv.get_attr("strides")[axis]
        kernel = _reach(conv, axis)
        first, last = paddings[axis]
        outputs = (pixels + first + last - kernel) // stride + 1
        needed = (outputs - 1) * stride + kernel - pixels
        taken_for_same = outputs == -(-pixels // stride) and last - first in (0, 1)
        if taken_for_same and first != max(needed, 0) // 2:
            trimmed[axis, 1] = max(needed - first, 0)
    return trimmed


def _pad_anew(graph_def: Any, conv: Any, pad: Any, paddings: np.ndarray) -> None:
    """Gives a convolution a padding of its own: others may take the one that it has."""
    constant = graph_def.node.add(name=f"{conv.name}/paddings", op="Const")
    constant.attr["dtype"].CopyFrom(pad.attr["Tpaddings"])
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(paddings))
    new = graph_def.node.add()
    new.CopyFrom(pad)
    new.name = f"{conv.name}/padded"
    new.input[1] = constant.name
    conv.input[0] = new.name


def source_node(name: str, by_name: dict[str, Any]) -> Any | None:
    """The node that computes an input, seen through what only passes values on."""
    node_name, _, position = name.lstrip("^").partition(":")
    node = by_name.get(node_name)
    while node is not None and node.op in ("Identity", "IdentityN", "StopGradient"):
        index = int(position.rpartition(":")[2] or 0) if node.op == "IdentityN" else 0
        node_name, _, position = node.input[index].partition(":")
        node = by_name.get(node_name)
    return node
