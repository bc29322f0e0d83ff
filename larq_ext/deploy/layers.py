"""The deployed form of binary layers: signs in, a kernel of +-1, scale and bias behind."""

from __future__ import annotations

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext._summary import no_operand
from larq_ext.quantizers import InputForm, KernelForm
from larq_ext.quantizers._base import register_class


@register_class
class DeployedSign(lq.quantizers.Quantizer):
    r"""Sign of an input in the form that the Larq Compute Engine turns into bits.

    \\[ q(x) = \mathrm{sign}(x - c - t) \quad \text{or, negated,} \quad
        \mathrm{sign}(t + c - x), \qquad \mathrm{sign}(0) = 1 \\]
    with c the mean of the sample if `center`, else 0, and t the threshold.

    # Arguments
        center: Whether the mean over height, width and channels is subtracted.
        negate: Whether the negated form is used, see `BinaryConv2D`.
        threshold: t, a number or one per channel.

    # Returns
        Tensor of the shape of the input with values +1 and -1.
    """

    precision = 1

    def __init__(
        self,
        center: bool = False,
        negate: bool = False,
        threshold: float | list[float] = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.center, self.negate, self.threshold = center, negate, threshold

    def call(self, inputs):
        x = inputs
        if self.center:
            x -= tf.reduce_mean(x, list(range(1, len(x.shape))), keepdims=True)
        if np.any(self.threshold):
            x -= tf.constant(self.threshold, x.dtype)
        return lq.math.sign(-x if self.negate else x)

    def get_config(self):
        return {
            **super().get_config(),
            "center": self.center,
            "negate": self.negate,
            "threshold": self.threshold,
        }


@register_class
class BinaryConv2D(lq.layers.QuantConv2D):
    r"""A convolution of signs with a kernel of +-1.

    \\[ y = \mathrm{activation}(\mathrm{scale} \cdot z + \mathrm{offset}), \qquad
        z = \mathrm{sign}(x) * K \quad \text{or} \quad \mathrm{relu}(\mathrm{sign}(x) * K) \\]
    Zeros and ones instead of signs become signs by affine maps, exactly and up to the border:

    - Inputs in {0, 1}: with \\(s = \mathrm{sign}(-x)\\), which is +1 exactly where the input bit
      is 0, \\([x > 0] * K = \frac12 (s * (-K) + \sum K)\\), and padding with zeros is padding s
      with +1, which the runtime can fuse.
    - Kernels in {0, 1}: \\(x * \frac{S+1}{2} = \frac12 (x * S + x * 1)\\); the last filter is
      all ones and its output is added to the others (`ones_filter`).

    # Arguments
        filters: Number of filters of the kernel, the filter of ones included.
        kernel_size: Integer or pair of integers.
        ones_filter: Whether the last filter is the one of ones.
        relu: Whether a ReLU comes before the scale, where the engine can fuse it.
        **kwargs: Arguments of `larq.layers.QuantConv2D`; `input_quantizer` is a `DeployedSign`.

    # Input shape
        `(samples, rows, columns, channels)`

    # Output shape
        `(samples, new_rows, new_columns, filters)`, one less with `ones_filter`
    """

    def __init__(
        self, filters, kernel_size, *, ones_filter: bool = False, relu: bool = False, **kwargs
    ):
        kwargs.update(use_bias=False, kernel_quantizer=None)
        super().__init__(filters, kernel_size, **kwargs)
        self.ones_filter, self.relu = ones_filter, relu

    def build(self, input_shape):
        super().build(input_shape)
        self.kernel.precision = 1
        outputs = (self.filters - self.ones_filter,)
        self.scale = no_operand(self.add_weight("scale", outputs, initializer="ones"))
        self.offset = no_operand(self.add_weight("offset", outputs, initializer="zeros"))

    def convolution_op(self, inputs, kernel):
        outputs = super().convolution_op(inputs, kernel)
        if self.ones_filter:
            outputs = outputs[..., :-1] + outputs[..., -1:]
        if self.relu:
            outputs = tf.nn.relu(outputs)
        return outputs * self.scale + self.offset

    def compute_output_shape(self, input_shape):
        *outer, filters = super().compute_output_shape(input_shape)
        return tf.TensorShape([*outer, filters - self.ones_filter])

    def get_config(self):
        config = {**super().get_config(), "ones_filter": self.ones_filter, "relu": self.relu}
        del config["kernel_quantizer"], config["use_bias"]
        return config


class AsDense:
    """Makes a class of convolutions one of dense layers, whose kernels are 1x1.

    The class brings the outputs back to two dimensions (`features_of`) where it is best for the
    converter, but before any activation that may have an axis.
    """

    def __init__(self, filters, kernel_size=1, **kwargs):
        # Whatever Keras' default is: the images made of the inputs have their channels last.
        super().__init__(filters, kernel_size, **{**kwargs, "data_format": "channels_last"})
        self.input_spec = None

    def build(self, input_shape):
        super().build(tf.TensorShape([None, 1, 1, input_shape[-1]]))
        self.input_spec = tf.keras.layers.InputSpec(ndim=2, axes={-1: input_shape[-1]})

    def call(self, inputs):
        # Before the sign: the converter accepts nothing between it and the convolution.
        return super().call(tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1])))

    def compute_output_shape(self, input_shape):
        outputs = super().compute_output_shape([None, 1, 1, input_shape[-1]])
        return tf.TensorShape([input_shape[0], outputs[-1]])

    @staticmethod
    def features_of(images):
        """Images of one pixel as rows of features."""
        return tf.reshape(images, (-1, images.shape[-1]))


@register_class
class BinaryDense(AsDense, BinaryConv2D):
    """A dense layer as a 1x1 convolution, which is the only dense form with a binary kernel.

    # Arguments
        filters: Number of filters of the kernel, see `BinaryConv2D`.
        **kwargs: Arguments of `BinaryConv2D`.

    # Input shape
        `(samples, channels)`

    # Output shape
        `(samples, units)`
    """

    def convolution_op(self, inputs, kernel):
        return self.features_of(super().convolution_op(inputs, kernel))


def deployed_weights(
    kernel: KernelForm, inputs: InputForm, scale: np.ndarray, bias: np.ndarray
) -> list[np.ndarray]:
    """The weights of a `BinaryConv2D` that computes what the training form does.

    # Arguments
        kernel: The kernel at inference, with its signs in HWIO.
        inputs: The input at inference.
        scale: Scale per output channel after the convolution.
        bias: Bias per output channel.

    # Returns
        `[kernel, scale, offset]`, for `set_weights`.
    """
    signs = kernel.signs
    if kernel.zero_one:
        signs = np.concatenate([signs, np.ones_like(signs[..., :1])], axis=-1)
    constant = np.zeros(signs.shape[-1])
    factor = scale.astype("float64") * kernel.scale * inputs.scale
    if inputs.zero_one:
        constant = signs.sum((0, 1, 2))
        signs = -signs
        factor = factor / 2.0
    if kernel.zero_one:
        constant = constant[:-1] + constant[-1]
        factor = factor / 2.0
    return [signs, factor.astype("float32"), (factor * constant + bias).astype("float32")]
