"""Why an operator that was meant to be binary is float, and what to change."""

from __future__ import annotations

import numpy as np

from larq_ext.deploy._expected import Kernel
from larq_ext.deploy._filters import BINARY_OP, WEIGHT_INPUT, file_rows, filter_of
from larq_ext.deploy._flatbuffer import Graph, Op

# Where the data of a float operator are.
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


def why_float(graph: Graph, op: Op, kernel: Kernel | None) -> tuple[str, str]:
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


def _why_kind(op: Op, kernel: Kernel | None) -> tuple[str, str] | None:
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
    tensor = graph.tensors[filter_of(graph, op)]
    if tensor.data is None:
        return (
            f"its weights {tensor.shape} are no constant: the converter left the kernel "
            "quantizer in the graph (too large to fold, or of a form that it does not fold)",
            "Convert with larq_ext.deploy.convert, which computes the weights first.",
        )
    sizes = np.abs(file_rows(op, tensor.data))
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
    per_group = graph.tensors[filter_of(graph, op)].shape[-1]
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
        if op.name in WEIGHT_INPUT or op.name == BINARY_OP:
            return False
        producers = [p for i in op.inputs if (p := graph.producer(i)) is not None]
        if not producers:
            return False
        op = next((p for p in producers if p.name == "LceDequantize"), producers[0])
    return False
