"""Scores of poses: rescoring, object keypoint similarity (OKS), and COCO's ten numbers."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from larq_ext.pose.keypoints import SIGMAS

PERSON = 1  # COCO's category
METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
_NEEDED = ("id", "image_id", "category_id", "keypoints", "num_keypoints", "bbox", "area")
_OF_RESULTS = ("image_id", "category_id", "keypoints", "score")


def rescore(
    box_scores: np.ndarray | float, peaks: np.ndarray, threshold: float = 0.2
) -> np.ndarray:
    """Score of a pose: that of its box times the mean of the peaks above the threshold.

    # Arguments
        box_scores: `(...)`.
        peaks: Scores of the keypoints, `(..., 17)`.
        threshold: Peaks up to it do not count.

    # Returns
        Scores `(...)`; 0 where no peak is above the threshold.
    """
    counted = peaks > threshold
    total = np.where(counted, peaks, 0.0).sum(-1)
    return box_scores * total / np.maximum(counted.sum(-1), 1)


def oks(
    keypoints: np.ndarray,
    others: np.ndarray,
    area: np.ndarray | float,
    labelled: np.ndarray | None = None,
) -> np.ndarray:
    """Object keypoint similarity.

    \\[ \\mathrm{OKS} = \\mathrm{mean}_i \\exp \\frac{-d_i^2}{2 A (2 \\sigma_i)^2} \\]

    # Arguments
        keypoints: x, y in pixels, `(..., 17, 2 or more)`; what follows y is not used.
        others: What they are compared with, of the same kind.
        area: Area A of the person in square pixels, `(...)`.
        labelled: Which keypoints count, `(..., 17)`; `None` for all.

    # Returns
        Similarities `(...)` from 0 to 1; 0 where no keypoint counts.
    """
    distance = np.square(keypoints[..., :2] - others[..., :2]).sum(-1)
    area = np.asarray(area, np.float64)[..., None] + np.spacing(1)
    similarity = np.exp(-distance / (2 * area * (2 * SIGMAS) ** 2))
    counted = np.ones(similarity.shape, bool) if labelled is None else labelled > 0
    return (similarity * counted).sum(-1) / np.maximum(counted.sum(-1), 1)


def oks_nms(
    keypoints: np.ndarray, scores: np.ndarray, areas: np.ndarray, threshold: float = 0.9
) -> list[int]:
    """Keeps the best of poses that are nearly the same, greedily by score.

    # Arguments
        keypoints: `(persons, 17, 2 or more)`.
        scores: `(persons,)`.
        areas: Areas of the views in square pixels, `(persons,)`; for two poses their mean counts.
        threshold: Poses of a higher similarity are the same person.

    # Returns
        Indices of the poses that are kept, the best first.
    """
    left = np.argsort(-np.asarray(scores), kind="stable")
    kept = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(int(best))
        same = oks(keypoints[best], keypoints[left], (areas[best] + areas[left]) / 2)
        left = left[same <= threshold]
    return kept


def record(image_id: int | str, keypoints: np.ndarray, score: float) -> dict[str, Any]:
    """A result as COCO wants it: `keypoints` are 17 times x, y, confidence."""
    return {
        "image_id": image_id,
        "category_id": PERSON,
        "keypoints": [round(float(value), 3) for value in np.ravel(keypoints)],
        "score": float(score),
    }


def results(
    image_ids: Sequence[int] | np.ndarray,
    keypoints: np.ndarray,
    box_scores: np.ndarray | Sequence[float],
    areas: np.ndarray,
    *,
    peak_threshold: float = 0.2,
    nms_threshold: float = 0.9,
) -> list[dict[str, Any]]:
    """Rescores the poses of many pictures and drops those that are in a picture twice.

    # Arguments
        image_ids: The picture of each pose, `(persons,)`.
        keypoints: x, y in pixels of the picture and the peak's value, `(persons, 17, 3)`.
        box_scores: Scores of the boxes, `(persons,)`; 1 for labelled boxes.
        areas: Areas of the views in square pixels, `(persons,)`.
        peak_threshold: See `rescore`.
        nms_threshold: See `oks_nms`.

    # Returns
        COCO result records, for `evaluate`.
    """
    scores = rescore(np.asarray(box_scores, np.float64), keypoints[..., 2], peak_threshold)
    persons: dict[Any, list[int]] = {}
    for index, image_id in enumerate(np.asarray(image_ids).tolist()):
        persons.setdefault(image_id, []).append(index)
    records = []
    for image_id, indices in persons.items():
        for kept in oks_nms(keypoints[indices], scores[indices], areas[indices], nms_threshold):
            index = indices[kept]
            records.append(record(image_id, keypoints[index], scores[index]))
    return records


def pycocotools() -> tuple[Any, Any]:
    """COCO's own tool, the classes `COCO` and `COCOeval`.

    # Raises
        ImportError: if it is missing, with the line to type.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError(
            "COCO's numbers need pycocotools: type `pip install 'pycocotools>=2.0.7'`."
        ) from error
    return COCO, COCOeval


def evaluate(
    ground_truth: str | Path | Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """COCO's ten numbers for keypoints, by COCO's own tool.

    # Arguments
        ground_truth: Annotations in COCO's form: a `.json` or `.json.gz` file, or its content.
            Results of pictures that it does not name are left out; persons in pictures without
            results count as missed, so give the annotations of the pictures that were looked at.
        records: Results, as `results` gives them.

    # Returns
        AP and AR as the means over OKS 0.50:0.05:0.95, at 0.50 and 0.75, and of medium and large
        persons, by the names of `METRICS`; -1 where the ground truth has no such person.

    # Raises
        FileNotFoundError: if there is no such file.
        ImportError: if pycocotools is missing.
        ValueError: if the ground truth is none, if it has none of the records' pictures, or if a
            record lacks something.
    """
    COCO, COCOeval = pycocotools()
    dataset = _ground_truth(ground_truth)
    for index, result in enumerate(records):
        _check_record(result, f"Record {index}")
    images = {image["id"] for image in dataset["images"]}
    found = [{**result} for result in records if result["image_id"] in images]
    if records and not found:
        raise ValueError(
            "The ground truth has none of the pictures of the results (image_id "
            f"{records[0]['image_id']!r} and others): is it that of another data set?"
        )
    for index, result in enumerate(found, 1):
        result.update(id=index, area=_extent(result["keypoints"]))
    with contextlib.redirect_stdout(io.StringIO()):
        truth, predicted = COCO(), COCO()
        truth.dataset, predicted.dataset = dataset, {**dataset, "annotations": found}
        truth.createIndex()
        predicted.createIndex()
        evaluation = COCOeval(truth, predicted, "keypoints")
        evaluation.params.catIds = [PERSON]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, map(float, evaluation.stats), strict=True))


def _extent(keypoints: Sequence[float]) -> float:
    """Area of the box around all keypoints, which decides whether a result is medium or large."""
    points = np.reshape(keypoints, (-1, 3))
    return float(np.ptp(points[:, 0]) * np.ptp(points[:, 1]))


def _ground_truth(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The data set, with annotations that COCO's tool may write to."""
    name = "The ground truth"
    if not isinstance(source, Mapping):
        name, source = str(source), read_json(Path(source))
    if not isinstance(source, Mapping) or not {"images", "annotations"} <= source.keys():
        raise ValueError(
            f"{name} has no `images` and `annotations`: give annotations in COCO's form."
        )
    for kind, needed in (("images", ("id",)), ("annotations", _NEEDED)):
        if not isinstance(source[kind], Sequence):
            raise ValueError(f"{name}: `{kind}` is a list, received {source[kind]!r:.60}.")
        for index, entry in enumerate(source[kind]):
            where = f"{name}: entry {index} of `{kind}`"
            _check_fields(entry, needed, where)
            _check_id(entry["id" if kind == "images" else "image_id"], where)
    if len({isinstance(image["id"], str) for image in source["images"]}) > 1:
        raise ValueError(f"{name}: the ids of `images` are all numbers or all texts.")
    # For COCO's tool, a result that was matched with the annotation 0 was matched with none, and
    # of two with one number it knows one.
    numbered = enumerate(source["annotations"], 1)
    annotations = [{"iscrowd": 0, **person, "id": number} for number, person in numbered]
    categories = [{"id": PERSON, "name": "person"}]
    return {**source, "annotations": annotations, "categories": categories}


def _check_fields(entry: Any, needed: Sequence[str], where: str) -> None:
    missing = [field for field in needed if not isinstance(entry, Mapping) or field not in entry]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")


def _check_id(image_id: Any, where: str) -> None:
    if not isinstance(image_id, Integral | str):
        raise ValueError(
            f"{where}: the id of a picture is a number or a text, received {image_id!r:.60}."
        )


def _check_record(result: Any, where: str) -> None:
    _check_fields(result, _OF_RESULTS, where)
    _check_id(result["image_id"], where)
    shape = np.shape(result["keypoints"])
    if shape != (3 * len(SIGMAS),):
        raise ValueError(
            f"{where}: `keypoints` are {len(SIGMAS)} times x, y, confidence in one list, received "
            f"the shape {shape}."
        )


def read_json(path: Path) -> Any:
    """Reads a `.json` or `.json.gz` file.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if it is no JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = path.read_bytes()
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return json.loads(content)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
