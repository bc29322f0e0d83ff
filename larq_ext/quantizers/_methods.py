"""The table of methods: a paper's way to binarize a layer, under one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import larq as lq

from larq_ext._text import did_you_mean
from larq_ext.quantizers.approx_sign import ApproxSign
from larq_ext.quantizers.fda import FDA
from larq_ext.quantizers.learnable_scale import LearnableScale
from larq_ext.quantizers.mlp_classifier import MLPClassifier
from larq_ext.quantizers.siman import MagnitudeClip, SiMaN


@dataclass(frozen=True)
class Method:
    """How a paper binarizes inputs and kernels, and what goes with it.

    # Arguments
        name: Name of the method.
        input_quantizer: Makes the quantizer of inputs.
        kernel_quantizer: Makes the quantizer of kernels.
        kernel_constraint: Makes the constraint of latent kernels.
        scale: `"learned"` for a learned scale per output channel after the convolution.
        pad_values: What `padding="same"` pads with. +1 is what the runtime can fuse for -1 and
            +1 inputs, and 0 for 0 and 1 inputs; the official code, where there is any, pads with 0.
        shared: Whether one kernel quantizer serves a whole network.
    """

    name: str
    input_quantizer: Callable[[], Any]
    kernel_quantizer: Callable[[], Any]
    kernel_constraint: Callable[[], Any] | None = None
    scale: str | None = None
    pad_values: float = 1.0
    shared: bool = False

    def arguments(self) -> dict[str, Any]:
        """New arguments for one `larq_ext.layers.QuantConv2D`."""
        return {
            "input_quantizer": self.input_quantizer(),
            "kernel_quantizer": self.kernel_quantizer(),
            "kernel_constraint": self.kernel_constraint() if self.kernel_constraint else None,
            "scale": self.scale,
            "pad_values": self.pad_values,
        }


METHODS = {
    method.name: method
    for method in (
        Method("fda", lambda: FDA(role="input"), lambda: FDA(role="kernel")),
        Method(
            "learnable_scale",
            lambda: LearnableScale(role="input"),
            lambda: LearnableScale(role="kernel"),
            pad_values=0.0,
        ),
        Method(
            "siman",
            lambda: SiMaN(role="input"),
            lambda: SiMaN(role="kernel"),
            MagnitudeClip,
            scale="learned",
        ),
        Method(
            "mlp_classifier",
            ApproxSign,
            lambda: MLPClassifier(role="kernel"),
            shared=True,
        ),
        # As Larq has it, inputs as in Bi-Real Net: what the methods are compared with.
        Method(
            "ste_sign",
            ApproxSign,
            lq.quantizers.SteSign,
            lambda: lq.constraints.WeightClip(1.0),
        ),
    )
}


def method(name: str) -> Method:
    """Looks a method up by name.

    # Raises
        ValueError: if there is none of this name, with the names there are.
    """
    try:
        return METHODS[name]
    except (KeyError, TypeError):
        raise ValueError(
            f"`quantizer` is one of {sorted(METHODS)}, received {name!r}."
            + did_you_mean(name, METHODS)
        ) from None


def network_arguments(name: str) -> Callable[[], dict[str, Any]]:
    """Arguments for the layers of one network, ours that is: call the result once for each.

    A method whose paper trains one kernel quantizer for the whole network gets just that.

    # Raises
        ValueError: if there is no method of this name.
    """
    chosen = method(name)
    shared = {"kernel_quantizer": chosen.kernel_quantizer()} if chosen.shared else {}
    return lambda: {"quantizer": name, **shared}
