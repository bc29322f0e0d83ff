"""What every data set of the recipes looks like, and what goes wrong with them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np


class DatasetError(Exception):
    """The data is not where it was looked for, or not in the form that was expected."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels in memory, with the preprocessing that belongs to them.

    The images stay as their source has them; a network sees `(image - mean) / std`.

    # Arguments
        name: Name of the data set, such as `"cifar10"`.
        train: Training images `(n, height, width, channels)` and integer labels `(n,)`.
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

    def hold_out(self, count: int) -> Dataset:
        """Replaces the test set by a part of the training set.

        Settings that are chosen on these images leave the test set untouched. The part is the
        last `count / classes` training images of each class, so it is the same for every seed.

        # Arguments
            count: Number of training images to hold out; a multiple of the number of classes.

        # Returns
            A data set that trains on the remaining images and tests on those held out.

        # Raises
            ValueError: if `count` is not a multiple of the number of classes or too large.
        """
        images, labels = self.train
        per_class, remainder = divmod(count, len(self.classes))
        available = np.bincount(labels, minlength=len(self.classes)).min()
        if remainder or not 0 < per_class < available:
            raise ValueError(
                f"holdout={count} cannot be taken from {self.name}: give a multiple of its "
                f"{len(self.classes)} classes between {len(self.classes)} and "
                f"{(available - 1) * len(self.classes)}."
            )
        held = np.zeros(len(labels), bool)
        for label in range(len(self.classes)):
            held[np.flatnonzero(labels == label)[-per_class:]] = True
        return dataclasses.replace(
            self,
            train=(images[~held], labels[~held]),
            test=(images[held], labels[held]),
            evaluated="holdout",
        )

    def fingerprint(self) -> str:
        """A SHA-256 of all images, labels and the preprocessing, in hexadecimal."""
        digest = hashlib.sha256(repr((self.mean, self.std)).encode())
        for array in (*self.train, *self.test):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
