"""The parts of two-step training: a network whose kernels are still real, and its weights after.

First the activations are binarized, then the weights too, as in B. Martinez et al., "Training
Binary Neural Networks with Real-to-Binary Convolutions", 2020, <https://arxiv.org/abs/2003.11535>.
"""

from __future__ import annotations

import pathlib
import warnings

import tensorflow as tf

from larq_ext._files import sha256_of
from larq_ext._models_io import check_name, load_model, note_of
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._optimizers import KERNELS

Source = str | pathlib.Path


def drop_kernel_quantizers(model: tf.keras.Model) -> tf.keras.Model:
    """The same network with real kernels; inputs stay binary.

    # Arguments
        model: A network of Larq's or our layers.

    # Returns
        A network with the same weights, except those that the kernel quantizers had.
    """
    real = tf.keras.models.clone_model(model, clone_function=_with_real_kernel)
    _copy_weights(model, real)
    return real


def _with_real_kernel(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    if isinstance(layer, tf.keras.Model):
        return tf.keras.models.clone_model(layer, clone_function=_with_real_kernel)
    config = layer.get_config()
    quantizers = [name for name in KERNELS.values() if config.get(name)]
    if not quantizers:
        return layer.__class__.from_config(config)
    constraints = [name.replace("quantizer", "constraint") for name in quantizers]
    changed = dict.fromkeys([*quantizers, *constraints, "quantizer"])
    return layer.__class__.from_config(
        {key: changed.get(key, value) for key, value in config.items()}
    )


def load_initial_weights(model: tf.keras.Model, source: Source) -> None:
    """Takes over the weights of another model, layer by layer of the same name.

    Quantizers that the other model does not have start from the kernels that it does have.

    # Arguments
        model: The network to change.
        source: As in `load_source`.

    # Raises
        UsageError: if there is no such model, or no layer of it fits.
    """
    copied, left = _copy_weights(load_source(source), model)
    if copied and left:
        warnings.warn(f"These layers keep their new weights: {', '.join(left)}.", stacklevel=2)
    if not copied:
        raise UsageError(
            f"{source} is for another network: none of its layers has the name and the shapes of a "
            f"layer of {model.name}."
        )


def take_over(source: tf.keras.Model, model: tf.keras.Model, name: str) -> None:
    """Takes over the weights of a model that has all layers of another one.

    # Arguments
        source: The model with the weights.
        model: The network to change.
        name: What to call the source in an error.

    # Raises
        UsageError: if a layer would keep its new weights.
    """
    _, left = _copy_weights(source, model)
    if left:
        raise UsageError(
            f"{name} does not have all of {model.name}: {', '.join(left)} would keep new weights."
        )


def load_source(source: Source) -> tf.keras.Model:
    """Loads a model to start from or to learn from, with its latent weights.

    # Arguments
        source: A model file, the folder of a finished run, or a trained model of the zoo by name.

    # Raises
        UsageError: if there is none, or it cannot be read.
    """
    check_source(source)
    try:
        return load_model(pathlib.Path(source).expanduser(), form="training")
    except (ValueError, OSError) as error:
        raise UsageError(f"Cannot load {source}: {error}") from error


def check_source(source: Source) -> None:
    """Looks whether there is such a model, as far as that can be said without loading it.

    # Raises
        UsageError: if there is none.
    """
    try:
        untrained = note_of(pathlib.Path(source).expanduser())
    except (ValueError, OSError) as error:
        raise UsageError(
            f"There is no model {source}: {error} Give a .keras file, the folder of a finished "
            "run, or a name that `larq-ext list --pretrained` shows."
        ) from error
    if untrained is not None:
        raise UsageError(
            f"{source} of the zoo has no trained weights: `larq-ext list --pretrained` shows what "
            "has."
        )


def source_sha256(source: Source) -> str | None:
    """SHA-256 of the file of such a model; `None` if there is none, or it is many files."""
    import larq_ext_zoo as zoo

    try:
        path = check_name(pathlib.Path(source).expanduser())
        if path is None:
            return zoo.entry(str(source)).weights["training"].sha256
        return sha256_of(path) if path.is_file() else None
    except (ValueError, OSError, KeyError):
        return None


def _copy_weights(source: tf.keras.Model, target: tf.keras.Model) -> tuple[int, list[str]]:
    """Copies what has the same name and shape: how many layers that was, and which it was not."""
    names = {layer.name: layer for layer in source.layers}
    copied, left = 0, []
    for layer in target.layers:
        twin = names.get(layer.name)
        if not layer.weights:
            continue
        if twin is not None and _copy_layer(twin, layer):
            copied += 1
        elif isinstance(layer, tf.keras.Model) and isinstance(twin, tf.keras.Model):
            inside, without = _copy_weights(twin, layer)
            copied += inside
            left += [f"{layer.name}/{name}" for name in without]
        else:
            left.append(layer.name)
    return copied, left


def _copy_layer(source: tf.keras.layers.Layer, target: tf.keras.layers.Layer) -> bool:
    if [w.shape for w in source.weights] == [w.shape for w in target.weights]:
        target.set_weights(source.get_weights())
        return True
    kernels = [name for name in KERNELS if hasattr(target, name)]
    shapes = [
        [getattr(getattr(layer, name, None), "shape", None) for name in kernels]
        for layer in (source, target)
    ]
    if not kernels or shapes[0] != shapes[1]:
        return False
    for name in (*kernels, "bias", "scale"):
        ours, theirs = getattr(target, name, None), getattr(source, name, None)
        if isinstance(ours, tf.Variable) and isinstance(theirs, tf.Variable):
            ours.assign(theirs)
    quantizers = [getattr(layer, "input_quantizer", None) for layer in (source, target)]
    if all(getattr(quantizer, "weights", None) for quantizer in quantizers):
        quantizers[1].set_weights(quantizers[0].get_weights())
    for name in kernels:
        quantizer = getattr(target, KERNELS[name], None)
        start = getattr(quantizer, "initialize_from", None)
        if start is not None:
            start(getattr(source, name).numpy())
    return True
