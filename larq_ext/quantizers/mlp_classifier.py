"""Binarizing by classification: a small classifier decides, or estimates the gradient of, a bit."""

from __future__ import annotations

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext.quantizers._base import BinaryQuantizer, one_of, register

# Weights per pass of the exact gradient: 100 hidden units take 1.6 MB of float32 each.
CHUNK = 4096

ACTIVATIONS = {
    "tanh": (tf.tanh, lambda hidden: 1.0 - tf.square(hidden)),
    "relu": (tf.nn.relu, lambda hidden: tf.cast(hidden > 0, hidden.dtype)),
}


class Classifier:
    r"""The scalar function \\(f_j(x) = \sum_h V_{jh}\,\phi(u_h x + b_h) + d_j\\) and its slopes.

    # Arguments
        u, b: Tensors of shape `(hidden,)`; without hidden units `(0,)`.
        v: Tensor of shape `(outputs, hidden)`; without hidden units the slopes, `(outputs, 1)`.
        d: Tensor of shape `(outputs,)`.
        activation: `"tanh"` or `"relu"`.
    """

    def __init__(self, u, b, v, d, activation: str = "tanh"):
        self.u, self.b, self.v, self.d = u, b, v, d
        self.linear = u.shape[0] == 0
        self.function, self.slope_of = ACTIVATIONS[activation]

    def hidden(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Hidden values and their derivatives by `u x + b`, both of shape `(len(x), hidden)`."""
        if self.linear:
            return x[:, None], tf.ones_like(x)[:, None]
        hidden = self.function(x[:, None] * self.u + self.b)
        return hidden, self.slope_of(hidden)

    def outputs(self, hidden: tf.Tensor) -> tf.Tensor:
        """Values of shape `(len(x), outputs)`."""
        return tf.matmul(hidden, self.v, transpose_b=True) + self.d

    def slopes(self, hidden_slope: tf.Tensor) -> tf.Tensor:
        """Derivatives by x, of shape `(len(x), outputs)`."""
        weights = self.v if self.linear else self.v * self.u
        return tf.matmul(hidden_slope, weights, transpose_b=True)

    def gradients(self, x, hidden, hidden_slope, upstream):
        """Gradients of `sum(upstream * f(x))` by u, b, v and d.

        # Arguments
            upstream: Gradient by each output, of shape `(len(x), outputs)`.
        """
        dv = tf.matmul(upstream, hidden, transpose_a=True)
        dd = tf.reduce_sum(upstream, 0)
        if self.linear:
            return tf.zeros_like(self.u), tf.zeros_like(self.b), dv, dd
        by_argument = tf.matmul(upstream, self.v) * hidden_slope
        return (
            tf.linalg.matvec(by_argument, x, transpose_a=True),
            tf.reduce_sum(by_argument, 0),
            dv,
            dd,
        )


def _exact(x, dy, classifier, upstream_of):
    """Gradients by x and by the parameters, chunk by chunk: hidden values are not kept."""
    size = x.shape[0]
    # Without hidden units there is nothing to keep small.
    chunks = 1 if classifier.linear else -(-size // CHUNK)
    length = size if chunks == 1 else CHUNK

    def step(x, dy):
        hidden, hidden_slope = classifier.hidden(x)
        upstream = upstream_of(classifier.outputs(hidden), dy[:, None])
        dx = tf.reduce_sum(upstream * classifier.slopes(hidden_slope), 1)
        return dx, *classifier.gradients(x, hidden, hidden_slope, upstream)

    if chunks == 1:
        return step(x, dy)
    # Padded weights get a zero upstream gradient and add nothing.
    pad = [[0, chunks * length - size]]
    rows = [tf.reshape(tf.pad(t, pad), (chunks, length)) for t in (x, dy)]
    dx, *parameters = tf.map_fn(
        lambda row: step(*row), rows, fn_output_signature=(x.dtype,) * 5, parallel_iterations=1
    )
    return tf.reshape(dx, [-1])[:size], *(tf.reduce_sum(p, 0) for p in parameters)


def _tabulated(x, dy, classifier, upstream_of, table_size: int):
    """The same with f evaluated on a grid, and linear interpolation between its points.

    f is one scalar function for all weights, so its values are read from a table, and each
    weight's part of the parameters' gradients is dealt out to the two points next to it. One
    output after the other: TensorFlow is slow at rows of two.
    """
    low, high = tf.reduce_min(x), tf.reduce_max(x)
    high = tf.maximum(high, low + 1e-6)
    grid = tf.linspace(low, high, table_size)
    hidden, hidden_slope = classifier.hidden(grid)
    position = (x - low) * (float(table_size - 1) / (high - low))
    index = tf.clip_by_value(tf.cast(position, tf.int32), 0, table_size - 2)
    right = position - tf.cast(index, x.dtype)

    def read(column):
        return tf.gather(column, index) + right * tf.gather(column[1:] - column[:-1], index)

    def deal_out(values):
        to_right = tf.math.unsorted_segment_sum(values * right, index, table_size)
        both = tf.math.unsorted_segment_sum(values, index, table_size)
        return both - to_right + tf.roll(to_right, 1, 0)  # no weight is right of the last point

    dx, on_grid = tf.zeros_like(x), []
    outputs, slopes = classifier.outputs(hidden), classifier.slopes(hidden_slope)
    for output in range(outputs.shape[1]):
        upstream = upstream_of(read(outputs[:, output]), dy)
        dx += upstream * read(slopes[:, output])
        on_grid.append(deal_out(upstream))
    return dx, *classifier.gradients(grid, hidden, hidden_slope, tf.stack(on_grid, 1))


def classify(
    x: tf.Tensor,
    parameters: tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor],
    *,
    activation: str = "tanh",
    forward: str = "sign",
    gate: bool = True,
    table_size: int | None = None,
) -> tf.Tensor:
    r"""A bit whose gradient is that of a learned classifier.

    `forward="sign"`: value \\(\mathrm{sign}(x)\\), gradient (of x and of the parameters) that of
    \\(\sum_j \mathrm{clip}(f_j(x), -1, 1)\\), without the clip if not `gate`.
    `forward="argmax"`: value +1 where \\(f_2(x) > f_1(x)\\), else -1, gradient that of
    \\(2 f_1(x) + 2 f_2(x)\\).

    # Arguments
        x: float32 tensor of a known shape.
        parameters: `(u, b, v, d)` of the `Classifier`.
        activation: `"tanh"` or `"relu"`.
        forward: `"sign"` or `"argmax"`.
        gate: Whether outputs outside (-1, 1) pass no gradient; for `"sign"` only.
        table_size: Tensors with more elements than this read f from a table of so many points;
            `None` always evaluates f itself.

    # Returns
        Tensor of the shape of `x` with values +1 and -1.

    # Raises
        ValueError: if the shape is not known.
    """
    if not x.shape.is_fully_defined():
        raise ValueError(f"`x` has a known shape, as kernels do, received {x.shape}.")

    def upstream_of(outputs, dy):
        if forward == "argmax":
            return 2.0 * dy * tf.ones_like(outputs)
        if gate:
            return dy * tf.cast(tf.abs(outputs) < 1.0, dy.dtype)
        return dy * tf.ones_like(outputs)

    @tf.custom_gradient
    def _call(flat, u, b, v, d):
        classifier = Classifier(u, b, v, d, activation)
        if forward == "argmax":
            logits = classifier.outputs(classifier.hidden(flat)[0])
            bits = tf.where(logits[:, 1] > logits[:, 0], 1.0, -1.0)
            bits = tf.where(tf.math.is_nan(flat), flat, bits)  # to show in the loss
        else:
            bits = lq.math.sign(flat)

        def grad(dy):
            if table_size is not None and not classifier.linear and flat.shape[0] > table_size:
                return _tabulated(flat, dy, classifier, upstream_of, table_size)
            return _exact(flat, dy, classifier, upstream_of)

        return bits, grad

    u, b, v, d = parameters
    return tf.reshape(_call(tf.reshape(x, [-1]), u, b, v, d), x.shape)


class _SlopeLimits(tf.keras.constraints.Constraint):
    """Keeps the classifier's slope at 0 above a floor, and linear slopes below a cap.

    # Arguments
        classifier: The quantizer, with the weights of its hidden units if there are any.
        floor: Least sum of the slopes at 0, or `None`.
        cap: Largest magnitude of a linear slope, or `None`.
    """

    def __init__(self, classifier: MLPClassifier, floor: float | None, cap: float | None):
        self.classifier, self.floor, self.cap = classifier, floor, cap

    def __call__(self, v):
        v = tf.convert_to_tensor(v)
        if self.floor is not None:
            for by_unit in self._slopes_by_unit(v):
                # The nearest v with enough slope: the projection on a half-space.
                missing = tf.nn.relu(self.floor - tf.reduce_sum(v * by_unit))
                size = v.shape[0] * tf.reduce_sum(tf.square(by_unit))
                v += tf.math.divide_no_nan(missing * by_unit, size)
        return v if self.cap is None else tf.clip_by_value(v, -self.cap, self.cap)

    def _slopes_by_unit(self, v) -> list[tf.Tensor]:
        """What each hidden unit makes of v at 0: `f' = sum(v * slopes)`, from each side."""
        classifier = self.classifier
        if not classifier.hidden:
            return [tf.ones_like(v[:1])]
        u = tf.convert_to_tensor(classifier.u)[None]
        b = tf.convert_to_tensor(classifier.b) if classifier.use_bias else tf.zeros_like(u)
        if classifier.activation == "tanh":
            return [u * (1.0 - tf.square(tf.tanh(b)))]
        # A unit without a bias bends at 0: it has a slope on one side only.
        return [u * tf.cast((b > 0) | ((b == 0) & side), u.dtype) for side in (u > 0, u < 0)]


@register("mlp_classifier")
class MLPClassifier(BinaryQuantizer):
    r"""Kernel quantizer whose gradient is learned: binarizing as two-class classification.

    With \\(c = w - \bar w\\) and \\(\alpha = \mathrm{mean}|c|\\) per filter (no gradient through
    alpha), and \\(f: R \to R^2\\) a small network without biases:
    \\[ q(w) = \alpha \, \mathrm{sign}(c), \qquad
        \frac{\partial q}{\partial c} = \alpha \sum_j f_j'(c) \, [|f_j(c)| < 1] \\]
    and the network's own parameters are trained by the same gradient, jointly with the task.
    With `hidden=0` f is linear: a clipped identity of learned slope. With `forward="argmax"` the
    value is that of the larger output, and the gradient \\(2 f_1' + 2 f_2'\\).

    The slope at 0 is kept positive: a negative slope climbs the loss, drives itself on, and
    never comes back, and a few steps of Adam can turn a classifier that is new.

    The network is evaluated again in the backward pass, in chunks or from a table, so that its
    hidden values do not stay in memory.

    **Deploys as** +-alpha; the classifier is gone.

    **Where the facts come from.** The paper's body could not be had. Of its abstract: binarizing
    as classification, by a network or a linear function. Of the official code, all else here,
    whose default is the form with `sign`. Ours: a positive start slope (the official one has a
    random sign), the floor of the slope, and the table.

    # Arguments
        hidden: Hidden units, 0 for the linear case.
        activation: `"tanh"` or `"relu"`.
        forward: `"sign"` (official default) or `"argmax"`.
        gate: Whether saturated outputs pass no gradient; no effect on `"argmax"`.
        outputs: Outputs of the network; `"argmax"` needs 2.
        use_bias: Whether the network has biases. The official one has none.
        slope_init: `"positive-unit"` (sum of the slopes at 0 is +1) or `"official"`.
        slope_floor: Least sum of the slopes at 0; `None` for none, as in the official code.
        slope_cap: Largest magnitude of the slopes, linear case only (50 in a disabled line of
            the official code); `None` for no cap.
        center: Whether filters are centred.
        scale: Whether the mean magnitude of the centred filter multiplies the bits.
        table_size: Kernels with more weights than this read f from a table of so many points in
            the backward pass; `None` always evaluates it.
        role: `"kernel"` or `None`. The method has no quantizer for inputs.
        metrics: List of metrics; `None` takes those of `larq.context.metrics_scope`.

    # Returns
        Tensor of the shape of the input.

    # Raises
        ValueError: for a value that is not allowed, or where an input is to be quantized.

    # References
        - [Binarizing by Classification: Is Soft Function Really
            Necessary?](https://arxiv.org/abs/2205.07433)
    """

    def __init__(
        self,
        hidden: int = 100,
        activation: str = "tanh",
        forward: str = "sign",
        gate: bool = True,
        outputs: int = 2,
        use_bias: bool = False,
        slope_init: str = "positive-unit",
        slope_floor: float | None = 0.1,
        slope_cap: float | None = None,
        center: bool = True,
        scale: bool = True,
        table_size: int | None = 1024,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if hidden < 0:
            raise ValueError(f"`hidden` is an integer from 0, received {hidden!r}.")
        if outputs < 1 or (forward == "argmax" and outputs != 2):
            raise ValueError(
                f"`outputs` is an integer from 1, and 2 for 'argmax', received {outputs!r}."
            )
        if slope_cap is not None and hidden:
            raise ValueError("`slope_cap` is for the linear case, `hidden=0`.")
        if table_size is not None and table_size < 2:
            raise ValueError(f"`table_size` is an integer from 2 or None, received {table_size!r}.")
        self.hidden = hidden
        self.activation = one_of("activation", activation, tuple(ACTIVATIONS))
        self.forward = one_of("forward", forward, ("sign", "argmax"))
        self.gate = gate
        self.outputs = outputs
        self.use_bias = use_bias
        self.slope_init = one_of("slope_init", slope_init, ("positive-unit", "official"))
        self.slope_floor = slope_floor
        self.slope_cap = slope_cap
        self.center = center
        self.scale = scale
        self.table_size = table_size

    def set_role(self, role):
        super().set_role(role)
        if role == "input":
            raise ValueError(
                "The method 'mlp_classifier' has no quantizer for inputs: it binarizes kernels, "
                'and its networks use input_quantizer="approx_sign".'
            )

    def build(self, input_shape):
        super().build(input_shape)
        if self.hidden:
            u, v = self._draw_weights()
            self.u = self._parameter("u", u)
            limits = _SlopeLimits(self, self.slope_floor, None)
            self.v = self._parameter("v", v, limits)
        else:
            # The argmax form needs slopes that differ, and that agree in sign with their sum.
            slopes = [0.0, 0.5] if self.forward == "argmax" else [1.0 / self.outputs] * self.outputs
            limits = _SlopeLimits(self, self.slope_floor, self.slope_cap)
            self.v = self._parameter("v", np.reshape(slopes, (-1, 1)), limits)
        if self.use_bias:
            if self.hidden:
                self.b = self._parameter("b", np.zeros(self.hidden))
            self.d = self._parameter("d", np.zeros(self.outputs))

    def _parameter(self, name: str, value: np.ndarray, constraint=None):
        return self.add_parameter(
            f"classifier_{name}",
            value.shape,
            tf.keras.initializers.Constant(value),
            deployed=False,
            constraint=constraint,
        )

    def _draw_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """PyTorch's default for two bias-free linear layers, turned to a positive slope."""
        uniform = tf.keras.initializers.RandomUniform
        limit = self.hidden**-0.5
        u = np.array(uniform(-1.0, 1.0)((self.hidden,)))
        v = np.array(uniform(-limit, limit)((self.outputs, self.hidden)))
        if self.slope_init == "positive-unit":
            if self.forward == "argmax":
                # Forward and backward agree if the second output rises and the first is flat.
                v[0] *= 1e-3
            v = np.abs(v) * np.sign(u)
            v /= np.sum(v * u)
        return u, v

    def quantize(self, x, training):
        axes = list(range(len(x.shape) - 1))
        # A filter of one magnitude is one that this quantizer has made, and comes from a file of
        # binarized weights: centring it again would change its scale, and a classifier its signs.
        magnitude = tf.abs(x)
        made_here = tf.reduce_min(magnitude, axes) == tf.reduce_max(magnitude, axes)
        centred = x
        if self.center:
            centred -= tf.where(made_here, 0.0, tf.reduce_mean(x, axes))
        none = tf.zeros((self.hidden,))
        bits = classify(
            centred,
            (
                tf.convert_to_tensor(self.u) if self.hidden else none,
                tf.convert_to_tensor(self.b) if self.use_bias and self.hidden else none,
                tf.convert_to_tensor(self.v),
                tf.convert_to_tensor(self.d) if self.use_bias else tf.zeros((self.outputs,)),
            ),
            activation=self.activation,
            forward=self.forward,
            gate=self.gate,
            table_size=self.table_size,
        )
        if self.forward == "argmax" and np.prod(x.shape[:-1]) > 1:
            bits += tf.stop_gradient(tf.where(made_here, lq.math.sign(x), bits) - bits)
        if not self.scale:
            return bits
        return bits * tf.stop_gradient(tf.reduce_mean(tf.abs(centred), axes, keepdims=True))

    def get_config(self):
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "activation": self.activation,
            "forward": self.forward,
            "gate": self.gate,
            "outputs": self.outputs,
            "use_bias": self.use_bias,
            "slope_init": self.slope_init,
            "slope_floor": self.slope_floor,
            "slope_cap": self.slope_cap,
            "center": self.center,
            "scale": self.scale,
            "table_size": self.table_size,
        }
