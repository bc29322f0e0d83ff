"""The readers give the same numbers from every form, and say clearly what they miss."""

from __future__ import annotations

import pickle
import shutil
import sys
import tarfile

import numpy as np
import pytest

from larq_ext_recipes import datasets
from larq_ext_recipes.datasets import DatasetError, cifar10, digits


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
