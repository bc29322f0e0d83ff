"""SiMaN: binary weights by magnitude instead of by sign."""

from __future__ import annotations

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext.quantizers._base import (
    BinaryQuantizer,
    Hyperparameter,
    InputForm,
    KernelForm,
    one_of,
    read_hyperparameter,
    register,
)
from larq_ext.quantizers.approx_sign import polynomial_sign, polynomial_slope

# Stands under the root with the variance, as in the official code.
EPSILON = 1e-5


def _centred(kernel: tf.Tensor) -> tf.Tensor:
    """The kernel minus the mean of each filter; output channels are last."""
    axes = list(range(len(kernel.shape) - 1))
    return kernel - tf.reduce_mean(kernel, axes, keepdims=True)


def standardize(kernel: tf.Tensor) -> tf.Tensor:
    """Centres each filter and divides by `sqrt(variance + 1e-5)`, the variance unbiased."""
    axes = list(range(len(kernel.shape) - 1))
    centred = _centred(kernel)
    # A filter of one weight has no unbiased variance: its centred weight is 0 whatever follows.
    degrees = max(1, int(np.prod(kernel.shape[:-1])) - 1)
    variance = tf.reduce_sum(tf.square(centred), axes, keepdims=True) / degrees
    return centred * tf.math.rsqrt(variance + EPSILON)


def upper_half(magnitudes: tf.Tensor, selection: str = "topk") -> tf.Tensor:
    """Marks the larger half of each filter, output channels last.

    # Arguments
        magnitudes: Tensor of magnitudes.
        selection: `"topk"` marks exactly `floor(n / 2)` weights, the first ones where
            magnitudes are equal; `"median"` those strictly above the lower median.

    # Returns
        Boolean tensor of the same shape.
    """
    shape = magnitudes.shape
    columns = tf.reshape(magnitudes, (-1, shape[-1]))
    n = int(columns.shape[0])
    if n == 1:
        return tf.zeros(shape, tf.bool)
    ascending = tf.sort(tf.transpose(columns), axis=-1)
    if selection == "median":
        return tf.reshape(columns > ascending[:, (n - 1) // 2], shape)
    ones = n // 2
    threshold = ascending[:, n - ones]
    above = columns > threshold
    ties = columns == threshold
    missing = ones - tf.reduce_sum(tf.cast(above, tf.int32), 0)
    first = tf.cumsum(tf.cast(ties, tf.int32), 0) <= missing
    return tf.reshape(above | (ties & first), shape)


def _already_binary(kernel: tf.Tensor) -> tf.Tensor:
    """Marks filters that this quantizer has made: -c or 0, and +c for `floor(n / 2)` weights.

    # Returns
        Boolean tensor with one value per output channel, broadcastable to the kernel.
    """
    axes = list(range(len(kernel.shape) - 1))
    low = tf.reduce_min(kernel, axes, keepdims=True)
    high = tf.reduce_max(kernel, axes, keepdims=True)
    two_values = tf.reduce_all((kernel == low) | (kernel == high), axes, keepdims=True)
    positive = tf.reduce_sum(tf.cast(kernel > 0, tf.int32), axes, keepdims=True)
    half = positive == int(np.prod(kernel.shape[:-1])) // 2
    return two_values & (high > 0) & ((low == -high) | (low == 0)) & half


def magnitude_sign(kernel: tf.Tensor, selection: str = "topk") -> tf.Tensor:
    r"""+1 for the half of each filter with the larger magnitudes, -1 for the rest.

    With \\(\hat w\\) the standardized filter, the gradient is that of \\(|\hat w|\\): straight
    through the selection, then through the magnitude (0 at 0) and the standardization.

    # Arguments
        kernel: float32 tensor, output channels last.
        selection: `"topk"` or `"median"`, see `upper_half`.

    # Returns
        Tensor of the shape of `kernel` with values +1 and -1.
    """

    @tf.custom_gradient
    def _straight_through(magnitudes, kernel):
        marked = tf.where(upper_half(magnitudes, selection), 1.0, -1.0)
        # A kernel that is no longer finite must show in the loss.
        marked = tf.where(tf.math.is_nan(magnitudes), magnitudes, marked)
        # The quantizer undoes itself on its own output, where all magnitudes are equal. Such a
        # kernel comes from a file of binarized weights, and is what it should become.
        signs = tf.where(_already_binary(kernel), tf.where(kernel > 0, 1.0, -1.0), marked)
        return signs, lambda dy: (dy, None)

    return _straight_through(tf.abs(standardize(kernel)), kernel)


@tf.custom_gradient
def centred_sign(x: tf.Tensor):
    r"""Sign of each sample's deviation from its mean, with the gradient of the standardized one.

    \\[ \hat x = (x - \bar x) / \sqrt{\mathrm{var}(x) + 10^{-5}}, \qquad
        q(x) = \mathrm{sign}(\hat x), \qquad
        \frac{\partial q}{\partial \hat x} = \max(2 - 2|\hat x|, 0) \\]
    with the mean and the unbiased variance over all of a sample. The division never changes a
    sign, so it is left to the backward pass.

    # Arguments
        x: float32 tensor, samples first.

    # Returns
        Tensor of the shape of `x` with values +1 and -1.
    """
    axes = list(range(1, len(x.shape)))
    centred = x - tf.reduce_mean(x, axes, keepdims=True)

    def grad(dy):
        degrees = tf.cast(tf.maximum(tf.reduce_prod(tf.shape(x)[1:]) - 1, 1), x.dtype)
        variance = tf.reduce_sum(tf.square(centred), axes, keepdims=True) / degrees
        scale = tf.math.rsqrt(variance + EPSILON)
        standard = centred * scale
        dy *= polynomial_slope(standard)
        along = tf.reduce_sum(dy * standard, axes, keepdims=True) / degrees
        return (dy - tf.reduce_mean(dy, axes, keepdims=True) - standard * along) * scale

    return lq.math.sign(centred), grad


@register("siman")
class SiMaN(BinaryQuantizer):
    r"""Binary quantizer by magnitude: the larger half of each filter is +1, the rest -1.

    Kernels, with \\(\hat w = (w - \bar w) / \sqrt{\mathrm{var}(w) + 10^{-5}}\\) per filter:
    \\[ q(w) = \begin{cases} +1 & |\hat w| \text{ in the larger half of the filter} \\\
        -1 & \text{else} \end{cases}, \qquad
        \frac{\partial q}{\partial w} = \frac{\partial |\hat w|}{\partial w} \\]
    Inputs, standardized per sample (mean and variance over height, width and channels):
    \\[ q(x) = \mathrm{sign}(\hat x), \qquad
        \frac{\partial q}{\partial \hat x} = \max(2 - 2|\hat x|, 0) \\]

    The official code also learns one scale per output channel after the convolution, which
    `larq_ext.layers` adds, keeps weight decay off binary kernels and rewrites the latent kernel
    at every step, see `MagnitudeClip`.

    !!! warning
        In a kernel that is already binary all magnitudes are equal. One that this quantizer has
        made is passed on as it is, so that files saved under
        `larq.context.quantized_scope(True)` stay right, but the latent magnitudes are lost:
        train on from latent weights only.

    **Deploys as** the sign of the input minus its mean (a mean and a subtraction per layer; the
    division never changes a sign), and a +-1 kernel. With `values="zero_one"`, as a +-1 kernel
    with one more filter of ones, whose output is added to the others: exact, at the price of one
    filter and an addition.

    **Where the facts come from.** The paper's body could not be had. Of its abstract: weights
    are {0, 1} by magnitude, no l2 penalty. Of the official code, all else here: halves, +-1 in
    the convolution, the standardizations, the gradients. Ours: sign(0) = +1 (0 there), a kernel
    recomputed from the latest latent weights at inference (one step older there), and the
    default of `selection`.

    # Arguments
        selection: `"topk"` (exactly half, ties broken by order) or `"median"` (strictly above
            the lower median, so ties give fewer ones). The official code has both: the first is
            its option `quick`, the second its default, which it calls `topk`.
        values: `"sign"` for -1 and +1, or `"zero_one"` for 0 and +1: another network, whose
            weights cannot be exchanged with the first.
        center: Whether inputs are standardized per sample.
        role: `"input"` or `"kernel"`; `None` finds out at first use.
        metrics: List of metrics; `None` takes those of `larq.context.metrics_scope`.

    # Returns
        Tensor of the shape of the input.

    # Raises
        ValueError: for a value that is not allowed, with those that are.

    # References
        - [SiMaN: Sign-to-Magnitude Network Binarization](https://arxiv.org/abs/2102.07981)
    """

    def __init__(
        self, selection: str = "topk", values: str = "sign", center: bool = True, **kwargs
    ):
        super().__init__(**kwargs)
        self.selection = one_of("selection", selection, ("topk", "median"))
        self.values = one_of("values", values, ("sign", "zero_one"))
        self.center = center

    def quantize(self, x, training):
        if self.role == "input":
            return centred_sign(x) if self.center else polynomial_sign(x)
        signs = magnitude_sign(x, self.selection)
        if self.values == "sign":
            return signs

        @tf.custom_gradient
        def _bits(signs):
            return tf.nn.relu(signs), lambda dy: dy

        return _bits(signs)

    def kernel_form(self, kernel):
        signs = magnitude_sign(tf.constant(kernel, tf.float32), self.selection).numpy()
        scale = np.ones(kernel.shape[-1], "float32")
        return KernelForm(signs, scale, zero_one=self.values == "zero_one")

    def input_form(self):
        return InputForm(center=self.center)

    def get_config(self):
        return {
            **super().get_config(),
            "selection": self.selection,
            "values": self.values,
            "center": self.center,
        }


def percentiles(values: tf.Tensor, ranks: list[tf.Tensor]) -> list[tf.Tensor]:
    """Percentiles (0 to 100) of all values, interpolated linearly as numpy does by default."""
    ascending = tf.sort(tf.reshape(values, [-1]))
    last = tf.cast(tf.size(ascending) - 1, tf.float32)
    results = []
    for rank in ranks:
        position = rank / 100.0 * last
        below = tf.floor(position)
        # The last position of a large tensor is rounded to float32, perhaps upwards.
        end = tf.size(ascending) - 1
        low = tf.gather(ascending, tf.minimum(tf.cast(below, tf.int32), end))
        high = tf.gather(ascending, tf.minimum(tf.cast(tf.math.ceil(position), tf.int32), end))
        results.append(low + (high - low) * (position - below))
    return results


@register("magnitude_clip")
class MagnitudeClip(tf.keras.constraints.Constraint):
    r"""Centres each filter and clips its magnitudes to percentiles of the layer's.

    \\[ c = w - \bar w, \qquad w \leftarrow \mathrm{sign}(c) \cdot \mathrm{clip}(|c|, L, U) \\]
    with L and U the `percent` and `100 - percent` percentiles of \\(|c|\\) over the layer. The
    official code of SiMaN does this before each forward pass; a constraint does it after each
    update, which from the second step on is the same.

    # Arguments
        percent: From 0 to 50. Can be scheduled; the official code goes from 15 to 0.

    # Returns
        The new kernel.

    # References
        - [SiMaN: Sign-to-Magnitude Network Binarization](https://arxiv.org/abs/2102.07981)
    """

    percent = Hyperparameter(minimum=0, maximum=50)

    def __init__(self, percent: float = 15.0):
        self.percent = percent

    def __call__(self, w):
        # A leaked scope would make this overwrite the latent weights with binary ones.
        with lq.context.quantized_scope(False):
            latent = tf.convert_to_tensor(w)
        centred = _centred(tf.cast(latent, tf.float32))
        magnitudes = tf.abs(centred)
        percent = read_hyperparameter(self, "percent")
        low, high = percentiles(magnitudes, [percent, 100.0 - percent])
        return tf.cast(tf.sign(centred) * tf.clip_by_value(magnitudes, low, high), latent.dtype)

    def get_config(self):
        return {"percent": self.percent}
