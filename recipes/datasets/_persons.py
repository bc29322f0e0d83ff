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
_FIELDS = ("id", "image_id", "bbox", "area", "keypoints")
_NUMBERS = 3 * len(KEYPOINTS)


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
    images, people = check_entries(content, name)
    found = [person for person in people if _is_example(person)]
    pictures = [images[person["image_id"]] for person in found]
    boxes = [
        clip_box(person["bbox"], (picture["height"], picture["width"]))
        for person, picture in zip(found, pictures, strict=True)
    ]
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


def check_entries(
    content: Mapping[str, Any], name: str
) -> tuple[dict[int, dict[str, Any]], list[dict[str, Any]]]:
    """Checks all that training, evaluation and scoring read in annotations.

    A number of labelled keypoints or a category that is missing is filled in.

    # Arguments
        content: Annotations in COCO's form.
        name: What to call them in errors.

    # Returns
        The entries of the pictures by their ids, and those of the persons.

    # Raises
        DatasetError: if a field is missing or wrong; it names the entry.
    """
    images = {}
    for index, image in enumerate(content["images"]):
        _check_image(image, f"{name}: image {index}")
        images[image["id"]] = image
    people = []
    for index, person in enumerate(content["annotations"]):
        where = f"{name}: annotation {index}"
        if isinstance(person, dict) and person.get("category_id", PERSON) != PERSON:
            continue
        _check_person(person, where)
        if person["image_id"] not in images:
            raise DatasetError(
                f"{where} is in the picture {person['image_id']}, which is not listed."
            )
        labelled = sum(value > 0 for value in person["keypoints"][2::3])
        people.append({"category_id": PERSON, "num_keypoints": labelled, **person})
    return images, people


def _check_image(image: Any, where: str) -> None:
    _check_fields(image, _IMAGE_FIELDS, where)
    _check_value(image, "id", _is_integer(image["id"]), "an integer", where)
    _check_value(image, "file_name", isinstance(image["file_name"], str), "a text", where)
    for side in ("width", "height"):
        is_size = _are_numbers([image[side]]) and image[side] > 0
        _check_value(image, side, is_size, "a number above 0", where)


def _check_person(person: Any, where: str) -> None:
    _check_fields(person, _FIELDS, where)
    for field in ("id", "image_id"):
        _check_value(person, field, _is_integer(person[field]), "an integer", where)
    is_count = _is_integer(person.get("num_keypoints", 0))
    _check_value(person, "num_keypoints", is_count, "an integer", where)
    _check_value(person, "area", _are_numbers([person["area"]]), "a finite number", where)
    for field, count in (("bbox", 4), ("keypoints", _NUMBERS)):
        values = person[field]
        is_sound = isinstance(values, list) and len(values) == count and _are_numbers(values)
        _check_value(person, field, is_sound, f"a list of {count} finite numbers", where)


def _check_fields(entry: Any, fields: Iterable[str], where: str) -> None:
    missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
    if missing:
        raise DatasetError(f"{where} lacks {', '.join(missing)}: these are not COCO's annotations.")


def _check_value(
    entry: Mapping[str, Any], field: str, is_sound: bool, wanted: str, where: str
) -> None:
    if not is_sound:
        raise DatasetError(f"{where}: {field} must be {wanted}, received {entry[field]!r:.60}.")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _are_numbers(values: Iterable[Any]) -> bool:
    """Neither NaN nor infinite, and not so large that float32 squares would be."""
    try:
        return all(-1e9 < value < 1e9 for value in values)
    except TypeError:
        return False


def _is_example(person: Mapping[str, Any]) -> bool:
    is_labelled = any(value > 0 for value in person["keypoints"][2::3])
    return not person.get("iscrowd") and person["area"] > 0 and is_labelled
