"""Converts a Keras model for Larq Compute Engine and proves the result binary."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import convert_to_constants

from larq_ext._files import atomic
from larq_ext.deploy._flatbuffer import Op, order_by_signature, read_graph
from larq_ext.deploy._int8_io import EdgeType, int8_ends
from larq_ext.deploy._padding import source_node, trim_strided
from larq_ext.deploy.audit import AuditReport, audit
from larq_ext.deploy.errors import DeploymentError, require_engine

Target = Literal["arm", "xcore"]

_CHILD = Path(__file__).with_name("_converter_process.py")
_CHATTER = re.compile(
    r"^(\d{4}-\d\d-\d\d |[IWE]\d{4} |WARNING: All log|To enable the following|\s|Traceback|$)"
)
_LOCATION = re.compile(r"^loc\(.*?\): (?=error)")


@dataclass(frozen=True)
class Conversion:
    """A converted model with its proof.

    # Arguments
        flatbuffer: the serialized model, input and output order as in Keras, batch size 1.
        report: what became of each layer.
        model: the baked model the file was made from.
    """

    flatbuffer: bytes
    report: AuditReport
    model: tf.keras.Model

    def save(self, path: str | Path) -> Path:
        """Writes the `.tflite` file; a reader never sees half of it.

        # Arguments
            path: where to write; missing folders are made.

        # Returns
            The path.
        """
        path = Path(path)
        with atomic(path) as temporary:
            temporary.write_bytes(self.flatbuffer)
        return path


def convert(
    model: tf.keras.Model,
    *,
    allow_float: bool = False,
    target: Target = "arm",
    without: Collection[str] = (),
    input_type: EdgeType = "float32",
    output_type: EdgeType = "float32",
) -> Conversion:
    """Bakes, converts and audits a model.

    The result is refused where a layer that was meant to be binary would run in float. The
    converter works in a process of its own, so that a crash in it ends in an error here; there
    the file is also loaded and run once.

    # Arguments
        model: a Keras model with Larq's layers, of static height and width.
        allow_float: whether to return a file in which not every layer is binary. The report
            tells which and why.
        target: `"arm"` for everything the engine's interpreter runs on, or `"xcore"`.
        without: rewrites that are left out, see `bake`.
        input_type: `"float32"`, or `"int8"` for a model whose first layer runs in 8 bits (see
            `int8_edges`): then the file takes integers.
        output_type: the same of the last layer and the outputs.

    # Returns
        The file with its audit and the baked model.

    # Raises
        ValueError: if `target`, a type or a name in `without` is unknown, or one in `without` is a
            rewrite that a baked model already has.
        DeploymentError: if the model cannot be converted, would compute something else, or is
            not binary throughout (then the audit is its `report`).
    """
    if target not in get_args(Target):
        raise ValueError(f"target must be one of {get_args(Target)}, not {target!r}.")
    for name, value in (("input_type", input_type), ("output_type", output_type)):
        if value not in get_args(EdgeType):
            raise ValueError(f"{name} must be one of {get_args(EdgeType)}, not {value!r}.")
    _check_keras(model)
    require_engine()
    from larq_ext.deploy.bake import applied_rewrites, bake

    baked = bake(model, without=without)
    undone = sorted({rewrite.name for rewrite in applied_rewrites(baked)} & set(without))
    if undone:
        raise ValueError(
            f"{model.name!r} is baked already, with the rewrites {undone}: give the model it was "
            "made from, or leave them out of `without`."
        )
    _check_form(baked)
    frozen = freeze(baked)
    _check_signs(frozen.graph_def)
    trim_strided(frozen.graph_def)
    with tempfile.TemporaryDirectory(prefix="larq_ext_") as folder:
        _save(frozen, folder)
        flatbuffer = order_by_signature(_run_converter(Path(folder), target))
    flatbuffer = int8_ends(flatbuffer, inputs=input_type == "int8", outputs=output_type == "int8")
    report = audit(flatbuffer, baked)
    if not (report.ok or allow_float):
        raise DeploymentError(
            f"The model is not binary throughout ({report.verdict}).\n\n{report}\n\n"
            "Change what the report names, or accept the float layers: allow_float=True "
            "(on the command line --allow-float).",
            report,
        )
    return Conversion(flatbuffer, report, baked)


def _check_keras(model: Any) -> None:
    if isinstance(model, tf.keras.Model):
        if not model.built or not getattr(model, "inputs", None):
            raise DeploymentError(
                f"The model {model.name!r} has no known inputs: build it with "
                "`tf.keras.Model(inputs, outputs)`, or give a Sequential model an input shape."
            )
        return
    raise DeploymentError(
        f"Expected a tf.keras.Model (Keras 2), received {type(model).__module__}."
        f"{type(model).__qualname__}. Load files with `tf.keras.models.load_model` after "
        "`import larq_ext`."
    )


def _check_form(model: tf.keras.Model) -> None:
    """Refuses what the converter takes without complaint and gets wrong."""
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise DeploymentError(
                f"The input {tensor.name!r} has the shape {tuple(tensor.shape)}: height, width "
                "and channels must be numbers, because the converter takes an unknown size "
                "for 1. Build the model with the size that the device will see, "
                "e.g. input_shape=(224, 224, 3)."
            )
    low_precision = [
        layer.name
        for layer in model._flatten_layers()
        if getattr(layer, "compute_dtype", None) in ("float16", "bfloat16", "float64")
    ]
    if low_precision:
        raise DeploymentError(
            f"These layers do not compute in float32: {', '.join(low_precision[:5])}. Build "
            "the model under `tf.keras.mixed_precision.set_global_policy('float32')` and load "
            "the trained weights into it."
        )


@dataclass(frozen=True)
class Frozen:
    """An inference graph with constants for weights, and its tensors' names."""

    graph_def: Any
    inputs: list[tf.Tensor]
    outputs: list[tf.Tensor]


def trace(model: tf.keras.Model, batch: int | None = 1) -> Any:
    """The inference of one sample, or of any number, as a concrete function."""
    signature = [
        tf.TensorSpec([batch, *tensor.shape[1:]], tensor.dtype, name=f"input_{index:03d}")
        for index, tensor in enumerate(model.inputs)
    ]

    @tf.function(autograph=False)
    def infer(*inputs: tf.Tensor) -> list[tf.Tensor]:
        structured = tf.nest.pack_sequence_as(model.input, inputs)
        return tf.nest.flatten(model(structured, training=False))

    return infer.get_concrete_function(*signature)


def freeze(model: tf.keras.Model, batch: int | None = 1) -> Frozen:
    """Traces the inference graph and makes its weights constants."""
    traced = trace(model, batch)
    # What follows the model's inputs are variables and constants that Keras made.
    inputs = list(traced.inputs[: len(model.inputs)])
    return Frozen(_with_constants(traced), inputs, list(traced.outputs))


def _with_constants(traced: Any) -> Any:
    """The graph of a function with constants for variables.

    TensorFlow's public way goes on to make a function of the graph, which with protobuf in Python
    takes most of the time of a conversion.
    """
    inline = allow_inlining(traced)
    try:
        data = convert_to_constants._FunctionConverterDataInEager(
            func=traced, lower_control_flow=False, aggressive_inlining=inline
        )
        graph_def, _ = convert_to_constants._replace_variables_by_constants(converter_data=data)
    except (AttributeError, TypeError):  # another version of TensorFlow
        frozen = convert_to_constants.convert_variables_to_constants_v2(
            traced, lower_control_flow=False, aggressive_inlining=inline
        )
        return frozen.graph.as_graph_def()
    return graph_def


def allow_inlining(traced: Any) -> bool:
    """Lets calls of functions be inlined, and says whether there are any.

    Keras wraps grouped convolutions into a function for XLA, and users may write such functions:
    what is in one is not seen, and what is to be compiled is not inlined.
    """
    calls = [op for op in traced.graph.get_operations() if op.type.endswith("PartitionedCall")]
    for call in calls:
        call._clear_attr("_XlaMustCompile")
    return bool(calls)


def _save(frozen: Frozen, folder: str) -> None:
    """Writes a SavedModel of the graph, by hand: TensorFlow would trace it again.

    The names of inputs and outputs sort in Keras's order, which the converter does not keep.
    """
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    graph = saved.meta_graphs.add(graph_def=frozen.graph_def)
    graph.meta_info_def.tags.append("serve")
    signature = graph.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    for side, tensors in (("input", frozen.inputs), ("output", frozen.outputs)):
        for index, tensor in enumerate(tensors):
            info = getattr(signature, f"{side}s")[f"{side}_{index:03d}"]
            info.name, info.dtype = tensor.name, tensor.dtype.as_datatype_enum
            info.tensor_shape.CopyFrom(tensor.shape.as_proto())
    Path(folder, "saved_model.pb").write_bytes(saved.SerializeToString())


def _run_converter(folder: Path, target: str) -> bytes:
    result_path = folder / "model.tflite"
    process = subprocess.run(  # kills the child when interrupted
        [sys.executable, str(_CHILD), str(folder), str(result_path), target],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    flatbuffer = result_path.read_bytes() if result_path.is_file() else b""
    if process.returncode:
        raise DeploymentError(_failure(process, flatbuffer))
    return flatbuffer


def _failure(process: subprocess.CompletedProcess[str], flatbuffer: bytes) -> str:
    """Says what happened in the converter's process and what to do."""
    stage = (process.stdout.split() or ["start"])[-1]
    # What is indented is the body of a Python traceback.
    lines = [line for line in process.stderr.splitlines() if not _CHATTER.match(line)]
    said = "\n".join(f"  {_LOCATION.sub('', line).strip()[:300]}" for line in lines[-4:])
    if process.returncode < 0:
        ending = f"was killed by {_signal_name(-process.returncode)}"
    else:
        ending = f"failed (exit code {process.returncode})"
    text = f"Larq Compute Engine {ending} at the stage {stage!r}"
    text += f"; its last words:\n{said}\n" if said else ".\n"
    if stage == "import":
        return text + (
            "It could not be imported: install it again (`pip install --force-reinstall "
            "'larq-compute-engine>=0.16,<0.17'`) and check that this system's C library is not "
            "older than what its wheel needs."
        )
    if stage == "load" and (op := _spatial_scale(flatbuffer)):
        return text + (
            f"The converter fused a scale or bias that depends on height and width into a binary "
            f"convolution ({op}), which the engine cannot run. Multiply or add it after another "
            "operation (a shortcut, a PReLU, a reshape), or use one value per channel."
        )
    if stage in ("load", "run"):
        return text + (
            "The file was made, but the engine cannot run it. Find the operation named above in "
            "the model and replace it by one that TensorFlow Lite and the engine know."
        )
    if process.returncode < 0 or "max_size()" in process.stderr:
        return text + (
            "This is a crash of the converter, known for very large quantized dense layers and "
            "for kernels whose quantizer is left in the graph. Split the largest quantized "
            "layer, or check that it is one of Larq's QuantConv2D or QuantDense layers, whose "
            "kernels are made constant before conversion; look also for lack of memory."
        )
    return text + "Replace the operation named above by one that TensorFlow Lite knows."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _spatial_scale(flatbuffer: bytes) -> str | None:
    """Names the binary convolution whose scale or bias is no vector, if there is one."""
    graph = read_graph(flatbuffer)

    def is_spatial(op: Op) -> bool:
        return op.name == "LceBconv2d" and any(
            len(graph.tensors[i].shape) != 1 for i in op.inputs[2:4] if i >= 0
        )

    return next((graph.tensors[op.outputs[0]].name for op in graph.ops if is_spatial(op)), None)


def _check_signs(graph_def: Any) -> None:
    """Refuses `sign(sign(x) + c)` where it is not a plain sign.

    The converter takes every such sum for the form that Larq writes, with c = 0.1, and never
    looks at c: the file would compute something else than the model.
    """
    for nodes in (graph_def.node, *(f.node_def for f in graph_def.library.function)):
        by_name = {node.name: node for node in nodes}
        for node in nodes:
            if node.op == "Sign" and not _is_harmless(node, by_name):
                layer = "/".join(node.name.split("/")[1:-1]) or node.name
                raise DeploymentError(
                    f"{layer}: sign(sign(x) + c) is a plain sign only for a constant c strictly "
                    "between 0 and 1; Larq Compute Engine converts every other form (such as "
                    "the ternary quantizer `ste_tern` on activations) to wrong numbers. Use "
                    "`ste_sign` or another quantizer with the values -1 and +1, or keep the "
                    "layer's input in float."
                )


def _is_harmless(sign_node: Any, by_name: dict[str, Any]) -> bool:
    total = source_node(sign_node.input[0], by_name)
    if total is None or total.op not in ("Add", "AddV2"):
        return True
    left, right = (source_node(name, by_name) for name in total.input[:2])
    for inner, addend in ((left, right), (right, left)):
        if inner is None or inner.op != "Sign":
            continue
        if not any(node.op == "Placeholder" for node in _ancestors(inner, by_name)):
            return True  # a kernel: its value is computed before the converter looks
        if addend is None or addend.op != "Const":
            return False
        constant = tf.make_ndarray(addend.attr["value"].tensor)
        return bool(np.all((constant > 0) & (constant < 1)))
    return True


def _ancestors(node: Any, by_name: dict[str, Any]) -> Iterator[Any]:
    pending, seen = [node], set()
    while pending:
        node = pending.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        yield node
        for name in node.input:
            source = by_name.get(name.lstrip("^").partition(":")[0])
            if source is not None:
                pending.append(source)
