"""Data sets that fit into memory."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from larq_ext_recipes._augmentation import Augmentation
from larq_ext_recipes._pipeline import Row, Steps, untransformed, without_fill
from larq_ext_recipes.datasets._dataset import Dataset


@dataclasses.dataclass(frozen=True)
class ArrayDataset(Dataset):
    """Images and labels in memory, with the preprocessing that belongs to them.

    The images stay as their source has them.

    # Arguments
        name: Name of the data set, such as `"cifar10"`.
        train: Training images `(n, height, width, channels)`, uint8 or float in [0, 1], and
            integer labels `(n,)`.
        test: Test images and labels in the same form.
        classes: Class names in the order of the labels.
        mean: Mean per channel, in the unit of the images.
        std: Standard deviation per channel, in the unit of the images.
        evaluated: What `test` is: `"test"`, or `"holdout"` where training images stand in.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    evaluated: str = "test"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.train[0].shape[1:]

    @property
    def white(self) -> float:
        """Largest value of a pixel."""
        return 255.0 if self.train[0].dtype == np.uint8 else 1.0

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.train[1])

    @property
    def test_size(self) -> int:
        """Number of images to evaluate on."""
        return len(self.test[1])

    def hold_out(self, count: int) -> ArrayDataset:
        images, labels = self.train
        held = self._chosen(labels, count, "holdout")
        return dataclasses.replace(
            self,
            train=(images[~held], labels[~held]),
            test=(images[held], labels[held]),
            evaluated="holdout",
        )

    def limit(self, count: int) -> ArrayDataset:
        images, labels = self.train
        kept = self._chosen(labels, count, "limit")
        return dataclasses.replace(self, train=(images[kept], labels[kept]))

    def fingerprint(self) -> str:
        """A SHA-256 of all images, labels and the preprocessing, in hexadecimal."""
        digest = hashlib.sha256(repr((self.mean, self.std)).encode())
        for array in (*self.train, *self.test):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def shuffled(self, key: tf.Tensor, steps: Steps, start_step: tf.Tensor) -> tf.data.Dataset:
        return steps.shuffled(self.train_size, key, start_step)

    def in_order(self, steps: Steps) -> tf.data.Dataset:
        return steps.dataset()

    def read(self, rows: tf.data.Dataset, augmentation: Augmentation | None) -> tf.data.Dataset:
        images, labels = self._tensors_to_test if augmentation is None else self._tensors_to_train

        @untransformed
        def batch(row: Row) -> tuple[tf.Tensor, tf.Tensor, Row]:
            row = without_fill(row)
            chosen = row["image"]
            if augmentation is None:
                crops = tf.gather(images, chosen)
            elif augmentation.crop_scale is not None:
                crops = self._resized_crops(tf.gather(images, chosen), row["draws"], augmentation)
            else:
                crops = self._shifted_crops(images, chosen, row["draws"], augmentation)
            return crops, tf.gather(labels, chosen), row

        return rows.map(batch, num_parallel_calls=tf.data.AUTOTUNE)

    @functools.cached_property
    def _tensors_to_train(self) -> tuple[tf.Tensor, tf.Tensor]:
        return _tensors(self.train)

    @functools.cached_property
    def _tensors_to_test(self) -> tuple[tf.Tensor, tf.Tensor]:
        return _tensors(self.test)

    def _shifted_crops(self, images, chosen, draws, augmentation: Augmentation) -> tf.Tensor:
        """Crops and flips of a whole batch in one gather."""
        height, width, channels = self.input_shape
        rows = tf.range(height)[None, :]  # (batch, height)
        columns = tf.range(width)[None, :]  # (batch, width)
        if augmentation.flip:
            flips = augmentation.flips(draws)[:, None]
            columns = tf.where(flips, width - 1 - columns, columns)
        if augmentation.crop_padding:
            shifts = augmentation.shifts(draws)
            rows, columns = rows + shifts[:, :1], columns + shifts[:, 1:]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
            :, None, :
        ]
        position = (tf.cast(chosen, tf.int32)[:, None] * height + rows)[:, :, None] * width
        position += columns[:, None, :]
        pixels = tf.reshape(images, [-1, channels])
        crops = tf.gather(pixels, tf.where(inside, position, 0))
        return tf.where(inside[..., None], crops, tf.zeros([], crops.dtype))

    def _resized_crops(self, images, draws, augmentation: Augmentation) -> tf.Tensor:
        """Random resized crops: bilinear, between pixel centres, beyond edges as at them."""
        height, width, _ = self.input_shape
        every = tf.shape(images)[0]
        windows = augmentation.crop_windows(
            draws, tf.fill([every], height), tf.fill([every], width)
        )
        top, left, crop_height, crop_width = tf.unstack(tf.cast(windows, tf.float32), num=4, axis=1)
        down, right = crop_height / height, crop_width / width
        top, left = top + (down - 1) / 2, left + (right - 1) / 2
        if augmentation.flip:
            flips = augmentation.flips(draws)
            left = tf.where(flips, left + right * (width - 1), left)
            right = tf.where(flips, -right, right)
        zero = tf.zeros_like(top)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32),
            transforms=tf.stack([right, zero, left, zero, down, top, zero, zero], axis=1),
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )


def _tensors(split: tuple[np.ndarray, np.ndarray]) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.init_scope(), tf.device("CPU"):  # for every graph, and also where there is a GPU
        return tf.constant(split[0]), tf.constant(split[1])
