"""What every data set of the recipes looks like, and what goes wrong with them."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._pipeline import Changes, Source, TrainingData, evaluation_batches


class DatasetError(Exception):
    """The data is not where it was looked for, or not in the form that was expected."""

    exit_code = 2


def fingerprint_of_pictures(digest: str, sizes: Iterable[int]) -> str:
    """A fingerprint of pictures that are not read.

    # Arguments
        digest: SHA-256 of their names, and of what else they are.
        sizes: Bytes of each.

    # Returns
        The digest, the bytes of all, and a SHA-256 of the bytes of each.
    """
    sizes = [int(size) for size in sizes]
    each = hashlib.sha256(repr(sizes).encode()).hexdigest()
    return f"{digest}+{sum(sizes)}+{each}"


def are_repaired(before: str, now: str) -> bool:
    """Whether two fingerprints are of the same pictures, of which some were replaced since.

    A damaged one has another size when it is got again; another edition of a data set, with the
    same names, has another size by far.
    """
    if before == now or not (before.count("+") == now.count("+") == 2):
        return False
    (old, was, _), (new, size, _) = before.split("+"), now.split("+")
    return old == new and abs(int(size) - int(was)) < int(was) / 5


class Damageable(Protocol):
    """What can look for its damaged pictures."""

    def find_damage(self, training: bool) -> None: ...


@contextlib.contextmanager
def readable_errors(dataset: Damageable, *, training: bool) -> Iterator[None]:
    """Turns what TensorFlow makes of damaged data in a pipeline into a `DatasetError`.

    A picture that is damaged is found when its batch is read, wherever that happens.

    # Arguments
        dataset: What is read.
        training: Whether its training images are read as well.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(rf"{DatasetError.__name__}: (.+)", error.message)
        if found is not None:
            raise DatasetError(found[1]) from error
        if re.search("Invalid (JPEG|PNG)", error.message):
            dataset.find_damage(training)
        raise


class Dataset(Source, abc.ABC):
    """Images with labels, and the preprocessing that belongs to them.

    A network sees `(image - mean) / std`.

    # Attributes
        name: Name of the data set, such as `"cifar10"`.
        classes: Class names in the order of the labels.
        input_shape: Height, width and channels of an image as a network sees it.
        mean: Mean per channel, in the unit of the images.
        std: Standard deviation per channel, in the unit of the images.
        white: Largest value of a pixel, in the same unit.
        evaluated: What is evaluated on: `"test"`, or `"holdout"` where training images stand in.
        train_size: Number of training images.
        test_size: Number of images to evaluate on.
        evaluation_batch: Images of a batch in an evaluation, of all workers together.
    """

    evaluated: str
    evaluation_batch = 500

    def training(
        self,
        batch_size: int,
        seed: int,
        augmentation: Changes,
        *,
        shard: tuple[int, int] = (0, 1),
        replicas: int = 1,
    ) -> TrainingData:
        """Batches to train on; the arguments are those of `TrainingData`."""
        return TrainingData(self, batch_size, seed, augmentation, shard=shard, replicas=replicas)

    def evaluation(
        self,
        batch_size: int | None = None,
        *,
        shard: tuple[int, int] = (0, 1),
        limit: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> tf.data.Dataset:
        """Batches to evaluate on, once and in order; as `evaluation_batches`."""
        size = batch_size or self.evaluation_batch
        return evaluation_batches(self, size, shard=shard, limit=limit, mean=mean, std=std)

    @abc.abstractmethod
    def hold_out(self, count: int) -> Dataset:
        """Replaces the test set by a part of the training set.

        Settings that are chosen on these images leave the test set untouched. The part is the
        last `count / classes` training images of each class, so it is the same for every seed.

        # Arguments
            count: Number of training images to hold out; a multiple of the number of classes.

        # Returns
            A data set that trains on the remaining images and tests on those held out.

        # Raises
            UsageError: if `count` is not a multiple of the number of classes or too large.
        """

    @abc.abstractmethod
    def limit(self, count: int) -> Dataset:
        """Trains on a part only: the first `count / classes` training images of each class.

        # Arguments
            count: Number of training images to keep; a multiple of the number of classes.

        # Raises
            UsageError: if `count` is not a multiple of the number of classes or too large.
        """

    def find_damage(self, training: bool) -> None:
        """Decodes one picture after the other to name the damaged one, which TensorFlow does not.

        Only where each picture is a file: a record has no name that would help.

        # Arguments
            training: Whether to look at the training images as well.

        # Raises
            DatasetError: if something is damaged.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A SHA-256 of what the data set is, in hexadecimal.

        Of pictures that are too many to read: `fingerprint_of_pictures`.
        """

    def _chosen(self, labels: np.ndarray, count: int, setting: str) -> np.ndarray:
        """Which training images are held out (the last of each class) or kept (the first), bool."""
        classes = len(self.classes)
        per_class, remainder = divmod(count, classes)
        available = np.bincount(labels, minlength=classes).min()
        if remainder or not 0 < per_class < available:
            raise UsageError(
                f"{setting}={count} cannot be taken from {self.name}: give a multiple of its "
                f"{classes} classes between {classes} and {(available - 1) * classes}."
            )
        part = slice(-per_class, None) if setting == "holdout" else slice(per_class)
        chosen = np.zeros(len(labels), bool)
        for label in range(classes):
            chosen[np.flatnonzero(labels == label)[part]] = True
        return chosen
