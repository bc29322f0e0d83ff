"""Augmentations of keras-cv, made to repeat exactly.

Its layers draw from `tf.random`, whose numbers depend on what was drawn before. While one of them
is traced here, the functions that it draws from are replaced by their stateless forms, so the
graph is a pure function of a seed. This changes nothing for what else runs in the graph.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from unittest import mock

import numpy as np
import tensorflow as tf

from larq_ext_recipes._errors import UsageError

_PIP = "pip install 'keras-cv>=0.9,<0.10'"


def load():
    """Imports keras-cv.

    # Raises
        UsageError: if it is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints which backend it found
            import keras_cv
    except ImportError as error:
        raise UsageError(
            f"randaugment and mixup need keras-cv, which is not installed: type `{_PIP}`, "
            "or leave them out."
        ) from error
    return keras_cv


def randaugment(images: tf.Tensor, seeds: tf.Tensor, magnitude: float, white: float) -> tf.Tensor:
    """RandAugment with three operations an image.

    # Arguments
        images: float32 `(batch, height, width, 3)` in [0, white].
        seeds: A seed for each image, `(batch, 2)`.
        magnitude: Strength of the operations, from 0 to 1.
        white: Largest value of a pixel.

    # Returns
        Images of the same shape and range.
    """
    keras_cv = load()

    # With AutoGraph, which some of the layers need and the pipeline turns off. One operation, to
    # be traced once: tracing takes seconds.
    @tf.function
    def change(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        with _stateless_random(seed):
            layer = keras_cv.layers.RandAugment((0, white), 1, magnitude)
            return tf.ensure_shape(layer(image), image.shape)

    def change_thrice(item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, seed = item
        for turn in range(3):
            image = change(image, tf.random.fold_in(seed, turn))
        return image

    return tf.map_fn(change_thrice, (images, seeds), fn_output_signature=tf.float32)


def mixup(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, alpha: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each image and label with another one of the batch.

    # Arguments
        images: float32 `(batch, height, width, channels)`.
        labels: float32 `(batch, classes)`.
        seed: Two integers.
        alpha: Parameter of the beta distribution.

    # Returns
        Images and labels of the same shapes.
    """
    layers = load().layers
    with _stateless_random(seed):
        # In here: a layer asks for the global generator when it is made, and determinism has none.
        mixed = layers.MixUp(alpha)({"images": images, "labels": labels})
    labels = tf.ensure_shape(tf.cast(mixed["labels"], tf.float32), labels.shape)
    return tf.ensure_shape(mixed["images"], images.shape), labels


class _Stateless:
    """What keras-cv uses of `tf.random` and of `tf.random.Generator`, from one seed."""

    def __init__(self, seed: tf.Tensor) -> None:
        self._seed, self._calls = seed, 0

    def _next(self) -> tf.Tensor:
        self._calls += 1
        return tf.random.fold_in(self._seed, self._calls)

    def uniform(self, shape, minval=0, maxval=None, dtype=tf.float32, seed=None):
        high = 1 if maxval is None else maxval
        return tf.random.stateless_uniform(shape, self._next(), minval, high, dtype)

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=tf.float32, seed=None):
        return tf.random.stateless_normal(shape, self._next(), mean, stddev, dtype)

    def gamma(self, shape, alpha):
        # Of small alphas many draws are 0 in float32, and two zeros have no ratio.
        drawn = tf.random.stateless_gamma(shape, self._next(), alpha)
        return tf.maximum(drawn, np.finfo(np.float32).tiny)

    def shuffle(self, value, seed=None):
        return tf.random.experimental.stateless_shuffle(value, self._next())


@contextlib.contextmanager
def _stateless_random(seed: tf.Tensor) -> Iterator[None]:
    numbers = _Stateless(seed)
    with mock.patch.multiple(
        tf.random,
        uniform=numbers.uniform,
        normal=numbers.normal,
        gamma=numbers.gamma,
        shuffle=numbers.shuffle,
        get_global_generator=lambda: numbers,
    ):
        yield
