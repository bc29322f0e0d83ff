"""Proves, layer by layer, which parts of a converted file are binary."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext.deploy._flatbuffer import (
    Graph,
    Op,
    Tensor,
    load_flatbuffer,
    read_graph,
    unpack_filter,
)

_BINARY_OP = "LceBconv2d"
_WIDTH = 100

# Where the weights of a float operator are, and which axis of them counts the outputs.
_WEIGHT_INPUT = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "TRANSPOSE_CONV": 1,
    "CONV_3D": 1,
    "FULLY_CONNECTED": 1,
}
_OUTPUT_AXIS = {"DEPTHWISE_CONV_2D": 3, "CONV_3D": 4}  # elsewhere the first
_DATA_INPUT = {"TRANSPOSE_CONV": 2}  # elsewhere the first

_NO_BINARY_FORM = {
    "DEPTHWISE_CONV_2D": (
        "Larq Compute Engine has no binary depthwise convolution",
        "Use QuantConv2D, with groups of a multiple of 32 channels if it must be cheap.",
    ),
    "TRANSPOSE_CONV": (
        "Larq Compute Engine has no binary transposed convolution",
        "Use UpSampling2D and QuantConv2D, or QuantConv2D and tf.nn.depth_to_space.",
    ),
    "CONV_3D": (
        "Larq Compute Engine has no binary 3D convolution",
        "Use QuantConv2D on slices, or leave the layer in float.",
    ),
    "FULLY_CONNECTED": (
        "a dense layer has no binary form in Larq Compute Engine",
        "Convert with larq_ext.deploy.convert, which writes QuantDense as a 1x1 convolution.",
    ),
}


@dataclass(frozen=True)
class LayerAudit:
    """What became of one layer that was meant to be binary.

    # Arguments
        name: the layer's name; without a model, what the file says of it.
        op: the operator in the file, `""` if there is none.
        kernel: the shape of the kernel as Keras has it; without a model, of the file's filter.
        weight_bytes: what its weights take in the file.
        binary: whether it is an `LceBconv2d` with exactly the layer's bits.
        reason: why it is not binary.
        advice: what to change.
    """

    name: str
    op: str
    kernel: tuple[int, ...]
    weight_bytes: int
    binary: bool
    reason: str = ""
    advice: str = ""

    @property
    def became(self) -> str:
        """The operator with its type in words."""
        if not self.op:
            return "not found"
        return self.op if self.binary else f"{self.op} (float32)"


@dataclass(frozen=True)
class AuditReport:
    """What a converted file is made of.

    # Arguments
        layers: a row for each layer that was meant to be binary.
        op_counts: how often each operator occurs.
        file_bytes: the size of the file.
        float_bytes: the size it would have with all weights in float32.
        notes: what else is worth knowing.
    """

    layers: tuple[LayerAudit, ...]
    op_counts: dict[str, int]
    file_bytes: int
    float_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def binary(self) -> int:
        """How many layers are binary in the file."""
        return sum(layer.binary for layer in self.layers)

    @property
    def expected(self) -> int:
        """How many layers were meant to be binary."""
        return len(self.layers)

    @property
    def ok(self) -> bool:
        """Whether every layer that was meant to be binary is, and there is at least one."""
        return self.binary == self.expected > 0

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if not self.expected:
            return "no layer is meant to be binary"
        return f"{self.binary}/{self.expected} layers are binary"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "binary": self.binary,
            "expected": self.expected,
            **asdict(self),
        }

    def __str__(self) -> str:
        return "\n".join(_render(self))


@dataclass(frozen=True)
class _Kernel:
    """The kernel of a layer that was meant to be binary; rows are output channels."""

    name: str
    layer_type: str
    shape: tuple[int, ...]
    rows: np.ndarray  # true where the quantized weight is negative, in the file's order
    as_is: np.ndarray  # the same in the order of the Keras kernel
    reason: str = ""


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
        kernels = list(_expected_kernels(baked, float_reasons(baked)))
        rows, unclaimed = _match(graph, kernels)
        if unclaimed:
            notes.append(
                f"{unclaimed} {_BINARY_OP} of the file hold the bits of no layer of the model."
            )
        notes.extend(_weight_only_notes(baked))
    return AuditReport(
        layers=rows,
        op_counts=graph.op_counts(),
        file_bytes=len(flatbuffer),
        float_bytes=len(flatbuffer) + sum(_saved_bytes(graph, op) for op in graph.ops),
        notes=tuple(notes),
    )


# What the model expects


def _expected_kernels(model: tf.keras.Model, reasons: dict[str, str]) -> Iterator[_Kernel]:
    from larq_ext.deploy.layers import BinaryConv2D, BinaryDense

    for name, layer in _leaf_layers(model):
        if isinstance(layer, (BinaryConv2D, BinaryDense)):
            yield _kernel_of(name, type(layer).__name__, layer.kernel.numpy())
        elif _precision(getattr(layer, "input_quantizer", None)) == 1:
            for part, kernel, quantizer in _quantized_kernels(layer):
                if _precision(quantizer) == 1:
                    with lq.context.quantized_scope(False):
                        latent = tf.convert_to_tensor(kernel)
                    yield _kernel_of(
                        f"{name}{part}",
                        type(layer).__name__,
                        np.asarray(quantizer(latent)),
                        depthwise=part == " (depthwise)" or "Depthwise" in type(layer).__name__,
                        reason=reasons.get(name, ""),
                    )


def _leaf_layers(
    model: tf.keras.Model, prefix: str = ""
) -> Iterator[tuple[str, tf.keras.layers.Layer]]:
    """The layers with their paths, `model/layer` within nested models."""
    for layer in model.layers:
        name = f"{prefix}{layer.name}"
        inner = getattr(layer, "layer", None)  # wrappers such as TimeDistributed
        if isinstance(layer, tf.keras.Model):
            yield from _leaf_layers(layer, f"{name}/")
        elif isinstance(inner, tf.keras.layers.Layer):
            yield name, inner
        else:
            yield name, layer


def _quantized_kernels(layer: tf.keras.layers.Layer) -> Iterator[tuple[str, Any, Any]]:
    """Part, variable and quantizer of each kernel of a Larq layer."""
    has_pointwise = hasattr(layer, "pointwise_quantizer")
    for kind in ("kernel", "depthwise", "pointwise"):
        quantizer = getattr(layer, f"{kind}_quantizer", None)
        variable = getattr(layer, "kernel" if kind == "kernel" else f"{kind}_kernel", None)
        if quantizer is not None and variable is not None:
            yield f" ({kind})" if has_pointwise else "", variable, quantizer


def _precision(quantizer: Any) -> int | None:
    return getattr(quantizer, "precision", None)


def _kernel_of(
    name: str,
    layer_type: str,
    values: np.ndarray,
    depthwise: bool = False,
    reason: str = "",
) -> _Kernel:
    return _Kernel(
        name,
        layer_type,
        values.shape,
        _canonical(_rows_of_keras(values, layer_type, depthwise) < 0),
        values < 0,
        reason,
    )


def _rows_of_keras(values: np.ndarray, layer_type: str, depthwise: bool) -> np.ndarray:
    """Brings a Keras kernel to a row for each output channel, ordered as in the file."""
    if depthwise:  # (height, width, in, multiplier)
        values = values.reshape(*values.shape[:-2], -1)
        return np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)
    # Transposed convolutions have their outputs second to last.
    axis = -2 if "Transpose" in layer_type else -1
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _canonical(negative: np.ndarray) -> np.ndarray:
    """Rows up to inversion, because the converter inverts a channel with a negative scale."""
    return negative ^ negative[:, :1]


def _weight_only_notes(model: tf.keras.Model) -> Iterator[str]:
    for name, layer in _leaf_layers(model):
        binary_kernel = any(_precision(q) == 1 for _, _, q in _quantized_kernels(layer))
        if binary_kernel and _precision(getattr(layer, "input_quantizer", None)) != 1:
            yield (
                f"{name}: binary weights, but its input is not: it runs in float. "
                "Give it an input_quantizer if it was meant to be binary."
            )


# What the file holds


def _match(graph: Graph, kernels: list[_Kernel]) -> tuple[tuple[LayerAudit, ...], int]:
    """Finds the operator of each kernel; every operator is used once."""
    binary = [(op, _binary_rows(graph, op)) for op in graph.ops if op.name == _BINARY_OP]
    floats = [op for op in graph.ops if op.name in _WEIGHT_INPUT]
    layers = []
    for kernel in kernels:
        position = next(
            (i for i, (_, rows) in enumerate(binary) if np.array_equal(rows, kernel.rows)), None
        )
        if position is not None:
            op, _ = binary.pop(position)
            size = _weight_bytes(graph, op)
            layers.append(LayerAudit(kernel.name, op.name, kernel.shape, size, True))
            continue
        lost = next((op for op in floats if _holds(graph, op, kernel)), None)
        if lost is None:
            layers.append(_not_found(kernel))
            continue
        floats.remove(lost)
        reason, advice = _why_float(graph, lost, kernel)
        size = _weight_bytes(graph, lost)
        layers.append(LayerAudit(kernel.name, lost.name, kernel.shape, size, False, reason, advice))
    return tuple(layers), len(binary)


def _not_found(kernel: _Kernel) -> LayerAudit:
    return LayerAudit(
        kernel.name,
        "",
        kernel.shape,
        0,
        False,
        kernel.reason or "no operator of the file holds its weights",
        "" if kernel.reason else "Check that the file was made from this model and its weights.",
    )


def _binary_rows(graph: Graph, op: Op) -> np.ndarray:
    bits = unpack_filter(_constant(graph, op.inputs[1]), _filter_channels(graph, op))
    return _canonical(bits.reshape(len(bits), -1))


def _constant(graph: Graph, tensor: int) -> np.ndarray:
    data = graph.tensors[tensor].data
    assert data is not None  # the converter packs constants only
    return data


def _filter_channels(graph: Graph, op: Op) -> int:
    """Input channels of a packed filter; with groups, those of one group."""
    return min(op.options["channels_in"], 32 * graph.tensors[op.inputs[1]].shape[-1])


def _filter_of(graph: Graph, op: Op) -> int:
    return op.inputs[_WEIGHT_INPUT.get(op.name, 1)]


def _file_rows(op: Op, values: np.ndarray) -> np.ndarray:
    """Brings the weights of a float operator to a row for each output channel."""
    axis = _OUTPUT_AXIS.get(op.name, 0)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _holds(graph: Graph, op: Op, kernel: _Kernel) -> bool:
    """Whether a float operator computes with a kernel, up to a factor per output channel."""
    tensor = graph.tensors[_filter_of(graph, op)]
    if tensor.data is not None:
        if tensor.dtype != "FLOAT32" or tensor.data.size != kernel.rows.size:
            return False
        rows = _file_rows(op, tensor.data)
        # A channel of zeros holds no signs to compare.
        known = np.any(rows != 0, axis=1)
        return rows.shape == kernel.rows.shape and np.array_equal(
            _canonical(rows[known] < 0), kernel.rows[known]
        )
    # The quantizer was left in the graph: look for what it starts from, in Keras's order.
    sources = graph.constants_behind(_filter_of(graph, op), kernel.rows.size)
    return any(_same_signs(source, kernel) for source in sources) or _has_name(
        graph, op, kernel, tensor
    )


def _same_signs(source: Tensor, kernel: _Kernel) -> bool:
    assert source.data is not None
    if source.data.shape != kernel.as_is.shape:
        return False
    negative = ~source.data if source.dtype == "BOOL" else source.data < 0
    return np.array_equal(negative, kernel.as_is) or np.array_equal(~negative, kernel.as_is)


def _has_name(graph: Graph, op: Op, kernel: _Kernel, tensor: Tensor) -> bool:
    """Whether an operator bears the name of a kernel's layer, and its filter has its size."""
    layer = kernel.name.split(" ")[0].rpartition("/")[2]
    names = tensor.name + ";" + ";".join(graph.tensors[i].name for i in op.outputs)
    return f"/{layer}/" in names and np.prod(tensor.shape) == kernel.rows.size


def _weight_bytes(graph: Graph, op: Op) -> int:
    tensor = graph.tensors[_filter_of(graph, op)]
    if tensor.data is not None:
        return tensor.data.nbytes
    size = int(np.prod(tensor.shape))
    sources = graph.constants_behind(_filter_of(graph, op), size)
    return sum(source.data.nbytes for source in sources if source.data is not None)


def _saved_bytes(graph: Graph, op: Op) -> int:
    if op.name != _BINARY_OP:
        return 0
    packed = _constant(graph, op.inputs[1])
    weights = int(np.prod(packed.shape[:-1])) * _filter_channels(graph, op)
    return 4 * weights - packed.nbytes


def _rows_of_file(graph: Graph) -> Iterator[LayerAudit]:
    """Without a model: the binary operators, and the float ones that look binary."""
    for op in graph.ops:
        if op.name == _BINARY_OP:
            packed = graph.tensors[op.inputs[1]].shape
            shape = (*packed[:-1], _filter_channels(graph, op))
            size = _weight_bytes(graph, op)
            yield LayerAudit(_name_in_file(graph, op), op.name, shape, size, True)
        elif op.name in _WEIGHT_INPUT and _looks_binary(graph, op):
            reason, advice = _why_float(graph, op, None)
            yield LayerAudit(
                _name_in_file(graph, op),
                op.name,
                graph.tensors[_filter_of(graph, op)].shape,
                _weight_bytes(graph, op),
                False,
                reason,
                advice,
            )


def _looks_binary(graph: Graph, op: Op) -> bool:
    tensor = graph.tensors[_filter_of(graph, op)]
    if tensor.data is None:
        # Weights that pass the sign operator at run time were meant to be binary.
        pending, seen = [_filter_of(graph, op)], set()
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
    rows = _file_rows(op, tensor.data)
    sizes = np.abs(rows)
    one_size = np.ptp(sizes, axis=1) <= 5e-3 * sizes[:, 0]
    return bool(one_size.all() and (rows > 0).any() and (rows < 0).any())


def _name_in_file(graph: Graph, op: Op) -> str:
    """The layer's name, as far as the converter kept it in the names of the tensors."""
    names = (name for output in op.outputs for name in graph.tensors[output].name.split(";"))
    parts = [name.split("/") for name in names]
    known = [part[1] for part in parts if len(part) > 2]
    return f"op {op.index}: {known[-1]}" if known else f"op {op.index}"


# Why a layer is not binary


def _why_float(graph: Graph, op: Op, kernel: _Kernel | None) -> tuple[str, str]:
    """Reason and advice, the first cause that the converter met."""
    cause = _why_kind(op, kernel)
    if kernel is not None and kernel.reason:
        # Said when the model was baked, so before the converter saw it.
        return kernel.reason, cause[1] if cause and op.name != "FULLY_CONNECTED" else ""
    return (
        cause
        or _why_weights(graph, op)
        or _why_groups(graph, op)
        or _why_input(graph, op)
        or (
            "its input is a scaled sign: the factor between the sign and the convolution was "
            "folded into the weights",
            "Multiply after the convolution instead, where it costs nothing.",
        )
    )


def _why_kind(op: Op, kernel: _Kernel | None) -> tuple[str, str] | None:
    """Layers that have no binary form at all."""
    if kernel is not None and kernel.layer_type == "QuantConv1D":
        return (
            "Larq Compute Engine has no binary 1D convolution",
            "Use QuantConv2D with a height of 1.",
        )
    if kernel is not None and kernel.name.endswith("(pointwise)"):
        return (
            "nothing makes the input of the pointwise part binary",
            "Use two layers, the second a QuantConv2D of size 1 with an input_quantizer.",
        )
    return _NO_BINARY_FORM.get(op.name)


def _why_weights(graph: Graph, op: Op) -> tuple[str, str] | None:
    tensor = graph.tensors[_filter_of(graph, op)]
    if tensor.data is None:
        return (
            f"its weights {tensor.shape} are no constant: the converter left the kernel "
            "quantizer in the graph (too large to fold, or of a form that it does not fold)",
            "Convert with larq_ext.deploy.convert, which computes the weights first.",
        )
    sizes = np.abs(_file_rows(op, tensor.data))
    zero = np.flatnonzero(~sizes.any(axis=1))
    if zero.size:
        return (
            f"the weights of {zero.size} output channel(s), the first {zero[0]}, are all zero",
            "Give every channel a scale above 1e-7, or prune the channel.",
        )
    unequal = np.flatnonzero(np.ptp(sizes, axis=1) > 5e-3 * sizes[:, 0])
    if unequal.size:
        return (
            f"the absolute value of the weights is not the same within {unequal.size} output "
            f"channel(s), the first {unequal[0]}",
            "Use a quantizer with one scale per output channel.",
        )
    return None


def _why_groups(graph: Graph, op: Op) -> tuple[str, str] | None:
    channels = graph.tensors[op.inputs[0]].shape[-1]
    per_group = graph.tensors[_filter_of(graph, op)].shape[-1]
    if per_group != channels and per_group % 32:
        return (
            f"each of its {channels // per_group} groups has {per_group} input channels, no "
            "multiple of 32",
            "Use fewer groups or more channels.",
        )
    return None


def _why_input(graph: Graph, op: Op) -> tuple[str, str] | None:
    feeding = graph.producer(op.inputs[_DATA_INPUT.get(op.name, 0)])
    if feeding is not None and feeding.name in ("PAD", "PADV2"):
        pad, feeding = feeding, graph.producer(feeding.inputs[0])
        if feeding is not None and feeding.name == "LceDequantize":
            return _why_padding(graph, pad)
    if feeding is None:
        return (
            "its input is float: nothing takes the sign of it",
            'Give the layer an input_quantizer, e.g. "ste_sign".',
        )
    if feeding.name == "LceDequantize":
        if op.options.get("padding") == "SAME":
            return (
                "its zero padding is not supported for this target",
                "Use pad_values=1.0 or padding='valid'.",
            )
        return None
    if feeding.name == "SIGN":
        return (
            "its input is a bare tf.sign, which is 0 at 0",
            "Use larq's sign (`ste_sign`) or tf.where(x >= 0, 1.0, -1.0).",
        )
    if _comes_from_sign(graph, feeding):
        return (
            f"the input is not a plain sign: {feeding.name} stands between the sign and the "
            "convolution",
            "Move it before the sign, or if it scales, behind the convolution.",
        )
    return (
        f"the input is not a plain sign: {feeding.name} feeds the convolution",
        "Use an input_quantizer with the values -1 and +1, e.g. `ste_sign`.",
    )


def _why_padding(graph: Graph, pad: Op) -> tuple[str, str]:
    value = 0.0
    if pad.name == "PADV2" and (data := graph.tensors[pad.inputs[2]].data) is not None:
        value = float(data)
    return (
        f"its padding with {value:g} does not fuse into a binary convolution",
        "Use pad_values=1.0 with padding='same'; for any other shape of border put "
        "ZeroPadding2D before the input quantizer and use padding='valid'.",
    )


def _comes_from_sign(graph: Graph, op: Op) -> bool:
    """Whether a sign is a few operators upstream, with nothing but cheap ones between."""
    for _ in range(4):
        if op.name == "LceDequantize":
            return True
        if op.name in _WEIGHT_INPUT or op.name == _BINARY_OP:
            return False
        producers = [p for i in op.inputs if (p := graph.producer(i)) is not None]
        if not producers:
            return False
        op = next((p for p in producers if p.name == "LceDequantize"), producers[0])
    return False


# The table


def _render(report: AuditReport) -> Iterator[str]:
    header = ("Layer", "Became", "Kernel", "Bytes", "Binary")
    rows = [
        (
            _shorten(layer.name, 36),
            _shorten(layer.became, 27),
            "x".join(map(str, layer.kernel)),
            f"{layer.weight_bytes:,}",
            "yes" if layer.binary else "NO",
        )
        for layer in report.layers
    ]
    if rows:
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        for row in (header, tuple("-" * width for width in widths), *rows):
            cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].ljust(widths[2])]
            yield "  ".join([*cells, row[3].rjust(widths[3]), row[4]]).rstrip()
        yield ""
    for layer in report.layers:
        if not layer.binary:
            text = f"{layer.name}: {layer.became}, because {layer.reason}."
            yield from _wrap(f"{text} {layer.advice}".rstrip())
    for note in report.notes:
        yield from _wrap(f"Note: {note}")
    ratio = report.float_bytes / max(1, report.file_bytes)
    yield from _wrap(
        "Operators: " + ", ".join(f"{name} {count}" for name, count in report.op_counts.items())
    )
    yield (
        f"File: {report.file_bytes:,} bytes; with float32 weights {report.float_bytes:,} "
        f"({ratio:.1f} times as large)."
    )
    yield f"{'Binary' if report.ok else 'NOT BINARY'}: {report.verdict}."


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
