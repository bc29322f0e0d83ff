"""The exact changes that `bake` makes to a network beyond its binary layers, by name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext.deploy._surgery import (
    Links,
    affine_of,
    again,
    is_linear,
    is_plain_conv,
    nothing,
    replaced,
    takes_plain_signs,
)
from larq_ext.deploy.layers import DeployedSign

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
        changes, found = _PLANS[name](Links(baked))
        if found:
            baked = replaced(baked, changes)
            done += found
    return baked, done


Changes = dict[str, tf.keras.layers.Layer]


def _is_relu(layer) -> bool:
    if type(layer) is tf.keras.layers.ReLU:
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return (
        type(layer) is tf.keras.layers.Activation and layer.activation is tf.keras.activations.relu
    )


def _relu_plan(links: Links) -> tuple[Changes, list[Rewrite]]:
    """relu(c z) = c relu(z) for c > 0: the engine fuses a ReLU only where c is 1."""
    changes: Changes = {}
    done = []
    for conv in links.layers:
        if not is_plain_conv(conv) or conv.relu:
            continue
        scale, offset = conv.scale.numpy(), conv.offset.numpy()
        if offset.any() or (scale <= 0).any() or (scale == 1).all():
            continue
        following = links.after(conv)
        if conv.activation is tf.keras.activations.relu:
            changes[conv.name] = again(conv, relu=True, activation="linear")
        elif is_linear(conv) and len(following) == 1 and _single(links, following[0], _is_relu):
            changes[conv.name] = again(conv, relu=True)
            changes[following[0].name] = nothing(following[0])
        else:
            continue
        done.append(Rewrite("relu", conv.name, "its scale is multiplied behind the ReLU"))
    return changes, done


def _single(links: Links, layer, condition) -> bool:
    return layer is not None and layer in links.layers and condition(layer)


def _pool_plan(links: Links) -> tuple[Changes, list[Rewrite]]:
    """max(a x + b) = a max(x) + b for a >= 0: in front of the pooling the norm fuses."""
    changes: Changes = {}
    done = []
    for norm in links.layers:
        pool = _skip_nothing(links, links.before(norm))
        if type(pool) is not tf.keras.layers.MaxPooling2D or pool.data_format != "channels_last":
            continue
        if None in links.after(norm):
            continue  # the model's output would bear the name of the pooling
        conv = _skip_nothing(links, links.before(pool))
        affine = affine_of(norm)
        if not is_plain_conv(conv) or affine is None or (affine[0] < 0).any():
            continue
        changes[pool.name] = again(norm)
        changes[norm.name] = again(pool)
        done.append(Rewrite("pool", norm.name, f"it is computed before {pool.name}"))
    return changes, done


def _skip_nothing(links: Links, layer):
    """The layer that computes something, behind those that a rewrite left empty."""
    while type(layer) is tf.keras.layers.Activation and is_linear(layer):
        layer = links.before(layer)
    return layer


def _threshold_plan(links: Links) -> tuple[Changes, list[Rewrite]]:
    """sign(a x + b) = sign(x + b / a) for a > 0: a subtraction instead of a norm."""
    changes: Changes = {}
    done = []
    for norm in links.layers:
        affine = affine_of(norm)
        convs = links.after(norm)
        if affine is None or (affine[0] <= 0).any() or not convs:
            continue
        if not all(_single(links, conv, takes_plain_signs) for conv in convs):
            continue
        feeding = _skip_nothing(links, links.before(norm))
        if type(feeding) is tf.keras.layers.MaxPooling2D:
            feeding = _skip_nothing(links, links.before(feeding))
        if is_plain_conv(feeding):
            continue  # the engine makes integer thresholds of this itself
        thresholds = (-affine[1] / affine[0]).astype("float32")
        if not np.isfinite(thresholds).all():
            continue
        for conv in convs:
            sign = DeployedSign(threshold=[float(value) for value in thresholds])
            changes[conv.name] = again(conv, input_quantizer=sign)
        changes[norm.name] = nothing(norm)
        names = ", ".join(conv.name for conv in convs)
        done.append(Rewrite("threshold", norm.name, f"it is a threshold of the signs of {names}"))
    return changes, done


_PLANS = {"relu": _relu_plan, "pool": _pool_plan, "threshold": _threshold_plan}
