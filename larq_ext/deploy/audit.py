"""Proves, layer by layer, which parts of a converted file are binary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from larq_ext.deploy._causes import Why
from larq_ext.deploy._expected import Kernel, expected_kernels
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
from larq_ext.deploy._macs import macs_of
from larq_ext.deploy._operators import file_sizes, operators
from larq_ext.deploy._probe import CONVERTERS_TOLERANCE
from larq_ext.deploy._reasons import why_float
from larq_ext.deploy._report import AuditReport, LayerAudit, OpAudit
from larq_ext.deploy._rewrite import Rewrite

__all__ = ["AuditReport", "LayerAudit", "OpAudit", "audit"]


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
    rewrites: tuple[Rewrite, ...] = ()
    if model is None:
        rows = tuple(_rows_of_file(graph))
    else:
        from larq_ext.deploy.bake import applied_rewrites, bake, float_reasons, is_baked

        # A baked model may have been left without some rewrites on purpose; of one that is baked
        # here nobody knows which of them the file has.
        baked = model if is_baked(model) else bake(model)
        rewrites = applied_rewrites(model)
        kernels = expected_kernels(baked, float_reasons(baked))
        # A file of another converter holds kernels as they were before they were baked.
        unbaked = expected_kernels(model, {}) if model is not baked else ()
        rows, notes = _match(graph, list(kernels), {kernel.name: kernel for kernel in unbaked})
    return AuditReport(
        layers=rows,
        op_counts=graph.op_counts(),
        file_bytes=len(flatbuffer),
        float_bytes=len(flatbuffer) + sum(saved_bytes(graph, op) for op in graph.ops),
        notes=tuple(notes),
        ops=operators(graph),
        sizes=file_sizes(graph, len(flatbuffer)),
        rewrites=rewrites,
    )


# With a model: the operator of each kernel


def _match(
    graph: Graph, kernels: list[Kernel], unbaked: dict[str, Kernel]
) -> tuple[tuple[LayerAudit, ...], list[str]]:
    """Finds the operator of each kernel; every operator is used once."""
    binary = [(op, binary_rows(graph, op)) for op in graph.ops if op.name == BINARY_OP]
    floats = [op for op in graph.ops if op.name in WEIGHT_INPUT]
    layers: list[LayerAudit] = []
    notes: list[str] = []
    matched: list[tuple[np.ndarray, int]] = []
    for kernel in kernels:
        found = (i for i, (_, rows) in enumerate(binary) if np.array_equal(rows, kernel.rows))
        position = next(found, None) if kernel.has_signs else None
        if position is not None:
            op, rows = binary.pop(position)
            matched.append((rows, len(layers)))
            layers.append(_row(graph, op, kernel.name, kernel.shape))
            continue
        forms = [unbaked.get(kernel.name, kernel), kernel]
        lost, form = next(
            ((op, form) for form in forms for op in floats if _holds(graph, op, form)),
            (None, kernel),
        )
        if lost is None:
            why = Why(kernel.cause or "not-in-file")
        else:
            floats.remove(lost)
            why = why_float(graph, lost, form)
        if kernel.reason:
            why = replace(why, detail=f"when the model was baked: {kernel.reason}")
        if not kernel.binary_input and why.cause in ("float-input", "not-in-file"):
            # Nothing in the model takes the sign of its input: that is how it was meant.
            notes.append(
                f"{kernel.name}: binary weights, but its input is not: it runs in float. "
                "Give it an input_quantizer if it was meant to be binary."
            )
        else:
            layers.append(_row(graph, lost, kernel.name, form.shape, why))
    for op, rows in tuple(binary):
        # A layer that the model uses again is one layer, of as many multiply-adds more.
        again = (i for held, i in matched if np.array_equal(held, rows))
        if (index := next(again, None)) is not None:
            binary.remove((op, rows))
            layers[index] = replace(layers[index], macs=layers[index].macs + macs_of(graph, op))
    if binary:
        notes.insert(
            0, f"{len(binary)} {BINARY_OP} of the file hold the bits of no layer of the model."
        )
    return tuple(layers), notes


def _row(
    graph: Graph, op: Op | None, name: str, shape: tuple[int, ...], why: Why | None = None
) -> LayerAudit:
    row = LayerAudit(name, "", shape, 0, why is None)
    if op is not None:
        row = replace(
            row,
            op=op.name,
            weight_bytes=weight_bytes(graph, op),
            macs=macs_of(graph, op),
            index=op.index,
        )
    if why is None:
        return row
    return replace(
        row, cause=why.cause, offender=why.offender, reason=why.reason, advice=why.advice
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
    if source.data.shape != kernel.shape:
        return False
    negative = ~source.data if source.dtype == "BOOL" else source.data < 0
    signs = kernel.values < 0
    return np.array_equal(negative, signs) or np.array_equal(~negative, signs)


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
            yield _row(graph, op, _name_in_file(graph, op), shape)
        elif op.name in WEIGHT_INPUT and _looks_binary(graph, op):
            shape = graph.tensors[filter_of(graph, op)].shape
            yield _row(graph, op, _name_in_file(graph, op), shape, why_float(graph, op, None))


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
    if rows.shape[1] == 1:
        return False  # one weight for each output channel says nothing
    sizes = np.abs(rows)
    one_size = np.ptp(sizes, axis=1) <= CONVERTERS_TOLERANCE * sizes[:, 0]
    return bool(one_size.all() and (rows > 0).any() and (rows < 0).any())


def _name_in_file(graph: Graph, op: Op) -> str:
    """The layer's name, as far as the converter kept it in the names of the tensors."""
    names = (name for output in op.outputs for name in graph.tensors[output].name.split(";"))
    parts = [name.split("/") for name in names]
    known = [part[1] for part in parts if len(part) > 2]
    return f"op {op.index}: {known[-1]}" if known else f"op {op.index}"
