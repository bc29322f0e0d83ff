"""Borders in front of strided convolutions, as the converter takes them for what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_PADS = ("Pad", "PadV2")
_SPATIAL = (1, 2)


def trim_padding(graph_def: Any) -> None:
    """Leaves out the padding that no kernel reaches, where the converter would move the kernels.

    A padded convolution that gives as many pixels as `padding="same"` would is made one by the
    converter if it pads both sides alike, or one more behind. With a stride, "same" may begin at
    another pixel: for a kernel of 3, a stride of 2 and an even size it pads (0, 1), so (1, 1) is
    not the same, although the last pixel of it is never used. (1, 0) computes what (1, 1) does
    and is left alone.

    # Arguments
        graph_def: a frozen graph, changed in place.
    """
    nodes = {node.name: node for node in graph_def.node}
    pairs = []
    for node in graph_def.node:
        if node.op in _CONVOLUTIONS and node.attr["padding"].s == b"VALID":
            pad = source_node(node.input[0], nodes)
            is_strided = max(node.attr["strides"].list.i) > 1
            is_last = node.attr["data_format"].s != b"NCHW"
            if is_strided and is_last and pad is not None and pad.op in _PADS:
                pairs.append((node, pad))
    if not pairs:
        return
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    for node, pad in pairs:
        conv = graph.get_operation_by_name(node.name)
        before = graph.get_operation_by_name(pad.name)
        paddings = tf.get_static_value(before.inputs[1])
        size, kernel = before.inputs[0].shape, conv.inputs[1].shape
        if paddings is None or size.rank != 4 or kernel.rank != 4:
            continue
        if None in (*size[1:3], *kernel[:2]):
            continue  # a size that depends on the data
        trimmed = _trimmed(conv, paddings, size)
        if (trimmed != paddings).any():
            _pad_anew(graph_def, node, pad, trimmed)


def _trimmed(conv: tf.Operation, paddings: np.ndarray, size: tf.TensorShape) -> np.ndarray:
    """The paddings without what would be misunderstood, `(4, 2)`."""
    trimmed = np.array(paddings)
    dilations = conv.get_attr("dilations")
    for axis in _SPATIAL:
        pixels, stride = size[axis], conv.get_attr("strides")[axis]
        kernel = (conv.inputs[1].shape[axis - 1] - 1) * dilations[axis] + 1
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
