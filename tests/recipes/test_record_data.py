"""ImageNet as tensorflow-datasets prepares it, with a tiny data set of the same form."""

from __future__ import annotations

import io
import shutil
import sys

import numpy as np
import pytest

from larq_ext_recipes import UsageError, datasets
from larq_ext_recipes._augmentation import Augmentation
from larq_ext_recipes.datasets import DatasetError, _records

PLAIN = Augmentation(crop_padding=0, flip=False)
TRAIN, TEST = 60, 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """`imagenet2012/5.1.0` with four files of training pictures, each in a colour of its own."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("PIL")
    from PIL import Image

    names = [f"n{number:08}" for number in range(1000)]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=names),
            "file_name": tfds.features.Text(),
        }
    )

    def example(number):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 16), (4 * number, 0, 0)).save(buffer, "JPEG", quality=100)
        return {
            "image": buffer.getvalue(),
            "label": 10 * number,
            "file_name": f"{number}.JPEG",
        }

    folder = tmp_path_factory.mktemp("tfds")
    version = folder / "imagenet2012" / "5.1.0"
    version.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="imagenet2012",
        version=tfds.core.Version("5.1.0"),
        data_dir=str(version),
        module_name="",
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=15)
    writer.initialize_splits(["train", "validation"])
    writer.add_examples(
        {
            "train": [example(number) for number in range(TRAIN)],
            "validation": [example(number) for number in range(TEST)],
        }
    )
    writer.close_all()
    return folder


@pytest.fixture
def small_order(monkeypatch):
    """Two files and two records at a time, so that the order of the few pictures shows it."""
    monkeypatch.setattr(_records, "FILES_AT_ONCE", 2)
    monkeypatch.setattr(_records, "RECORDS_IN_A_ROW", 2)
    monkeypatch.setattr(_records, "BUFFER", 20)


def collect(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.parametrize("inside", [False, True])
def test_reads_what_was_prepared(prepared, inside):
    folder = prepared / "imagenet2012" if inside else prepared
    dataset = datasets.load("imagenet", folder, image_size=8)
    assert (dataset.train_size, dataset.test_size) == (TRAIN, TEST)
    assert len(dataset.classes) == 1000 and dataset.classes[3] == "n00000003"
    images, labels = collect(dataset.evaluation(6))
    np.testing.assert_array_equal(labels, 10 * np.arange(TEST))
    red = images[:, 4, 4, 0] * dataset.std[0] + dataset.mean[0]
    np.testing.assert_allclose(red, 4 * np.arange(TEST), atol=1.5)


@pytest.mark.parametrize("limit", [1, 7, 20])
def test_a_limit_is_spread(prepared, limit):
    data = datasets.load("imagenet", prepared, image_size=8)
    labels = np.concatenate([batch[1] for batch in data.evaluation(6)])
    some = np.concatenate([batch[1] for batch in data.evaluation(6, limit=limit)])
    np.testing.assert_array_equal(some, labels[np.arange(limit) * TEST // limit])


def test_order_is_of_seed_and_epoch_and_can_be_entered(prepared, small_order):
    dataset = datasets.load("imagenet", prepared, image_size=8)
    augmentation = Augmentation(crop_padding=0, crop_scale=(0.2, 1.0))
    data = dataset.training(8, 3, augmentation)
    assert data.steps_per_epoch == 8
    images, labels = collect(data.stream(0, 3))
    orders = labels.reshape(3, TRAIN) // 10
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(TRAIN))
    assert (orders[0] != orders[1]).any() and (orders[1] != orders[2]).any()
    # Neither as they lie in the files nor whole files one after the other.
    assert (np.abs(np.diff(orders[0])) > 2).mean() > 0.5
    entered = collect(dataset.training(8, 3, augmentation).stream(1, 3, 5))
    np.testing.assert_array_equal(entered[0], images[TRAIN + 40 :])
    np.testing.assert_array_equal(entered[1], labels[TRAIN + 40 :])
    assert (collect(dataset.training(8, 4, PLAIN).batches(0))[1] != labels[:TRAIN]).any()


def test_shards(prepared, small_order):
    dataset = datasets.load("imagenet", prepared, image_size=8)
    whole = [labels for _, labels in dataset.training(8, 0, PLAIN).batches(1).as_numpy_iterator()]
    parts = [
        list(dataset.training(8, 0, PLAIN, shard=(i, 2), replicas=2).batches(1).as_numpy_iterator())
        for i in range(2)
    ]
    for step, expected in enumerate(whole):
        shares = [part[2 * step + replica][1] for part in parts for replica in range(2)]
        np.testing.assert_array_equal(np.concatenate(shares), expected)
    # 20 pictures in batches of 6 leave two, which three workers cannot share: 6, 6 and 8.
    labels = [collect(dataset.evaluation(6, shard=(i, 3)))[1] for i in range(3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(labels)), 10 * np.arange(TEST))
    assert len(list(dataset.evaluation(6, shard=(1, 3)))) == 3


def test_hold_out_and_fingerprint(prepared):
    dataset = datasets.load("imagenet", prepared, image_size=8)
    held = dataset.hold_out(25)
    assert (held.train_size, held.test_size, held.evaluated) == (35, 25, "holdout")
    train, test = collect(held.training(8, 0, PLAIN).batches(0))[1], collect(held.evaluation())[1]
    np.testing.assert_array_equal(test, 10 * np.arange(35, 60))
    np.testing.assert_array_equal(np.sort(train), 10 * np.arange(35))
    assert held.fingerprint() != dataset.fingerprint()
    assert dataset.fingerprint() == datasets.load("imagenet", prepared, image_size=8).fingerprint()
    with pytest.raises(UsageError, match="holdout=60 cannot be taken from imagenet"):
        dataset.hold_out(60)


def test_not_complete(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared / "imagenet2012", tmp_path / "imagenet2012")
    version = tmp_path / "imagenet2012" / "5.1.0"
    file = next(version.glob("*train.tfrecord-00001*"))
    file.unlink()
    with pytest.raises(DatasetError, match=f"{file.name} is missing: copy the data again"):
        datasets.load("imagenet", tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow_datasets", None)
        with pytest.raises(DatasetError, match="not installed: type `pip install 'tensorflow-data"):
            datasets.load("imagenet", tmp_path)
    (version / "dataset_info.json").write_text("{")
    with pytest.raises(DatasetError, match="tensorflow-datasets cannot read"):
        datasets.load("imagenet", tmp_path)
    shutil.move(version, tmp_path / "imagenet2012" / "5.1.0.incompleteABC")
    (tmp_path / "imagenet2012" / "5.1.0.incompleteABC" / "dataset_info.json").unlink()
    with pytest.raises(DatasetError, match=r"has no version that .* run `tfds build imagenet2012"):
        datasets.load("imagenet", tmp_path)
