"""Where a converted file and its Keras model part: the first layer that computes something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from larq_ext.deploy._flatbuffer import Graph, Op, read_graph

if TYPE_CHECKING:
    from larq_ext.runtime.interpreter import EngineName

# Layers behind the one that an operator is named after which it may contain as well: a norm, an
# activation, a scale.
_FUSED = 4


@dataclass(frozen=True)
class Parting:
    """The first operator of a file that computes something else than Keras.

    # Arguments
        layer: the Keras layer that it ends in.
        op: the operator.
        share: which share of its values differs, from 0 to 1.
        max_difference: the largest absolute difference.
        last_equal: the last layer before it that agrees, `""` if there is none.
    """

    layer: str
    op: str
    share: float
    max_difference: float
    last_equal: str = ""

    def __str__(self) -> str:
        after = f", behind {self.last_equal}, which agrees" if self.last_equal else ""
        return (
            f"{self.layer} ({self.op}){after}: {self.share:.2%} of its values, by up to "
            f"{self.max_difference:.3g}"
        )


def first_parting(
    baked: tf.keras.Model,
    flatbuffer: bytes,
    inputs: list[np.ndarray],
    tolerance: float,
    engine: EngineName,
) -> Parting | None:
    """Compares what layers compute, in the order of the file.

    What is packed into bits cannot be compared; it shows in the next values that are numbers.

    # Arguments
        baked: the baked model.
        flatbuffer: the converted model.
        inputs: an array per input, of a few samples.
        tolerance: the largest difference allowed, relative to the largest absolute value that
            the layer has in Keras.
        engine: what runs the file.

    # Returns
        The first operator that differs, `None` if there is none.
    """
    from larq_ext.runtime import Interpreter  # `deploy` itself needs no runtime

    graph = read_graph(flatbuffer)
    layers = [
        layer
        for layer in baked.layers
        if len(layer.inbound_nodes) == 1 and len(tf.nest.flatten(_output(layer))) == 1
    ]
    ends = [output._keras_history.layer.name for output in baked.outputs]
    compared = list(_comparable(graph, layers, ends))
    if not compared:
        return None
    structured = inputs[0] if len(inputs) == 1 else inputs
    keras = tf.keras.Model(baked.inputs, [_output(layer) for layer in layers])
    expected = dict(
        zip(
            [layer.name for layer in layers],
            tf.nest.flatten(keras.predict(structured, verbose=0)),
            strict=True,
        )
    )
    file = Interpreter(
        _with_outputs(flatbuffer, [op.outputs[0] for op, _ in compared]), engine=engine
    ).predict(inputs)
    last = ""
    for (op, candidates), actual in zip(compared, tf.nest.flatten(file), strict=True):
        apart = [_apart(name, op, expected[name], actual, tolerance) for name in candidates]
        equal = [name for name, parting in zip(candidates, apart, strict=True) if parting is None]
        if equal:
            last = equal[-1]
            continue
        # Of all that the operator may contain, what it is most like; the last of equals.
        closest = min((p for p in reversed(apart) if p), key=lambda parting: parting.share)
        return Parting(closest.layer, op.name, closest.share, closest.max_difference, last)
    return None


def _output(layer: Any) -> Any:
    """What a layer gives in the model that it is in; `output` of a nested model is its own."""
    return layer.inbound_nodes[0].outputs


def _comparable(graph: Graph, layers: list[Any], ends: list[str]) -> Iterator[tuple[Op, list[str]]]:
    """The operators whose outputs are numbers, with the layers that they may end in."""
    # The outputs of the model bear no names of layers.
    given = dict(zip(graph.outputs, ends, strict=False))
    position = {layer.name: index for index, layer in enumerate(layers)}

    def named_after(op: Op) -> int | None:
        if op.outputs[0] in given:
            return position.get(given[op.outputs[0]])
        # The name begins with the last of the layers that an operator was made of.
        parts = graph.tensors[op.outputs[0]].name.split(";")[0].split("/")
        return next((position[part] for part in parts if part in position), None)

    first = {op.index: named_after(op) for op in graph.ops}
    # A layer of several operators: only the last one computes what the layer does.
    unfinished = {
        feeding.index
        for op in graph.ops
        for tensor in op.inputs
        if (feeding := graph.producer(tensor)) is not None
        and first[feeding.index] == first[op.index]
    }
    for op in graph.ops:
        tensor, index = graph.tensors[op.outputs[0]], first[op.index]
        if index is None or op.index in unfinished or tensor.dtype != "FLOAT32":
            continue
        names = [
            layer.name
            for layer in layers[index : index + _FUSED]
            if tuple(layer.output_shape)[1:] == tensor.shape[1:]
        ]
        if names:
            yield op, names


def _apart(
    name: str, op: Op, expected: np.ndarray, actual: np.ndarray, tolerance: float
) -> Parting | None:
    difference = np.abs(expected.astype("float64") - actual)
    allowed = tolerance * max(np.abs(expected).max(initial=0.0), 1e-30)
    # A comparison that is true for equal infinities and false for NaN.
    apart = ~((difference <= allowed) | (expected == actual))
    if not apart.any():
        return None
    return Parting(name, op.name, float(apart.mean()), float(np.nanmax(difference)))


def _with_outputs(flatbuffer: bytes, outputs: list[int]) -> bytes:
    """The same model with other tensors as its outputs."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))
    model.signatureDefs = []
    model.subgraphs[0].outputs = outputs
    builder = flatbuffers.Builder(len(flatbuffer))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
