"""8-bit first and last layers for a trained network, with ranges found on samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from larq_ext._scope import float32_policy
from larq_ext.deploy._int8_fold import Folded, as_int8, fold, in_floats, is_real, range_of
from larq_ext.deploy._int8_layers import Int8Conv2D, Int8Range
from larq_ext.deploy._rewrite import WEIGHT_DEPENDENT
from larq_ext.deploy._surgery import Links
from larq_ext.deploy.bake import bake
from larq_ext.deploy.errors import DeploymentError
from larq_ext.deploy.layers import BinaryConv2D

_BATCH = 64
_KERNELS = ("kernel", "depthwise", "pointwise")
# Of each batch, for percentiles: some millions in all are enough.
_KEPT_VALUES = 100_000


def int8_edges(
    model: tf.keras.Model,
    samples: np.ndarray | Sequence[np.ndarray],
    *,
    layers: Literal["edges", "all"] | Collection[str] = "edges",
    percentile: float = 100.0,
    without: Collection[str] = (),
) -> tf.keras.Model:
    """Makes the deployed form of a model with 8-bit integers around the binary layers.

    The real-valued convolutions and dense layers that are chosen become `Int8Conv2D` and
    `Int8Dense`, each with the batch normalization, the ReLU and the softmax that only it feeds.
    The samples run through the network in floats, and the ranges of what goes into each of
    these layers and of what comes out are kept. Kernels have a range per output channel.
    Everything else is as `bake` makes it. A layer trained with the quantizer `Int8` keeps the
    range of its inputs that training found.

    The outputs are close to those of the model, not equal: rounding changes them, and may turn
    a sign behind the first layer. Where nothing but plain signs takes a layer's outputs, these
    are moved by half a step, so that rounding the outputs turns none.

    # Arguments
        model: the Keras model, as trained or baked.
        samples: some hundred inputs as the device will see them, preprocessed as in training:
            an array `(samples, ...)`, or a list of them for several inputs.
        layers: `"edges"`: those that no binary layer feeds, or that feed none; `"all"`; or
            names.
        percentile: above 50 to 100. 100 takes the smallest and largest value; less cuts off
            the share `100 - percentile` of the values at either end.
        without: rewrites that are left out, see `bake`.

    # Returns
        A baked model, for `larq_ext.deploy.convert`.

    # Raises
        ValueError: for names that are no such layers (with those that are), for samples that are
            missing, of another shape or not finite, and for a wrong `percentile`.
        DeploymentError: if the model cannot be baked.
    """
    if not 50 < percentile <= 100:
        raise ValueError(f"`percentile` is above 50 to 100, received {percentile!r}.")
    with float32_policy():
        # Norms first go into the kernels in front of them; what is left is rewritten in the end.
        baked = bake(model, without={*without, *WEIGHT_DEPENDENT})
        arrays = _checked(samples, baked)
        links = Links(baked)
        folds = [fold(links, layer) for layer in _chosen(links, baked, layers)]
        ranges = _calibrate(baked, arrays, folds, percentile)
        edged = as_int8(baked, [(f, *r) for f, r in zip(folds, ranges, strict=True)])
        return bake(edged, without=without)


def _checked(samples: Any, model: tf.keras.Model) -> list[np.ndarray]:
    given = samples if isinstance(samples, (list, tuple)) else [samples]
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if any(None in shape for shape in shapes):
        raise DeploymentError(
            f"The inputs have the shapes {shapes}: height, width and channels must be numbers. "
            "Build the model with the size that the device will see."
        )
    if len(given) != len(shapes):
        raise ValueError(
            f"`samples` must be an array for each of the {len(shapes)} input(s), received "
            f"{len(given)}: make one array of single samples with np.stack."
        )
    arrays = [np.asarray(array) for array in given]
    if [array.shape[1:] for array in arrays] != shapes:
        expected = ", ".join(f"(samples, {', '.join(map(str, shape))})" for shape in shapes)
        raise ValueError(
            f"`samples` must have the shape {expected}, received "
            f"{', '.join(str(array.shape) for array in arrays)}."
        )
    counts = {len(array) for array in arrays}
    if counts == {0} or len(counts) > 1:
        raise ValueError(
            f"`samples` must hold some samples, as many for each input; received {counts}."
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("`samples` hold values that are not finite (NaN or infinity).")
    return arrays


def _chosen(links: Links, model: tf.keras.Model, layers: Any) -> list[Any]:
    possible = {layer.name: layer for layer in links.layers if is_real(layer)}
    if not possible and not any(isinstance(layer, Int8Conv2D) for layer in model.layers):
        raise ValueError(
            f"{model.name!r} has no real-valued Conv2D or Dense that 8 bits are for: channels "
            "last, one group, used once, and not inside a nested model."
        )
    if layers == "edges":
        fed = _reached(links.after, model)
        before = {m.name: [n for n in model.layers if m in links.after(n)] for m in model.layers}
        feeding = _reached(lambda layer: before[layer.name], model)
        return [layer for name, layer in possible.items() if name not in fed or name not in feeding]
    if layers == "all":
        return list(possible.values())
    unknown = sorted(set(layers) - set(possible)) if not isinstance(layers, str) else [layers]
    if unknown:
        raise ValueError(
            '`layers` is "edges", "all" or a collection of names from '
            f"{list(possible)}, received {layers!r}."
        )
    return [layer for name, layer in possible.items() if name in set(layers)]


def _reached(step: Any, model: tf.keras.Model) -> set[str]:
    """The layers that can be reached from binary ones."""
    pending = [layer for layer in model.layers if _is_binary(layer)]
    seen: set[str] = set()
    while pending:
        for layer in step(pending.pop()):
            if layer is not None and layer.name not in seen:
                seen.add(layer.name)
                pending.append(layer)
    return seen


def _is_binary(layer: Any) -> bool:
    quantizers = (getattr(layer, f"{kind}_quantizer", None) for kind in _KERNELS)
    return isinstance(layer, (BinaryConv2D, tf.keras.Model)) or any(
        getattr(quantizer, "precision", None) == 1 for quantizer in quantizers
    )


def _calibrate(
    model: tf.keras.Model, arrays: list[np.ndarray], folds: list[Folded], percentile: float
) -> list[tuple[Int8Range, Int8Range]]:
    """The ranges of what goes into folded layers and of what comes out."""
    if not folds:
        return []
    taps = tf.keras.Model(model.inputs, [folded.layer.input for folded in folds])
    computed = [in_floats(folded) for folded in folds]
    seen = [(_Values(percentile), _Values(percentile)) for _ in folds]
    for start in range(0, len(arrays[0]), _BATCH):
        batch = [array[start : start + _BATCH] for array in arrays]
        structured = tf.nest.pack_sequence_as(model.input, batch)
        inputs = tf.nest.flatten(taps(structured, training=False))
        for x, compute, (before, behind) in zip(inputs, computed, seen, strict=True):
            before.add(x.numpy())
            behind.add(compute(x).numpy())
    return [
        (_trained(folded) or before.range(), folded.trained or behind.range())
        for folded, (before, behind) in zip(folds, seen, strict=True)
    ]


def _trained(folded: Folded) -> Int8Range | None:
    return getattr(folded.layer, "input_quantizer", None)


class _Values:
    """The values of a tensor that were seen, as far as its range needs them."""

    def __init__(self, percentile: float):
        self._percentile = percentile
        self._kept: list[np.ndarray] = []
        self._generator = np.random.default_rng(0)

    def add(self, values: np.ndarray) -> None:
        values = values.ravel()
        if self._percentile == 100:
            values = np.array([values.min(), values.max()])
        if len(values) > _KEPT_VALUES:
            # Every n-th value would be of the same few channels.
            values = values[self._generator.integers(len(values), size=_KEPT_VALUES)]
        self._kept.append(values)

    def range(self) -> Int8Range:
        shares = [100 - self._percentile, self._percentile]
        return range_of(*np.percentile(np.concatenate(self._kept), shares))
