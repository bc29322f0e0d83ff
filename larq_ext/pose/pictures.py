"""Poses of the persons in picture files: records, and pictures with skeletons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from larq_ext._files import atomic
from larq_ext._images import SUFFIXES, load_image, pillow
from larq_ext.pose.boxes import BoxFile, fit, image_id
from larq_ext.pose.draw import draw
from larq_ext.pose.estimator import PoseEstimator
from larq_ext.pose.scoring import record


class Found(NamedTuple):
    """What was found in a picture: COCO result records with the file's name, and remarks."""

    records: list[dict[str, Any]]
    notes: list[str]


def estimate(
    estimator: PoseEstimator,
    picture: Path,
    boxes: BoxFile | None,
    target: Path | None,
    *,
    threshold: float = 0.2,
    show_boxes: bool = False,
) -> Found:
    """Finds the poses in a picture file, and draws them.

    # Arguments
        estimator: What finds them.
        picture: A file of any kind that Pillow reads.
        boxes: Where the persons are; `None` takes the whole picture as one person.
        target: The file to write, whole or not at all; `None` writes none.
        threshold, show_boxes: See `draw`.

    # Returns
        What was found.

    # Raises
        ValueError: if the picture cannot be read.
        OSError: if the target cannot be written.
    """
    image, notes = _read(picture, boxes)
    if boxes is None:
        number, poses = image_id(picture), estimator.predict(image)
    else:
        number, given = boxes.image_id(picture), boxes.find(picture)
        if not len(given.boxes):
            notes.append("there is no box for it")
        usable, skipped = fit(given, image.shape[:2])
        notes += skipped
        poses = estimator.predict(image, *usable)
    if target is not None:
        drawn = draw(image, poses, threshold=threshold, boxes=show_boxes)
        with atomic(target) as temporary:
            pillow().fromarray(drawn).save(temporary, quality=95)
    records = [
        {"file_name": picture.name, **record(number, pose.keypoints, pose.score)} for pose in poses
    ]
    return Found(records, notes)


def _read(picture: Path, boxes: BoxFile | None) -> tuple[Any, list[str]]:
    """The picture that the boxes are of, and remarks: people label upright ones or stored ones."""
    image = load_image(picture, 3)
    size = None if boxes is None else boxes.image_size(picture)
    if size is None:
        return image, []
    # First, as some orientations leave the size as it is; so do training and evaluation.
    stored = load_image(picture, 3, upright=False)
    if stored.shape[:2] == size:
        is_turned = stored.shape != image.shape or (stored != image).any()
        note = "it is not turned as its EXIF data say: nor was it for its annotations"
        return stored, [note] * is_turned
    if image.shape[:2] == size:
        return image, []
    height, width = image.shape[:2]
    return image, [f"it has {width} x {height} pixels, its annotations say {size[1]} x {size[0]}"]


def shared_numbers(pictures: Sequence[Path], boxes: BoxFile | None) -> list[str]:
    """Finds pictures that are the same one for COCO: with the same number at the end of the name.

    # Returns
        A sentence about each that has the number of an earlier one.

    # Raises
        ValueError: if both would get the same boxes.
    """
    seen: dict[int | str, Path] = {}
    notes = []
    for picture in pictures:
        number = image_id(picture) if boxes is None else boxes.image_id(picture)
        other = seen.setdefault(number, picture)
        if other == picture:
            continue
        sentence = f"{other} and {picture} have the same image_id, {number}"
        keys = [None if boxes is None else boxes.known_by(each) for each in (picture, other)]
        if keys[0] is not None and keys[0] == keys[1]:
            raise ValueError(
                f"{sentence}, and so the same boxes: give them one after the other"
                + (
                    "."
                    if picture.name == other.name
                    else ', or boxes by the names of files, {"NAME": [[x, y, width, height]]}.'
                )
            )
        notes.append(sentence)
    return notes


def targets(pictures: Sequence[Path], output: Path) -> list[Path]:
    """The file to write for each picture.

    # Arguments
        pictures: The pictures.
        output: A file for one picture, or a folder, for PNG files that are named like the
            pictures (`a.png` for `a.jpg`; `a.jpg.png` if there is another `a`).

    # Returns
        As many paths.

    # Raises
        ValueError: if several pictures would become one file, or one would be written over.
    """
    is_file = output.suffix.lower() in SUFFIXES and not output.is_dir()
    if is_file and len(pictures) > 1:
        raise ValueError(
            f"{len(pictures)} pictures need a folder for the output, received the file {output}."
        )
    if not is_file and output.suffix and not output.is_dir() and len(pictures) == 1:
        raise ValueError(
            f"The output is a folder or a picture ({', '.join(SUFFIXES)}), received {output}."
        )
    stems = Counter(picture.stem for picture in pictures)
    names = [each.name if stems[each.stem] > 1 else each.stem for each in pictures]
    files = [output] if is_file else [output / f"{name}.png" for name in names]
    origins = {picture.resolve() for picture in pictures}
    seen: dict[Path, Path] = {}
    for picture, file in zip(pictures, files, strict=True):
        if file.resolve() in origins:
            raise ValueError(f"The output {file} would be written over a picture: take another.")
        other = seen.setdefault(file, picture)
        if other != picture:
            raise ValueError(
                f"{other} and {picture} would both become {file}: give them one after the other, "
                "with outputs of their own."
            )
    return files
