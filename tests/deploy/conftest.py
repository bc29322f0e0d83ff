"""Small networks and their conversions, shared because a conversion takes seconds."""

from types import SimpleNamespace

import numpy as np
import pytest

import larq_ext  # noqa: F401  isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import tensorflow as tf

from larq_ext.deploy.convert import Conversion, _save, convert, freeze


def randomize(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    """Gives all weights random values; batch norms get scales of both signs."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        values = [generator.normal(size=weight.shape) for weight in layer.get_weights()]
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            values[-1] = 1.0 + np.abs(values[-1])  # the variance
        layer.set_weights(values)
    return model


def quant_conv(filters: int, kernel_size: int = 3, **kwargs):
    """A layer that Larq Compute Engine can run in binary."""
    settings = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "padding": "same",
        "pad_values": 1.0,
        "use_bias": False,
        **kwargs,
    }
    return lq.layers.QuantConv2D(filters, kernel_size, **settings)


def convert_as_it_is(model: tf.keras.Model, folder) -> bytes:
    """Runs the engine's converter alone: no baking, no checks."""
    import larq_compute_engine as lce

    _save(freeze(model), str(folder))
    return lce.convert_saved_model(str(folder))


@pytest.fixture(scope="session")
def classifier() -> tf.keras.Model:
    """Two binary convolutions, the first with 40 input channels (no multiple of 32)."""
    return randomize(
        tf.keras.Sequential(
            [
                tf.keras.Input((8, 8, 40)),
                quant_conv(33, name="first"),
                tf.keras.layers.BatchNormalization(),
                quant_conv(16, name="second", padding="valid", pad_values=0.0),
                tf.keras.layers.BatchNormalization(),
                tf.keras.layers.GlobalAveragePooling2D(),
                tf.keras.layers.Dense(5),
            ]
        )
    )


@pytest.fixture(scope="session")
def classifier_conversion(classifier) -> Conversion:
    return convert(classifier)


@pytest.fixture(scope="session")
def branches() -> tf.keras.Model:
    """Two inputs and four outputs; two pairs of outputs have equal shapes."""
    left = tf.keras.Input((6, 6, 32), name="z")
    right = tf.keras.Input((6, 6, 32), name="a")
    one = quant_conv(16, name="one")(left)
    two = quant_conv(16, name="two")(right)
    pooled = tf.keras.layers.GlobalAveragePooling2D()
    return randomize(tf.keras.Model([left, right], [pooled(two), two, one, pooled(one)]))


@pytest.fixture(scope="session")
def branches_conversion(branches) -> Conversion:
    return convert(branches)


@pytest.fixture(scope="session")
def networks() -> SimpleNamespace:
    """What the tests build their own networks with."""
    return SimpleNamespace(
        randomize=randomize, quant_conv=quant_conv, convert_as_it_is=convert_as_it_is
    )
