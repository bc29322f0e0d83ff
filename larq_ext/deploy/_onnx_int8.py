"""Kernels of 8 bits in ONNX files."""

from __future__ import annotations

from typing import Any

import numpy as np

# Operators that only put numbers elsewhere.
_MOVES = ("Reshape", "Transpose")


def with_integer_kernels(proto: Any) -> None:
    """Stores the kernels of 8-bit convolutions as integers with a scale per output channel.

    They come as floats that are rounded already. A runtime that sees a convolution of integers
    with a kernel of floats rounds it itself, with one scale for all channels.

    # Arguments
        proto: an ONNX model, changed in place.
    """
    from onnx import helper, numpy_helper

    graph = proto.graph
    sources = {output: node for node in graph.node for output in node.output}
    kernels = {value.name: value for value in graph.initializer}
    done: set[str] = set()
    added = []
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in kernels:
            continue
        source = sources.get(node.input[0])
        while source is not None and source.op_type in _MOVES:
            source = sources.get(source.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            continue
        name = node.input[1]
        node.input[1] = f"{name}/dequantized"
        if name in done:
            continue
        split = _split(numpy_helper.to_array(kernels[name]))
        if split is None:
            node.input[1] = name
            continue
        done.add(name)
        parts = []
        for part, values in zip(("integers", "scale", "zero_point"), split, strict=True):
            parts.append(f"{name}/{part}")
            graph.initializer.append(numpy_helper.from_array(values, parts[-1]))
        added.append(helper.make_node("DequantizeLinear", parts, [node.input[1]], axis=0))
    used = {name for node in graph.node for name in node.input}
    for name in done - used:
        graph.initializer.remove(kernels[name])
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _split(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Integers, scales and zero points of a kernel in OIHW, if it is rounded to 8 bits."""
    largest = np.abs(kernel).max(axis=(1, 2, 3))
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    integers = np.rint(kernel / scale[:, None, None, None])
    if not np.allclose(integers * scale[:, None, None, None], kernel, rtol=1e-5, atol=0):
        return None
    return integers.astype(np.int8), scale, np.zeros(len(scale), np.int8)
