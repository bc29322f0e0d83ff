"""Bi-Real Net's sign, with a gradient that costs less than Larq's."""

from __future__ import annotations

import larq as lq
import tensorflow as tf


def polynomial_slope(x: tf.Tensor) -> tf.Tensor:
    """`2 - 2|x|` on `[-1, 1]`, zero outside."""
    return tf.nn.relu(2.0 - 2.0 * tf.abs(x))


@tf.custom_gradient
def polynomial_sign(x: tf.Tensor):
    """Sign whose gradient is `2 - 2|x|` on `[-1, 1]`."""
    return lq.math.sign(x), lambda dy: dy * polynomial_slope(x)


@tf.keras.utils.register_keras_serializable(package="larq_ext")
class ApproxSign(lq.quantizers.ApproxSign):
    r"""Larq's `ApproxSign` with a gradient that takes less time on a CPU; the numbers are equal.

    \\[ q(x) = \mathrm{sign}(x), \qquad
        \frac{\partial q}{\partial x} = \max(2 - 2|x|, 0) \\]
    with sign(0) = +1. Larq chooses between slope and zero where this takes a maximum. In `.h5`
    files, which know classes by their bare name, it becomes Larq's.

    **Deploys as** the sign of the input.

    # Arguments
        metrics: List of metrics; `None` takes those of `larq.context.metrics_scope`.

    # Returns
        Tensor of the shape of the input with values +1 and -1.

    # References
        - [Bi-Real Net](https://arxiv.org/abs/1808.00278)
    """

    def call(self, inputs):
        # Past Larq's own class to what is behind it, which counts flips.
        return super(lq.quantizers.ApproxSign, self).call(polynomial_sign(inputs))
