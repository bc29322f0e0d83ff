"""The named causes: why a layer is not binary, or slower than it could be, and what to change.

Reports carry the names, so a name never changes its meaning. `docs/conversion.md` holds this table
as `python -m larq_ext.deploy._causes` prints it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cause:
    """One reason why a layer does not become an `LceBconv2d`, or becomes a slow one.

    # Arguments
        about: what it lies in: `layer`, `weights`, `input`, `model`, or `note` for what leaves
            the layer as binary or as float as it was meant to be.
        reason: what was found; braces hold what is known of the place.
        advice: what to change.
        mended: when `larq_ext.deploy.convert` mends it by itself.
    """

    about: str
    reason: str
    advice: str
    mended: str = "never"

    @property
    def general(self) -> str:
        """The reason without the facts of one place."""
        return re.sub(r"\{(\w+)[^}]*\}", r"*\1*", self.reason)


@dataclass(frozen=True)
class Why:
    """A cause as it was found in one place.

    # Arguments
        cause: a key of `CAUSES`.
        offender: the operator at fault, `""` if it is none.
        facts: what the braces of the reason stand for.
        detail: what else is known, a clause.
    """

    cause: str
    offender: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    detail: str = ""

    @property
    def reason(self) -> str:
        """What was found, with the facts of this place."""
        text = CAUSES[self.cause].reason.format(**self.facts)
        return f"{text} ({self.detail})" if self.detail else text

    @property
    def advice(self) -> str:
        """What to change."""
        return CAUSES[self.cause].advice


_KNOWN_QUANTIZERS = "for quantizers of Larq and larq_ext"

CAUSES = {
    # Layers
    "depthwise": Cause(
        "layer",
        "Larq Compute Engine has no binary depthwise convolution",
        "Use QuantConv2D, with groups of a multiple of 32 channels if it must be cheap.",
    ),
    "pointwise": Cause(
        "layer",
        "nothing makes the input of the pointwise part binary",
        "Use two layers, the second a QuantConv2D of size 1 with an input_quantizer.",
    ),
    "transposed": Cause(
        "layer",
        "Larq Compute Engine has no binary transposed convolution",
        "Use a kernel whose size is a multiple of the strides, which larq_ext.deploy.convert "
        "writes as a convolution and depth-to-space, or UpSampling2D and QuantConv2D.",
        "if the strides are equal, 2 or more, and divide the kernel's size, for plain signs on "
        "images of one known size",
    ),
    "conv1d": Cause(
        "layer",
        "Larq Compute Engine has no binary 1D convolution",
        "Use QuantConv2D with a height of 1.",
    ),
    "conv3d": Cause(
        "layer",
        "Larq Compute Engine has no binary 3D convolution",
        "Use QuantConv2D on slices, or leave the layer in float.",
    ),
    "locally-connected": Cause(
        "layer",
        "Larq Compute Engine has no binary layer with weights of their own at each position",
        "Use QuantConv2D, which shares its weights between positions.",
    ),
    "dense": Cause(
        "layer",
        "a dense layer has no binary form in Larq Compute Engine",
        "Convert with larq_ext.deploy.convert, which writes QuantDense as a 1x1 convolution, if "
        "its input is of two dimensions (samples, features) and it has the input_quantizer itself.",
        "if the input has two dimensions",
    ),
    "small-groups": Cause(
        "layer",
        "each of its {groups} groups has {channels} input channels, no multiple of 32",
        "Use fewer groups or more channels.",
    ),
    "channels-first": Cause(
        "layer",
        "its data come channels first, and Larq Compute Engine takes channels last",
        "Build the layer with data_format='channels_last'.",
    ),
    # Weights
    "kernel-left-in-graph": Cause(
        "weights",
        "its weights {shape} are no constant: the converter left the kernel quantizer in the "
        "graph (too large to fold, or of a form that it does not fold)",
        "Convert with larq_ext.deploy.convert, which computes the weights first.",
        "always",
    ),
    "zero-channel-scale": Cause(
        "weights",
        "the weights of {count} output channel(s), the first {first}, are all zero",
        "Give every channel a scale above 1e-7, or prune the channel.",
        "for scales that are small, but not 0",
    ),
    "unequal-channel-scale": Cause(
        "weights",
        "the absolute value of the weights is not the same within {count} output channel(s), the "
        "first {first}",
        "Use a quantizer with one scale per output channel.",
        "for kernels of 0 and 1 of larq_ext's quantizers",
    ),
    "not-finite-kernel": Cause(
        "weights",
        "its kernel has values that are not finite: training has failed",
        "Train again with a smaller learning rate, or go back to an earlier checkpoint.",
    ),
    # Inputs
    "float-input": Cause(
        "input",
        "its input is float: {feeding} feeds the convolution and nothing takes the sign of it",
        'Give the layer an input_quantizer, e.g. "ste_sign", if it was meant to be binary.',
    ),
    "input-values": Cause(
        "input",
        "its input has other values than -1 and +1{values}",
        "Use an input_quantizer with the values -1 and +1, e.g. `ste_sign`.",
        _KNOWN_QUANTIZERS,
    ),
    "scaled-sign": Cause(
        "input",
        "its input is a scaled sign: a factor stands between the sign and the convolution, or was "
        "folded into the weights",
        "Multiply after the convolution instead, where it costs nothing.",
        "for quantizers of your own that say so (`input_form`)",
    ),
    "sign-form": Cause(
        "input",
        "its input has the values -1 and +1, but {feeding} computes them, which the converter "
        "does not know for a sign",
        "Write the quantizer as larq.math.sign(x) or tf.where(x >= 0, 1.0, -1.0).",
    ),
    "bare-sign": Cause(
        "input",
        "its input is a bare tf.sign, which is 0 at 0",
        "Use larq's sign (`ste_sign`) or tf.where(x >= 0, 1.0, -1.0).",
    ),
    "detach-trick": Cause(
        "input",
        "its input is written as x + stop_gradient(sign(x) - x), which stays in the file as float "
        "arithmetic",
        "Give the sign its gradient with tf.custom_gradient, as larq's `ste_sign` does.",
    ),
    "op-after-sign": Cause(
        "input",
        "the input is not a plain sign: {feeding} stands between the sign and the convolution",
        "Move it before the sign, or if it scales, behind the convolution.",
    ),
    "sign-of-sign": Cause(
        "input",
        "its input is sign(sign(x) + c) with c not between 0 and 1, which Larq Compute Engine "
        "converts to wrong numbers; larq_ext.deploy.convert refuses the model",
        "Use `ste_sign` or another quantizer with the values -1 and +1, or keep the layer's input "
        "in float.",
    ),
    "unfused-padding": Cause(
        "input",
        "its padding with {value:g} does not fuse into a binary convolution",
        "Use pad_values=1.0 with padding='same'; for any other shape of border put "
        "ZeroPadding2D before the input quantizer and use padding='valid'.",
        "for inputs of 0 and 1 with pad_values=0.0",
    ),
    # The model
    "dtype-policy": Cause(
        "model",
        "it computes in {dtype}, which Larq Compute Engine's own converter does not take",
        "Convert with larq_ext.deploy.convert, which rebuilds the model in float32.",
        "always",
    ),
    "unknown-size": Cause(
        "model",
        "the input {input} has the shape {shape}: the converter takes an unknown size for 1",
        "Build the model with the size that the device will see, e.g. input_shape=(224, 224, 3).",
    ),
    "not-rebuildable": Cause(
        "model",
        "the model cannot be rebuilt layer by layer",
        "Build it of Larq's layers themselves, with the functional API or as a Sequential model.",
    ),
    "not-in-file": Cause(
        "model",
        "no operator of the file holds its weights",
        "Check that the file was made from this model and its weights, and that a layer of your "
        "own gives its kernel to a convolution.",
    ),
    # Notes
    "unused-input-quantizer": Cause(
        "note",
        "it has an input_quantizer, but no kernel_quantizer: float weights on signs run in float",
        "Add a kernel_quantizer, or leave the input_quantizer out.",
    ),
    "several-bits": Cause(
        "note",
        "its weights or its input have more values than one bit holds, so it runs in float",
        "Use quantizers of one bit if it was meant to be binary.",
    ),
    "uneven-scale": Cause(
        "note",
        "the sizes of its weights differ by {percent:.2g} % within a channel; the converter takes "
        "them for equal, so the file computes something else",
        "Write the quantizer as scale * sign(w), with one scale per output channel.",
    ),
    "shared-quantizer": Cause(
        "note",
        "its {role} quantizer is shared with {others}: Larq's own layers lose that when the model "
        "is saved or cloned",
        "Give each layer a quantizer of its own, or use larq_ext.layers.",
    ),
    "zero-padding": Cause(
        "note",
        "its border is padded with 0, so its output is float and no bits pass to the next layer",
        "Train with pad_values=1.0, or use padding='valid'.",
    ),
    "odd-channels": Cause(
        "note",
        "its {channels} input channels are no multiple of 32: the rest of a word is padding",
        "Use a multiple of 32.",
    ),
}


def markdown() -> str:
    """The table of causes, as the documentation shows it."""
    rows = [
        "| cause | lies in | what was found | what to change | `convert` mends it |",
        "|---" * 5 + "|",
    ]
    for slug, cause in CAUSES.items():
        mended = "-" if cause.about == "note" else cause.mended
        rows.append(f"| `{slug}` | {cause.about} | {cause.general} | {cause.advice} | {mended} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown())
