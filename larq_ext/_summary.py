"""Lets `larq.models.summary` tell the truth about what Larq does not know the kind of.

Larq takes every weight of a convolution whose name lacks "bias" for an operand of its
multiply-adds, and every weight for a part of the deployed network. A learned scale is applied
once per output, like a bias, and some parameters exist in training only. And it takes each weight
to meet each pixel of the output, which transposed convolutions do not, the last axis but one for
a side of the image where channels come first, and an unknown side for -1; the second kernel of a
separable layer meets the sums of the first, which have more than one bit, and a layer that is
called twice does its work twice. Larq has no hook for any of it, so its classes for a weight and
for a layer are replaced by those below; for all others they do what they did. Where the
multiply-adds of a layer are not known it sums up those of the others: the class for a model leaves
them out then.
"""

from __future__ import annotations

from collections.abc import Sequence

import larq as lq
import numpy as np
import tensorflow as tf


def no_operand(variable: tf.Variable, deployed: bool = True) -> tf.Variable:
    """Marks a weight as no operand of multiply-adds, and as 0 bits wide if it is not deployed."""
    variable.precision = 32 if deployed else 0
    variable.is_operand = False
    return variable


_SPREADING = (
    tf.keras.layers.Conv1DTranspose,
    tf.keras.layers.Conv2DTranspose,
    tf.keras.layers.Conv3DTranspose,
)
_SEPARABLE = (tf.keras.layers.SeparableConv1D, tf.keras.layers.SeparableConv2D)
# Kernels that meet each position of the output once, and that Larq does not count.
_ALSO_COUNTED = (tf.keras.layers.Conv3D, tf.keras.layers.DepthwiseConv1D)


class WeightProfile(lq.models.WeightProfile):
    """A weight in Larq's summary."""

    @property
    def fp_equivalent_memory(self) -> int:
        return super().fp_equivalent_memory if self.bitwidth else 0

    def is_bias(self) -> bool:
        # Larq looks at the whole name, which has that of the layer in it.
        return "bias" in self.part or not getattr(self._weight, "is_operand", True)

    @property
    def part(self) -> str:
        """What it is called within its layer."""
        return self._weight.name.split("/")[-1]


class LayerProfile(lq.models.LayerProfile):
    """A layer in Larq's summary."""

    def __init__(self, layer: tf.keras.layers.Layer) -> None:
        for weight in getattr(getattr(layer, "activation", None), "weights", []):
            weight.is_operand = False  # such as the slopes of a PReLU
        super().__init__(layer)
        self.uses = 1
        if isinstance(layer, _SEPARABLE):
            operands = [profile for profile in self.weight_profiles if not profile.is_bias()]
            for operand, operation in zip(operands, self.op_profiles, strict=False):
                if operand.part.startswith("pointwise"):
                    operation.precision = 32

    def op_count(self, op_type: str | None = None, precision: int | None = None) -> int | None:
        once = super().op_count(op_type, precision)
        return None if once is None else once * self.uses

    @property
    def output_pixels(self) -> int | None:
        """How many positions of an image each weight meets; `None` if its size is not known."""
        layer = self._layer
        # Inputs are spread over the outputs there, which are more.
        spreads = isinstance(layer, _SPREADING)
        shape = getattr(layer, "input_shape", None) if spreads else self.output_shape
        if not shape or any(isinstance(size, (list, tuple)) for size in shape):
            return None
        first = getattr(layer, "data_format", None) == "channels_first"
        sizes = list(shape[2:] if first else shape[1:-1])
        if any(size is None or size < 0 for size in sizes):
            return None
        # Of layers that compute something else than their class's kind, the layer knows it.
        return getattr(layer, "kernel_positions", int(np.prod(sizes)))

    @property
    def has_op_count(self) -> bool:
        """Whether its multiply-adds are known."""
        if isinstance(self._layer, lq.models.mac_containing_layers):
            return self.output_pixels is not None
        # Of a recurrent layer, a wrapper, or one of somebody's own.
        return not any("kernel" in profile.part for profile in self.weight_profiles)


class ModelProfile(lq.models.ModelProfile):
    """A model in Larq's summary."""

    def __init__(self, model: tf.keras.Model) -> None:
        super().__init__(model)
        self.uses = 1
        nodes = [key.rsplit("_ib-", 1)[0] for key in getattr(model, "_network_nodes", ())]
        for layer, profile in zip(model.layers, self.layer_profiles, strict=True):
            profile.uses = max(1, nodes.count(layer.name))

    def op_count(self, op_type: str | None = None, bitwidth: int | None = None) -> int:
        return self.uses * super().op_count(op_type, bitwidth)

    @property
    def has_op_count(self) -> bool:
        """Whether the operations of all layers are known; else their sum is not the model's."""
        return all(profile.has_op_count for profile in self.layer_profiles)

    def generate_table(self, include_macs: bool = True) -> Sequence[Sequence[float | str]]:
        return super().generate_table(include_macs and self.has_op_count)

    def generate_summary(self, include_macs: bool = True) -> Sequence[Sequence[float | str]]:
        return super().generate_summary(include_macs and self.has_op_count)


lq.models.mac_containing_layers += _ALSO_COUNTED
lq.models.op_count_supported_layer_types += _ALSO_COUNTED
lq.models.WeightProfile = WeightProfile
lq.models.LayerProfile = LayerProfile
lq.models.ModelProfile = ModelProfile
