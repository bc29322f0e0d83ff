"""The networks of `latency.py`: random weights, batch norms as after training."""

from __future__ import annotations

import logging
from collections.abc import Callable

import larq_ext as lqx  # noqa: F401  isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import numpy as np
import tensorflow as tf

# Larq's advice on constraints is for training.
logging.getLogger("larq").setLevel(logging.ERROR)

_SEED = 0
_STATISTICS_BATCH = 4


def chain(channels: int, height: int, width: int, length: int = 4) -> tf.keras.Model:
    """Binary 3x3 convolutions with batch norm in a row: float in, float out, bits between."""
    image = x = tf.keras.Input((height, width, channels))
    for _ in range(length):
        x = _norm(_binary(x, channels))
    return prepared(tf.keras.Model(image, x, name=f"chain_{channels}x{height}x{width}"))


def resnet18() -> tf.keras.Model:
    """ResNet-18 for 32x32 images in the style of Bi-Real Net.

    A real 3x3 stem with 64 filters, then 16 binary 3x3 convolutions in stages of 64, 128, 256
    and 512 filters, each `x + BN(binary convolution(x))`, where the shortcut of a stage's first
    unit is an average pooling with a real 1x1 convolution; then a real classifier.
    """
    image = tf.keras.Input((32, 32, 3))
    x = _norm(tf.keras.layers.Conv2D(64, 3, padding="same", use_bias=False)(image))
    for stage, filters in enumerate((64, 128, 256, 512)):
        for unit in range(4):
            strides = 2 if stage > 0 and unit == 0 else 1
            shortcut = x
            if strides > 1:
                shortcut = tf.keras.layers.AveragePooling2D(strides)(shortcut)
                shortcut = tf.keras.layers.Conv2D(filters, 1, use_bias=False)(shortcut)
                shortcut = _norm(shortcut)
            x = tf.keras.layers.Add()([_norm(_binary(x, filters, strides)), shortcut])
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    x = tf.keras.layers.Dense(10)(x)
    return prepared(tf.keras.Model(image, x, name="resnet18_cifar"))


def quicknet_small() -> tf.keras.Model:
    """Larq Zoo's QuickNetSmall for 224x224 images."""
    import larq_zoo as lqz

    return prepared(lqz.sota.QuickNetSmall(weights=None))


def resnet20() -> tf.keras.Model:
    """Our zoo's ResNet-20 for 32x32 images."""
    import larq_ext_zoo as zoo

    return prepared(zoo.ResNet20())


def resnet20_relu() -> tf.keras.Model:
    """The same with ReLU for PReLU, which TensorFlow Lite runs fast in 8 bits, too."""
    import larq_ext_zoo as zoo

    def plain(layer):
        if isinstance(layer, tf.keras.layers.PReLU):
            return tf.keras.layers.ReLU(name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    return prepared(tf.keras.models.clone_model(zoo.ResNet20(), clone_function=plain))


CHAINS = ((64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7))
THREADED = (256, 28, 28)
NETWORKS: dict[str, Callable[[], tf.keras.Model]] = {
    "ResNet-18, 32x32": resnet18,
    "QuickNetSmall, 224x224": quicknet_small,
    "ResNet-20, 32x32": resnet20,
    "ResNet-20 with ReLU, 32x32": resnet20_relu,
}


def prepared(model: tf.keras.Model) -> tf.keras.Model:
    """Gives batch norms what training leaves: scales, biases, and statistics that fit.

    With the initial ones a network can degenerate: after some layers every sign is the same.
    """
    generator = np.random.default_rng(_SEED)
    norms = [
        layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)
    ]
    for norm in norms:
        if norm.scale:
            norm.gamma.assign(generator.uniform(0.5, 1.5, norm.gamma.shape))
        if norm.center:
            norm.beta.assign(generator.normal(0.0, 0.2, norm.beta.shape))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # one batch sets the statistics
    shape = (_STATISTICS_BATCH, *model.inputs[0].shape[1:])
    model(generator.standard_normal(shape).astype("float32"), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistic in (norm.moving_mean, norm.moving_variance):
            factor = generator.uniform(0.8, 1.2, statistic.shape)
            statistic.assign(statistic * factor.astype("float32"))
    return model


def _binary(x, filters: int, strides: int = 1):
    return lq.layers.QuantConv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        pad_values=1.0,
        use_bias=False,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
    )(x)


def _norm(x):
    return tf.keras.layers.BatchNormalization()(x)
