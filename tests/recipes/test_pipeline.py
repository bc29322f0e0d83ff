"""Batches are a function of seed, epoch and position, and the augmentation is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from larq_ext_recipes._pipeline import Augmentation, TrainingData, evaluation_batches
from larq_ext_recipes.datasets import ArrayDataset

NONE = Augmentation(crop_padding=0, flip=False)


def make_dataset(count=50, height=6, width=9, channels=3):
    generator = np.random.default_rng(1)
    images = generator.integers(1, 256, (count, height, width, channels), np.uint8)
    labels = np.arange(count)
    # The label is the index of the image, so a test can tell where a batch came from.
    return ArrayDataset("made", (images, labels), (images, labels), ["x"], (0.0,) * 3, (1.0,) * 3)


def collect(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_every_image_once_an_epoch_in_a_new_order():
    data = TrainingData(make_dataset(), 8, 0, Augmentation())
    orders = [collect(data.batches(epoch))[1] for epoch in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(50))
    assert (orders[0] != orders[1]).any()
    assert (orders[0] != np.arange(50)).any()


def test_deterministic_in_seed_and_epoch():
    make = lambda seed: TrainingData(make_dataset(), 8, seed, Augmentation())  # noqa: E731
    first, again = collect(make(3).batches(5)), collect(make(3).batches(5))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first[1] != collect(make(4).batches(5))[1]).any()


@pytest.mark.parametrize("step", [1, 3, 7])
def test_entering_an_epoch_is_skipping_to_there(step):
    data = TrainingData(make_dataset(), 8, 0, Augmentation())
    assert data.steps_per_epoch == 7
    whole = collect(data.stream(2, 4))
    entered = collect(data.stream(2, 4, step))
    for one, two in zip(whole, entered, strict=True):
        np.testing.assert_array_equal(one[min(8 * step, 50) :], two)


def test_stream_is_the_epochs_one_after_the_other():
    data = TrainingData(make_dataset(), 8, 0, Augmentation())
    stream = collect(data.stream(0, 3))[0]
    single = np.concatenate([collect(data.batches(epoch))[0] for epoch in range(3)])
    np.testing.assert_array_equal(stream, single)


def test_augmentation_does_not_depend_on_the_batch_size():
    one, two = (
        collect(TrainingData(make_dataset(), size, 0, Augmentation()).batches(1))
        for size in (7, 25)
    )
    np.testing.assert_array_equal(one[0], two[0])


def test_without_augmentation_the_images_are_unchanged():
    dataset = make_dataset()
    images, labels = collect(TrainingData(dataset, 8, 0, NONE).batches(0))
    np.testing.assert_array_equal(images, dataset.train[0][labels])


def test_crops_and_flips_against_numpy():
    dataset, padding = make_dataset(), 2
    data = TrainingData(dataset, 8, 0, Augmentation(padding, flip=True))
    padded = np.pad(dataset.train[0], [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    found = set()
    for epoch in range(4):
        for image, label in zip(*collect(data.batches(epoch)), strict=True):
            matches = [
                (down, right, flip)
                for down in range(2 * padding + 1)
                for right in range(2 * padding + 1)
                for flip in (False, True)
                if np.array_equal(
                    padded[label, down : down + 6, right : right + 9][:, :: -1 if flip else 1],
                    image,
                )
            ]
            assert len(matches) == 1, "not a crop of the padded image"
            found.update(matches)
    # 200 draws of 5 * 5 * 2 possibilities: nearly all must have come up, every shift surely.
    assert len(found) > 40
    for axis, size in ((0, 5), (1, 5), (2, 2)):
        assert len({match[axis] for match in found}) == size


def test_normalisation():
    dataset = make_dataset()
    shifted = ArrayDataset(
        "made", dataset.train, dataset.test, ["x"], (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    )
    expected = (dataset.train[0] - np.array([10, 20, 30])) / np.array([2, 4, 8])
    images, labels = collect(TrainingData(shifted, 8, 0, NONE).batches(0))
    np.testing.assert_allclose(images, expected[labels], rtol=1e-6)
    assert images.dtype == np.float32
    images, labels = collect(evaluation_batches(shifted, 7))
    np.testing.assert_allclose(images, expected, rtol=1e-6)
    np.testing.assert_array_equal(labels, np.arange(50))


def test_black_border_is_black_before_normalisation():
    dataset = make_dataset()
    shifted = ArrayDataset("made", dataset.train, dataset.test, ["x"], (10.0,) * 3, (2.0,) * 3)
    images, _ = collect(TrainingData(shifted, 8, 0, Augmentation(3, False)).batches(0))
    assert images.min() == -5.0  # (0 - 10) / 2; the darkest pixel of the images is 1
