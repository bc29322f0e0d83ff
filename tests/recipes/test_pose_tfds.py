"""The builder for tensorflow-datasets: what it prepares is what the folder has."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from stick_figures import annotation_file, make_coco

from larq_ext_recipes.datasets import DatasetError


def test_a_prepared_copy_has_all_of_the_folder(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    from larq_ext_recipes.datasets.coco_keypoints_tfds import CocoPersonKeypoints

    folder = make_coco(tmp_path / "coco", pictures=(3, 2))
    content = json.loads(annotation_file(folder).read_text())
    content["annotations"][1].update(iscrowd=1, keypoints=[0] * 51)
    annotation_file(folder).write_text(json.dumps(content))
    builder = CocoPersonKeypoints(data_dir=tmp_path / "prepared")
    config = tfds.download.DownloadConfig(manual_dir=folder)
    builder.download_and_prepare(download_config=config)

    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert sizes == {"train": 3, "validation": 2}
    people = {person["id"]: person for person in content["annotations"]}
    seen = []
    for example in tfds.as_numpy(builder.as_dataset(split="train")):
        file = folder / "train2017" / example["image/filename"].decode()
        decoded = tf.io.decode_jpeg(file.read_bytes(), 3)
        np.testing.assert_array_equal(example["image"], decoded)
        for i, number in enumerate(example["objects"]["id"]):
            person = people[number]
            assert person["image_id"] == example["image/id"]
            assert example["objects"]["is_crowd"][i] == person["iscrowd"]
            np.testing.assert_allclose(example["objects"]["bbox"][i], person["bbox"])
            assert example["objects"]["area"][i] == pytest.approx(person["area"])
            keypoints = np.reshape(person["keypoints"], (17, 3))
            np.testing.assert_allclose(example["objects"]["keypoints"][i], keypoints, rtol=1e-6)
            seen.append(number)
    assert sorted(seen) == sorted(people)


def test_the_builder_refuses_what_the_reader_refuses(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    from larq_ext_recipes.datasets.coco_keypoints_tfds import CocoPersonKeypoints

    folder = make_coco(tmp_path / "coco", pictures=(2, 1))
    content = json.loads(annotation_file(folder).read_text())
    content["annotations"][1]["keypoints"].pop()
    annotation_file(folder).write_text(json.dumps(content))
    builder = CocoPersonKeypoints(data_dir=tmp_path / "prepared")
    config = tfds.download.DownloadConfig(manual_dir=folder)
    with pytest.raises(DatasetError, match="annotation 1: keypoints must be a list of 51"):
        builder.download_and_prepare(download_config=config)


def test_the_builder_says_how_to_get_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.delitem(sys.modules, "larq_ext_recipes.datasets.coco_keypoints_tfds", raising=False)
    with pytest.raises(DatasetError, match="type `pip install 'tensorflow-datasets"):
        import larq_ext_recipes.datasets.coco_keypoints_tfds  # noqa: F401
