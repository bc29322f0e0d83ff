"""All quantizers in one table, with what each has to compute.

A case names the quantizer, its role, and three references in float64: the value, the soft
function whose slope is the gradient of the input, and that for the gradient of the parameters
(where it is not the same).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import references as ref
import tensorflow as tf

from larq_ext import quantizers as q

METHOD_NAMES = ("fda", "learnable_scale", "siman", "mlp_classifier")


@dataclass(frozen=True)
class Case:
    make: Callable[[], q.BinaryQuantizer]
    value: Callable
    soft: Callable
    soft_of_parameters: Callable | None = None
    training: bool | None = False

    @property
    def role(self) -> str:
        return self.make().role


def parameters_of(quantizer) -> dict[str, tf.Variable]:
    """Trainable parameters by their short names: `scale`, `noise_w1`, `classifier_u`, ..."""
    return {v.name.split("/")[-1].split(":")[0].split("_", 1)[1]: v for v in quantizer.weights}


def _mean_magnitude(x):
    return np.abs(x).mean()


def _fda(role, training, scale=None, in_gradient=False):
    def noisy(inner):
        def call(x, p, start):
            values = inner(x)
            if training:
                rows = ref.kernel_rows(x) if role == "kernel" else x.reshape(-1, x.shape[-1])
                error = ref.noise(rows, p["noise_w1"], p["noise_w2"])
                error = (
                    ref.from_kernel_rows(error, x.shape)
                    if role == "kernel"
                    else error.reshape(x.shape)
                )
                values = values + 0.1 * error
            return values

        return call

    def factor(start):
        if role == "input" or scale is None:
            return 1.0
        return np.abs(start).mean(None if scale == "layer" else ref.leading(start))

    def soft_series(x):
        # Its slope is that of the series, and zero outside the window.
        return ref.fourier_series(np.clip(x, -1, 1), 9)

    def value(x, p, start):
        return noisy(ref.sign)(x, p, start) * factor(start)

    def soft(x, p, start):
        return noisy(soft_series)(x, p, start) * (factor(start) if in_gradient else 1.0)

    settings = {"role": role, "reduction": 4, "scale": scale, "scale_in_gradient": in_gradient}
    return Case(lambda: q.FDA(**settings), value, soft, training=training)


def _learned_kernel(estimator, inner, granularity="channel"):
    return Case(
        lambda: q.LearnableScale(estimator, 0.7, granularity, role="kernel"),
        lambda x, p, start: p["scale"] * ref.sign(x),
        lambda x, p, start: p["scale"] * inner(x),
        lambda x, p, start: p["scale"] * ref.sign(x),
    )


def _learned_input(estimator, inner):
    return Case(
        lambda: q.LearnableScale(estimator, 1.3, role="input"),
        lambda x, p, start: p["scale"] * (x > 0),
        lambda x, p, start: p["scale"] * inner(x),
        lambda x, p, start: p["scale"] * (x > 0),
    )


def _siman_kernel(**settings):
    def value(x, p, start):
        bits = ref.magnitude_bits(x)
        return bits if settings.get("values") == "zero_one" else 2 * bits - 1

    return Case(
        lambda: q.SiMaN(role="kernel", **settings),
        value,
        lambda x, p, start: np.abs(ref.standardize(x, ref.leading(x))),
    )


def _siman_input(center):
    def prepare(x):
        return ref.standardize(x, tuple(range(1, x.ndim))) if center else x

    return Case(
        lambda: q.SiMaN(role="input", center=center),
        lambda x, p, start: ref.sign(prepare(x)),
        lambda x, p, start: ref.soft_polynomial(prepare(x)),
    )


def _mlp(center=True, scale=True, forward="sign", gate=True, hidden=5, **settings):
    function = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[
        settings.get("activation", "tanh")
    ]

    def prepare(x):
        return x - x.mean(ref.leading(x)) if center else x

    def outputs(x, p):
        none = np.zeros(1)
        if not hidden:
            return x[..., None] * p["classifier_v"][:, 0] + p.get("classifier_d", none)
        return ref.classifier(
            x,
            p["classifier_u"],
            p["classifier_v"],
            p.get("classifier_b", none),
            p.get("classifier_d", none),
            function,
        )

    def factor(start):
        return np.abs(prepare(start)).mean(ref.leading(start)) if scale else 1.0

    def value(x, p, start):
        c = prepare(x)
        if forward == "argmax":
            logits = outputs(c, p)
            return np.where(logits[..., 1] > logits[..., 0], 1.0, -1.0) * factor(start)
        return ref.sign(c) * factor(start)

    def soft(x, p, start):
        f = outputs(prepare(x), p)
        if forward == "argmax":
            return 2 * f.sum(-1) * factor(start)
        return (ref.gated(f) if gate else f.sum(-1)) * factor(start)

    settings = {
        "hidden": hidden,
        "center": center,
        "scale": scale,
        "forward": forward,
        "gate": gate,
        **settings,
    }
    return Case(lambda: q.MLPClassifier(role="kernel", **settings), value, soft)


CASES = {
    "fda-kernel": _fda("kernel", False, "layer"),
    "fda-kernel-noise": _fda("kernel", True, "layer"),
    "fda-kernel-noise-channel": _fda("kernel", True, "channel", in_gradient=True),
    "fda-input": _fda("input", False),
    "fda-input-noise": _fda("input", True),
    "scale-kernel": _learned_kernel(None, ref.soft_triangle),
    "scale-kernel-layer": _learned_kernel(None, ref.soft_triangle, "layer"),
    "scale-kernel-long_tail": _learned_kernel("long_tail", lambda x: 2 * ref.soft_long_tail(x)),
    "scale-kernel-bireal": _learned_kernel("bireal", ref.soft_polynomial),
    "scale-kernel-clip": _learned_kernel("clip", ref.soft_clip),
    "scale-input": _learned_input(None, ref.soft_long_tail),
    "scale-input-triangle": _learned_input("triangle", lambda x: ref.soft_triangle(x) / 2),
    "scale-input-bireal": _learned_input("bireal", lambda x: ref.soft_polynomial(x) / 2),
    "scale-input-clip": _learned_input("clip", ref.soft_clip),
    "siman-kernel": _siman_kernel(),
    "siman-kernel-median": _siman_kernel(selection="median"),
    "siman-kernel-zero_one": _siman_kernel(values="zero_one"),
    "siman-input": _siman_input(True),
    "siman-input-not-centred": _siman_input(False),
    "mlp": _mlp(),
    "mlp-no-gate": _mlp(gate=False),
    "mlp-biases": _mlp(use_bias=True),
    "mlp-relu-biases": _mlp(use_bias=True, activation="relu"),
    "mlp-not-centred": _mlp(center=False),
    "mlp-no-scale": _mlp(scale=False),
    "mlp-one-output": _mlp(outputs=1),
    "mlp-argmax": _mlp(forward="argmax"),
    "mlp-linear": _mlp(hidden=0),
    "mlp-linear-biases": _mlp(hidden=0, use_bias=True),
    "mlp-linear-argmax": _mlp(hidden=0, forward="argmax"),
}

# One of each kind, for tests that repeat something slow.
MAIN = (
    "fda-kernel-noise",
    "fda-input-noise",
    "scale-kernel",
    "scale-input",
    "siman-kernel",
    "siman-input",
    "mlp",
    "mlp-argmax",
)


def sample(role: str, seed: int = 0, kernel_shape=(3, 2, 2, 4), input_shape=(2, 3, 2, 4)):
    """A tensor that reaches all parts of the slopes, and no kink within a difference's step."""
    shape = kernel_shape if role == "kernel" else input_shape
    return np.random.default_rng(seed).normal(0, 0.6, shape)


def built(case: Case, x, seed: int = 1):
    """The case's quantizer with random parameters, and these in float64."""
    quantizer = case.make()
    quantizer.build(x.shape)
    generator = np.random.default_rng(seed)
    for name, variable in parameters_of(quantizer).items():
        if name == "scale":
            continue
        spread = 0.2 if name == "classifier_d" else 0.8
        variable.assign(generator.normal(0, spread, variable.shape).astype("float32"))
    values = {k: v.numpy().astype(float) for k, v in parameters_of(quantizer).items()}
    return quantizer, values


def value_and_gradients(quantizer, x, upstream, training, wrap=lambda f: f, dtype=tf.float32):
    """Output, gradient of the input, and gradients of the parameters by name."""
    parameters = parameters_of(quantizer)

    @wrap
    def run(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x, training=training)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) * upstream)
        return y, tape.gradient(loss, [x, *parameters.values()])

    y, (dx, *rest) = run(tf.constant(x, dtype), tf.constant(upstream, tf.float32))
    return y, dx, dict(zip(parameters, rest, strict=True))
