"""Batches are a function of seed, epoch and position, and the augmentation is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from larq_ext_recipes import UsageError
from larq_ext_recipes._augmentation import Augmentation
from larq_ext_recipes._order import batch_positions
from larq_ext_recipes._pipeline import TrainingData
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
    images, labels = collect(shifted.evaluation(7))
    np.testing.assert_allclose(images, expected, rtol=1e-6)
    np.testing.assert_array_equal(labels, np.arange(50))


def test_black_border_is_black_before_normalisation():
    dataset = make_dataset()
    shifted = ArrayDataset("made", dataset.train, dataset.test, ["x"], (10.0,) * 3, (2.0,) * 3)
    images, _ = collect(TrainingData(shifted, 8, 0, Augmentation(3, False)).batches(0))
    assert images.min() == -5.0  # (0 - 10) / 2; the darkest pixel of the images is 1


# Shards


@pytest.mark.parametrize(("size", "batch_size"), [(50, 8), (51, 12), (9, 9), (23, 7), (20, 40)])
@pytest.mark.parametrize(("workers", "replicas"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_parts_are_the_batches_of_one_process(size, batch_size, workers, replicas):
    parts = workers * replicas
    splits = [
        batch_positions(size, batch_size, shard=(index, workers), replicas=replicas)
        for index in range(workers)
    ]
    assert len({len(split) for split in splits}) == 1
    for step in range(-(-size // batch_size)):
        batch = np.arange(size)[step * batch_size : (step + 1) * batch_size]
        if len(batch) < parts:
            assert step == len(splits[0])  # the last one, which nobody has
            continue
        rows = [row[row >= 0] for split in splits for row in split[step]]
        np.testing.assert_array_equal(np.concatenate(rows), batch)
        lengths = [len(row) for row in rows]
        assert min(lengths) > 0 and max(lengths) - min(lengths) <= 1


def test_evaluation_leaves_no_image_out():
    splits = [batch_positions(13, 6, shard=(i, 3), keep_all=True) for i in range(3)]
    assert [split.shape[0] for split in splits] == [2, 2, 2]  # 6 images, then 6 + 1
    seen = np.concatenate([split[split >= 0] for split in splits])
    np.testing.assert_array_equal(np.sort(seen), np.arange(13))


@pytest.mark.parametrize(
    ("size", "batch_size", "options", "message"),
    [
        (50, 3, {"shard": (0, 2), "replicas": 2}, "batch_size=3 of 50 images cannot be shared"),
        (3, 8, {"replicas": 4}, "both numbers must be 4 or more"),
        (50, 8, {"shard": (2, 2)}, r"0 <= index < count .* received shard=\(2, 2\)"),
    ],
)
def test_wrong_shards(size, batch_size, options, message):
    with pytest.raises(UsageError, match=message):
        batch_positions(size, batch_size, **options)


def test_workers_and_replicas_see_the_images_of_one_process():
    dataset, augmentation = make_dataset(53), Augmentation()
    whole = list(dataset.training(8, 0, augmentation).stream(1, 3).as_numpy_iterator())
    split = [
        dataset.training(8, 0, augmentation, shard=(index, 2), replicas=2) for index in range(2)
    ]
    assert [data.steps_per_epoch for data in split] == [7, 7]
    assert [data.size for data in split] == [53, 53]
    streams = [list(data.stream(1, 3).as_numpy_iterator()) for data in split]
    for step, (images, labels) in enumerate(whole):
        parts = [stream[2 * step + replica] for stream in streams for replica in range(2)]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)
    entered = split[1].stream(1, 3, start_step=3).as_numpy_iterator()
    for (images, _), (expected, _) in zip(entered, streams[1][6:], strict=True):
        np.testing.assert_array_equal(images, expected)


def test_a_step_that_cannot_be_shared_is_left_out_and_not_counted():
    data = make_dataset(50).training(8, 0, NONE, replicas=4)  # 6 batches of 8, then one of 2
    assert (data.steps_per_epoch, data.size) == (6, 48)
    assert len(list(data.batches(0))) == 24
    assert len(set(collect(data.batches(0))[1])) == 48


def test_evaluation_in_shards():
    dataset = make_dataset(50)
    labels = [collect(dataset.evaluation(12, shard=(i, 3)))[1] for i in range(3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(labels)), np.arange(50))
    np.testing.assert_array_equal(collect(dataset.evaluation(12))[1], np.arange(50))
