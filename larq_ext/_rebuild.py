"""Rebuilding a model layer by layer: what it needs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def obstacle(model: Any) -> str | None:
    """Why the layers of a model cannot be replaced one by one; `None` if they can."""
    if not isinstance(model, tf.keras.Model):
        return f"Expected a tf.keras.Model, received {type(model).__name__}."
    if not isinstance(model, tf.keras.Sequential) and not model._is_graph_network:
        return (
            f"The model {model.name!r} is a subclass of tf.keras.Model, whose layers cannot be "
            "replaced. Build it with the functional API or as a tf.keras.Sequential."
        )
    if not model.built or not model.inputs:
        return (
            f"The model {model.name!r} has no known input shape: give its first layer an "
            "`input_shape`, or begin with tf.keras.layers.Input."
        )
    return None


def hidden_layers(layer: Any, is_hidden) -> str | None:
    """The error for a layer that holds layers which would have to be replaced."""
    hidden = [part.name for part in layer._flatten_layers(include_self=False) if is_hidden(part)]
    if not hidden:
        return None
    return (
        f"The layer {layer.name!r} ({type(layer).__name__}) holds quantized layers "
        f"({', '.join(hidden)}), which cannot be replaced inside it. Put them into the "
        "model itself, with the functional API or as a nested functional model."
    )
