"""Larq Zoo's networks: the native engine against Larq Compute Engine."""

from __future__ import annotations

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import numpy as np
import pytest
import tensorflow as tf

from larq_ext.runtime import Interpreter, available_kernels

pytestmark = pytest.mark.slow

# Small images, but not too small: where an image with zero padding is smaller than the filter,
# Larq Compute Engine's correction of the border is wrong (its cases assume that only one side of
# the filter sticks out).
NETWORKS = {
    "QuickNetSmall": ("sota", 96),
    "BiRealNet": ("literature", 96),
    "BinaryResNetE18": ("literature", 96),
    "BinaryDenseNet28": ("literature", 96),
    "MeliusNet22": ("literature", 96),
    "BinaryAlexNet": ("literature", 99),
}


# Conversion takes half a minute each; these two have all kinds of layers.
USUAL = ("QuickNetSmall", "BiRealNet")
unusual = pytest.mark.exhaustive


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in USUAL else unusual) for name in NETWORKS]
)
def test_native_engine_equals_larq_compute_engine(name):
    import larq_zoo as lqz

    tf.keras.utils.set_random_seed(1)
    family, size = NETWORKS[name]
    network = getattr(getattr(lqz, family), name)(weights=None, input_shape=(size, size, 3))
    _train_statistics(network, size)
    flatbuffer = lqx.deploy.convert(network).flatbuffer
    x = np.random.default_rng(2).standard_normal((3, size, size, 3)).astype("float32")
    expected = Interpreter(flatbuffer, engine="lce").predict(x)
    assert np.ptp(expected, axis=0).max() > 0  # signals that vanish would prove nothing
    for kernel in available_kernels():
        for threads in (1, 2):
            interpreter = Interpreter(flatbuffer, threads, engine="native", kernel=kernel)
            actual = interpreter.predict(x)
            np.testing.assert_allclose(
                actual, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max(), err_msg=kernel
            )


def _train_statistics(network: tf.keras.Model, size: int) -> None:
    """Gives batch norms statistics that fit the weights, or the signals vanish on their way."""
    norms = [
        layer for layer in network.layers if isinstance(layer, tf.keras.layers.BatchNormalization)
    ]
    for norm in norms:
        norm.momentum = 0.0
    network(np.random.default_rng(0).standard_normal((4, size, size, 3)), training=True)
