"""What the networks share: binary layers by method, norm, activation, classifier."""

from __future__ import annotations

import glob
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tensorflow as tf

import larq_ext as lqx

# Keras' default of 0 is a ReLU at first, and after a ReLU every sign is +1.
PRELU_SLOPE = 0.25
# Of a norm in front of max pooling: the maximum of four or nine values that are centred is nearly
# always positive, and 93 % (VGG-Small) or 99 % (AlexNet) of the next signs would be +1 at first.
POOLED_BETA = -1.0

T = TypeVar("T")


def choose(variant, variants: Mapping[Any, T], argument: str = "variant") -> T:
    """The variant of a network by its name.

    # Arguments
        variant: The name.
        variants: What there is.
        argument: Name of the network's argument, for the message.

    # Raises
        ValueError: for an unknown name, with the known ones.
    """
    if variant not in variants:
        raise ValueError(f"`{argument}` is one of {list(variants)}, received {variant!r}.")
    return variants[variant]


def initializer(class_name: str, **config) -> dict:
    """A description of an initializer, of which each layer makes its own.

    An instance that several layers share would give all of them the same values.
    """
    return {"class_name": class_name, "config": config}


class BinaryLayers:
    """Makes the binary layers of one network, none of which has a bias.

    # Arguments
        quantizer: Name of a method, or `None` for ordinary layers.
        pad_values: What borders are padded with; `None` is what the method says.
        initializer: Initializer of the kernels.
        instead: Activation that stands for the binarization of the input if `quantizer` is
            `None`, for networks that would be linear without.
    """

    def __init__(
        self,
        quantizer: str | None,
        pad_values: float | None = None,
        initializer="he_normal",
        instead: str | None = None,
    ):
        self._arguments: Callable[[], dict] = dict
        if quantizer is not None:
            self._arguments = lqx.quantizers.network_arguments(quantizer)
        self._is_float = quantizer is None
        self._padding = {} if pad_values is None or self._is_float else {"pad_values": pad_values}
        self._initializer = initializer
        self._instead = instead

    def conv(
        self, x, filters: int, kernel_size: int = 3, strides: int = 1, name=None, padding="same"
    ):
        """A convolution."""
        layer = tf.keras.layers.Conv2D if self._is_float else lqx.layers.QuantConv2D
        return layer(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            use_bias=False,
            kernel_initializer=self._initializer,
            name=name,
            **self._arguments(),
            **self._padding,
        )(self._activated(x, name))

    def dense(self, x, units: int, name=None):
        """A fully connected layer."""
        layer = tf.keras.layers.Dense if self._is_float else lqx.layers.QuantDense
        return layer(
            units,
            use_bias=False,
            kernel_initializer=self._initializer,
            name=name,
            **self._arguments(),
        )(self._activated(x, name))

    def _activated(self, x, name):
        if self._is_float and self._instead is not None:
            return tf.keras.layers.Activation(self._instead, name=f"{name}_input")(x)
        return x


def real_conv(
    x, filters: int, kernel_size: int, strides: int = 1, name=None, initializer="he_normal"
):
    """A convolution in floating point, as stems and shortcuts have it."""
    return tf.keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer=initializer,
        name=name,
    )(x)


def norm(x, name: str | None = None, gamma: float = 1.0, beta: float = 0.0):
    """Batch normalization with the constants of PyTorch, which the papers' code used.

    Statistics are those of the whole batch also where it is spread over several devices. With
    one device that would change nothing and take the fast implementation away. Statistics of
    several devices are summed in the layer's own type, so that is float32 in mixed precision.
    """
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return tf.keras.layers.BatchNormalization(
        momentum=0.9,
        epsilon=1e-5,
        gamma_initializer=tf.keras.initializers.Constant(gamma),
        beta_initializer=tf.keras.initializers.Constant(beta),
        synchronized=several,
        dtype="float32" if several else None,
        name=name,
    )(x)


def prelu(x, name: str | None = None, shared: bool = False):
    """PReLU from 0.25, with one slope per channel or a single shared one."""
    return tf.keras.layers.PReLU(
        alpha_initializer=tf.keras.initializers.Constant(PRELU_SLOPE),
        shared_axes=[1, 2, 3] if shared else [1, 2],
        name=name,
    )(x)


def activate(x, activation: str | None, name: str):
    """An activation by its name, which also ends the layer's name; `None` is none."""
    if activation is None:
        return x
    if activation == "prelu":
        return prelu(x, f"{name}_prelu")
    return tf.keras.layers.Activation(activation, name=f"{name}_{activation}")(x)


def classes(x, num_classes: int, initializer="glorot_uniform"):
    """The real-valued classifier, with probabilities as its output."""
    x = tf.keras.layers.Dense(num_classes, kernel_initializer=initializer, name="logits")(x)
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
        _check_weights(weights)
        model.load_weights(weights)
    return model


def _check_weights(weights: Any) -> None:
    """Whether it may be what Keras reads: a file, or a checkpoint's files."""
    if "://" in str(weights):  # which Keras reads through TensorFlow
        return
    path = pathlib.Path(weights)
    there = path.exists() or any(path.parent.glob(f"{glob.escape(path.name)}.index"))
    if not there or path.suffix == ".safetensors":
        raise ValueError(
            "`weights` is the path of a file that Keras wrote (.weights.h5, .h5, .keras or a "
            f"TensorFlow checkpoint), received {str(weights)!r}. Trained models of the zoo: "
            'larq_ext_zoo.get("NAME", form="training").'
        )
