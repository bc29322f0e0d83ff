"""Batches for training and evaluation as a pure function of seed, epoch and position.

Order and random numbers of an epoch are drawn with stateless generators for all its images at
once, so a run that starts in the middle of an epoch sees exactly what an uninterrupted run would
have seen, and several workers see together what one would see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._order import NOBODY, batch_positions

# A row is what is known of a batch before its images are read: `image` (numbers or records),
# `position` in the epoch, `draws` and `key` of each image.
Row = dict[str, tf.Tensor]
Normalise = Callable[[tf.Tensor], tf.Tensor]

# Nothing here needs AutoGraph, which takes a second to say so.
untransformed = tf.autograph.experimental.do_not_convert


class Source(Protocol):
    """What the pipeline asks of a data set."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: float  # largest value of a pixel
    input_shape: tuple[int, int, int]
    train_size: int
    test_size: int

    def shuffled(self, key: tf.Tensor, steps: Steps, start_step: tf.Tensor) -> tf.data.Dataset:
        """The images of an epoch's steps from `start_step` on, in the order that `key` says."""

    def in_order(self, steps: Steps) -> tf.data.Dataset:
        """The images of the steps of an evaluation."""

    def read(self, rows: tf.data.Dataset, augmentation: Changes | None) -> tf.data.Dataset:
        """Rows to `(images, labels, row)`, cropped and flipped; without one, for evaluation."""


class Changes(Protocol):
    """What the pipeline asks of random changes of training images; a data set may ask for more."""

    def check(self, name: str, channels: int) -> None:
        """Refuses images that the changes are not for."""

    def draw(self, key: tf.Tensor, size: int) -> dict[str, tf.Tensor]:
        """Random numbers for all images of an epoch, `(size, ...)` each."""

    def finish(
        self, images: tf.Tensor, labels: tf.Tensor, row: Row, source: Source, normalise: Normalise
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Changes a batch that was read, and normalises it."""


class Steps:
    """Positions in an epoch by step, replica and place in the batch.

    # Arguments
        positions: Integers `(steps, replicas, images)`; negative ones stand for no image.
        batch_size: Images of a global batch.
    """

    def __init__(self, positions: np.ndarray, batch_size: int) -> None:
        self.positions, self.batch_size = positions, batch_size

    def __len__(self) -> int:
        return len(self.positions)

    def dataset(self, start: int | tf.Tensor = 0) -> tf.data.Dataset:
        """The positions of a step after the other, int64 `(replicas, images)`."""
        return tf.data.Dataset.from_tensor_slices(self.positions).skip(tf.cast(start, tf.int64))

    def shuffled(self, size: int, key: tf.Tensor, start: int | tf.Tensor) -> tf.data.Dataset:
        """The same places with numbers in random order in the place of positions.

        # Arguments
            size: How many numbers there are.
            key: Seed of two integers.
            start: The first step to give.
        """
        numbers = tf.range(size, dtype=tf.int64)
        order = tf.random.experimental.stateless_shuffle(numbers, key)
        return self.dataset(start).map(
            untransformed(lambda step: tf.gather(order, tf.maximum(step, 0)))
        )


class TrainingData:
    """The training batches of a data set.

    Parts of a batch that cannot be divided differ by one image. A last batch with fewer images than
    there are parts is left out, everywhere; then `size` and `steps_per_epoch` do not count it.

    # Arguments
        dataset: The data.
        batch_size: Images per batch, of all workers and replicas together; the last batch of an
            epoch has what is left.
        seed: Seed of order and augmentation.
        augmentation: What to change at random.
        shard: This worker's index and the number of workers. Each has a contiguous slice of every
            batch, so that all together see exactly the batches that one process sees.
        replicas: Replicas of each worker. The slice is given in as many consecutive elements.

    # Raises
        UsageError: if the augmentation does not suit the data, or a slice would have no image.
    """

    def __init__(
        self,
        dataset: Source,
        batch_size: int,
        seed: int,
        augmentation: Changes,
        *,
        shard: tuple[int, int] = (0, 1),
        replicas: int = 1,
    ) -> None:
        augmentation.check(dataset.name, dataset.input_shape[-1])
        positions = batch_positions(dataset.train_size, batch_size, shard=shard, replicas=replicas)
        self.batch_size = batch_size
        self.steps_per_epoch = len(positions)
        self.size = min(dataset.train_size, self.steps_per_epoch * batch_size)
        self._dataset = dataset
        self._seed = seed
        self._augmentation = augmentation
        self._steps = Steps(positions, batch_size)
        self._normalise = _normaliser(dataset.mean, dataset.std)

    def batches(self, epoch: int, start_step: int = 0) -> tf.data.Dataset:
        """The batches of one epoch.

        # Arguments
            epoch: Which epoch, from 0.
            start_step: The first batch to give, from 0.

        # Returns
            Normalised images float32 `(batch, height, width, channels)` and labels `(batch,)`, or
            `(batch, classes)` if the augmentation mixes them.
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

        @untransformed
        def rows(epoch: tf.Tensor) -> tf.data.Dataset:
            return self._rows(epoch, tf.where(epoch == start_epoch, start_step, 0))

        rows = tf.data.Dataset.range(start_epoch, end_epoch).flat_map(rows)
        batches = self._dataset.read(rows, self._augmentation)
        return _tuned(batches.map(self._finish, num_parallel_calls=_PARALLEL))

    def _rows(self, epoch: tf.Tensor, start_step: tf.Tensor) -> tf.data.Dataset:
        """What is to be read in one epoch, a row for each replica's batch."""
        key = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        order_key, draw_key, epoch_key = tf.unstack(tf.random.split(key, 3), num=3)
        draws = self._augmentation.draw(draw_key, self._dataset.train_size)

        @untransformed
        def row(position: tf.Tensor, image: tf.Tensor) -> Row:
            index = tf.maximum(position, 0)
            chosen = {name: tf.gather(numbers, index) for name, numbers in draws.items()}
            keys = tf.broadcast_to(epoch_key, tf.concat([tf.shape(position), [2]], 0))
            return {"image": image, "position": position, "draws": chosen, "key": keys}

        images = self._dataset.shuffled(order_key, self._steps, start_step)
        positions = self._steps.dataset(start_step)
        return tf.data.Dataset.zip((positions, images)).map(row).unbatch()

    @untransformed
    def _finish(
        self, images: tf.Tensor, labels: tf.Tensor, row: Row
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return self._augmentation.finish(images, labels, row, self._dataset, self._normalise)


def evaluation_batches(
    dataset: Source,
    batch_size: int,
    *,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tf.data.Dataset:
    """The test images in order, once.

    # Arguments
        dataset: The data.
        batch_size: Images per batch, of all workers together.
        shard: This worker's index and the number of workers. Each has a contiguous slice of every
            batch; all have the same number of batches and no image is left out (a last batch with
            fewer images than workers joins the one before).
        limit: Number of images to give, evenly spread over all, as folders are sorted by class;
            batches differ in size then. `None` for all.
        mean, std: What stands in for those of the data set, in the same unit.

    # Returns
        Normalised images float32 `(batch, height, width, channels)` and labels `(batch,)`.

    # Raises
        UsageError: if a slice would have no image.
    """
    batch_size = max(batch_size, shard[1])
    positions = batch_positions(dataset.test_size, batch_size, shard=shard, keep_all=True)
    if limit is not None:
        positions = _spread(positions, dataset.test_size, limit)
    steps = Steps(positions, batch_size)
    normalise = _normaliser(
        dataset.mean if mean is None else mean, dataset.std if std is None else std
    )

    def row(position: tf.Tensor, image: tf.Tensor) -> Row:
        return {"image": image, "position": position}

    rows = tf.data.Dataset.zip((steps.dataset(), dataset.in_order(steps))).map(row).unbatch()
    batches = dataset.read(rows, None)
    if limit is not None:
        batches = batches.filter(lambda images, labels, _: tf.size(labels) > 0)
    return _tuned(
        batches.map(
            lambda images, labels, _: (normalise(images), labels), num_parallel_calls=_PARALLEL
        )
    )


def evenly_spread(size: int, limit: int) -> np.ndarray:
    """Indices of at most `limit` of `size` things, sorted.

    # Raises
        UsageError: if the limit is below 1.
    """
    if limit < 1:
        raise UsageError(f"limit must be 1 or more, received {limit}.")
    return np.arange(min(limit, size)) * size // min(limit, size)


def _spread(positions: np.ndarray, size: int, limit: int) -> np.ndarray:
    """The positions of some of the images, in the same steps, of which some are empty then."""
    chosen = np.zeros(size + 1, bool)  # the last one stands for NOBODY
    chosen[evenly_spread(size, limit)] = True
    left = np.where(chosen[positions], positions, NOBODY)
    first = np.argsort(left == NOBODY, axis=-1, kind="stable")
    left = np.take_along_axis(left, first, axis=-1)
    return left[..., : (left != NOBODY).sum(-1).max()]


def without_fill(row: Row) -> Row:
    """A row without the places that no image has."""
    count = tf.math.count_nonzero(row["position"] >= 0)
    return tf.nest.map_structure(lambda values: values[:count], row)


_PARALLEL = tf.data.AUTOTUNE


def _tuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # Sharding is done already; a distribution strategy must not split the batches again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(2).with_options(options)


def _normaliser(mean: Sequence[float], std: Sequence[float]) -> Normalise:
    shift, scale = tf.constant(mean, tf.float32), 1 / tf.constant(std, tf.float32)
    return lambda images: (tf.cast(images, tf.float32) - shift) * scale
