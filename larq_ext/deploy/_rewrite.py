"""The exact changes that `bake` makes to a network beyond its binary layers, by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext.deploy._transposed import BinaryConv2DTranspose
from larq_ext.deploy.layers import BinaryConv2D, DeployedSign

REWRITES = {
    "dense": "dense layers run as 1x1 convolutions",
    "zero_one": "inputs and kernels of zeros and ones run as signs",
    "transposed": "transposed convolutions run as a convolution and depth-to-space",
    "relu": "positive scales move behind a ReLU, which then fuses into the binary convolution",
    "pool": "batch normalization moves in front of max pooling and fuses as well",
    "threshold": "batch normalization in front of signs becomes their threshold",
}
# What depends on the values of weights, not on the architecture alone.
WEIGHT_DEPENDENT = ("relu", "pool", "threshold")


@dataclass(frozen=True)
class Rewrite:
    """A change that was made: the outputs are the same, the deployed form is faster or smaller.

    # Arguments
        name: the rewrite, a key of `REWRITES`.
        layer: the layer that was changed.
        what: what became of it.
    """

    name: str
    layer: str
    what: str


def check_names(without: Collection[str]) -> None:
    """Refuses names that are no rewrites.

    # Raises
        ValueError: with the names that there are.
    """
    unknown = sorted(set(without) - set(REWRITES))
    if isinstance(without, str) or unknown:
        raise ValueError(
            f"`without` is a collection of names from {list(REWRITES)}, received {without!r}."
        )


def rewrite_graph(baked: tf.keras.Model, without: Collection[str]) -> tuple[Any, list[Rewrite]]:
    """Applies the rewrites that change what stands beside the binary layers.

    # Arguments
        baked: a model of baked layers.
        without: names of rewrites to leave out.

    # Returns
        The model (the same if there is nothing to do) and what was done.
    """
    # One after the other: a ReLU that is gone lets a norm move in front of the pooling.
    done = []
    for name in WEIGHT_DEPENDENT:
        if name in without:
            continue
        changes, found = _PLANS[name](_Links(baked))
        if found:
            baked = _apply(baked, changes)
            done += found
    return baked, done


Changes = dict[str, Callable[[], tf.keras.layers.Layer]]


def _apply(model: tf.keras.Model, changes: Changes) -> tf.keras.Model:
    """Rebuilds a model with other layers in the places of those named."""
    weights = {layer.name: layer.get_weights() for layer in model.layers}

    def replace(layer):
        if layer.name in changes:
            return changes[layer.name]()
        return layer if isinstance(layer, tf.keras.Model) else _again(layer)

    rewritten = tf.keras.models.clone_model(model, clone_function=replace)
    for layer in rewritten.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])
    return rewritten


def _again(layer, **changes) -> tf.keras.layers.Layer:
    """A new layer of the same configuration, but for the changes."""
    config = layer.get_config()
    if getattr(layer, "input_quantizer", None) is not None:
        # As it is: Keras writes a function by a name that it may not find again.
        config["input_quantizer"] = layer.input_quantizer
    for name in ("kernel", "depthwise", "pointwise"):
        quantizer = getattr(layer, f"{name}_quantizer", None)
        if quantizer is not None:
            config[f"{name}_quantizer"] = quantizer
    return type(layer).from_config({**config, **changes})


def _nothing(layer) -> tf.keras.layers.Layer:
    """Stands where a layer was; the converter drops it."""
    return tf.keras.layers.Activation("linear", name=layer.name)


class _Links:
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


def _is_plain_conv(layer) -> bool:
    return isinstance(layer, BinaryConv2D) and not isinstance(layer, BinaryConv2DTranspose)


def _is_relu(layer) -> bool:
    if isinstance(layer, tf.keras.layers.ReLU):
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return (
        isinstance(layer, tf.keras.layers.Activation)
        and layer.activation is tf.keras.activations.relu
    )


def _is_linear(layer) -> bool:
    return layer.activation is None or layer.activation is tf.keras.activations.linear


def _affine(layer) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and summand per channel of a batch normalization at inference."""
    if not isinstance(layer, tf.keras.layers.BatchNormalization):
        return None
    if list(layer.axis) != [len(layer.input_shape) - 1]:
        return None
    variance = layer.moving_variance.numpy().astype("float64")
    factor = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        factor *= layer.gamma.numpy()
    summand = -factor * layer.moving_mean.numpy()
    if layer.center:
        summand += layer.beta.numpy()
    return factor, summand


def _relu_plan(links: _Links) -> tuple[Changes, list[Rewrite]]:
    """relu(c z) = c relu(z) for c > 0: the engine fuses a ReLU only where c is 1."""
    changes: Changes = {}
    done = []
    for conv in links.layers:
        if not _is_plain_conv(conv) or conv.relu:
            continue
        scale, offset = conv.scale.numpy(), conv.offset.numpy()
        if offset.any() or (scale <= 0).any() or (scale == 1).all():
            continue
        following = links.after(conv)
        if conv.activation is tf.keras.activations.relu:
            changes[conv.name] = partial(_again, conv, relu=True, activation="linear")
        elif _is_linear(conv) and len(following) == 1 and _single(links, following[0], _is_relu):
            changes[conv.name] = partial(_again, conv, relu=True)
            changes[following[0].name] = partial(_nothing, following[0])
        else:
            continue
        done.append(Rewrite("relu", conv.name, "its scale is multiplied behind the ReLU"))
    return changes, done


def _single(links: _Links, layer, condition) -> bool:
    return layer is not None and layer in links.layers and condition(layer)


def _pool_plan(links: _Links) -> tuple[Changes, list[Rewrite]]:
    """max(a x + b) = a max(x) + b for a >= 0: in front of the pooling the norm fuses."""
    changes: Changes = {}
    done = []
    for norm in links.layers:
        pool = _skip_nothing(links, links.before(norm))
        if type(pool) is not tf.keras.layers.MaxPooling2D:
            continue
        conv = _skip_nothing(links, links.before(pool))
        affine = _affine(norm)
        if not _is_plain_conv(conv) or affine is None or (affine[0] < 0).any():
            continue
        changes[pool.name] = partial(_again, norm)
        changes[norm.name] = partial(_again, pool)
        done.append(Rewrite("pool", norm.name, f"it is computed before {pool.name}"))
    return changes, done


def _skip_nothing(links: _Links, layer):
    """The layer that computes something, behind those that a rewrite left empty."""
    while isinstance(layer, tf.keras.layers.Activation) and _is_linear(layer):
        layer = links.before(layer)
    return layer


def _threshold_plan(links: _Links) -> tuple[Changes, list[Rewrite]]:
    """sign(a x + b) = sign(x + b / a) for a > 0: a subtraction instead of a norm."""
    changes: Changes = {}
    done = []
    for norm in links.layers:
        affine = _affine(norm)
        convs = links.after(norm)
        if affine is None or (affine[0] <= 0).any() or not convs:
            continue
        if not all(_single(links, conv, _takes_plain_signs) for conv in convs):
            continue
        feeding = _skip_nothing(links, links.before(norm))
        if type(feeding) is tf.keras.layers.MaxPooling2D:
            feeding = _skip_nothing(links, links.before(feeding))
        if _is_plain_conv(feeding):
            continue  # the engine makes integer thresholds of this itself
        thresholds = (-affine[1] / affine[0]).astype("float32")
        if not np.isfinite(thresholds).all():
            continue
        for conv in convs:
            sign = DeployedSign(threshold=[float(value) for value in thresholds])
            changes[conv.name] = partial(_again, conv, input_quantizer=sign)
        changes[norm.name] = partial(_nothing, norm)
        names = ", ".join(conv.name for conv in convs)
        done.append(Rewrite("threshold", norm.name, f"it is a threshold of the signs of {names}"))
    return changes, done


def _takes_plain_signs(layer) -> bool:
    sign = getattr(layer, "input_quantizer", None)
    return (
        _is_plain_conv(layer)
        and isinstance(sign, DeployedSign)
        and not (sign.center or sign.negate or np.any(sign.threshold))
    )


_PLANS = {"relu": _relu_plan, "pool": _pool_plan, "threshold": _threshold_plan}
