"""FDA: the gradient of sign approximated in the frequency domain."""

from __future__ import annotations

import math

import larq as lq
import tensorflow as tf

from larq_ext.quantizers._base import (
    BinaryQuantizer,
    Hyperparameter,
    one_of,
    read_hyperparameter,
    register,
)


def fourier_slope(x: tf.Tensor, n: float | tf.Tensor = 9, omega: float = 0.1) -> tf.Tensor:
    r"""Slope of the Fourier series of the sign, cut after `n + 1` sines.

    \\[
    g_n(x) = \frac{4\omega}{\pi} \sum_{i=0}^{n} \cos((2i+1)\omega x)
           = \frac{2\omega}{\pi} \frac{\sin(2(n+1)\omega x)}{\sin(\omega x)}
    \\]

    The closed form costs the same for every `n`, which may be a tensor.

    # Arguments
        x: float32 tensor.
        n: Index of the last term: `n + 1` cosines are summed.
        omega: Angular frequency of the square wave; its period is `2 * pi / omega`.

    # Returns
        Tensor of the shape of `x`.
    """
    terms = 2.0 * (tf.cast(n, x.dtype) + 1.0)
    angle = omega * x
    sine = tf.sin(angle)
    # 0/0 at every multiple of pi: divide by something else there, then put the limit in.
    at_pole = tf.abs(sine) < 1e-6
    ratio = tf.sin(terms * angle) / tf.where(at_pole, tf.ones_like(sine), sine)
    # cos(terms * k pi) = 1, and cos(k pi) tells the poles of one sign from the other.
    limit = tf.where(tf.cos(angle) > 0, terms, -terms)
    return (2.0 * omega / math.pi) * tf.where(at_pole, limit, ratio)


def _windowed_slope(x, n, omega: float, clip_value: float):
    """`fourier_slope`, and zero where `|x| > clip_value`, for windows short of the first pole.

    This runs over every activation of every step, and `tf.where` costs more than a sine: the
    slope is even, so `|x|` may be lifted off the pole at 0 instead, and the window multiplies.
    """
    terms = 2.0 * (tf.cast(n, x.dtype) + 1.0)
    magnitude = tf.abs(x)
    window = tf.cast(magnitude <= clip_value, x.dtype)
    # At 1e-5 the slope differs from that at 0 by less than float32 can tell for n < 50; from the
    # window's edge on, infinity included, any finite value will do.
    angle = tf.clip_by_value(omega * magnitude, 1e-5, max(1e-5, omega * clip_value))
    return tf.sin(terms * angle) / tf.sin(angle) * (window * (2.0 * omega / math.pi))


def fda_sign(
    x: tf.Tensor,
    n: float | tf.Tensor = 9,
    omega: float = 0.1,
    clip_value: float | None = 1.0,
) -> tf.Tensor:
    r"""Sign whose gradient is that of its truncated Fourier series.

    \\[ q(x) = \mathrm{sign}(x), \quad q(0) = 1, \qquad
        \frac{\partial q}{\partial x} = g_n(x) \text{ for } |x| \le \texttt{clip_value} \\]

    # Arguments
        x: float32 tensor.
        n: Index of the last term of the series, a number or a tensor.
        omega: Angular frequency.
        clip_value: No gradient where `|x|` is larger; `None` for no window.

    # Returns
        Tensor of the shape of `x` with values +1 and -1.
    """

    @tf.custom_gradient
    def _call(x, n):
        def grad(dy):
            if clip_value is not None and omega * clip_value < 3.0:
                return dy * _windowed_slope(x, n, omega, clip_value), None
            if clip_value is None:
                return dy * fourier_slope(x, n, omega), None
            inside = tf.clip_by_value(x, -clip_value, clip_value)
            window = tf.cast(tf.abs(x) <= clip_value, x.dtype)
            return dy * fourier_slope(inside, n, omega) * window, None

        return lq.math.sign(x), grad

    return _call(x, tf.cast(n, x.dtype))


@tf.custom_gradient
def _scaled_in_forward_only(x: tf.Tensor, scale: tf.Tensor):
    return x * scale, lambda dy: (dy, None)


_SHORTCUTS = {
    "sin": tf.sin,
    "linear": tf.identity,
    "none": tf.zeros_like,
}


@register("fda")
class FDA(BinaryQuantizer):
    r"""Binary quantizer with the frequency domain approximation of the gradient.

    \\[
    q(x) = \begin{cases} -1 & x < 0 \\\ 1 & x \geq 0 \end{cases}
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      \frac{4\omega}{\pi} \sum_{i=0}^{n} \cos((2i+1)\omega x) & |x| \leq \texttt{clip_value} \\\
      0 & \text{else} \end{cases}
    \\]

    In training, the noise adaptation module learns the error of the truncated series and is
    added to the output: \\(z = q(t) + \alpha\,(\mathrm{relu}(t W_1) W_2 + a \sin t)\\). `t` is the
    latent tensor; a row of it is a filter (kernels) or the channels of a pixel (inputs). At
    inference the module is absent, and while \\(\alpha > 0\\) training is not exactly 1-bit:
    schedule `alpha` to 0, see `larq_ext.callbacks.method_schedules`.

    **Deploys as** a plain sign for inputs, and +-c for kernels, with c the mean magnitude.

    **Where the facts come from.** Of the paper: the series, the module, a = 0.1, k = 64, n from 9
    to 18. Of the official code: the kernel scale (one mean magnitude per layer, which does not
    enter the gradient). Of a third-party implementation, for the paper does not say: omega = 0.1,
    the window, alpha from 0.1 to 0, the start values of the module, and what a row is. Ours:
    sign(0) = +1 (the paper has -1), as the runtime does it, and at least one hidden unit for
    layers narrower than `reduction`, and that the scale is left out of the gradients of the
    kernel's noise module too.

    # Arguments
        n: Index of the last term of the series (`n + 1` terms). Can be scheduled.
        omega: Angular frequency of the series.
        clip_value: Window of the gradient, `None` for none. The module has no window.
        noise: Whether to add the noise adaptation module in training.
        alpha: Weight of the module. Can be scheduled.
        reduction: k; the module has `max(1, d // k)` hidden units for rows of length d.
        shortcut: The shortcut eta of the module: `"sin"`, `"linear"` or `"none"`.
        shortcut_scale: a, the factor of the shortcut.
        scale: Scale of kernels: `"layer"` or `"channel"` mean magnitude, or `None`.
        scale_in_gradient: Whether the scale also multiplies the gradient of the latent kernel.
        role: `"input"` or `"kernel"`; `None` finds out at first use.
        metrics: List of metrics; `None` takes those of `larq.context.metrics_scope`.

    # Returns
        Tensor of the shape of the input.

    # Raises
        ValueError: for a value that is not allowed, with those that are.

    # References
        - [Learning Frequency Domain Approximation for Binary Neural
            Networks](https://arxiv.org/abs/2103.00841)
    """

    n = Hyperparameter(minimum=0, integer=True)
    alpha = Hyperparameter(minimum=0)

    def __init__(
        self,
        n: int = 9,
        omega: float = 0.1,
        clip_value: float | None = 1.0,
        noise: bool = True,
        alpha: float = 0.1,
        reduction: int = 64,
        shortcut: str = "sin",
        shortcut_scale: float = 0.1,
        scale: str | None = "layer",
        scale_in_gradient: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if omega <= 0:
            raise ValueError(f"`omega` is a positive number, received {omega!r}.")
        if clip_value is not None and not clip_value > 0:
            raise ValueError(f"`clip_value` is a positive number or None, received {clip_value!r}.")
        if reduction < 1:
            raise ValueError(f"`reduction` is an integer from 1, received {reduction!r}.")
        self.n = n
        self.alpha = alpha
        self.omega = omega
        self.clip_value = clip_value
        self.noise = noise
        self.reduction = reduction
        self.shortcut = one_of("shortcut", shortcut, tuple(_SHORTCUTS))
        self.shortcut_scale = shortcut_scale
        self.scale = one_of("scale", scale, ("layer", "channel", None))
        self.scale_in_gradient = scale_in_gradient

    def build(self, input_shape):
        super().build(input_shape)
        if not self.noise:
            return
        row = self._row(self._built_for)
        if None in row:
            raise ValueError(
                "The noise module of FDA needs a known number of channels, received a tensor of "
                f"shape {self._built_for}. Give the input a static shape, or use FDA(noise=False)."
            )
        length = math.prod(row)
        hidden = max(1, length // self.reduction)
        for name, shape in (("noise_w1", (length, hidden)), ("noise_w2", (hidden, length))):
            limit = 1.0 / math.sqrt(shape[0])
            initializer = tf.keras.initializers.RandomUniform(-limit, limit)
            setattr(self, name, self.add_parameter(name, shape, initializer, deployed=False))

    def parameter_key(self, shape):
        if not self.noise:
            return ()
        return self._row(shape)

    def _row(self, shape: tuple) -> tuple:
        """The axes that the noise module mixes: a whole filter, or the channels of a pixel."""
        return shape[:-1] if self.role == "kernel" else shape[-1:]

    def quantize(self, x, training):
        outputs = fda_sign(x, read_hyperparameter(self, "n"), self.omega, self.clip_value)
        if self.noise:
            outputs = tf.__internal__.smart_cond.smart_cond(
                False if training is None else training,
                lambda: outputs + read_hyperparameter(self, "alpha") * self.noise_term(x),
                lambda: outputs,
            )
        if self.role == "kernel" and self.scale is not None:
            axes = None if self.scale == "layer" else list(range(len(x.shape) - 1))
            scale = tf.stop_gradient(tf.reduce_mean(tf.abs(x), axes))
            if self.scale_in_gradient:
                return outputs * scale
            return _scaled_in_forward_only(outputs, scale)
        return outputs

    def noise_term(self, t: tf.Tensor) -> tf.Tensor:
        """The estimate of the series' error, `relu(t W1) W2 + eta(t)`, in the shape of `t`."""
        if self.role == "kernel":
            columns = tf.reshape(t, (-1, t.shape[-1]))
            hidden = tf.nn.relu(tf.matmul(columns, self.noise_w1, transpose_a=True))
            error = tf.matmul(self.noise_w2, hidden, transpose_a=True, transpose_b=True)
        else:
            rows = tf.reshape(t, (-1, t.shape[-1]))
            error = tf.matmul(tf.nn.relu(tf.matmul(rows, self.noise_w1)), self.noise_w2)
        shortcut = self.shortcut_scale * _SHORTCUTS[self.shortcut](t)
        return tf.reshape(error, tf.shape(t)) + shortcut

    def get_config(self):
        return {
            **super().get_config(),
            "n": self.n,
            "omega": self.omega,
            "clip_value": self.clip_value,
            "noise": self.noise,
            "alpha": self.alpha,
            "reduction": self.reduction,
            "shortcut": self.shortcut,
            "shortcut_scale": self.shortcut_scale,
            "scale": self.scale,
            "scale_in_gradient": self.scale_in_gradient,
        }
