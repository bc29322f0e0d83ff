"""Learning rates as pure functions of the optimizer's iteration, so that resuming is exact."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf


class LearningRate(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to a peak, then a decay.

    In units `u` of an epoch (or of a step) with `W` units of warm-up out of `E`:

    - warm-up, `u < W`: `peak * (u + 1) / W`, so its last unit runs at the peak;
    - afterwards with `s = max(W - 1, 0)` and `p = (u - s) / (E - s)`:
      cosine `peak * (1 + cos(pi * p)) / 2`, linear `peak * (1 - p)`, constant `peak`,
      step `peak * factor ** (number of milestones reached)`.

    # Arguments
        peak: The highest learning rate.
        epochs: Epochs of the whole training.
        steps_per_epoch: Steps of an epoch.
        shape: `"cosine"`, `"linear"`, `"step"` or `"constant"`.
        warmup_epochs: Epochs of warm-up.
        per_step: Whether the rate changes at every step, or only between epochs.
        milestones: Epochs at which the shape `"step"` multiplies by `factor`.
        factor: Factor of the shape `"step"`.
    """

    def __init__(
        self,
        peak: float,
        epochs: int,
        steps_per_epoch: int,
        shape: str = "cosine",
        warmup_epochs: int = 0,
        per_step: bool = False,
        milestones: Sequence[int] = (),
        factor: float = 0.1,
    ) -> None:
        self.peak = peak
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.shape = shape
        self.warmup_epochs = warmup_epochs
        self.per_step = per_step
        self.milestones = tuple(milestones)
        self.factor = factor

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """The learning rate, float32, at an iteration counted from 0."""
        units_per_epoch = self.steps_per_epoch if self.per_step else 1
        step = tf.cast(step, tf.int64)
        # Near the end of a cosine float32 would lose most digits to cancellation.
        unit = tf.cast(step if self.per_step else step // self.steps_per_epoch, tf.float64)
        warmup, end = self.warmup_epochs * units_per_epoch, self.epochs * units_per_epoch
        start = max(warmup - 1, 0)
        progress = (unit - start) / (end - start)
        decay = {
            "cosine": lambda: (1 + tf.cos(math.pi * progress)) / 2,
            "linear": lambda: 1 - progress,
            "constant": lambda: tf.ones_like(unit),
            "step": lambda: self._steps(unit / units_per_epoch),
        }[self.shape]()
        ramp = (unit + 1) / max(warmup, 1)
        return tf.cast(self.peak * tf.where(unit < warmup, ramp, decay), tf.float32)

    def _steps(self, epoch: tf.Tensor) -> tf.Tensor:
        reached = [tf.cast(epoch >= milestone, tf.float64) for milestone in self.milestones]
        return tf.constant(self.factor, tf.float64) ** tf.add_n([tf.zeros_like(epoch), *reached])

    def get_config(self) -> dict[str, object]:
        """The arguments of the constructor."""
        return dict(vars(self))
