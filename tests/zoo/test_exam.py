"""One exam for every network with every method: train, bake, convert, audit, verify."""

from __future__ import annotations

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import numpy as np
import pytest
import tensorflow as tf
from op_lists import op_list, stored

from larq_ext_zoo import classification

# Small images: what each layer becomes does not depend on their size.
SHAPES = {
    "AlexNet": (64, 64, 3),
    "DigitsNet": (8, 8, 1),
    "ResNet18": (64, 64, 3),
    "ResNet18Cifar": (16, 16, 3),
    "ResNet20": (16, 16, 3),
    "ResNet34": (64, 64, 3),
    "VGGSmall": (16, 16, 3),
}
# Each with the method of its paper, whose name most have; FDA-BNN takes ReActNet, too.
VARIANTS = {
    "AlexNet": ("learnable_scale",),
    "ResNet18": ("siman", "mlp_classifier", "learnable_scale", "reactnet"),
    "ResNet18Cifar": ("siman", "reactnet"),
    "ResNet20": ("siman", "fda", "reactnet"),
    "ResNet34": ("siman", "mlp_classifier", "learnable_scale", "reactnet"),
    "VGGSmall": ("siman", "learnable_scale"),
}
METHOD = {"reactnet": "fda"}
CASES = [
    *((network, None, method) for network in SHAPES for method in lqx.quantizers.METHODS),
    *(
        (net, paper, METHOD.get(paper, paper))
        for net, papers in VARIANTS.items()
        for paper in papers
    ),
]
# Each network but ResNet34, which has the blocks of ResNet18, each method at least twice, and all
# that blocks and shortcuts can be.
USUAL = {
    ("AlexNet", None, "ste_sign"),
    ("DigitsNet", None, "fda"),
    ("DigitsNet", None, "learnable_scale"),
    ("DigitsNet", None, "mlp_classifier"),
    ("DigitsNet", None, "siman"),
    ("ResNet18", None, "ste_sign"),
    ("ResNet18", "learnable_scale", "learnable_scale"),
    ("ResNet18Cifar", "siman", "siman"),
    ("ResNet20", "fda", "fda"),
    ("ResNet20", "reactnet", "fda"),
    ("VGGSmall", None, "mlp_classifier"),
}
unusual = pytest.mark.exhaustive


def binary_layers(model):
    kinds = (lqx.layers.QuantConv2D, lqx.layers.QuantDense)
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def train(model, images):
    """A step of training, then statistics that fit the weights: without, signals vanish.

    Not with `fit`, which takes more than all the rest for a graph that is used once.
    """
    labels = np.arange(len(images)) % 5
    with tf.GradientTape() as tape:
        losses = tf.keras.losses.sparse_categorical_crossentropy(
            labels, model(images, training=True)
        )
        gradients = tape.gradient(tf.reduce_mean(losses), model.trainable_variables)
    optimizer = tf.keras.optimizers.Adam(1e-3)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)


def build(network, variant, method):
    arguments = {} if variant is None else {"variant": variant}
    return getattr(classification, network)(
        input_shape=SHAPES[network], num_classes=5, quantizer=method, **arguments
    )


def case_name(network, variant, method):
    return f"{network} {variant or 'default'} {method}"


def images_of(network):
    return np.random.default_rng(0).normal(size=(8, *SHAPES[network])).astype("float32")


def operators(network, variant, method):
    """The operators of a trained network's file: before, norms do nothing and are left out."""
    model = build(network, variant, method)
    train(model, images_of(network))
    return op_list(lqx.deploy.convert(model).flatbuffer)


def exam(network, variant, method):
    """Takes one network through everything, and returns what was seen."""
    model = build(network, variant, method)
    layers = binary_layers(model)
    images = images_of(network)

    before = [layer.kernel.numpy() for layer in layers]
    train(model, images)
    for layer, kernel in zip(layers, before, strict=True):
        assert np.isfinite(layer.kernel.numpy()).all(), layer.name
        assert (layer.kernel.numpy() != kernel).any(), layer.name

    conversion = lqx.deploy.convert(model)
    # A change in a converted graph is seen: `python tests/zoo/op_lists.py` takes it over.
    assert op_list(conversion.flatbuffer) == stored()[case_name(network, variant, method)]
    audit = lqx.deploy.audit(conversion.flatbuffer, conversion.model)
    assert audit.ok
    assert audit.binary == audit.expected == len(layers)
    report = lqx.deploy.verify(model, conversion.flatbuffer, images, engine="native")
    assert report.ok, report
    # Outputs that do not depend on the image would be equal without proving anything.
    outputs = model.predict(images, verbose=0)
    assert np.ptp(outputs, axis=0).max() > 0.01
    return f"{audit.binary}/{audit.expected} binary, {report.verdict}", report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "variant", "method"),
    [pytest.param(*case, marks=() if case in USUAL else unusual) for case in CASES],
)
def test_exam(network, variant, method):
    exam(network, variant, method)


def test_the_exam_leaves_nothing_out():
    assert set(SHAPES) == set(classification.__all__)
    assert set(CASES) >= USUAL
    for network in SHAPES:
        assert network == "ResNet34" or any(case[0] == network for case in USUAL)
        if network in VARIANTS:
            with pytest.raises(ValueError, match="variant") as error:
                getattr(classification, network)(variant="sideways")
            assert str(["default", *VARIANTS[network]]) in str(error.value)
    for method in lqx.quantizers.METHODS:
        assert sum(case[2] == method for case in USUAL) >= 2
