"""Writes a network as ONNX, for tools that read that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorflow as tf

from larq_ext._files import atomic
from larq_ext.deploy._onnx_int8 import with_integer_kernels
from larq_ext.deploy._padding import graph_of
from larq_ext.deploy.bake import bake
from larq_ext.deploy.convert import Frozen, freeze
from larq_ext.deploy.errors import DeploymentError

# From where the operators of Keras's layers have their form of today, to what tf2onnx knows.
_OPSETS = range(13, 19)
_PIP = "pip install 'tf2onnx>=1.16.1,<1.17' 'onnx>=1.16,<1.18'"


def export_onnx(model: tf.keras.Model, path: str | Path, *, opset: int = 17) -> Path:
    """Writes the baked form of a model to an ONNX file.

    It is for interchange: ONNX has no operator of one bit, so weights of +-1 and signs are
    float32, and a runtime computes them as such, in the size and time of a float network. Kernels
    of 8 bits are stored as integers. The outputs are those of `bake(model)`, sign(0) = +1
    included. Inputs and outputs have Keras's names and order (an input that is passed on:
    `NAME_output`), and the first axis of each, `batch`, takes any number.

    # Arguments
        model: a built functional or sequential model, as trained or baked.
        path: the `.onnx` file to write; missing folders are made.
        opset: the version of ONNX's operators, 13 to 18.

    # Returns
        The path.

    # Raises
        DeploymentError: if the model cannot be baked, or has an operation that ONNX does not.
        ImportError: if tf2onnx or onnx is missing.
        ValueError: if the path has another suffix or the opset is unknown.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"ONNX is written to a .onnx file, received {path}.")
    if opset not in _OPSETS:
        raise ValueError(
            f"opset must be one of {', '.join(map(str, _OPSETS))}, received {opset!r}."
        )
    onnx, tf2onnx = _packages()
    baked = bake(model)
    frozen = freeze(baked, batch=None)
    _align_upsampling(frozen.graph_def)
    names = {tensor.name: name for tensor, name in _named(frozen, baked)}
    proto, _ = tf2onnx.convert.from_graph_def(
        frozen.graph_def,
        name=baked.name,
        input_names=[tensor.name for tensor in frozen.inputs],
        output_names=[tensor.name for tensor in frozen.outputs],
        opset=opset,
        tensors_to_rename=names,
    )
    with_integer_kernels(proto)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    _check(onnx, proto)
    with atomic(path) as temporary:
        onnx.save(proto, str(temporary))
    return path


def _packages() -> tuple[ModuleType, ModuleType]:
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise ImportError(f"ONNX files need tf2onnx and onnx: type `{_PIP}`.") from error
    return onnx, tf2onnx


def _named(frozen: Frozen, model: tf.keras.Model) -> Iterator[tuple[tf.Tensor, str]]:
    """The graph's inputs and outputs with the names that Keras has for them."""
    yield from zip(frozen.inputs, model.input_names, strict=True)
    for tensor, name in zip(frozen.outputs, model.output_names, strict=True):
        # An input that is passed on has one name in Keras, but two in ONNX.
        yield tensor, f"{name}_output" if name in model.input_names else name


def _align_upsampling(graph_def: Any) -> None:
    """Repeats pixels by whole factors without the centres of pixels, which ONNX has given up.

    The last pixel at or before a position and the one nearest to its centre are then the same.
    """
    resized = [node for node in graph_def.node if node.op == "ResizeNearestNeighbor"]
    if not resized:
        return
    graph = graph_of(graph_def)
    for node in resized:
        operation = graph.get_operation_by_name(node.name)
        before, after = (t.shape[1:3] for t in (operation.inputs[0], operation.outputs[0]))
        known = before.is_fully_defined() and after.is_fully_defined()
        if known and all(b % a == 0 for a, b in zip(before, after, strict=True)):
            node.attr["half_pixel_centers"].b = False


def _check(onnx: ModuleType, proto: Any) -> None:
    """Refuses a file that no runtime would take: tf2onnx passes on what it does not know."""
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    unknown = sorted({node.op_type for node in proto.graph.node} - known)
    if unknown:
        raise DeploymentError(
            f"ONNX has no operator for {', '.join(unknown)}: replace it in the model by others."
        )
    onnx.checker.check_model(proto, full_check=True)
