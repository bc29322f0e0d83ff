"""Rebuilding a model layer by layer: what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import Parameter, signature
from itertools import takewhile
from typing import Any

import numpy as np
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
    if any("call" in vars(kind) for kind in derived_classes(model, "keras", "tf_keras")):
        return (
            f"The model {model.name!r} ({type(model).__name__}) has a `call` of its own, which "
            "would be lost with its class. Put what it computes into layers."
        )
    if not model.built or not model.inputs:
        return (
            f"The model {model.name!r} has no known input shape: give its first layer an "
            "`input_shape`, or begin with tf.keras.layers.Input."
        )
    return None


def has_known_configuration(layer: Any) -> bool:
    """Whether Keras, Larq or we write its configuration, so that it is known what names mean."""
    return not any("get_config" in vars(kind) for kind in foreign_classes(layer))


def complete_configuration(part: Any) -> dict[str, Any]:
    """The configuration of a quantizer or constraint.

    # Raises
        TypeError: if it lacks arguments of its class, which would be lost. Keras finds that out
            for classes without any `get_config` only.
    """
    config = part.get_config()
    if any("from_config" in vars(kind) for kind in foreign_classes(part)):
        return config  # which knows what it reads
    # Ours and Keras name these only where they are set.
    forgotten = sorted(_own_arguments(part) - config.keys() - {"metrics", "sharing", "dynamic"})
    if forgotten:
        raise TypeError(f"{type(part).__name__} does not name {forgotten} in its `get_config`.")
    return config


def _own_arguments(part: Any) -> set[str]:
    """What can be given to a class of somebody else's, as far as its signatures tell."""
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {
        name
        for kind in foreign_classes(part)
        if "__init__" in vars(kind)
        for name, parameter in list(signature(vars(kind)["__init__"]).parameters.items())[1:]
        if parameter.kind in named
    }


def foreign_classes(instance: Any) -> list[type]:
    """The classes of an instance that are of none of Keras, Larq and us."""
    return derived_classes(instance, "keras", "tf_keras", "larq", "larq_ext")


def derived_classes(instance: Any, *packages: str) -> list[type]:
    """The classes of an instance that were derived from those of some packages."""
    kinds = type(instance).__mro__
    return list(takewhile(lambda kind: kind.__module__.split(".")[0] not in packages, kinds))


def set_weights(layer: tf.keras.layers.Layer, values: Sequence[np.ndarray]) -> None:
    """`layer.set_weights`, and what a layer computes of its weights before it is called."""
    layer.set_weights(values)
    if isinstance(layer, tf.keras.layers.Normalization):
        layer.finalize_state()


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
