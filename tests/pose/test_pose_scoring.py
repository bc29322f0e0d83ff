"""OKS, rescoring and suppression by their formulas, COCO's numbers by COCO's tool."""

import gzip
import json
import os
import pathlib
import sys

import numpy as np
import pytest

from larq_ext.pose import scoring

POINTS = np.random.default_rng(0).uniform(0, 100, (17, 2))


def moved(pixels):
    return POINTS + np.array([0.6, 0.8]) * pixels


@pytest.mark.parametrize(("offset", "expected"), [(5, 0.8711550), (10, 0.6469948), (20, 0.3311144)])
def test_oks_of_a_shifted_person(offset, expected):
    assert scoring.oks(POINTS, moved(offset), 1e4) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("index", "expected"), [(0, 0.629847), (5, 0.951161), (12, 0.973074)])
def test_oks_of_one_keypoint(index, expected):
    labelled = np.arange(17) == index
    assert scoring.oks(POINTS, moved(5), 1e4, labelled) == pytest.approx(expected, abs=1e-6)


def test_oks_of_many():
    others = POINTS + np.arange(3)[:, None, None]
    found = scoring.oks(POINTS, others, np.array([1e3, 1e3, 1e4]))
    expected = [scoring.oks(POINTS, o, a) for o, a in zip(others, (1e3, 1e3, 1e4), strict=True)]
    np.testing.assert_allclose(found, expected)
    assert scoring.oks(POINTS, POINTS, 1e4, np.zeros(17)) == 0


def test_rescoring():
    peaks = np.array([[0.5, 0.3, 0.2, 0.1], [0.2, 0.1, 0, -1]])
    np.testing.assert_allclose(scoring.rescore(np.array([0.5, 1]), peaks), [0.5 * 0.4, 0])


def test_suppression():
    persons = np.stack([POINTS, POINTS + 1, POINTS + 50, POINTS + 51])
    areas = np.full(4, 1e4)
    assert scoring.oks_nms(persons, np.array([0.5, 0.9, 0.3, 0.2]), areas) == [1, 2]
    assert scoring.oks_nms(persons, np.array([0.5, 0.9, 0.3, 0.2]), areas, 1.0) == [1, 0, 2, 3]
    # The mean of the areas decides, and poses as similar as the threshold are kept.
    two, ones, areas = persons[:2], np.ones(2), np.array([100.0, 300.0])
    threshold = scoring.oks(*two, 200.0)
    assert scoring.oks_nms(two, ones, areas, threshold) == [0, 1]
    assert scoring.oks_nms(two, ones, areas, threshold - 1e-12) == [0]
    assert scoring.oks_nms(persons[:0], np.ones(0), areas[:0]) == []


def person(points, image_id=1, number=1, area=1e4, labelled=17):
    rows = np.concatenate([points, np.full((17, 1), 2.0)], 1)
    rows[labelled:] = 0
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "keypoints": rows.ravel().tolist(),
        "num_keypoints": labelled,
        "bbox": [0, 0, 100, 100],
        "area": area,
        "iscrowd": 0,
    }


def truth(*annotations):
    images = [{"id": index} for index in sorted({each["image_id"] for each in annotations})]
    return {"images": images, "annotations": list(annotations)}


def results(points, image_id=1, score=1.0):
    keypoints = np.concatenate([points, np.ones((17, 1))], 1)[None]
    return scoring.results([image_id], keypoints, [score], np.array([1e4]))


@pytest.mark.parametrize(("offset", "expected"), [(0, 1.0), (5, 0.8), (10, 0.3), (20, 0.0)])
def test_ap_of_a_shifted_person(offset, expected):
    pytest.importorskip("pycocotools")
    found = scoring.evaluate(truth(person(POINTS)), results(moved(offset)))
    assert list(found) == ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
    assert found["AP"] == pytest.approx(expected, abs=1e-9)
    assert found["AR"] == pytest.approx(expected, abs=1e-9)
    assert found["AP50"] == pytest.approx(float(offset < 20))
    assert found["AP75"] == pytest.approx(float(offset < 10))
    assert found["APm"] == -1  # no such person; 1e4 is large


def test_the_numbers_are_those_of_the_plain_tool():
    """Persons and detections of all sizes, right and wrong ones, two to a picture."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    generator = np.random.default_rng(1)
    persons, records = [], []
    for number in range(40):
        size = generator.uniform(0.2, 2.5)
        points = generator.uniform(0, 500, 2) + size * POINTS
        persons.append(person(points, number // 2, number + 1, 5e3 * size**2))
        for noise in generator.uniform(0, 20 * size, 2):
            guess = points + generator.normal(0, noise, (17, 2))
            records += results(guess, number // 2, generator.uniform(0.1, 1))
    dataset = truth(*persons) | {"categories": [{"id": 1}]}
    found = scoring.evaluate(dataset, records)
    plain = coco.COCO()
    plain.dataset = dataset
    plain.createIndex()
    evaluation = cocoeval.COCOeval(plain, plain.loadRes(records), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert list(found.values()) == evaluation.stats.tolist()
    assert len(set(found.values())) > 8 and min(found.values()) > 0


@pytest.mark.parametrize("numbers", [[1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 0, 0], [5, 5, 7, 7]])
def test_the_numbers_of_annotations_do_not_count(numbers):
    """COCO's tool takes a match with the annotation 0 for none, and knows each number once."""
    pytest.importorskip("pycocotools")
    persons = [person(POINTS, image, number) for image, number in enumerate(numbers)]
    records = [record for image in range(4) for record in results(POINTS, image)]
    found = scoring.evaluate(truth(*persons), records)
    assert (found["AP"], found["AR"]) == pytest.approx((1, 1))


def test_evaluation_says_nothing_and_changes_nothing(capfd):
    pytest.importorskip("pycocotools")
    dataset, records = truth(person(POINTS)), results(POINTS)
    before = json.dumps([dataset, records])
    scoring.evaluate(dataset, records)
    assert capfd.readouterr() == ("", "")
    assert json.dumps([dataset, records]) == before


def test_pictures_that_the_ground_truth_does_not_name():
    pytest.importorskip("pycocotools")
    both = truth(person(POINTS), person(POINTS, 2, 2))
    records = results(POINTS) + results(POINTS, 7)
    assert scoring.evaluate(both, records)["AR"] == pytest.approx(0.5)
    assert scoring.evaluate(both, [])["AP"] == 0
    with pytest.raises(ValueError, match=r"none of the pictures of the results \(image_id 7"):
        scoring.evaluate(both, results(POINTS, 7))


def test_rescoring_and_suppression_come_before_the_score():
    pytest.importorskip("pycocotools")
    good, bad = POINTS, POINTS + 40
    keypoints = np.concatenate([np.stack([good, bad, good + 0.1]), np.ones((3, 17, 1))], 2)
    keypoints[1, :, 2] = 0.5
    records = scoring.results([1, 1, 1], keypoints, [0.5, 0.9, 0.4], np.full(3, 1e4))
    assert [record["score"] for record in records] == [0.5, 0.45]
    # The right person has the better score, so the wrong one costs no precision.
    assert scoring.evaluate(truth(person(POINTS)), records)["AP"] == pytest.approx(1)


def test_ground_truth_from_files(tmp_path):
    pytest.importorskip("pycocotools")
    dataset = truth(person(POINTS, area=50.0**2))
    (tmp_path / "a.json").write_text(json.dumps(dataset))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(dataset).encode()))
    for name in ("a.json", "a.json.gz"):
        found = scoring.evaluate(tmp_path / name, results(POINTS))
        assert (found["AP"], found["APm"], found["APl"]) == pytest.approx((1, 1, -1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"a\.json is no JSON"),
        (b"\x1f\x8bxx", r"a\.json is no JSON"),
        (gzip.compress(b"[]" * 99, mtime=0)[:12] + b"\xff" * 20, r"a\.json is no JSON"),
        (b"[" * 200_000, r"a\.json is no JSON"),
        (b"[]", "no `images` and `annotations`"),
        (
            b'{"images": [], "annotations": [{"id": 3, "image_id": 1}]}',
            "entry 0 of `annotations` lacks category_id, keyp",
        ),
        (b'{"images": [{}], "annotations": []}', "entry 0 of `images` lacks id"),
        (b'{"images": [], "annotations": [3]}', "entry 0 of `annotations` lacks id"),
        (b'{"images": null, "annotations": []}', "`images` is a list, received None"),
    ],
    ids=[
        "half an object",
        "gzip too short",
        "gzip damaged",
        "too deep",
        "a list",
        "incomplete",
        "a picture without number",
        "no object",
        "no list",
    ],
)
def test_what_is_no_ground_truth(tmp_path, content, message):
    pytest.importorskip("pycocotools")
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        scoring.evaluate(path, [])
    with pytest.raises(FileNotFoundError, match="no file"):
        scoring.evaluate(tmp_path / "b.json", [])


def test_records_without_what_is_needed():
    pytest.importorskip("pycocotools")
    records = results(POINTS)
    del records[0]["score"]
    with pytest.raises(ValueError, match="Record 0 lacks score"):
        scoring.evaluate(truth(person(POINTS)), records)


def test_numbers_of_numpy():
    pytest.importorskip("pycocotools")
    records = [record | {"image_id": np.int64(1)} for record in results(POINTS)]
    assert scoring.evaluate(truth(person(POINTS)), records)["AP"] == pytest.approx(1)


def test_records_that_are_none():
    pytest.importorskip("pycocotools")
    records = results(POINTS) * 2
    for change, message in (
        ({"keypoints": [1.0] * 50}, r"Record 1: `keypoints` are 17 times .*the shape \(50,\)"),
        ({"image_id": [1]}, r"Record 1: the id of a picture is a number or a text, received \[1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            scoring.evaluate(truth(person(POINTS)), [records[0], records[1] | change])
    mixed = truth(person(POINTS))
    mixed["images"].append({"id": "b"})
    with pytest.raises(ValueError, match="are all numbers or all texts"):
        scoring.evaluate(mixed, records)


def test_without_pycocotools_the_error_is_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match=r"pip install 'pycocotools"):
        scoring.evaluate(truth(person(POINTS)), [])


def test_perfect_results_on_real_persons():
    pytest.importorskip("pycocotools")
    if "LARQ_EXT_DATA" not in os.environ:
        pytest.skip("needs real data: export LARQ_EXT_DATA=FOLDER, see CONTRIBUTING.md")
    path = pathlib.Path(os.environ["LARQ_EXT_DATA"]) / "coco_person/person_keypoints_eval.json.gz"
    persons = [a for a in scoring.read_json(path)["annotations"] if a["num_keypoints"]]
    keypoints = np.array([a["keypoints"] for a in persons], float).reshape(-1, 17, 3)
    keypoints[..., 2] = 1
    ids, areas = [a["image_id"] for a in persons], np.array([a["area"] for a in persons])
    records = scoring.results(ids, keypoints, np.ones(len(ids)), areas, nms_threshold=1.0)
    found = scoring.evaluate(path, records)
    # A tenth of a percent of the persons share their position with another one.
    assert found["AP"] == pytest.approx(1, abs=2e-3) and found["AR"] == pytest.approx(1, abs=2e-3)
