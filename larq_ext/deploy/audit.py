"""Proves, layer by layer, which parts of a converted file are binary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from larq_ext.deploy._expected import Kernel, expected_kernels, weight_only_notes
from larq_ext.deploy._filters import (
    BINARY_OP,
    WEIGHT_INPUT,
    binary_rows,
    canonical,
    file_rows,
    filter_channels,
    filter_of,
    saved_bytes,
    weight_bytes,
)
from larq_ext.deploy._flatbuffer import Graph, Op, Tensor, load_flatbuffer, read_graph
from larq_ext.deploy._reasons import why_float
from larq_ext.deploy._report import AuditReport, LayerAudit

__all__ = ["AuditReport", "LayerAudit", "audit"]


def audit(
    flatbuffer_or_path: bytes | str | Path, model: tf.keras.Model | None = None
) -> AuditReport:
    """Shows for each layer that was meant to be binary what it became in the file.

    With a model the proof is by the bits: the packed filter of an `LceBconv2d` is unpacked and
    compared with the signs of the layer's quantized kernel. (The converter inverts all bits of an
    output channel whose next scale is negative; such a channel counts as equal.) Without a model,
    a float convolution or dense operator is taken for a lost binary layer if its weights have
    one absolute value per output channel.

    # Arguments
        flatbuffer_or_path: the converted model or the path of its file.
        model: the Keras model it was made from, as trained or baked.

    # Returns
        The report, a table when printed.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if the content is no TensorFlow Lite model.
    """
    flatbuffer = load_flatbuffer(flatbuffer_or_path)
    graph = read_graph(flatbuffer)
    notes: list[str] = []
    if model is None:
        rows = tuple(_rows_of_file(graph))
    else:
        from larq_ext.deploy.bake import bake, float_reasons

        baked = bake(model)
        kernels = list(expected_kernels(baked, float_reasons(baked)))
        rows, unclaimed = _match(graph, kernels)
        if unclaimed:
            notes.append(
                f"{unclaimed} {BINARY_OP} of the file hold the bits of no layer of the model."
            )
        notes.extend(weight_only_notes(baked))
    return AuditReport(
        layers=rows,
        op_counts=graph.op_counts(),
        file_bytes=len(flatbuffer),
        float_bytes=len(flatbuffer) + sum(saved_bytes(graph, op) for op in graph.ops),
        notes=tuple(notes),
    )


# With a model: the operator of each kernel


def _match(graph: Graph, kernels: list[Kernel]) -> tuple[tuple[LayerAudit, ...], int]:
    """Finds the operator of each kernel; every operator is used once."""
    binary = [(op, binary_rows(graph, op)) for op in graph.ops if op.name == BINARY_OP]
    floats = [op for op in graph.ops if op.name in WEIGHT_INPUT]
    layers = []
    for kernel in kernels:
        position = next(
            (i for i, (_, rows) in enumerate(binary) if np.array_equal(rows, kernel.rows)), None
        )
        if position is not None:
            op, _ = binary.pop(position)
            size = weight_bytes(graph, op)
            layers.append(LayerAudit(kernel.name, op.name, kernel.shape, size, True))
            continue
        lost = next((op for op in floats if _holds(graph, op, kernel)), None)
        if lost is None:
            layers.append(_not_found(kernel))
            continue
        floats.remove(lost)
        reason, advice = why_float(graph, lost, kernel)
        size = weight_bytes(graph, lost)
        layers.append(LayerAudit(kernel.name, lost.name, kernel.shape, size, False, reason, advice))
    return tuple(layers), len(binary)


def _not_found(kernel: Kernel) -> LayerAudit:
    return LayerAudit(
        kernel.name,
        "",
        kernel.shape,
        0,
        False,
        kernel.reason or "no operator of the file holds its weights",
        "" if kernel.reason else "Check that the file was made from this model and its weights.",
    )


def _holds(graph: Graph, op: Op, kernel: Kernel) -> bool:
    """Whether a float operator computes with a kernel, up to a factor per output channel."""
    tensor = graph.tensors[filter_of(graph, op)]
    if tensor.data is not None:
        if tensor.dtype != "FLOAT32" or tensor.data.size != kernel.rows.size:
            return False
        rows = file_rows(op, tensor.data)
        # A channel of zeros holds no signs to compare.
        known = np.any(rows != 0, axis=1)
        return rows.shape == kernel.rows.shape and np.array_equal(
            canonical(rows[known] < 0), kernel.rows[known]
        )
    # The quantizer was left in the graph: look for what it starts from, in Keras's order.
    sources = graph.constants_behind(filter_of(graph, op), kernel.rows.size)
    return any(_same_signs(source, kernel) for source in sources) or _has_name(
        graph, op, kernel, tensor
    )


def _same_signs(source: Tensor, kernel: Kernel) -> bool:
    assert source.data is not None
    if source.data.shape != kernel.as_is.shape:
        return False
    negative = ~source.data if source.dtype == "BOOL" else source.data < 0
    return np.array_equal(negative, kernel.as_is) or np.array_equal(~negative, kernel.as_is)


def _has_name(graph: Graph, op: Op, kernel: Kernel, tensor: Tensor) -> bool:
    """Whether an operator bears the name of a kernel's layer, and its filter has its size."""
    layer = kernel.name.split(" ")[0].rpartition("/")[2]
    names = tensor.name + ";" + ";".join(graph.tensors[i].name for i in op.outputs)
    return f"/{layer}/" in names and np.prod(tensor.shape) == kernel.rows.size


# Without a model: what the file says of itself


def _rows_of_file(graph: Graph) -> Iterator[LayerAudit]:
    """Without a model: the binary operators, and the float ones that look binary."""
    for op in graph.ops:
        if op.name == BINARY_OP:
            packed = graph.tensors[op.inputs[1]].shape
            shape = (*packed[:-1], filter_channels(graph, op))
            size = weight_bytes(graph, op)
            yield LayerAudit(_name_in_file(graph, op), op.name, shape, size, True)
        elif op.name in WEIGHT_INPUT and _looks_binary(graph, op):
            reason, advice = why_float(graph, op, None)
            yield LayerAudit(
                _name_in_file(graph, op),
                op.name,
                graph.tensors[filter_of(graph, op)].shape,
                weight_bytes(graph, op),
                False,
                reason,
                advice,
            )


def _looks_binary(graph: Graph, op: Op) -> bool:
    tensor = graph.tensors[filter_of(graph, op)]
    if tensor.data is None:
        # Weights that pass the sign operator at run time were meant to be binary.
        pending, seen = [filter_of(graph, op)], set()
        while pending:
            producer = graph.producer(pending.pop())
            if producer is None or producer.index in seen:
                continue
            seen.add(producer.index)
            if producer.name in ("LceQuantize", "SIGN"):
                return any(graph.constants_behind(producer.inputs[0], int(np.prod(tensor.shape))))
            pending.extend(producer.inputs)
        return False
    if tensor.dtype != "FLOAT32" or tensor.data.size < 16:
        return False
    rows = file_rows(op, tensor.data)
    sizes = np.abs(rows)
    one_size = np.ptp(sizes, axis=1) <= 5e-3 * sizes[:, 0]
    return bool(one_size.all() and (rows > 0).any() and (rows < 0).any())


def _name_in_file(graph: Graph, op: Op) -> str:
    """The layer's name, as far as the converter kept it in the names of the tensors."""
    names = (name for output in op.outputs for name in graph.tensors[output].name.split(";"))
    parts = [name.split("/") for name in names]
    known = [part[1] for part in parts if len(part) > 2]
    return f"op {op.index}: {known[-1]}" if known else f"op {op.index}"
