"""The readers give the same numbers from every form, and say clearly what they miss."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
import struct
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from larq_ext_recipes import UsageError, datasets
from larq_ext_recipes.datasets import DatasetError, cifar10, digits, mnist


def assert_split(split, expected):
    np.testing.assert_array_equal(split[0], expected[0])
    np.testing.assert_array_equal(split[1], expected[1])
    assert split[0].dtype == np.uint8
    assert split[1].dtype == np.int64


@pytest.mark.parametrize("form", ["cifar-10-batches-bin", "cifar-10-batches-py"])
@pytest.mark.parametrize("parent", [True, False])
def test_official_forms_agree(synthetic_cifar10, tmp_path, form, parent):
    folder, train, test = synthetic_cifar10
    shutil.copytree(folder / form, tmp_path / form)
    dataset = cifar10.load(tmp_path if parent else tmp_path / form)
    assert_split(dataset.train, train)
    assert_split(dataset.test, test)
    assert dataset.input_shape == (32, 32, 3)
    assert dataset.classes[3] == "cat"


@pytest.mark.slow
def test_tfds_agrees(synthetic_cifar10, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    folder, train, test = synthetic_cifar10
    manual = tmp_path / "manual"
    manual.mkdir()
    with tarfile.open(manual / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(folder / "cifar-10-batches-bin", "cifar-10-batches-bin")
    tfds.builder("cifar10", data_dir=tmp_path).download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual)
    )
    dataset = cifar10.load(tmp_path)
    assert_split(dataset.train, train)
    assert_split(dataset.test, test)


def test_tfds_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DatasetError, match=r"pip install 'tensorflow-datasets.*data_dir=FOLDER"):
        cifar10.load(None)


@pytest.mark.slow
def test_real_cifar10(real_data, official, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cifar10_official", str(tmp_path), "--data", str(real_data)])
    official.main()  # checks the publisher's SHA-1 values
    assert "all SHA-1 values official" in capsys.readouterr().out
    dataset = cifar10.load(tmp_path)
    for split, name in ((dataset.train, "train"), (dataset.test, "test")):
        assert_split(split, official.read_strips(real_data / "cifar10", name))
    assert np.bincount(dataset.train[1]).tolist() == [5000] * 10
    assert np.bincount(dataset.test[1]).tolist() == [1000] * 10


def test_no_data(tmp_path):
    with pytest.raises(DatasetError, match=r"looked for data_batch_1\.bin.*no such folder"):
        cifar10.load(tmp_path / "nowhere")
    (tmp_path / "other.txt").touch()
    with pytest.raises(DatasetError, match=r"found other\.txt"):
        cifar10.load(tmp_path)


@pytest.fixture
def copies(synthetic_cifar10, tmp_path):
    """Makes a copy of one official form to damage."""
    source = synthetic_cifar10[0]
    return lambda form: shutil.copytree(source / form, tmp_path / form)


FILES = [("cifar-10-batches-bin", "data_batch_3.bin"), ("cifar-10-batches-py", "data_batch_3")]


@pytest.mark.parametrize(("form", "name"), FILES)
def test_missing_file(copies, form, name):
    folder = copies(form)
    (folder / name).unlink()
    with pytest.raises(DatasetError, match=f"{name} is missing; the folder holds .*data_batch_1"):
        cifar10.load(folder)


@pytest.mark.parametrize(("form", "name"), FILES)
def test_truncated_file(copies, form, name):
    file = copies(form) / name
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(DatasetError, match=rf"{name} is damaged.*{len(content) - 100} bytes"):
        cifar10.load(file.parent)


def test_pickle_cannot_run_programs(copies):
    class Attack:
        def __reduce__(self):
            return print, ("attack",)

    folder = copies("cifar-10-batches-py")
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": Attack(), b"labels": []}))
    with pytest.raises(DatasetError, match=r"refused to load builtins\.print"):
        cifar10.load(folder)


def test_labels_out_of_range(official, copies):
    folder = copies("cifar-10-batches-bin")
    rows, labels = np.zeros((1, 3072), np.uint8), np.array([200], np.uint8)
    official.write_bin("test_batch", rows, labels, folder)
    with pytest.raises(DatasetError, match="found 200 to 200"):
        cifar10.load(folder)


# The MD5 values of the unpacked files that the publisher's copies have.
MNIST_MD5 = {
    "train": "6bbc9ace898e44ae57da46a324031adb",
    "t10k": "2646ac647ad5339dbf082846283269ea",
}


def test_real_mnist(real_data):
    dataset = mnist.load(real_data)  # its folder mnist
    for split, kind in ((dataset.train, "train"), (dataset.test, "t10k")):
        images, labels = split
        header = struct.pack(">IIII", 2051, len(images), 28, 28)
        assert hashlib.md5(header + images.tobytes()).hexdigest() == MNIST_MD5[kind]
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    # The counts that are published with it.
    assert np.bincount(dataset.train[1]).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert np.bincount(dataset.test[1])[:3].tolist() == [980, 1135, 1032]
    assert dataset.train[0].mean() == pytest.approx(mnist.MEAN[0], abs=1e-3)
    assert dataset.train[0].std() == pytest.approx(mnist.STD[0], abs=1e-3)
    assert datasets.load("mnist", real_data / "mnist").fingerprint() == dataset.fingerprint()


@pytest.fixture
def synthetic_mnist(tmp_path):
    """Blank images in files of the official form, one of them unpacked."""
    for kind, size in (("train", 60_000), ("t10k", 10_000)):
        images = struct.pack(">IIII", 2051, size, 28, 28) + bytes(28 * 28 * size)
        labels = struct.pack(">II", 2049, size) + bytes(i % 10 for i in range(size))
        for part, content in (("images-idx3", images), ("labels-idx1", labels)):
            with gzip.open(tmp_path / f"{kind}-{part}-ubyte.gz", "wb", compresslevel=1) as file:
                file.write(content)
    packed = tmp_path / "t10k-labels-idx1-ubyte.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    return tmp_path


def test_mnist_forms_and_damages(synthetic_mnist):
    dataset = mnist.load(synthetic_mnist)
    assert dataset.input_shape == (28, 28, 1)
    assert dataset.test[1][:12].tolist() == [*range(10), 0, 1]

    labels = synthetic_mnist / "t10k-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1])
    with pytest.raises(DatasetError, match=r"labels-idx1-ubyte is damaged.*10008.*found 10007"):
        mnist.load(synthetic_mnist)
    labels.write_bytes(struct.pack(">II", 2051, 10_000) + content[8:])
    with pytest.raises(DatasetError, match=r"header 0000080100002710\), found .* 0000080300002710"):
        mnist.load(synthetic_mnist)
    labels.write_bytes(content[:-1] + b"\x0a")
    with pytest.raises(DatasetError, match="MNIST labels are 0 to 9, found 10"):
        mnist.load(synthetic_mnist)
    labels.unlink()
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte is missing, with \.gz and"):
        mnist.load(synthetic_mnist)

    images = synthetic_mnist / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(
        DatasetError, match=r"train-images-idx3-ubyte\.gz is damaged: expected gzip"
    ):
        mnist.load(synthetic_mnist)


def test_no_mnist(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match=r"No MNIST in .*train-images-idx3-ubyte\.gz.*no such"):
        mnist.load(tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DatasetError, match=r"pip install 'tensorflow-datasets.*data_dir=FOLDER"):
        mnist.load(None)


def test_mnist_of_tfds(monkeypatch, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    split = {"image": tf.ones((3, 28, 28, 1), tf.uint8), "label": tf.constant([1, 2, 3])}

    def load(name, data_dir, batch_size):
        assert (name, data_dir, batch_size) == ("mnist", None, -1)
        return {"train": split, "test": split}

    monkeypatch.setattr(tfds, "load", load)
    dataset = mnist.load(None)
    assert dataset.train[1].tolist() == [1, 2, 3] and dataset.train[1].dtype == np.int64


def test_digits():
    dataset = digits.load()
    assert dataset.train[0].shape == (1437, 8, 8, 1)
    assert dataset.test[0].shape == (360, 8, 8, 1)
    assert dataset.train[0].min() == 0 and dataset.train[0].max() == 1
    assert np.ptp(np.bincount(dataset.test[1])) <= 2  # stratified
    np.testing.assert_array_equal(dataset.test[1], digits.load().test[1])


def test_hold_out_leaves_the_test_set_alone():
    dataset = digits.load()
    held = dataset.hold_out(300)
    assert held.evaluated == "holdout"
    assert len(held.train[1]) == 1137
    assert np.bincount(held.test[1]).tolist() == [30] * 10
    joined = np.concatenate([held.train[0], held.test[0]]).reshape(1437, -1)
    original = dataset.train[0].reshape(1437, -1)
    np.testing.assert_array_equal(np.sort(joined, 0), np.sort(original, 0))
    assert held.fingerprint() != dataset.fingerprint()


@pytest.mark.parametrize("count", [-10, 5, 305, 100_000])
def test_hold_out_of_wrong_size(count):
    with pytest.raises(ValueError, match=f"holdout={count} cannot be taken"):
        digits.load().hold_out(count)


def test_unknown_data_set():
    with pytest.raises(ValueError, match=r"no data set 'cifar'.*mean cifar10"):
        datasets.load("cifar")


def test_limit_keeps_the_first_of_each_class(synthetic_cifar10):
    folder, (images, labels), test = synthetic_cifar10
    data = datasets.load("cifar10", folder).limit(20)
    expected = [i for label in range(10) for i in np.flatnonzero(labels == label)[:2]]
    np.testing.assert_array_equal(data.train[0], images[sorted(expected)])
    np.testing.assert_array_equal(data.test[0], test[0])
    assert data.evaluated == "test"
    held = datasets.load("cifar10", folder).hold_out(10)
    assert not {image.tobytes() for image in held.limit(20).train[0]} & {
        image.tobytes() for image in held.test[0]
    }
    with pytest.raises(UsageError, match="limit=15 cannot be taken from cifar10"):
        datasets.load("cifar10", folder).limit(15)
