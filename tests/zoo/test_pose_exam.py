"""Pose networks, trained, converted, audited and verified as the classifiers are."""

from __future__ import annotations

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import numpy as np
import pytest
import tensorflow as tf

from larq_ext_zoo import pose
from larq_ext_zoo.pose import bhrnet, hrnet, sbpn, simple_baseline

# Small maps: in a network that is not trained much, a rounding error that turns one sign turns
# many behind it, and the more pixels there are the sooner there is one.
SBPN = {"input_shape": (64, 32, 3), "width": 16}
BHRNET = {"input_shape": (32, 32, 3), "width": 16, "modules": (1, 1), "blocks": 1}
CASES = {
    "nearest": ("SBPN", {**SBPN, "head": "nearest"}),
    "transposed": ("SBPN", {**SBPN, "head": "transposed"}),
    "real_transposed": ("SBPN", {**SBPN, "head": "real_transposed"}),
    "50": ("SBPN", {**SBPN, "backbone": 50, "width": 8}),
    **{budget: ("BHRNet", {**BHRNET, "budget": budget}) for budget in "ABCDE"},
    "basic": ("BHRNet", {**BHRNET, "layer1": "basic"}),
    "W24": ("BHRNet", {**BHRNET, "width": 24, "modules": (1, 1, 1)}),
}
USUAL = {("transposed", "ste_sign"), ("E", "mlp_classifier")}
unusual = pytest.mark.exhaustive


@pytest.fixture
def short(monkeypatch):
    """One block in the place of several."""
    for depth in (18, 50):
        monkeypatch.setitem(sbpn._BACKBONES, depth, (1, 1, 1, 1))
    block, _ = simple_baseline._BACKBONES[18]
    monkeypatch.setitem(simple_baseline._BACKBONES, 18, (block, (1, 1, 1, 1)))
    for room in (hrnet, bhrnet):
        monkeypatch.setattr(room, "LAYER1_BLOCKS", 1)


def trained(model, images):
    """A step of training that reaches each weight, then statistics that fit the weights."""
    targets = np.random.default_rng(1).normal(size=(len(images), *model.output_shape[1:]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(images, training=True) - targets))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.isfinite(gradient).all(), variable.name
        if "kernel" in variable.name:
            assert np.any(gradient), variable.name
    optimizer = tf.keras.optimizers.Adam(1e-3)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    return model


def images_of(model):
    return np.random.default_rng(0).normal(size=(8, *model.input_shape[1:])).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "method"),
    [
        pytest.param(case, method, marks=() if (case, method) in USUAL else unusual)
        for case in CASES
        for method in lqx.quantizers.METHODS
    ],
)
def test_exam(case, method, short):
    name, arguments = CASES[case]
    model = getattr(pose, name)(quantizer=method, **arguments)
    images = images_of(model)
    trained(model, images)
    for layer in model.layers:
        assert not type(layer).__module__.startswith("larq_ext_zoo"), layer.name
    conversion = lqx.deploy.convert(model)
    audit = lqx.deploy.audit(conversion.flatbuffer, conversion.model)
    binary = [x for x in model.layers if isinstance(x, lqx.layers.QuantConv2D)]
    assert audit.ok
    assert audit.binary == audit.expected == len(binary)
    report = lqx.deploy.verify(model, conversion.flatbuffer, images)
    assert report.ok, report
    assert np.ptp(model.predict(images, verbose=0), axis=0).max() > 0.001


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SimpleBaseline", {"input_shape": (64, 32, 3), "width": 8}),
        ("HRNet", {"input_shape": (64, 32, 3), "width": 8, "modules": (1, 1), "blocks": 1}),
    ],
)
def test_parents_convert(name, arguments, short):
    """The converter takes a stride behind equal padding for `"same"`."""
    model = getattr(pose, name)(**arguments)
    images = images_of(model)
    trained(model, images)
    conversion = lqx.deploy.convert(model, allow_float=True)
    report = lqx.deploy.verify(model, conversion.flatbuffer, images)
    assert report.ok, report
