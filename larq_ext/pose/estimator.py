"""Persons in pictures to keypoints in pixels, with any form of a pose network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from larq_ext._images import IMAGENET_MEAN, IMAGENET_STD, pixel_numbers
from larq_ext._models_io import check_name, load_predictor, note_of
from larq_ext.pose import geometry
from larq_ext.pose.decode import METHODS, decode, mirror_back
from larq_ext.pose.keypoints import KEYPOINTS
from larq_ext.pose.scoring import oks_nms, rescore

STRIDE = 4  # pixels of the input for one of the heat maps
_BATCH = 32
_USUAL_SIZE = (256, 192)


@dataclass(frozen=True)
class Pose:
    """The keypoints of a person.

    # Arguments
        keypoints: x, y in pixels of the picture, and the confidence; `(17, 3)`.
        score: Score of the box times the mean confidence of the keypoints above 0.2.
        box: x, y, width, height in pixels: where the person was looked for.
    """

    keypoints: np.ndarray
    score: float
    box: np.ndarray


class PoseEstimator:
    """Finds the keypoints of persons, top-down: one crop of the picture for each box.

    # Arguments
        model: A Keras model, or the name of a pose network in the zoo, a `.keras` or `.h5` file,
            a SavedModel folder, or a converted `.tflite` file.
        flip_test: Whether each crop is also seen mirrored, and both heat maps averaged: twice the
            work for a better position.
        decoding: How a peak becomes a coordinate, see `larq_ext.pose.decode.decode`.
        mean, std: The input is (pixel - mean) / std with pixels from 0 to 255, RGB; `None` takes
            what the entry of the zoo says, or else ImageNet's; 0 and 1 for a model that takes
            integers.
        input_size: Height and width of the crops, for a model that takes any size; `None` for
            that of the model, or else 256 x 192.
        nms_threshold: Of persons in a picture that are more similar than this (OKS) only the best
            is kept; `None` keeps one for each box.

    # Attributes
        note: A sentence if the weights of the model are random; else `None`.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if it is no pose network: one whose output is heat maps of 17 keypoints, a
            quarter of the input in size; or if `mean` or `std` are not one number or three.

    # References
        - [Simple Baselines for Human Pose Estimation and Tracking](https://arxiv.org/abs/1804.06208)
    """

    def __init__(
        self,
        model: Any,
        *,
        flip_test: bool = True,
        decoding: str = "quarter",
        mean: Sequence[float] | np.ndarray | None = None,
        std: Sequence[float] | np.ndarray | None = None,
        input_size: tuple[int, int] | None = None,
        nms_threshold: float | None = 0.9,
    ) -> None:
        if decoding not in METHODS:
            raise ValueError(f"`decoding` is one of {list(METHODS)}, received {decoding!r}.")
        self.flip_test, self.decoding, self.nms_threshold = flip_test, decoding, nms_threshold
        self.note = note_of(model) if isinstance(model, str | Path) else None
        if isinstance(model, str | Path) and check_name(model) is None:
            import larq_ext_zoo as zoo

            entry = zoo.entry(str(model))
            if entry.preprocessing is not None:
                scale = entry.preprocessing.scale
                mean = np.divide(entry.preprocessing.mean, scale) if mean is None else mean
                std = np.divide(entry.preprocessing.std, scale) if std is None else std
        self._predictor = load_predictor(model)
        usual = (0.0, 1.0) if self._predictor.takes_integers else (IMAGENET_MEAN, IMAGENET_STD)
        chosen = (
            pixel_numbers(field, default if value is None else value, 3).astype(np.float32)
            for field, value, default in (("mean", mean, usual[0]), ("std", std, usual[1]))
        )
        self._mean, self._std = chosen
        name = model if isinstance(model, str | Path) else model.name
        self.input_size = _input_size(name, self._predictor.input_shape, input_size)
        self._map_size = (self.input_size[0] // STRIDE, self.input_size[1] // STRIDE)
        found = np.shape(self._predictor.predict(np.zeros((1, *self.input_size, 3), np.float32)))
        wanted = (1, *self._map_size, len(KEYPOINTS))
        if found != wanted:
            raise ValueError(
                f"{name} is no pose network: for an input of {(1, *self.input_size, 3)} its output "
                f"should be heat maps {wanted}, but is {found}."
            )

    def predict(
        self,
        image: np.ndarray,
        boxes: np.ndarray | Sequence[Sequence[float]] | None = None,
        box_scores: Sequence[float] | np.ndarray | None = None,
    ) -> list[Pose]:
        """Finds the keypoints of the persons in a picture.

        # Arguments
            image: uint8 array `(rows, columns, 3)`, RGB.
            boxes: x, y, width, height of the persons in pixels, `(persons, 4)`; `None` takes the
                whole picture as the box of one person.
            box_scores: Scores of the boxes, `(persons,)`; `None` for 1.

        # Returns
            The poses, in the order of the boxes.

        # Raises
            ValueError: if the image or the boxes have another form, or a box is empty.
        """
        image = _checked_image(image)
        if boxes is None:
            boxes = [[0, 0, image.shape[1], image.shape[0]]]
        boxes = _checked_boxes(boxes)
        scores = np.ones(len(boxes)) if box_scores is None else np.asarray(box_scores, float)
        if scores.shape != (len(boxes),):
            raise ValueError(f"{len(boxes)} boxes need as many scores, received {scores.shape}.")
        if not len(boxes):
            return []
        centres, scales = geometry.box_to_view(boxes, self.input_size[1] / self.input_size[0])
        keypoints = np.concatenate(
            [
                self._keypoints(image, centres[start : start + _BATCH], scales[start:][:_BATCH])
                for start in range(0, len(boxes), _BATCH)
            ]
        )
        scores = rescore(scores, keypoints[..., 2])
        kept: Sequence[int] = range(len(boxes))
        if self.nms_threshold is not None:
            areas = geometry.view_area(scales)
            kept = sorted(oks_nms(keypoints, scores, areas, self.nms_threshold))
        return [Pose(keypoints[index], float(scores[index]), boxes[index]) for index in kept]

    def _keypoints(self, image: np.ndarray, centres: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """x, y in the picture and the confidence for some views, `(views, 17, 3)`."""
        size, map_size = self.input_size, self._map_size
        views = list(zip(centres, scales, strict=True))
        crops = [geometry.crop(image, geometry.affine(*view, 0, size), size) for view in views]
        coordinates, peaks = decode(self._maps(np.stack(crops)), self.decoding)
        back = [geometry.invert(geometry.affine(*view, 0, map_size)) for view in views]
        points = geometry.transform(np.stack(back)[:, None], coordinates)
        return np.concatenate([points, peaks[..., None]], -1)

    def _maps(self, crops: np.ndarray) -> np.ndarray:
        inputs = (crops.astype(np.float32) - self._mean) / self._std
        if not self.flip_test:
            return self._finite(inputs)
        maps = self._finite(np.concatenate([inputs, inputs[:, :, ::-1]]))
        seen, mirrored = np.split(maps, 2)
        return (seen + mirror_back(mirrored)) / 2

    def _finite(self, inputs: np.ndarray) -> np.ndarray:
        maps = np.asarray(self._predictor.predict(inputs))
        if not np.isfinite(maps).all():
            raise ValueError("The heat maps hold NaN or infinity: the network's weights are bad.")
        return maps


def _input_size(
    name: Any, shape: Sequence[int | None], given: tuple[int, int] | None
) -> tuple[int, int]:
    if len(shape) != 3 or shape[-1] != 3:
        raise ValueError(
            f"{name} is no pose network: it takes no RGB images, its input is {tuple(shape)}."
        )
    size = _USUAL_SIZE if given is None else given
    height, width = (size[axis] if shape[axis] is None else shape[axis] for axis in (0, 1))
    if given is not None and (height, width) != tuple(given):
        raise ValueError(f"{name} takes crops of {height} x {width}, received input_size={given}.")
    return int(height or 0), int(width or 0)


def _checked_image(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            "A picture is a uint8 array (rows, columns, 3), RGB, received "
            f"{image.dtype} {image.shape}."
        )
    return image


def _checked_boxes(boxes: Any) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    if not boxes.size:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"Boxes are an array (persons, 4), received the shape {boxes.shape}.")
    bad = ~(np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1))
    if bad.any():
        raise ValueError(
            "A box is x, y and a width and height above 0, in pixels; box "
            f"{int(bad.argmax())} is {boxes[bad.argmax()].tolist()}."
        )
    return boxes
