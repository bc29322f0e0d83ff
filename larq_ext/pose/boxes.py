"""Boxes of persons from files, and which of them a picture can use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from larq_ext.pose.scoring import PERSON, read_json


class Boxes(NamedTuple):
    """The boxes of a picture: x, y, width, height `(persons, 4)`, and their scores."""

    boxes: np.ndarray
    scores: np.ndarray


def image_id(image: str | Path) -> int | str:
    """The number at the end of a file's name, as COCO's files have it; else the name."""
    path = PurePath(image)
    digits = re.search(r"[0-9]+$", path.stem)
    return int(digits[0]) if digits else path.name


class BoxFile:
    """Boxes of persons in a `.json` or `.json.gz` file of one of three forms.

    A COCO detections file is a list of `{"image_id", "bbox"}`, each with a `score` (else 1) and a
    `category_id` (else person) if it likes. A COCO annotations file has `images` and
    `annotations`; crowds are left out. A plain one has `{"file name": [[x, y, width, height]]}`.
    Boxes of other categories are left out. A negative width or height means that x or y is that
    of the other corner.

    # Arguments
        path: The file.
        min_score: Boxes of a lower score are left out; `None` keeps all.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if it has none of these forms; the message names the record.
    """

    def __init__(self, path: Path, min_score: float | None = None) -> None:
        content = read_json(path)
        self._ids, found = _read(content, str(path))
        self._sizes = {
            PurePath(image["file_name"]).name: (image["height"], image["width"])
            for image in (content["images"] if self._ids else [])
            if {"height", "width"} <= image.keys()
        }
        self._boxes: dict[Any, list[tuple[list[float], float]]] = {}
        for key, box, score in found:
            if min_score is None or score >= min_score:
                self._boxes.setdefault(key, []).append((box, score))

    def image_id(self, image: Path) -> int | str:
        """The picture's `image_id`: that of the annotations, or by the name of its file."""
        # Annotations know all their pictures: another with such a number is not one of them.
        return self._ids.get(image.name, image.name if self._ids else image_id(image))

    def image_size(self, image: Path) -> tuple[int, int] | None:
        """Height and width of the picture that the boxes are of, where annotations say it."""
        return self._sizes.get(image.name)

    def known_by(self, image: Path) -> Any:
        """What the picture's boxes are known by, its file's name or its number; else `None`."""
        keys = (image.name, self.image_id(image))
        return next((key for key in keys if key in self._boxes), None)

    def find(self, image: Path, number: int | None = None) -> Boxes:
        """The boxes of a picture.

        # Arguments
            image: Its file, which is known by its name or by the number at the end of the name.
            number: Its `image_id` where that is known, in the place of the number in the name.
                Annotations have numbers of their own.
        """
        own = number is None or self._ids
        for key in (image.name, self.image_id(image) if own else number):
            if key in self._boxes:
                boxes, scores = zip(*self._boxes[key], strict=True)
                return Boxes(np.array(boxes), np.array(scores))
        return Boxes(np.zeros((0, 4)), np.zeros(0))


def fit(boxes: Boxes, image_size: tuple[int, int]) -> tuple[Boxes, list[str]]:
    """Clips boxes to a picture.

    # Arguments
        boxes: The boxes.
        image_size: Height and width of the picture.

    # Returns
        The boxes of which something is left, and a sentence about each of the others.
    """
    first = np.maximum(boxes.boxes[:, :2], 0)
    last = np.minimum(boxes.boxes[:, :2] + boxes.boxes[:, 2:], image_size[::-1])
    left = (last > first).all(1)
    notes = []
    for index in np.flatnonzero(~left):
        box = boxes.boxes[index]
        why = "outside of the picture" if box[2:].min() > 0 else "empty"
        numbers = ", ".join(f"{value:g}" for value in box)
        notes.append(f"box {index + 1} of {len(left)}, [{numbers}], is {why}: skipped")
    return Boxes(np.hstack([first, last - first])[left], boxes.scores[left]), notes


def _read(
    content: Any, name: str
) -> tuple[dict[str, Any], Iterable[tuple[Any, list[float], float]]]:
    """The pictures' numbers by file name, and picture, box and score of each box."""
    if isinstance(content, list):
        named = {r["image_id"] for r in content if isinstance(_image_id(r), str)}
        _by_file_name(named, name)
        return {}, _records(content, name, "record")
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        ids: dict[str, Any] = {}
        for index, image in enumerate(_checked_list(content, "images", name)):
            if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
                raise ValueError(f"{name}: image {index} lacks its `file_name`.")
            if not isinstance(image.get("id"), int | str):
                raise ValueError(f"{name}: image {index} lacks its `id`, a number or a name.")
            if ids.setdefault(image["file_name"], image["id"]) != image["id"]:
                raise ValueError(f"{name}: {image['file_name']} has two numbers.")
        numbers = {file: ids[path] for path, file in _by_file_name(ids, name).items()}
        people = _checked_list(content, "annotations", name)
        return numbers, _records(people, name, "annotation", by_name=False)
    if (
        isinstance(content, dict)
        and content
        and all(isinstance(each, list) for each in content.values())
    ):
        names = _by_file_name(content, name)
        return {}, (
            (names[file], _box(box, f"{name}: box {index} of {file}"), 1.0)
            for file, boxes in content.items()
            for index, box in enumerate(boxes)
        )
    raise ValueError(
        f"{name} holds no boxes: give a list of COCO detections, COCO annotations, or "
        '{"file name": [[x, y, width, height], ...]}.'
    )


def _image_id(record: Any) -> Any:
    return record.get("image_id") if isinstance(record, Mapping) else None


def _by_file_name(paths: Iterable[str], name: str) -> dict[str, str]:
    """The file name, by which a picture is known, of each path."""
    found: dict[str, str] = {}
    seen: dict[str, str] = {}
    for path in paths:
        file = PurePath(path).name
        other = seen.setdefault(file, path)
        if other != path:
            raise ValueError(
                f"{name} has boxes of {other} and of {path}: pictures are known by their names "
                "without folders, so give a file of boxes for each folder."
            )
        found[path] = file
    return found


def _records(
    records: Any, name: str, kind: str, *, by_name: bool = True
) -> Iterable[tuple[Any, list[float], float]]:
    """Picture, box and score; a text as picture is a file's name, or else just a number."""
    for index, record in enumerate(records):
        where = f"{name}: {kind} {index}"
        if not isinstance(record, Mapping):
            raise ValueError(f"{where} is no object, but {record!r:.60}.")
        if record.get("category_id", PERSON) != PERSON or record.get("iscrowd"):
            continue
        missing = [field for field in ("image_id", "bbox") if field not in record]
        if missing:
            raise ValueError(f"{where} lacks `{'` and `'.join(missing)}`.")
        score = record.get("score", 1.0)
        if not _is_number(score):
            raise ValueError(f"{where}: `score` is a finite number, received {score!r:.60}.")
        key = record["image_id"]
        if not isinstance(key, int | str):
            raise ValueError(f"{where}: `image_id` is a number or a name, received {key!r:.60}.")
        if by_name and isinstance(key, str):
            key = PurePath(key).name
        yield key, _box(record["bbox"], f"{where}: `bbox`"), float(score)


def _checked_list(content: Mapping[str, Any], field: str, name: str) -> list[Any]:
    if not isinstance(content[field], list):
        raise ValueError(f"{name}: `{field}` is a list, received {content[field]!r:.60}.")
    return content[field]


def _box(value: Any, where: str) -> list[float]:
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise ValueError(f"{where} is [x, y, width, height] in pixels, received {value!r:.60}.")
    x, y, width, height = map(float, value)
    return [min(x, x + width), min(y, y + height), abs(width), abs(height)]


def _is_number(value: Any) -> bool:
    # Not NaN, not infinite, and no integer that is too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9
