"""Persons with labelled keypoints, as the annotations of COCO have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from larq_ext.pose.geometry import PIXEL_STD, box_to_view, clip_box
from larq_ext.pose.keypoints import KEYPOINTS
from larq_ext.pose.scoring import PERSON
from larq_ext_recipes.datasets._dataset import DatasetError

_IMAGE_FIELDS = ("id", "file_name", "width", "height")
_FIELDS = ("image_id", "bbox", "area", "keypoints")


@dataclasses.dataclass(frozen=True)
class Persons:
    """Persons, each in a box in a picture.

    # Arguments
        images: Numbers of their pictures, int64 `(persons,)`.
        boxes: x, y, width, height in pixels, clipped to the picture, `(persons, 4)`.
        keypoints: x, y in pixels of the picture, and 1 or 0 for labelled or not; float32
            `(persons, 17, 3)`.
    """

    images: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def part(self, pictures: np.ndarray) -> Persons:
        """Those in some pictures, which get new numbers.

        # Arguments
            pictures: Numbers of the pictures to keep, sorted.
        """
        kept = np.isin(self.images, pictures)
        numbers = np.searchsorted(pictures, self.images[kept])
        return Persons(numbers, self.boxes[kept], self.keypoints[kept])

    def views(self, aspect: float) -> np.ndarray:
        """Centre x, y and width of each view in pixels, float32 `(persons, 3)`.

        # Arguments
            aspect: Width by height of the crops.
        """
        centres, scales = box_to_view(self.boxes, aspect)
        return np.concatenate([centres, PIXEL_STD * scales[:, :1]], 1).astype(np.float32)


def read_persons(
    content: Mapping[str, Any], name: str, *, every_picture: bool = False
) -> tuple[list[dict[str, Any]], Persons]:
    """Chooses the persons that the standard pipeline trains and evaluates on.

    No crowds; area above 0; a keypoint labelled at least; something left of the box in the picture.

    # Arguments
        content: Annotations in COCO's form.
        name: What to call them in errors.
        every_picture: Whether to keep pictures without such a person too.

    # Returns
        The entries of the pictures, sorted by number, and the persons, whose numbers of pictures
        count those.

    # Raises
        DatasetError: if a field is missing or wrong.
    """
    images: dict[Any, dict[str, Any]] = {}
    for index, image in enumerate(content["images"]):
        check_fields(image, _IMAGE_FIELDS, f"{name}: image {index}")
        images[image["id"]] = image
    found = [
        person
        for index, person in enumerate(content["annotations"])
        if _is_person(person, f"{name}: annotation {index}", images)
    ]
    boxes = [_clipped(person, images[person["image_id"]]) for person in found]
    pairs = [pair for pair in zip(found, boxes, strict=True) if pair[1] is not None]
    if not pairs:
        raise DatasetError(f"{name} has no person with a labelled keypoint.")
    used = sorted(images if every_picture else {person["image_id"] for person, _ in pairs})
    numbers = {image_id: number for number, image_id in enumerate(used)}
    keypoints = np.array([person["keypoints"] for person, _ in pairs], np.float32)
    keypoints = keypoints.reshape(-1, len(KEYPOINTS), 3)
    keypoints[..., 2] = keypoints[..., 2] > 0  # hidden ones are learned like visible ones
    persons = Persons(
        np.array([numbers[person["image_id"]] for person, _ in pairs], np.int64),
        np.stack([box for _, box in pairs]),
        keypoints,
    )
    return [images[image_id] for image_id in used], persons


def _is_person(person: Any, where: str, images: Mapping[Any, Any]) -> bool:
    check_fields(person, _FIELDS, where)
    if person.get("category_id", PERSON) != PERSON or person.get("iscrowd"):
        return False
    if len(person["keypoints"]) != 3 * len(KEYPOINTS) or len(person["bbox"]) != 4:
        raise DatasetError(
            f"{where} needs a bbox of 4 numbers and keypoints of {3 * len(KEYPOINTS)}, received "
            f"{len(person['bbox'])} and {len(person['keypoints'])}."
        )
    if person["image_id"] not in images:
        raise DatasetError(f"{where} is in the picture {person['image_id']}, which is not listed.")
    return person["area"] > 0 and any(person["keypoints"][2::3])


def _clipped(person: Mapping[str, Any], image: Mapping[str, Any]) -> np.ndarray | None:
    box = clip_box(person["bbox"], (image["height"], image["width"]))
    return box if box is not None and box[2:].min() > 0 else None


def check_fields(entry: Any, fields: Iterable[str], where: str) -> None:
    """Refuses an entry without some fields.

    # Raises
        DatasetError: that names the entry and the fields that it lacks.
    """
    missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
    if missing:
        raise DatasetError(f"{where} lacks {', '.join(missing)}: these are not COCO's annotations.")
