"""Batches for training and evaluation as a pure function of seed, epoch and position.

Order and augmentation of an epoch are drawn with stateless random numbers for all its images at
once, so a run that starts in the middle of an epoch sees exactly what an uninterrupted run would
have seen. Cropping and flipping are one gather over the whole batch.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from larq_ext_recipes.datasets import Dataset


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images.

    # Arguments
        padding: Zeros around the image before a crop of the original size is taken, pixels.
        flip: Whether half of the images are mirrored left to right.
    """

    padding: int = 4
    flip: bool = True


class TrainingData:
    """The training batches of a data set.

    # Arguments
        dataset: The data.
        batch_size: Images per batch; the last batch of an epoch has what is left.
        seed: Seed of order and augmentation.
        augmentation: What to change at random.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, seed: int, augmentation: Augmentation
    ) -> None:
        images, labels = dataset.train
        self.batch_size = batch_size
        self.size = len(labels)
        self.steps_per_epoch = -(-self.size // batch_size)
        self._seed = seed
        self._augmentation = augmentation
        self._height, self._width, channels = dataset.input_shape
        # One more pixel at the end, black: what a crop finds outside the image.
        self._pixels = tf.constant(
            np.concatenate([images.reshape(-1, channels), np.zeros((1, channels), images.dtype)])
        )
        self._labels = tf.constant(labels)
        self._normalise = _normaliser(dataset)

    def batches(self, epoch: int, start_step: int = 0) -> tf.data.Dataset:
        """The batches of one epoch.

        # Arguments
            epoch: Which epoch, from 0.
            start_step: The first batch to give, from 0.

        # Returns
            Normalised images float32 `(batch, height, width, channels)` and labels `(batch,)`.
        """
        return self.stream(epoch, epoch + 1, start_step)

    def stream(self, start_epoch: int, end_epoch: int, start_step: int = 0) -> tf.data.Dataset:
        """The batches of all epochs from `start_epoch` to before `end_epoch`, in one data set.

        # Arguments
            start_epoch: The first epoch, from 0.
            end_epoch: The epoch to stop before.
            start_step: The first batch to give of the first epoch.

        # Returns
            As `batches`.
        """

        def plan(epoch: tf.Tensor) -> tf.data.Dataset:
            first = tf.where(epoch == start_epoch, start_step * self.batch_size, 0)
            plan = tf.data.Dataset.from_tensor_slices(self._draw(epoch))
            return plan.skip(tf.cast(first, tf.int64)).batch(self.batch_size)

        options = tf.data.Options()
        options.deterministic = True
        return (
            tf.data.Dataset.range(start_epoch, end_epoch)
            .flat_map(plan)
            .map(self._batch, num_parallel_calls=2, deterministic=True)
            .prefetch(4)
            .with_options(options)
        )

    def _draw(self, epoch: tf.Tensor) -> dict[str, tf.Tensor]:
        """Order, shifts and flips of one epoch, entry `i` for the image at position `i`."""
        key = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        seeds = tf.random.split(key, 4, alg="philox")
        padding = self._augmentation.padding

        def uniform(seed: tf.Tensor, low: int, high: int) -> tf.Tensor:
            return tf.random.stateless_uniform(
                [self.size], seed, low, high + 1, tf.int32, alg="philox"
            )

        return {
            "image": tf.random.experimental.stateless_shuffle(
                tf.range(self.size), seeds[0], alg="philox"
            ),
            "down": uniform(seeds[1], -padding, padding),
            "right": uniform(seeds[2], -padding, padding),
            "flip": uniform(seeds[3], 0, int(self._augmentation.flip)),
        }

    def _batch(self, plan: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        height, width = self._height, self._width
        rows = tf.range(height) + plan["down"][:, None]  # (batch, height)
        columns = tf.range(width)
        columns = tf.where(plan["flip"][:, None] == 1, width - 1 - columns, columns)
        columns += plan["right"][:, None]  # (batch, width)
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
            :, None, :
        ]
        position = (plan["image"][:, None] * height + rows)[:, :, None] * width
        position += columns[:, None, :]
        outside = self._pixels.shape[0] - 1
        images = tf.gather(self._pixels, tf.where(inside, position, outside))
        return self._normalise(images), tf.gather(self._labels, plan["image"])


def evaluation_batches(dataset: Dataset, batch_size: int = 500) -> tf.data.Dataset:
    """The test images in order, once.

    # Arguments
        dataset: The data.
        batch_size: Images per batch.

    # Returns
        Normalised images float32 `(batch, height, width, channels)` and labels `(batch,)`.
    """
    normalise = _normaliser(dataset)
    return (
        tf.data.Dataset.from_tensor_slices(dataset.test)
        .batch(batch_size)
        .map(lambda images, labels: (normalise(images), labels))
        .prefetch(2)
    )


def _normaliser(dataset: Dataset):
    mean = tf.constant(dataset.mean, tf.float32)
    scale = 1 / tf.constant(dataset.std, tf.float32)
    return lambda images: (tf.cast(images, tf.float32) - mean) * scale
