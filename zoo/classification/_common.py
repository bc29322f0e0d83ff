"""What the classification networks share: convolutions by method, norm, activation, top."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

import larq_ext as lqx

# Keras' default of 0 is a ReLU at first, and after a ReLU every sign is +1.
PRELU_SLOPE = 0.25


def binary_convolutions(quantizer: str | None, pad_values: float | None = None) -> Callable:
    """Makes the 3x3 convolutions of one network.

    # Arguments
        quantizer: Name of a method, or `None` for ordinary convolutions.
        pad_values: What borders are padded with; `None` is what the method says.

    # Returns
        A function of the input, the number of filters, the strides and the name.
    """
    arguments = (lambda: {}) if quantizer is None else lqx.quantizers.network_arguments(quantizer)

    def convolve(x, filters: int, strides: int = 1, name: str | None = None):
        chosen = arguments()
        if pad_values is not None:
            chosen["pad_values"] = pad_values
        layer = lqx.layers.QuantConv2D if chosen else tf.keras.layers.Conv2D
        return layer(
            filters,
            3,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=name,
            **chosen,
        )(x)

    return convolve


def norm(x, name: str | None = None):
    """Batch normalization with the constants of PyTorch, which the papers' code used."""
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def prelu(x, name: str | None = None):
    """PReLU with one slope per channel, from 0.25."""
    return tf.keras.layers.PReLU(
        alpha_initializer=tf.keras.initializers.Constant(PRELU_SLOPE),
        shared_axes=[1, 2],
        name=name,
    )(x)


def classes(x, num_classes: int):
    """The real-valued classifier, with probabilities as its output."""
    x = tf.keras.layers.Dense(num_classes, name="logits")(x)
    return tf.keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x)


def network_input(input_shape, input_tensor):
    """The input of a network, as Larq Zoo's functions take it."""
    if input_tensor is None:
        return tf.keras.layers.Input(shape=input_shape, name="image")
    return input_tensor


def finish(image, x, name: str, weights: str | None) -> tf.keras.Model:
    """Makes the model and loads weights from a file if one is named."""
    inputs = tf.keras.utils.get_source_inputs(image) if image.node.layer else image
    model = tf.keras.Model(inputs, x, name=name)
    if weights is not None:
        model.load_weights(weights)
    return model
