"""Eight bits in training, for the layers around the binary ones."""

from __future__ import annotations

import tensorflow as tf

from larq_ext._summary import no_operand
from larq_ext.quantizers._base import RoleQuantizer, register


@tf.custom_gradient
def int8_kernel(w: tf.Tensor):
    """Rounds to 255 values, symmetric and as large as the largest weight of each output channel.

    The gradient is 1 everywhere: no weight is outside of the range.
    """
    limit = tf.reduce_max(tf.abs(w), list(range(len(w.shape) - 1)))
    # An empty range would be one of no numbers.
    limit = tf.maximum(limit, tf.constant(1e-30, w.dtype))
    step = limit / 127.0
    return tf.clip_by_value(tf.round(w / step), -127.0, 127.0) * step, lambda dy: dy


def int8_range(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Widens a range that includes 0 until 0 is one of 256 values in it, exactly.

    TensorFlow's operators move both ends instead. Then the end of a symmetric range, which as the
    white of an image is frequent, lies halfway between two values, and what is halfway Keras and
    TensorFlow Lite round to different sides. Simple fractions of the end may lie there as well:
    for these the range is wider by another 1 / 16384.

    # Arguments
        low: the smallest number, at most 0.
        high: the largest number, at least 0.

    # Returns
        The ends; as they are where they are equal.
    """
    width = tf.maximum(high - low, 1e-30)
    below = tf.round(-255.0 * low / width)
    below = tf.clip_by_value(below, tf.cast(low < 0, low.dtype), 255 - tf.cast(high > 0, low.dtype))
    step = tf.maximum(
        tf.math.divide_no_nan(-low, below), tf.math.divide_no_nan(high, 255.0 - below)
    )
    step *= 1.0 + 2.0**-14
    return -below * step, (255.0 - below) * step


@register("int8")
class Int8(RoleQuantizer):
    r"""Rounds to 8-bit integers times a step; for layers that are meant to run in them.

    Inputs, with a and b moving averages of the smallest and largest value of a batch (0
    included), which move in training only:
    \\[ q(x) = s \cdot \mathrm{round}\left(\frac{\mathrm{clip}(x, a, b)}{s}\right), \qquad
        s = \frac{b - a}{255}, \qquad
        \frac{\partial q}{\partial x} =
        \begin{cases} 1 & a \leq x \leq b \\\ 0 & \text{else} \end{cases} \\]
    after the range has been widened so that 0 is one of the values (`int8_range`). Before the
    first training step nothing is known of the range and q(x) = x.

    Kernels, symmetric for each output channel:
    \\[ q(w) = s_o \cdot \mathrm{round}(w / s_o), \qquad s_o = \frac{\max_o |w|}{127}, \qquad
        \frac{\partial q}{\partial w} = 1 \\]

    As a layer of its own behind a layer with such inputs and kernels it says how large outputs
    are, which an integer operator has to know. It is no method of binarization: its `precision`
    is 8. An instance keeps the range of one tensor: each input has one of its own.

    **Deploys as** int8 operators, if the layer is a convolution or dense layer with this as its
    input and its kernel quantizer: `larq_ext.deploy.bake` makes an `Int8Conv2D` or `Int8Dense` of
    it, with the norm and the ReLU behind it. The range of its outputs is that of such a
    quantizer behind it, or six deviations around the means of the norm.

    **Where the facts come from.** Moving averages of ranges, symmetric kernels per output
    channel and integers for inference are of the paper below and of TensorFlow Lite's
    specification of 8-bit integers; six deviations are those of the second paper. Ours: the
    norm is not folded in training, because a range per channel makes that the same.

    # Arguments
        momentum: How much of the range is kept in a training step, from 0 to below 1.
        role: `"input"` or `"kernel"`; `None` finds out at first use.

    # Returns
        Tensor of the shape of the input.

    # Raises
        ValueError: for a value that is not allowed, with those that are.

    # References
        - [Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
            Inference](https://arxiv.org/abs/1712.05877)
        - [Data-Free Quantization Through Weight Equalization and Bias
            Correction](https://arxiv.org/abs/1906.04721)
    """

    precision = 8

    def __init__(self, momentum: float = 0.99, *, role: str | None = None, **kwargs):
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` is a number from 0 to below 1, received {momentum!r}.")
        super().__init__(role=role, **kwargs)
        self.momentum = momentum

    def build(self, input_shape):
        super().build(input_shape)
        if self.role == "input":
            self.minimum, self.maximum = (self._limit(name) for name in ("minimum", "maximum"))

    def _limit(self, name: str) -> tf.Variable:
        variable = self.add_weight(
            name=name,
            shape=(),
            initializer="zeros",
            dtype=tf.float32,
            experimental_autocast=False,
            trainable=False,
            # As the moving averages of batch normalization: each device has its own.
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )
        return no_operand(variable)

    def call(self, inputs, training=None):
        inputs = tf.convert_to_tensor(inputs)
        x = tf.cast(inputs, tf.float32)
        if self.role == "kernel":
            return self._in_type_of(inputs, int8_kernel(x))
        # As the averages of batch normalization, the range of a frozen layer stands still.
        moves = False if training is None or not self.trainable else training
        tf.__internal__.smart_cond.smart_cond(moves, lambda: self._move(x), tf.no_op)
        low, high = int8_range(self.minimum, self.maximum)
        rounded = tf.quantization.fake_quant_with_min_max_vars(x, low, high)
        return self._in_type_of(inputs, tf.where(high > low, rounded, x))

    def _move(self, x: tf.Tensor) -> tf.Operation:
        """Moves the range by a batch; the first one counts in full."""
        low, high = tf.convert_to_tensor(self.minimum), tf.convert_to_tensor(self.maximum)
        kept = tf.where(high > low, self.momentum, 0.0)
        x = tf.stop_gradient(x)
        return tf.group(
            self.minimum.assign(low + (1.0 - kept) * (tf.minimum(tf.reduce_min(x), 0.0) - low)),
            self.maximum.assign(high + (1.0 - kept) * (tf.maximum(tf.reduce_max(x), 0.0) - high)),
        )

    def range(self) -> tuple[float, float] | None:
        """The range that training has found for inputs; `None` before."""
        if self.role != "input":
            return None  # or it has not been used yet
        low, high = (float(end) for end in int8_range(self.minimum, self.maximum))
        return (low, high) if high > low else None

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}
