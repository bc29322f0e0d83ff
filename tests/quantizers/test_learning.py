"""Each way to train lowers the loss with each method, and moves every learned parameter."""

import json
import pathlib
import subprocess
import sys

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import larq_ext as lqx

METHODS = ("fda", "learnable_scale", "siman", "mlp_classifier")


def data():
    x = np.random.default_rng(0).normal(size=(32, 5, 5, 4)).astype("float32")
    return x, np.sign(x.sum((1, 2))[:, :2]).astype("float32")


def network(name, model=tf.keras.Model):
    arguments = lqx.quantizers.network_arguments(name)
    inputs = tf.keras.Input((5, 5, 4))
    x = lqx.layers.QuantConv2D(6, 3, **arguments())(inputs)
    x = tf.keras.layers.Flatten()(x)
    x = tf.keras.layers.BatchNormalization()(x)
    x = lqx.layers.QuantDense(8, **arguments())(x)
    # A batch norm would hide the scales from the loss.
    return model(inputs, tf.keras.layers.Dense(2)(x / 50.0))


class OwnStep(tf.keras.Model):
    """A training step written out."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            error = tf.reduce_mean(tf.square(self(x, training=True) - y))
            loss = error + tf.add_n([tf.constant(0.0), *self.losses])
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": error}


def fit(name):
    model = network(name)
    before = start(model)
    model.compile(tf.keras.optimizers.Adam(0.02), "mse")
    history = model.fit(*data(), batch_size=32, epochs=15, verbose=0)
    return model, before, history.history["loss"]


def own_step(name):
    model = network(name, OwnStep)
    before = start(model)
    model.compile(tf.keras.optimizers.Adam(0.02))
    history = model.fit(*data(), batch_size=32, epochs=15, verbose=0)
    return model, before, history.history["loss"]


def bare_loop(name):
    model = network(name)
    before = start(model)
    optimizer = tf.keras.optimizers.Adam(0.02)
    x, y = data()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return model, before, [float(step()) for _ in range(15)]


def start(model):
    return {v.ref(): v.numpy() for v in model.trainable_variables}


@pytest.mark.slow
@pytest.mark.parametrize("way", [fit, own_step, bare_loop], ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_and_every_parameter_moves(name, way):
    model, before, losses = way(name)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    still = [v.name for v in model.trainable_variables if np.all(before[v.ref()] == v.numpy())]
    assert not still
    learned = {"fda": "noise_w1", "learnable_scale": "kernel_scale", "siman": "scale",
               "mlp_classifier": "classifier_u"}[name]  # fmt: skip
    assert any(learned in v.name for v in model.trainable_variables)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["learnable_scale"], id="learnable_scale"),
        # These three learn on several workers by default.
        pytest.param(["fda", "siman", "mlp_classifier"], marks=pytest.mark.exhaustive, id="others"),
    ],
)
def test_two_devices(names):
    """A mirrored strategy trains, and weights can be read in and outside of the scope."""
    command = [sys.executable, str(pathlib.Path(__file__).parent / "distributed.py"), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [answer["name"] for answer in answers] == names
    for answer in answers:
        learned_on_two_devices(answer["name"], answer)


def learned_on_two_devices(name, answer):
    assert np.isfinite(answer["losses"]).all()
    assert answer["losses"][-1] < answer["losses"][0]
    assert answer["magnitudes"] == 1
    assert answer["latent"] > 30
    # Behind a batch norm only its epsilon leaves a scale a gradient, but it is not zero.
    assert not [w for w in answer["still"] if "scale" not in w]
    if name == "fda":
        assert answer["scheduled"]["n"] == [9, 10, 12, 14, 15, 17]
        assert answer["scheduled"]["alpha"][-1] == 0
    if name == "siman":
        np.testing.assert_allclose(answer["scheduled"]["percent"], [15, 12.5, 10, 7.5, 5, 2.5])


def test_the_classifier_can_have_an_optimizer_of_its_own():
    """The official code trains it with its own Adam; the variables are known by their names."""
    model = network("mlp_classifier")
    variables = [v for v in model.trainable_variables if "classifier" in v.name]
    assert len({v.ref() for v in variables}) == 2
    before = start(model)
    optimizer = lq.optimizers.CaseOptimizer(
        (lambda v: "classifier" in v.name, tf.keras.optimizers.legacy.SGD(0.0)),
        default_optimizer=tf.keras.optimizers.legacy.Adam(0.01),
    )
    model.compile(optimizer, "mse")
    model.fit(*data(), batch_size=32, epochs=2, verbose=0)
    for variable in model.trainable_variables:
        same = np.all(before[variable.ref()] == variable.numpy())
        assert same == ("classifier" in variable.name), variable.name


def test_names_tell_methods_and_roles_apart():
    names = [v.name for v in network("fda").trainable_variables]
    assert sum("kernel_noise_w1" in name for name in names) == 2
    assert sum("input_noise_w1" in name for name in names) == 2
    assert len(set(names)) == len(names)
    names = [v.name for v in network("learnable_scale").trainable_variables]
    assert sum("kernel_scale" in name for name in names) == 2
    assert sum("input_scale" in name for name in names) == 2
