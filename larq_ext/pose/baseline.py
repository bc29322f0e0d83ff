"""The mean pose: what a network must beat to have looked at the picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def mean_pose(annotations: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Mean position of each keypoint relative to the box, over labelled persons.

    \\[ \\bar p_i = \\mathrm{mean} \\frac{p_i - (x, y)}{(w, h)} \\]
    over the persons whose keypoint i is labelled.

    # Arguments
        annotations: COCO's annotations of the training persons; those without labelled keypoints,
            with an empty box and crowds do not count.

    # Returns
        float64 array `(17, 2)`: 0 is the left or upper side of the box, 1 the other.

    # Raises
        ValueError: if a keypoint is not labelled in any person.
    """
    persons = [
        person
        for person in annotations
        if any(person.get("keypoints", ())[2::3])
        and min(person["bbox"][2:]) > 0
        and not person.get("iscrowd")
    ]
    keypoints = np.array([person["keypoints"] for person in persons], float).reshape(-1, 17, 3)
    boxes = np.array([person["bbox"] for person in persons], float).reshape(-1, 1, 4)
    labelled = keypoints[..., 2:] > 0
    count = labelled.sum(0)
    if not count.all():
        raise ValueError(
            f"A mean pose needs each keypoint labelled at least once, but of {len(persons)} "
            f"persons {int((count == 0).sum())} of 17 keypoints are never labelled."
        )
    relative = (keypoints[..., :2] - boxes[..., :2]) / boxes[..., 2:]
    return np.where(labelled, relative, 0.0).sum(0) / count


def pose_in_boxes(pose: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The same pose in each box.

    # Arguments
        pose: What `mean_pose` gives.
        boxes: x, y, width, height in pixels, `(persons, 4)`.

    # Returns
        x, y in pixels and the confidence 1, `(persons, 17, 3)`.
    """
    boxes = np.asarray(boxes, float)[:, None]
    points = boxes[..., :2] + pose * boxes[..., 2:]
    return np.concatenate([points, np.ones((*points.shape[:2], 1))], -1)
