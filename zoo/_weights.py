"""Weights of a model, by layer name, to and from a file.

Two forms of one network have a file each:

- `"deployable"`: the baked form of `larq_ext.deploy.bake`, kernels of +-1 and what stands around
  them. A latent kernel cannot come back from it: a method like SiMaN decides by magnitudes, and
  +-1 has none. So a model of this form predicts, converts and gives features, but is not trained
  on.
- `"training"`: every variable of the network as it was trained, exactly.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

import larq_ext as lqx
from larq_ext._scope import quantized_scope
from larq_ext_zoo import _weights_file
from larq_ext_zoo._weights_file import WeightsError

_HOLDERS = ("input_quantizer", "kernel_quantizer", "kernel_constraint")


def bake(model: tf.keras.Model) -> tf.keras.Model:
    """The deployable form, of the same layers whatever the weights are."""
    return lqx.deploy.bake(model, without=lqx.deploy.WEIGHT_DEPENDENT)


def save(
    path: pathlib.Path,
    model: tf.keras.Model,
    *,
    form: str,
    network: str,
    floats: str = "float32",
) -> str:
    """Writes the weights of a model.

    # Arguments
        path: The file.
        model: In the form that is named.
        form: `"deployable"` or `"training"`.
        network: Name of the network, which a reader can check.
        floats: `"float32"`, or `"float16"` for the deployable form.

    # Returns
        The SHA-256 of the file.
    """
    about = {
        "form": form,
        "network": network,
        "hyperparameters": _hyperparameters(model) if form == "training" else {},
    }
    with quantized_scope(False):  # latent weights
        tensors = {
            name: np.asarray(value)
            for layer in model.layers
            for name, value in zip(_names(layer), layer.get_weights(), strict=True)
        }
    return _weights_file.write(path, tensors, about, floats)


def load(
    path: pathlib.Path,
    model: tf.keras.Model,
    *,
    form: str,
    network: str,
    without_top: bool = False,
) -> None:
    """Sets the weights of a model.

    # Arguments
        path: The file.
        model: In the form that is named.
        form: `"deployable"` or `"training"`.
        network: Name of the network.
        without_top: Whether the file may have layers that the model has not.

    # Raises
        WeightsError: if the file is damaged, or is of another network or form.
    """
    tensors, about = _weights_file.read(path)
    for what, wanted in (("network", network), ("form", form)):
        if about.get(what) != wanted:
            raise WeightsError(
                f"{path} has weights of the {what} {about.get(what)!r}, not {wanted!r}."
            )
    with quantized_scope(False):
        pairs = [(name, w) for layer in model.layers for name, w in _named(layer)]
        problem = _difference(tensors, dict(pairs), without_top)
        if problem:
            raise WeightsError(
                f"{path} does not fit this {network}: {problem}. The arguments of the network must "
                "be those it was trained with."
            )
        for layer in model.layers:
            names = _names(layer)
            if names:
                layer.set_weights([tensors[name] for name in names])
    _set_hyperparameters(model, about.get("hyperparameters", {}))


def _named(layer) -> list[tuple[str, tf.Variable]]:
    return list(zip(_names(layer), layer.weights, strict=True))


def _names(layer) -> list[str]:
    """`layer/variable` for each weight, without the numbers that Keras gives to quantizers."""
    seen: collections.Counter[str] = collections.Counter()
    names = []
    for weight in layer.weights:
        name = f"{layer.name}/{weight.name.split('/')[-1].split(':')[0]}"
        names.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def _difference(
    tensors: Mapping[str, np.ndarray], weights: Mapping[str, tf.Variable], without_top: bool
) -> str | None:
    missing = [name for name in weights if name not in tensors]
    if missing:
        return f"it lacks {missing[0]}" + (f" and {len(missing) - 1} more" * (len(missing) > 1))
    unknown = [name for name in tensors if name not in weights]
    if unknown and not without_top:
        return f"the network has no {unknown[0]}"
    for name, weight in weights.items():
        if tensors[name].shape != tuple(weight.shape):
            return f"{name} has the shape {tensors[name].shape}, not {tuple(weight.shape)}"
    return None


def _each_hyperparameter(model: tf.keras.Model):
    for layer in model.layers:
        for role in _HOLDERS:
            holder = getattr(layer, role, None)
            for name in lqx.quantizers.hyperparameters(holder):
                yield f"{layer.name}/{role}/{name}", holder, name


def _hyperparameters(model: tf.keras.Model) -> dict[str, float]:
    return {key: getattr(holder, name) for key, holder, name in _each_hyperparameter(model)}


def _set_hyperparameters(model: tf.keras.Model, values: Mapping[str, Any]) -> None:
    for key, holder, name in _each_hyperparameter(model):
        if key in values:
            setattr(holder, name, values[key])
