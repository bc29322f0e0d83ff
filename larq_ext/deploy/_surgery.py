"""Replacing layers of a baked model: which feeds which, what they compute, the model anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext._rebuild import complete_configuration, has_known_configuration, set_weights
from larq_ext._scope import float32_policy
from larq_ext.deploy._transposed import BinaryConv2DTranspose
from larq_ext.deploy.errors import DeploymentError
from larq_ext.deploy.layers import BinaryConv2D, DeployedSign
from larq_ext.layers import _without_constraint_warning
from larq_ext.quantizers import BinaryQuantizer
from larq_ext.quantizers._sharing import keep_apart

_QUANTIZERS = tuple(f"{part}_quantizer" for part in ("input", "kernel", "depthwise", "pointwise"))
_TRAINING_ONLY = ("constraint", "regularizer")
_FUNCTIONS = ("activation", "behind", "initializer")
_OTHER_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")


class Links:
    """Which layer feeds which in a functional model."""

    def __init__(self, model: tf.keras.Model):
        self._before, self._after = defaultdict(list), defaultdict(list)
        self._uses: dict[str, int] = defaultdict(int)
        for nodes in model._nodes_by_depth.values():
            for node in nodes:
                self._uses[node.layer.name] += 1
                for parent in node.parent_nodes:
                    self._before[node.layer.name].append(parent.layer)
                    self._after[parent.layer.name].append(node.layer)
        for tensor in model.outputs:
            self._after[tensor._keras_history.layer.name].append(None)
        self.layers = [layer for layer in model.layers if self._uses[layer.name] == 1]

    def after(self, layer) -> list:
        """What takes the layer's output, with `None` where the model returns it."""
        return self._after[layer.name]

    def before(self, layer):
        """The layer that feeds this one, if that is one and nothing else takes its output."""
        feeding = self._before[layer.name]
        if len(feeding) != 1 or self._uses[feeding[0].name] != 1:
            return None
        return feeding[0] if len(self._after[feeding[0].name]) == 1 else None


@float32_policy()
def replaced(
    model: tf.keras.Model,
    new: Mapping[str, tf.keras.layers.Layer],
    weights: Mapping[str, list[np.ndarray]] | None = None,
) -> tf.keras.Model:
    """Rebuilds a baked model with other layers in the places of those named.

    # Arguments
        model: a baked model.
        new: layers by the name of the layer in whose place they come.
        weights: weights by the name that a layer has in the end, where they are not those that the
            layer of this name has in `model`.

    # Returns
        The new model, with what `bake` knows of the other.
    """
    values = {layer.name: layer.get_weights() for layer in model.layers} | dict(weights or {})

    def replace(layer):
        if layer.name in new:
            return new[layer.name]
        return layer if isinstance(layer, tf.keras.Model) else again(layer)

    with _without_constraint_warning(silent=True):
        rebuilt = tf.keras.models.clone_model(model, clone_function=replace)
    keep_apart(rebuilt)
    for layer in rebuilt.layers:
        if layer.weights:
            set_weights(layer, values[layer.name])
    for name in ("_float_reasons", "_rewrites"):
        setattr(rebuilt, name, getattr(model, name))
    return rebuilt


def again(layer, **changes) -> tf.keras.layers.Layer:
    """A new layer of the same configuration, but for the changes."""
    return made(layer, {**configuration(layer), **changes})


def configuration(layer) -> dict[str, Any]:
    """What a layer is made of for inference, in float32.

    # Raises
        DeploymentError: if the layer cannot tell.
    """
    with _errors_name(layer):
        config = in_float32(layer.get_config())
    for name in config if has_known_configuration(layer) else ():
        kind, value = name.rsplit("_", 1)[-1], getattr(layer, name, None)
        if kind in _TRAINING_ONLY:
            config[name] = None
        elif kind in _FUNCTIONS and isinstance(value, FunctionType):
            # As it is: Keras writes a function by a name that it may not find again.
            config[name] = value
    for name in _QUANTIZERS:
        quantizer = getattr(layer, name, None)
        if quantizer is not None:
            config[name] = _apart(layer, quantizer) if name == "input_quantizer" else quantizer
    return config


def made(layer, config: Mapping[str, Any]) -> tf.keras.layers.Layer:
    """A layer of the class of another.

    # Raises
        DeploymentError: if the class does not take the configuration.
    """
    with _errors_name(layer):
        return type(layer).from_config(dict(config))


@contextmanager
def _errors_name(layer) -> Iterator[None]:
    """Makes what a class of somebody else raises an error that says which layer it is."""
    try:
        yield
    except (NotImplementedError, TypeError, ValueError) as error:
        raise DeploymentError(
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be made again from its "
            f"configuration: {' '.join(str(error).split())[:300]} Its class needs a `get_config` "
            "that names all arguments, and what they name must be known to Keras "
            "(tf.keras.utils.register_keras_serializable)."
        ) from error


def in_float32(config: Any) -> Any:
    """A configuration, with those inside it, whose layers compute in float32."""
    if isinstance(config, dict):
        return {
            key: "float32"
            if key == "dtype" and _policy_name(value) in _OTHER_FLOATS
            # Configurations are dictionaries and lists; what is an object stays it.
            else in_float32(value)
            for key, value in config.items()
        }
    return [in_float32(value) for value in config] if type(config) is list else config


def _policy_name(dtype: Any) -> Any:
    return dtype.get("config", {}).get("name") if isinstance(dtype, dict) else dtype


def _apart(layer, quantizer: Any) -> Any:
    """A quantizer whose state, if it has any, is not that of the layer it comes from."""
    if not isinstance(quantizer, tf.keras.layers.Layer):
        return quantizer
    has_state = isinstance(quantizer, BinaryQuantizer) or quantizer.weights
    if not has_state and quantizer.compute_dtype == "float32":
        return quantizer
    with _errors_name(layer):
        return type(quantizer).from_config(in_float32(complete_configuration(quantizer)))


def nothing(layer) -> tf.keras.layers.Layer:
    """Stands where a layer was; the converter drops it."""
    return tf.keras.layers.Activation("linear", name=layer.name)


def is_plain_conv(layer) -> bool:
    return isinstance(layer, BinaryConv2D) and not isinstance(layer, BinaryConv2DTranspose)


def is_linear(layer) -> bool:
    return layer.activation is None or layer.activation is tf.keras.activations.linear


def affine_of(layer) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and summand per channel of a batch normalization at inference."""
    kind = tf.keras.layers.BatchNormalization
    # A class derived from it may compute something else.
    if not isinstance(layer, kind) or type(layer).call is not kind.call:
        return None
    if list(layer.axis) != [len(layer.input_shape) - 1]:
        return None
    if any(node.call_kwargs.get("training") for node in layer._inbound_nodes):
        return None  # it is called for the statistics of the batch
    variance = layer.moving_variance.numpy().astype("float64")
    factor = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        factor *= layer.gamma.numpy()
    summand = -factor * layer.moving_mean.numpy()
    if layer.center:
        summand += layer.beta.numpy()
    return factor, summand


def takes_plain_signs(layer) -> bool:
    sign = getattr(layer, "input_quantizer", None)
    return (
        is_plain_conv(layer)
        and isinstance(sign, DeployedSign)
        and not (sign.center or sign.negate or np.any(sign.threshold))
    )
