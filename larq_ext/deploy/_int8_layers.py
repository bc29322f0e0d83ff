"""Convolutions and dense layers that the converter turns into 8-bit integer operators."""

from __future__ import annotations

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext._summary import no_operand
from larq_ext.deploy.layers import AsDense
from larq_ext.quantizers._base import register_class

# What the engine's kernels clip to for nothing.
FUSED = (tf.keras.activations.linear, tf.keras.activations.relu, tf.nn.relu6)
# The only ranges of outputs that TensorFlow Lite's 8-bit kernels know for these.
FIXED_RANGES = {
    tf.keras.activations.softmax: (0.0, 255.0 / 256.0),
    tf.keras.activations.sigmoid: (0.0, 255.0 / 256.0),
    tf.keras.activations.tanh: (-1.0, 127.0 / 128.0),
}


@register_class
class Int8Range(lq.quantizers.Quantizer):
    r"""Rounds to 256 values between two numbers, as 8-bit integers have them.

    \\[ q(x) = s \cdot \mathrm{round}\left(\frac{\mathrm{clip}(x, a, b)}{s}\right), \qquad
        s = \frac{b - a}{255} \\]
    where 0 is one of the values (`larq_ext.quantizers.int8_range`).

    # Arguments
        minimum: a, at most 0.
        maximum: b, at least 0 and above a.

    # Returns
        Tensor of the shape of the input.

    # Raises
        ValueError: if the range is empty, not finite or without 0.
    """

    precision = 8

    def __init__(self, minimum: float, maximum: float, **kwargs):
        super().__init__(**kwargs)
        if not (np.isfinite([minimum, maximum]).all() and minimum <= 0 <= maximum != minimum):
            raise ValueError(
                "A range of 8 bits is finite, not empty and includes 0; received "
                f"{minimum!r} to {maximum!r}."
            )
        self.minimum, self.maximum = float(minimum), float(maximum)

    @property
    def step(self) -> float:
        """The distance of two neighbouring values."""
        return (self.maximum - self.minimum) / 255.0

    def call(self, inputs):
        return tf.quantization.fake_quant_with_min_max_vars(inputs, self.minimum, self.maximum)

    def get_config(self):
        return {**super().get_config(), "minimum": self.minimum, "maximum": self.maximum}


@register_class
class Int8Conv2D(lq.layers.QuantConv2D):
    r"""A convolution that runs in 8-bit integers.

    \\[ y = \mathrm{behind}(q_{out}(\mathrm{activation}(q_{in}(x) * q_k(K) + b))) \\]
    with \\(q_k\\) symmetric per output channel: \\(s_o = \mathrm{limit}_o / 127\\), integers from
    -127 to 127. In Keras it computes with floats that hold these values; from the nodes that
    round, the converter makes one CONV_2D of int8 with QUANTIZE and DEQUANTIZE at its borders.

    # Arguments
        filters: Number of filters.
        kernel_size: Integer or pair of integers.
        input_quantizer: An `Int8Range`.
        output_quantizer: An `Int8Range`.
        activation: `None`, `"relu"` or `"relu6"`, within the operator.
        behind: Any activation that is an operator of its own; `"softmax"`, `"sigmoid"` and
            `"tanh"` have 8-bit outputs as well.
        **kwargs: Arguments of `larq.layers.QuantConv2D`.

    # Input shape
        `(samples, rows, columns, channels)`

    # Output shape
        `(samples, new_rows, new_columns, filters)`
    """

    def __init__(
        self, filters, kernel_size, *, input_quantizer, output_quantizer, behind=None, **kwargs
    ):
        kwargs.update(use_bias=True, kernel_quantizer=None)
        super().__init__(filters, kernel_size, input_quantizer=input_quantizer, **kwargs)
        if self.activation not in FUSED:
            raise ValueError(
                "`activation` of an 8-bit layer is None, 'relu' or 'relu6', received "
                f"{kwargs['activation']!r}: give it as `behind`."
            )
        self.output_quantizer = lq.quantizers.get(output_quantizer)
        self.behind = tf.keras.activations.get(behind)
        fixed = FIXED_RANGES.get(self.behind)
        self._last_quantizer = Int8Range(*fixed) if fixed else None

    def build(self, input_shape):
        super().build(input_shape)
        self.kernel.precision = 8
        # A weight and not the maximum of the kernel: the converter needs it as a constant, and
        # does not compute with large kernels.
        self.limit = no_operand(
            self.add_weight("limit", (self.filters,), initializer="ones", trainable=False)
        )

    @property
    def bias_step(self) -> np.ndarray:
        """The step of the 32-bit sums, and so of the bias, per output channel."""
        return _bias_step(self.input_quantizer, self.limit.numpy())

    def convolution_op(self, inputs, kernel):
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            kernel, -self.limit, self.limit, narrow_range=True
        )
        return super().convolution_op(inputs, rounded)

    def call(self, inputs):
        return self.finish(self.output_quantizer(super().call(inputs)))

    def finish(self, outputs):
        """What comes behind the operator."""
        outputs = self.behind(outputs)
        return self._last_quantizer(outputs) if self._last_quantizer else outputs

    def get_config(self):
        config = {
            **super().get_config(),
            "output_quantizer": lq.quantizers.serialize(self.output_quantizer),
            "behind": tf.keras.activations.serialize(self.behind),
        }
        del config["kernel_quantizer"], config["use_bias"]
        return config


@register_class
class Int8Dense(AsDense, Int8Conv2D):
    """A dense layer in 8-bit integers, as a 1x1 convolution.

    TensorFlow Lite's converter knows FULLY_CONNECTED with one scale for the whole kernel only;
    a convolution has one for each output.

    # Arguments
        filters: Number of outputs.
        **kwargs: Arguments of `Int8Conv2D`.

    # Input shape
        `(samples, channels)`

    # Output shape
        `(samples, units)`
    """

    def finish(self, outputs):
        return super().finish(self.features_of(outputs))

    def compute_output_shape(self, input_shape):
        if len(input_shape) == 4:  # asked by the convolution inside
            return Int8Conv2D.compute_output_shape(self, input_shape)
        return super().compute_output_shape(input_shape)


def int8_weights(
    kernel: np.ndarray,
    bias: np.ndarray,
    inputs: Int8Range,
    outputs: Int8Range,
    only_signs: bool = False,
) -> list[np.ndarray]:
    """The weights of an `Int8Conv2D` that computes what a convolution in floats does.

    # Arguments
        kernel: Kernel in HWIO.
        bias: Bias per output channel.
        inputs: The range of its inputs.
        outputs: The range of its outputs.
        only_signs: Whether outputs are moved down by about half a step, so that those below 0,
            and no others, round to numbers below 0.

    # Returns
        `[kernel, bias, limit]`, for `set_weights`.
    """
    limit = np.abs(kernel).max((0, 1, 2)).astype("float64")
    # Steps so small that the bias, an integer of 32 bits in steps of inputs and kernel, would
    # overflow, or that even large sums of them do not reach a step of the output.
    largest = np.abs(bias) + outputs.step
    smallest = np.maximum(largest / 2.0**30, outputs.step / 2.0**24) / inputs.step
    limit = np.maximum(limit, 127 * smallest)
    if only_signs:
        # Where half a step of the output is a whole number of them, a sum would lie halfway.
        steps = outputs.step / 2 / _bias_step(inputs, limit)
        whole = np.maximum(np.round(steps), 1)
        limit = np.where(np.abs(steps - whole) < 0.01, limit * steps / (whole - 0.05), limit)
    limit = limit.astype("float32")
    # The operator rounds the bias; here as well, so that Keras computes the same.
    step = _bias_step(inputs, limit)
    whole = np.round(bias / step)
    if only_signs:
        # Sums without the bias are whole steps: from this one on, outputs are not negative. It
        # has to come out above minus half a step of the output, and the one before it not.
        first = np.ceil(-bias / step)
        whole = np.floor(-outputs.step / 2 / step - first) + 1
    return [kernel.astype("float32"), (whole * step).astype("float32"), limit]


def _bias_step(inputs: Int8Range, limit: np.ndarray) -> np.ndarray:
    return inputs.step * limit.astype("float64") / 127
