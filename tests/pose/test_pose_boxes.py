"""Boxes from files of three forms, right and wrong ones."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from larq_ext.pose.boxes import Boxes, BoxFile, fit, image_id


def written(tmp_path, content, name="boxes.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_detections(tmp_path):
    records = [
        {"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 7, "bbox": [5, 6, 7, 8.5], "category_id": 1},
        {"image_id": 7, "bbox": [0, 0, 9, 9], "category_id": 18, "score": 0.9},
        {"image_id": 8, "bbox": [5, 6, -4, -6], "score": -0.1},
        {"image_id": "frames/a.jpg", "bbox": [1, 1, 2, 2]},
    ]
    file = BoxFile(written(tmp_path, records))
    found = file.find(Path("x/000000000007.jpg"))
    np.testing.assert_array_equal(found.boxes, [[1, 2, 3, 4], [5, 6, 7, 8.5]])
    np.testing.assert_array_equal(found.scores, [0.5, 1])
    np.testing.assert_array_equal(file.find(Path("8.png")).boxes, [[1, 0, 4, 6]])
    assert len(file.find(Path("a.jpg")).boxes) == 1
    assert file.find(Path("b.jpg")).boxes.shape == (0, 4)
    assert file.image_id(Path("x/000000000007.jpg")) == 7
    surer = BoxFile(tmp_path / "boxes.json", min_score=0.5)
    assert len(surer.find(Path("7.jpg")).boxes) == 2 and not len(surer.find(Path("8.jpg")).boxes)


def test_annotations_and_gzip(tmp_path):
    content = {
        "images": [{"id": 31, "file_name": "val/cat 5.jpg"}, {"id": 5, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": 31, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"image_id": 31, "category_id": 1, "bbox": [9, 9, 9, 9], "iscrowd": 1},
            {"image_id": 5, "category_id": 1, "bbox": [5, 5, 5, 5]},
        ],
    }
    path = tmp_path / "boxes.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    file = BoxFile(path)
    # The name of the file counts, not the number in it.
    assert file.find(Path("cat 5.jpg")).boxes.tolist() == [[1, 2, 3, 4]]
    assert file.image_id(Path("cat 5.jpg")) == 31
    # A picture that the annotations do not list is not the one with such an id.
    assert not len(file.find(Path("dog 5.jpg")).boxes)
    assert file.image_id(Path("dog 5.jpg")) == "dog 5.jpg"
    # Whoever knows a picture by another number: that of the annotations is their own.
    assert file.find(Path("b.jpg"), 31).boxes.tolist() == [[5, 5, 5, 5]]
    assert not len(file.find(Path("dog.jpg"), 31).boxes)


def test_names_as_numbers_of_annotations(tmp_path):
    content = {
        "images": [{"id": "x/1", "file_name": "one.jpg", "width": 30, "height": 20}],
        "annotations": [{"image_id": "x/1", "bbox": [1, 2, 3, 4]}],
    }
    file = BoxFile(written(tmp_path, content))
    assert file.find(Path("one.jpg")).boxes.tolist() == [[1, 2, 3, 4]]
    assert file.image_size(Path("one.jpg")) == (20, 30)
    assert file.image_size(Path("two.jpg")) is None


def test_a_known_image_id_counts_instead_of_the_number_in_the_name(tmp_path):
    records = [{"image_id": number, "bbox": [number, 0, 4, 6]} for number in (1, 6)]
    file = BoxFile(written(tmp_path, records))
    assert file.find(Path("000001.jpg"), 6).boxes.tolist() == [[6, 0, 4, 6]]
    assert file.find(Path("000001.jpg")).boxes.tolist() == [[1, 0, 4, 6]]
    assert not len(file.find(Path("000001.jpg"), 7).boxes)


def test_boxes_by_file_name(tmp_path):
    file = BoxFile(written(tmp_path, {"a/one.png": [[1, 2, 3, 4]], "two.png": []}))
    assert file.find(Path("b/one.png")).boxes.tolist() == [[1, 2, 3, 4]]
    assert file.find(Path("b/one.png")).scores.tolist() == [1]
    assert not len(file.find(Path("two.png")).boxes)


@pytest.mark.parametrize(
    "content",
    [
        {"a/1.jpg": [[1, 2, 3, 4]], "b/1.jpg": [[5, 6, 7, 8]]},
        [{"image_id": f"{folder}/1.jpg", "bbox": [1, 2, 3, 4]} for folder in "ab"],
        {
            "images": [{"id": 1, "file_name": "a/1.jpg"}, {"id": 2, "file_name": "b/1.jpg"}],
            "annotations": [],
        },
    ],
)
def test_pictures_of_one_name_would_get_each_others_boxes(tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"[ab]/1\.jpg and of [ab]/1\.jpg: pictures are known by"):
        BoxFile(path)


def test_one_picture_of_two_numbers(tmp_path):
    path = tmp_path / "boxes.json"
    images = [{"id": number, "file_name": "1.jpg"} for number in (1, 2)]
    path.write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(ValueError, match=r"1\.jpg has two numbers"):
        BoxFile(path)


def test_the_number_of_a_picture():
    assert image_id("a/000000397133.jpg") == 397133
    assert image_id("COCO_val2014_000000000042.jpg") == 42
    assert image_id("a/me.jpg") == "me.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"boxes\.json is no JSON"),
        ("[1e", "is no JSON"),
        (3, "holds no boxes: give a list of COCO detections"),
        ({"a": 3}, "holds no boxes"),
        ([3], r"boxes\.json: record 0 is no object, but 3"),
        ([{"image_id": 1, "bbox": [1, 1, 1, 1]}, {"image_id": 1}], "record 1 lacks `bbox`"),
        ([{}], "record 0 lacks `image_id` and `bbox`"),
        ([{"image_id": None, "bbox": [1, 1, 1, 1]}], "`image_id` is a number or a name, .* None"),
        ([{"image_id": 1, "bbox": [1, 1, 1]}], r"record 0: `bbox` is \[x, .* \[1, 1, 1\]"),
        ([{"image_id": 1, "bbox": [1, 1, 1, "1"]}], "record 0: `bbox`"),
        ('[{"image_id": 1, "bbox": [1, NaN, 1, 1]}]', r"received \[1, nan, 1, 1\]"),
        ([{"image_id": 1, "bbox": [1, 10**400, 1, 1]}], "record 0: `bbox`"),
        ([{"image_id": 1, "bbox": None}], "received None"),
        ([{"image_id": 1, "bbox": [1, 1, 1, 1], "score": "high"}], "`score` is a finite number"),
        ({"a.png": [[1, 2, 3]]}, r"box 0 of a\.png is \[x, y"),
        ({"images": {}, "annotations": []}, "`images` is a list, received {}"),
        ({"images": [], "annotations": 3}, "`annotations` is a list, received 3"),
        ({"images": [{"id": 1}], "annotations": []}, "image 0 lacks its `file_name`"),
        ({"images": [{"file_name": "a"}], "annotations": []}, "image 0 lacks its `id`"),
    ],
)
def test_malformed_files_name_the_record(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        BoxFile(written(tmp_path, content))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*gone"):
        BoxFile(tmp_path / "gone.json")


def test_boxes_are_clipped_and_useless_ones_named():
    boxes = [[-5, -5, 20, 20], [90, 40, 50, 50], [100, 0, 5, 5], [-9, 0, 9, 9], [3, 3, 0, 9]]
    fitted, notes = fit(Boxes(np.array(boxes, float), np.arange(5.0)), (50, 100))
    np.testing.assert_array_equal(fitted.boxes, [[0, 0, 15, 15], [90, 40, 10, 10]])
    np.testing.assert_array_equal(fitted.scores, [0, 1])
    assert notes == [
        "box 3 of 5, [100, 0, 5, 5], is outside of the picture: skipped",
        "box 4 of 5, [-9, 0, 9, 9], is outside of the picture: skipped",
        "box 5 of 5, [3, 3, 0, 9], is empty: skipped",
    ]
    fitted, notes = fit(Boxes(np.zeros((0, 4)), np.zeros(0)), (1, 1))
    assert fitted.boxes.shape == (0, 4) and notes == []
