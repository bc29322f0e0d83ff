"""A moving average of all weights, to evaluate and keep in the place of the last ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf


class WeightAverage(tf.Module):
    """`average += (1 - d) * (weight - average)` after each step.

    In step `t`, from 0, `d = min(decay, (1 + t) / (10 + t))`, so that the start is soon forgotten.
    What batch normalisation collects is averaged too: it belongs to the weights.

    # Arguments
        model: The network.
        decay: From 0 to below 1, per step.
    """

    def __init__(self, model: tf.keras.Model, decay: float) -> None:
        super().__init__(name="weight_average")
        self._weights = [v for v in model.weights if v.dtype.is_floating]
        self._decay = decay
        self.steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.averages = [
            tf.Variable(v.read_value(), trainable=False, dtype=v.dtype) for v in self._weights
        ]

    @tf.function
    def update(self) -> None:
        """Takes in the weights of now."""
        step = tf.cast(self.steps, tf.float32)
        rate = 1 - tf.minimum(self._decay, (1 + step) / (10 + step))
        for average, weight in zip(self.averages, self._weights, strict=True):
            average.assign_add(tf.cast(rate, average.dtype) * (weight - average))
        self.steps.assign_add(1)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the averages in the place of the weights inside a `with` block.

        What is changed there, as callbacks do, stays: in the weights and in the average.
        """
        last = [tf.identity(weight) for weight in self._weights]
        for weight, average in zip(self._weights, self.averages, strict=True):
            weight.assign(average)
        placed = [tf.identity(weight) for weight in self._weights]
        try:
            yield
        finally:
            for weight, average, before, value in zip(
                self._weights, self.averages, placed, last, strict=True
            ):
                now = tf.identity(weight)
                if np.array_equal(now, before, equal_nan=True):
                    weight.assign(value)
                else:
                    average.assign(now)
