"""Draws skeletons on pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from larq_ext._images import pillow
from larq_ext.pose.keypoints import KEYPOINTS, LIMBS

if TYPE_CHECKING:
    from PIL import Image

    from larq_ext.pose.estimator import Pose

# Of Okabe and Ito, who chose colours that the colour-blind tell apart too.
COLOURS = {
    "head": (204, 121, 167),
    "torso": (0, 158, 115),
    "left": (86, 180, 233),
    "right": (230, 159, 0),
}
_OUTLINE = (0, 0, 0)
_LARGEST_CANVAS = 3000  # pixels of a side, of what is drawn enlarged


def draw(
    image: np.ndarray, poses: Iterable[Pose], *, threshold: float = 0.2, boxes: bool = False
) -> np.ndarray:
    """Draws skeletons on a picture.

    Left limbs are blue, right ones orange, the torso green and the head pink. The surer a limb is,
    the less transparent; the larger the person, the thicker.

    # Arguments
        image: uint8 array `(rows, columns, 3)`.
        poses: What is drawn; the one with the best score on top.
        threshold: Keypoints of a lower confidence, and those outside of the picture, are not drawn.
        boxes: Whether the boxes are drawn too.

    # Returns
        A new uint8 array of the same shape.
    """
    Image = pillow()
    picture = Image.fromarray(np.ascontiguousarray(image))
    for pose in sorted(poses, key=lambda pose: pose.score):
        points, confidence = pose.keypoints[:, :2], pose.keypoints[:, 2]
        inside = ((points >= -0.5) & (points <= np.array(picture.size) - 0.5)).all(1)
        shown = inside & (confidence >= threshold)
        corners = points[shown]
        frame = np.array([pose.box[:2], pose.box[:2] + pose.box[2:]]) if boxes else None
        if frame is not None:
            frame = np.clip(frame, 0, np.array(picture.size) - 1)
            corners = np.concatenate([corners, frame])
        if not len(corners):
            continue
        width = _line_width(np.ptp(corners, 0).max(), max(picture.size))
        canvas = _Canvas(corners, width, picture.size)
        if frame is not None:
            canvas.box(frame)
        canvas.skeleton(points, confidence, shown)
        canvas.paste_on(picture)
    return np.asarray(picture)


def _line_width(extent: float, side: int) -> float:
    """Pixels: of a person this large, but not out of proportion to the picture."""
    return float(np.clip(extent / 60, 1.0, max(1.0, side / 120)))


class _Canvas:
    """A transparent part of the picture, enlarged so that lines get smooth edges.

    # Arguments
        corners: Points that it must hold, with room for lines around them.
        width: Width of the lines in pixels.
        size: Width and height of the picture.
    """

    def __init__(self, corners: np.ndarray, width: float, size: tuple[int, int]) -> None:
        from PIL import Image, ImageDraw

        room = 2 * width + 1
        self._first = np.clip(np.floor(corners.min(0) - room), 0, size).astype(int)
        last = np.clip(np.ceil(corners.max(0) + room) + 1, 0, size).astype(int)
        extent = last - self._first
        self._factor = int(np.clip(_LARGEST_CANVAS // extent.max(), 1, 4))
        self._image = Image.new("RGBA", tuple((extent * self._factor).tolist()))
        self._draw = ImageDraw.Draw(self._image)
        self._width = width * self._factor

    def skeleton(self, points: np.ndarray, confidence: np.ndarray, shown: np.ndarray) -> None:
        places = self._places(points)
        limbs = [
            (COLOURS[group], *limb)
            for group, pairs in LIMBS.items()
            for limb in pairs
            if shown[list(limb)].all()
        ]
        for border in (True, False):
            for colour, first, second in limbs:
                sure = min(confidence[first], confidence[second])
                self._line(places[[first, second]], colour, sure, border)
        for index in np.flatnonzero(shown):
            side = KEYPOINTS[index].partition("_")[0]
            self._joint(places[index], COLOURS.get(side, COLOURS["head"]), confidence[index])

    def box(self, frame: np.ndarray) -> None:
        (left, top), (right, bottom) = self._places(frame)
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        self._draw.line(corners, (255, 255, 255, 200), round(self._width / 2) or 1)

    def paste_on(self, picture: Image.Image) -> None:
        small = self._image.reduce(self._factor)
        picture.paste(small, tuple(self._first.tolist()), small)

    def _places(self, points: np.ndarray) -> np.ndarray:
        # The centre of the first pixel is at one half of it.
        return (points - self._first + 0.5) * self._factor

    def _line(self, ends: np.ndarray, colour: tuple, sure: float, border: bool) -> None:
        width = self._width * (1.6 if border else 1.0)
        fill = (*(_OUTLINE if border else colour), _opacity(sure))
        self._draw.line([tuple(end) for end in ends.tolist()], fill, max(1, round(width)))

    def _joint(self, place: np.ndarray, colour: tuple, sure: float) -> None:
        radius = 1.1 * self._width
        corners = [*(place - radius).tolist(), *(place + radius).tolist()]
        outline = (*_OUTLINE, _opacity(sure))
        self._draw.ellipse(
            corners, (*colour, _opacity(sure)), outline, max(1, round(0.3 * self._width))
        )


def _opacity(sure: float) -> int:
    return round(255 * float(np.clip(0.3 + 0.7 * sure, 0.3, 1.0)))
