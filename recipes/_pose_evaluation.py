"""COCO's ten numbers of any form of a pose network, and those of a pose that sees no picture."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from larq_ext.pose.baseline import pose_in_boxes
from larq_ext.pose.boxes import BoxFile
from larq_ext.pose.estimator import Pose, PoseEstimator
from larq_ext.pose.geometry import box_to_view, view_area
from larq_ext.pose.scoring import evaluate as coco_evaluate
from larq_ext.pose.scoring import pycocotools, record, results
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes.datasets.coco_keypoints import PersonSplit

LABELLED = "ground truth"

_ASPECT = 0.75  # of all usual inputs


class PictureBoxes(NamedTuple):
    """The boxes of one picture.

    # Arguments
        number: Of the picture in its split.
        boxes: x, y, width, height in pixels, `(persons, 4)`.
        scores: `(persons,)`.
    """

    number: int
    boxes: np.ndarray
    scores: np.ndarray


def picture_boxes(split: PersonSplit, file: str | pathlib.Path | None) -> list[PictureBoxes]:
    """The boxes to look for persons in, for each picture that has one.

    # Arguments
        split: The pictures.
        file: A detector's boxes, see `larq_ext.pose.boxes.BoxFile`; `None` for the labelled ones,
            clipped to the picture, with the score 1.

    # Raises
        UsageError: if the file cannot be read, or there is no box in these pictures.
    """
    if file is None and not len(split):
        raise UsageError(
            f"None of the {len(split.image_ids)} pictures has a labelled person: take more "
            "pictures, or give a detector's boxes."
        )
    if file is None:
        order = np.argsort(split.persons.images, kind="stable")
        numbers, starts = np.unique(split.persons.images[order], return_index=True)
        boxes = np.split(split.persons.boxes[order], starts[1:])
        pairs = zip(numbers.tolist(), boxes, strict=True)
        return [PictureBoxes(number, found, np.ones(len(found))) for number, found in pairs]
    try:
        source = BoxFile(pathlib.Path(file))
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    result = []
    for number, name in enumerate(split.pictures.names):
        boxes, scores = source.find(pathlib.Path(name), int(split.image_ids[number]))
        sound = boxes[:, 2:].min(1, initial=np.inf) > 0
        if sound.any():
            result.append(PictureBoxes(number, boxes[sound], scores[sound]))
    if not result:
        raise UsageError(f"{file} has no box in the {len(split.image_ids)} pictures of the data.")
    return result


def check_tool() -> None:
    """Looks whether COCO's own tool is here, before anything that takes long.

    # Raises
        UsageError: if it is missing, with the line to type.
    """
    try:
        pycocotools()
    except ImportError as error:
        raise UsageError(str(error)) from error


def make_estimator(model: Any, **settings: Any) -> PoseEstimator:
    """What scores a pose network; arguments as those of `PoseEstimator`.

    # Raises
        UsageError: if it is no pose network.
    """
    try:
        return PoseEstimator(model, **settings)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error


def evaluate_pose(
    model: Any,
    split: PersonSplit,
    *,
    flip_test: bool = True,
    decoding: str = "quarter",
    boxes: str | pathlib.Path | None = None,
) -> dict[str, Any]:
    """Scores a pose network with COCO's own tool.

    # Arguments
        model: Any that `larq_ext.pose.PoseEstimator` takes, or what `make_estimator` gives, which
            has the next two settings already.
        split: Pictures with persons.
        flip_test: Whether the mirrored crops are seen too.
        decoding: How a peak becomes a coordinate: `"argmax"`, `"quarter"` or `"dark"`.
        boxes: A detector's boxes; `None` for the labelled ones.

    # Returns
        AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl, and what they are of: `images`,
        `persons` (labelled), `boxes`, `flip_test`, `decoding`.

    # Raises
        UsageError: if it is no pose network, gives NaN, or the boxes cannot be read.
        DatasetError: if a picture is damaged.
    """
    estimator = model
    if not isinstance(model, PoseEstimator):
        estimator = make_estimator(model, flip_test=flip_test, decoding=decoding)
    found = picture_boxes(split, boxes)
    pictures = split.decoded([each.number for each in found])
    records = [
        record(int(split.image_ids[each.number]), pose.keypoints, pose.score)
        for each, picture in zip(found, pictures, strict=True)
        for pose in _predict(estimator, picture, each)
    ]
    return {
        **coco_evaluate(split.annotations(), records),
        "images": len(split.image_ids),
        "persons": len(split),
        "boxes": LABELLED if boxes is None else pathlib.Path(boxes).name,
        "flip_test": estimator.flip_test,
        "decoding": estimator.decoding,
    }


def _predict(estimator: PoseEstimator, picture: np.ndarray, boxes: PictureBoxes) -> list[Pose]:
    try:
        return estimator.predict(picture, boxes.boxes, boxes.scores)
    except ValueError as error:
        raise UsageError(str(error)) from error


def evaluate_mean_pose(
    pose: np.ndarray,
    split: PersonSplit,
    boxes: str | pathlib.Path | None = None,
) -> dict[str, float]:
    """COCO's ten numbers of one pose for all, in each box.

    # Arguments
        pose: That of the training persons, as `larq_ext.pose.mean_pose` gives it.
        split: Pictures with persons.
        boxes: As `evaluate_pose` takes them.

    # Raises
        UsageError: if the boxes cannot be read.
    """
    found = picture_boxes(split, boxes)
    ids = np.repeat(
        split.image_ids[[each.number for each in found]], [len(each.boxes) for each in found]
    )
    rectangles = np.concatenate([each.boxes for each in found])
    scores = np.concatenate([each.scores for each in found])
    _, scales = box_to_view(rectangles, _ASPECT)
    keypoints = pose_in_boxes(pose, rectangles)
    records = results(ids, keypoints, scores, view_area(scales))
    return coco_evaluate(split.annotations(), records)


def describe_numbers(numbers: dict[str, Any], names: Iterable[str] = ("AP", "AP50", "AR")) -> str:
    """Some of the ten numbers in percent, as `AP 12.3, AP50 ...`."""
    return ", ".join(f"{name} {100 * numbers[name]:.1f}" for name in names)
