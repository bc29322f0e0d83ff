"""Trained binarization: binary weights and activations whose scales are learned."""

from __future__ import annotations

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext.quantizers._base import BinaryQuantizer, InputForm, KernelForm, one_of, register

# Below this a channel's scale counts as zero for the Larq Compute Engine, whose converter then
# leaves the whole layer in floating point. Its own limit is float32's epsilon, 1.2e-7.
SMALLEST_SCALE = 2.0**-20


def triangle(x: tf.Tensor, width: float = 0.5) -> tf.Tensor:
    r"""Triangle of area 2 on `[-width, width]`: \\((2 - 2|x|/w)/w\\), zero outside."""
    return tf.nn.relu(2.0 - 2.0 * tf.abs(x) / width) / width


def long_tail(x: tf.Tensor) -> tf.Tensor:
    r"""Long-tailed estimator: \\(2 - 4|x|\\) up to 0.4, then 0.4 up to 1, then 0."""
    magnitude = tf.abs(x)
    return tf.maximum(2.0 - 4.0 * magnitude, 0.4) * tf.cast(magnitude <= 1.0, x.dtype)


def clipped_identity(x: tf.Tensor) -> tf.Tensor:
    """One on `[-1, 1]`, zero outside."""
    return tf.cast(tf.abs(x) <= 1.0, x.dtype)


# Slopes standing for the derivative of sign, whose jump is 2, and of step, whose jump is 1.
SIGN_SLOPES = {
    "triangle": triangle,
    "long_tail": lambda x: 2.0 * long_tail(x),
    "bireal": lambda x: triangle(x, 1.0),
    "clip": clipped_identity,
}
STEP_SLOPES = {
    "long_tail": long_tail,
    "triangle": lambda x: 0.5 * triangle(x),
    "bireal": lambda x: 0.5 * triangle(x, 1.0),
    "clip": clipped_identity,
}


def surrogate_sign(x: tf.Tensor, estimator: str = "triangle") -> tf.Tensor:
    """Sign with `sign(0) = 1` and the slope `SIGN_SLOPES[estimator]` as its gradient."""
    slope = SIGN_SLOPES[one_of("estimator", estimator, tuple(SIGN_SLOPES))]

    @tf.custom_gradient
    def _call(x):
        return lq.math.sign(x), lambda dy: dy * slope(x)

    return _call(x)


def surrogate_step(x: tf.Tensor, estimator: str = "long_tail") -> tf.Tensor:
    """Step (1 for `x > 0`, else 0) with the slope `STEP_SLOPES[estimator]` as its gradient."""
    slope = STEP_SLOPES[one_of("estimator", estimator, tuple(STEP_SLOPES))]

    @tf.custom_gradient
    def _call(x):
        return lq.math.heaviside(x), lambda dy: dy * slope(x)

    return _call(x)


@tf.custom_gradient
def _away_from_zero(scale: tf.Tensor):
    """Lifts magnitudes below `SMALLEST_SCALE` to it; the gradient does not notice."""
    lifted = lq.math.sign(scale) * tf.maximum(tf.abs(scale), SMALLEST_SCALE)
    return lifted, lambda dy: dy


@register("learnable_scale")
class LearnableScale(BinaryQuantizer):
    r"""Binary quantizer with a trained scale: +-alpha for kernels, {0, beta} for inputs.

    Kernels, with one alpha per output channel:
    \\[ q(w) = \alpha_o \, \mathrm{sign}(w), \qquad
        \frac{\partial q}{\partial w} = \alpha_o \cdot
        \begin{cases} 4 - 8|w| & |w| \leq 0.5 \\\ 0 & \text{else} \end{cases} \\]
    Inputs, with one beta per layer:
    \\[ q(x) = \beta \, [x > 0], \qquad
        \frac{\partial q}{\partial x} = \beta \cdot
        \begin{cases} 2 - 4|x| & |x| \leq 0.4 \\\ 0.4 & 0.4 < |x| \leq 1 \\\ 0 & \text{else}
        \end{cases} \\]
    The gradients of alpha and beta are exact. Inputs are expected to be signed and centred, such
    as those that follow batch normalization; the output of a ReLU is not.

    **Deploys as** a sign of the negated input and a +-1 kernel with zero padding turned into
    padding by one, exactly; `0.5 * alpha * beta` and the sum of the kernel become the scale and
    the bias after the convolution, whatever their sign or size.

    **Where the facts come from.** The paper's body could not be had. Of its abstract: both
    scales are trained, an L2 penalty acts on alpha. Of later works that use it: {0, 1} inputs,
    the long-tailed slope, and (from a figure) the triangle for weights. Inferred: one alpha per
    channel and one beta per layer. Ours: the start values, the size of the penalty, 0 at 0.

    # Arguments
        estimator: Slope. For kernels `"triangle"` (default), `"long_tail"` (doubled),
            `"bireal"` or `"clip"`; for inputs `"long_tail"` (default), `"triangle"`,
            `"bireal"` or `"clip"`. `None` takes the default of the role.
        initial_scale: Start value of the scale. `None` is 1 for inputs and the mean magnitude of
            each kernel channel (its expectation under Glorot's uniform initializer in layers
            that are not from `larq_ext.layers`).
        granularity: `"channel"` or `"layer"`: what shares an alpha.
        l2: Factor of the penalty `l2 * sum(alpha ** 2)`.
        role: `"input"` or `"kernel"`; `None` finds out at first use.
        metrics: List of metrics; `None` takes those of `larq.context.metrics_scope`.

    # Returns
        Tensor of the shape of the input.

    # Raises
        ValueError: for a value that is not allowed, with those that are.

    # References
        - [Accurate and Compact Convolutional Neural Networks with Trained
            Binarization](https://arxiv.org/abs/1909.11366)
        - [Dynamic Sparse Training](https://arxiv.org/abs/2005.06870), for the long-tailed slope
    """

    def __init__(
        self,
        estimator: str | None = None,
        initial_scale: float | None = None,
        granularity: str = "channel",
        l2: float = 1e-4,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.estimator = one_of("estimator", estimator, (*SIGN_SLOPES, None))
        self.initial_scale = initial_scale
        self.granularity = one_of("granularity", granularity, ("channel", "layer"))
        if l2 < 0:
            raise ValueError(f"`l2` is a number from 0, received {l2!r}.")
        self.l2 = l2

    def build(self, input_shape):
        super().build(input_shape)
        if self.role == "input":
            value = 1.0 if self.initial_scale is None else self.initial_scale
            initializer = tf.keras.initializers.Constant(value)
            self.scale = self.add_parameter("scale", (), initializer, deployed=True)
            return
        value = self.initial_scale
        if value is None:
            *field, fan_in, fan_out = self._built_for
            limit = np.sqrt(6.0 / (np.prod(field) * (fan_in + fan_out)))
            value = limit / 2.0
        self.scale = self.add_parameter(
            "scale",
            self._built_for[-1:] if self.granularity == "channel" else (),
            tf.keras.initializers.Constant(value),
            deployed=True,
            regularizer=tf.keras.regularizers.L2(self.l2) if self.l2 else None,
        )

    def parameter_key(self, shape):
        per_channel = self.role == "kernel" and self.granularity == "channel"
        return shape[-1:] if per_channel else ()

    def initialize_from(self, kernel):
        if self.role == "kernel" and self.initial_scale is None:
            axes = tuple(range(kernel.ndim - 1)) if self.granularity == "channel" else None
            self.scale.assign(np.abs(kernel).mean(axes))

    def quantize(self, x, training):
        if self.role == "input":
            scale = tf.convert_to_tensor(self.scale)
            return scale * surrogate_step(x, self.estimator or "long_tail")
        return self._kernel_scale(x) * surrogate_sign(x, self.estimator or "triangle")

    def _kernel_scale(self, kernel: tf.Tensor) -> tf.Tensor:
        scale = _away_from_zero(tf.convert_to_tensor(self.scale))
        # A filter that holds +-alpha is one that this quantizer has made, and comes from a file
        # of binarized weights: a negative alpha would turn its signs a second time.
        axes = list(range(len(kernel.shape) - 1))
        made_here = tf.reduce_all(tf.abs(kernel) == tf.abs(scale), axes)
        return tf.where(made_here, tf.abs(scale), scale)

    def kernel_form(self, kernel):
        # Not through the product: a scale of zero would lose the signs.
        scale = self._kernel_scale(tf.constant(kernel, tf.float32)).numpy()
        signs = np.where(kernel >= 0, 1.0, -1.0) * np.where(scale < 0, -1.0, 1.0)
        return KernelForm(signs.astype("float32"), np.abs(scale))

    def input_form(self):
        return InputForm(scale=float(self.scale.numpy()), zero_one=True)

    def get_config(self):
        return {
            **super().get_config(),
            "estimator": self.estimator,
            "initial_scale": self.initial_scale,
            "granularity": self.granularity,
            "l2": self.l2,
        }
