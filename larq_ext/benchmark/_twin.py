"""The same network in ordinary layers, for TensorFlow Lite's float32 and int8 kernels."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext._rebuild import hidden_layers, obstacle, set_weights
from larq_ext._scope import quantized_scope
from larq_ext.deploy.bake import _is_binary
from larq_ext.deploy.convert import trace
from larq_ext.deploy.layers import BinaryConv2D

_WEIGHTS = ("kernel", "depthwise_kernel", "pointwise_kernel", "bias")
_CALIBRATION_SAMPLES = 4


def float_twin(model: tf.keras.Model) -> tf.keras.Model:
    """Makes the network that a model would be without binarization.

    Each of Larq's layers becomes the Keras layer it extends, with the same kernel shape, strides,
    padding, dilation and groups, and quantizers are left out. Kernels keep their quantized
    values, so that the batch norms behind them keep activations in their range; all other
    weights are those of the model.

    # Arguments
        model: functional or sequential model, with layers of Larq or of `larq_ext.layers`.

    # Returns
        A model of ordinary Keras layers in float32.

    # Raises
        ValueError: if the layers cannot be replaced one by one, or the model is baked already.
    """
    problem = obstacle(model)
    if problem:
        raise ValueError(problem)

    # Not by name: a layer of somebody else may get another one.
    twins: dict[int, Any] = {}

    def replace(layer: Any) -> Any:
        is_model = isinstance(layer, tf.keras.Model)
        is_known = is_model or _larq_class(layer) is not None
        hidden = None if is_known else hidden_layers(layer, _larq_class)
        if hidden:
            raise ValueError(hidden)
        twins[id(layer)] = float_twin(layer) if is_model else _ordinary(layer)
        return twins[id(layer)]

    with quantized_scope(False):
        twin = tf.keras.models.clone_model(model, clone_function=replace)
    for layer in model.layers:
        new = twins.get(id(layer))
        if new is None:  # an input
            continue
        if _larq_class(layer) is not None:
            _copy_quantized(layer, new)
        elif not isinstance(layer, (tf.keras.Model, lq.quantizers.Quantizer)):
            activation = getattr(layer, "activation", None)
            gone = getattr(activation, "weights", []) if _is_binary(activation) else []
            dropped = {id(weight) for weight in gone}
            set_weights(new, [w.numpy() for w in layer.weights if id(w) not in dropped])
    return twin


def _larq_class(layer: Any) -> type | None:
    """Larq's own class of a layer, whatever was derived from it."""
    for base in type(layer).__mro__:
        if base.__module__.startswith("larq.layers") and base.__name__.startswith("Quant"):
            return base
    return None


def _ordinary(layer: Any) -> Any:
    if isinstance(layer, BinaryConv2D):
        raise ValueError("The model is baked already: take the one it was made from.")
    if isinstance(layer, lq.quantizers.Quantizer):
        return tf.keras.layers.Activation("linear", name=layer.name)
    config = layer.get_config()
    if "dtype" in config:
        config["dtype"] = "float32"
    if _is_binary(getattr(layer, "activation", None)):
        config["activation"] = "linear"
    larq_class = _larq_class(layer)
    if larq_class is None:
        return type(layer).from_config(config)
    keras_class = getattr(tf.keras.layers, larq_class.__name__.removeprefix("Quant"))
    known = {"name", *inspect.signature(keras_class).parameters}
    kept = {
        key: value
        for key, value in config.items()
        if key in known and not key.endswith(("_constraint", "_regularizer"))
    }
    return keras_class.from_config(kept)


def _copy_quantized(layer: Any, new: Any) -> None:
    with quantized_scope(True):
        for name in _WEIGHTS:
            variable = getattr(new, name, None)
            if variable is None:
                continue
            value = tf.cast(tf.convert_to_tensor(getattr(layer, name)), tf.float32)
            if name == "kernel" and getattr(layer, "scale_mode", None) == "learned":
                value *= layer.scale
            variable.assign(value)


def convert_twin(twin: tf.keras.Model, *, int8: bool, seed: int = 0) -> bytes:
    """Converts a float model with TensorFlow Lite's own converter, for one sample.

    # Arguments
        twin: a model of ordinary Keras layers.
        int8: whether to quantize everything to 8 bits, inputs and outputs included. The ranges
            are calibrated with standard normal data: enough for latency, of no use for accuracy.
        seed: seed of that data.

    # Returns
        The serialized model.
    """
    converter = tf.lite.TFLiteConverter.from_concrete_functions([trace(twin)], twin)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _samples(twin, seed)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def _samples(model: tf.keras.Model, seed: int) -> Iterator[list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    for _ in range(_CALIBRATION_SAMPLES):
        yield [
            generator.standard_normal((1, *tensor.shape[1:])).astype(tensor.dtype.name)
            for tensor in model.inputs
        ]
