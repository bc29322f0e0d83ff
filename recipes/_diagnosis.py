"""Finds where a number that is not finite came from."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def first_not_finite(model: tf.keras.Model, batch: tuple[tf.Tensor, tf.Tensor]) -> str:
    """Looks for the first weight, output or gradient that is not finite.

    # Arguments
        model: The compiled network, as it is now.
        batch: Images and labels of the step.

    # Returns
        Text for the middle of a sentence, starting with a colon; empty if all is finite now.
    """
    for layer in model.layers:
        # Statistics of a norm have the output of the step in them already.
        for weight in layer.trainable_weights:
            if not _finite(weight):
                return f": the weight {weight.name} of layer {layer.name} is not finite"
    images, labels = batch
    if not _finite(images):
        return ": the images of the step are not finite"
    culprit = _first_output(model, images)
    if culprit:
        return f": the first output that is not finite is that of layer {culprit}"
    with tf.GradientTape() as tape:
        loss = model.compiled_loss(labels, model(images, training=True))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, variables)
    bad = {v.name for g, v in zip(gradients, variables, strict=True) if not _finite(g)}
    # Gradients run backwards: it began in the last layer that has one.
    for layer in reversed(model.layers):
        for weight in layer.trainable_weights:
            if weight.name in bad:
                return f": the gradient of {weight.name} of layer {layer.name} is not finite"
    return ""


def _first_output(model: tf.keras.Model, images: tf.Tensor) -> str:
    """The name of the layer; empty where none is to be seen from outside."""
    # Of nested models Keras knows the output inside, which is no part of this graph.
    layers = [layer for layer in model.layers if not isinstance(layer, tf.keras.Model)]
    try:
        outputs = [layer.output for layer in layers]
        values = tf.keras.Model(model.inputs, outputs)(images, training=True)
    except (AttributeError, ValueError):  # a layer that is used several times
        return ""
    for layer, value in zip(layers, values, strict=True):
        if not all(_finite(one) for one in tf.nest.flatten(value)):
            return layer.name
    return ""


def _finite(value) -> bool:
    if value is None or not value.dtype.is_floating:
        return True
    return bool(np.isfinite(tf.cast(value, tf.float32).numpy()).all())
