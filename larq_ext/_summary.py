"""Lets `larq.models.summary` tell the truth about weights that Larq does not know the kind of.

Larq takes every weight of a convolution whose name lacks "bias" for an operand of its
multiply-adds, and every weight for a part of the deployed network. A learned scale is applied
once per output, like a bias, and some parameters exist in training only. Larq has no hook for
either, so its class for a weight is replaced by the one below; for all other weights it does
what it did.
"""

from __future__ import annotations

import larq as lq
import tensorflow as tf


def no_operand(variable: tf.Variable, deployed: bool = True) -> tf.Variable:
    """Marks a weight as no operand of multiply-adds, and as 0 bits wide if it is not deployed."""
    variable.precision = 32 if deployed else 0
    variable.is_operand = False
    return variable


class WeightProfile(lq.models.WeightProfile):
    """A weight in Larq's summary."""

    @property
    def fp_equivalent_memory(self) -> int:
        return super().fp_equivalent_memory if self.bitwidth else 0

    def is_bias(self) -> bool:
        return super().is_bias() or not getattr(self._weight, "is_operand", True)


lq.models.WeightProfile = WeightProfile
