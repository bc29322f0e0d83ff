"""Crops around persons in a graph: what `larq_ext.pose.geometry` does, and its random changes.

A *view* is what is cut out: its centre, width in pixels of the picture and rotation. The picture is
mirrored first, if it is, so all of them are in the mirrored picture then.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from larq_ext.pose.keypoints import FLIPPED, UPPER_BODY
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._pipeline import Normalise, Row, Source
from larq_ext_recipes.datasets._pictures import decode

ROTATED = 0.6  # share of the persons that are rotated
HALF_BODY_PADDING = 1.5
HALF_BODY_KEYPOINTS = 8  # persons with more of them may be reduced to a half
UPPER_BODY_BELOW = 0.5  # of a normal draw, so it is the upper half in 69 % of the cases

_MARGIN = 2  # pixels that interpolation, and JPEG's of colours, look at beside a window


class View(NamedTuple):
    """What is cut out of a picture.

    # Arguments
        centre: x, y in pixels, `(2,)`.
        width: In pixels.
        rotation: In radians.
        mirrored: Whether the picture is mirrored before.
    """

    centre: tf.Tensor
    width: tf.Tensor
    rotation: tf.Tensor | float = 0.0
    mirrored: tf.Tensor | bool = False


@dataclasses.dataclass(frozen=True)
class PoseAugmentation:
    r"""Random changes of views, in the order half body, scale, rotation, flip.

    With normal draws \\( N \\): the width is multiplied by \\( 1 + s N \\), clipped to
    \\( 1 \pm s \\); six of ten persons are rotated by \\( r N \\), clipped to \\( \pm 2 r \\).
    Half a body is the box of its keypoints with a padding of 1.5.

    # Arguments
        scale: Relative change s of the width.
        rotation: Angle r, degrees.
        half_body: Share of the persons of which only the upper or the lower half is kept, of those
            with more than eight labelled keypoints.
        flip: Whether half of the pictures are mirrored.

    # Raises
        UsageError: if a value is not possible.

    # References
        - [Deep High-Resolution Representation Learning](https://arxiv.org/abs/1902.09212), its
          official code
    """

    scale: float = 0.35
    rotation: float = 45.0
    half_body: float = 0.3
    flip: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.scale < 1:
            raise UsageError(f"scale must be at least 0 and below 1, received {self.scale}.")
        if not 0 <= self.rotation <= 180:
            raise UsageError(f"rotation must be from 0 to 180, received {self.rotation}.")
        if not 0 <= self.half_body <= 1:
            raise UsageError(f"half_body must be from 0 to 1, received {self.half_body}.")

    def check(self, name: str, channels: int) -> None:
        """Nothing here depends on the images."""

    def draw(self, key: tf.Tensor, size: int) -> dict[str, tf.Tensor]:
        """Random numbers for all persons of an epoch: always as many, whatever is wanted."""
        keys = tf.random.split(key, 2)
        return {
            "normal": tf.random.stateless_normal([size, 3], keys[0]),
            "uniform": tf.random.stateless_uniform([size, 3], keys[1]),
        }

    def finish(
        self, images: tf.Tensor, labels: tf.Tensor, row: Row, source: Source, normalise: Normalise
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Normalises a batch; all else was done when it was cut out."""
        return normalise(images), labels

    def change(
        self, view: View, keypoints: tf.Tensor, draws: dict[str, tf.Tensor], aspect: float
    ) -> View:
        """The view after the random changes.

        # Arguments
            view: That of the person's box.
            keypoints: x, y in pixels of the picture and the weight, `(17, 3)`.
            draws: What `draw` gave for this person.
            aspect: Width by height of the crop.
        """
        (body, scale, rotation), (halved, rotated, flipped) = (
            tf.unstack(draws["normal"]),
            tf.unstack(draws["uniform"]),
        )
        centre, width = view.centre, view.width
        if self.half_body:
            fits, half_centre, half_width = half_body(keypoints, body, aspect)
            fits &= halved < self.half_body
            centre = tf.where(fits, half_centre, centre)
            width = tf.where(fits, half_width, width)
        width *= tf.clip_by_value(1 + self.scale * scale, 1 - self.scale, 1 + self.scale)
        limit = math.radians(2 * self.rotation)
        angle = tf.clip_by_value(math.radians(self.rotation) * rotation, -limit, limit)
        mirrored = flipped < 0.5 if self.flip else tf.constant(False)
        return View(centre, width, tf.where(rotated < ROTATED, angle, 0.0), mirrored)


def half_body(
    keypoints: tf.Tensor, draw: tf.Tensor, aspect: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The view of the upper or the lower half of a body.

    # Arguments
        keypoints: x, y and the weight, `(17, 3)`.
        draw: A normal number; below 0.5 it is the upper half, if that has keypoints enough.
        aspect: Width by height of the crop.

    # Returns
        Whether there is such a half, its centre `(2,)` and its width.
    """
    points, labelled = keypoints[:, :2], keypoints[:, 2] > 0
    is_upper = tf.constant(np.arange(len(FLIPPED)) < UPPER_BODY)
    upper, lower = labelled & is_upper, labelled & ~is_upper
    counts = [tf.math.count_nonzero(half) for half in (upper, lower)]
    takes_upper = ((draw < UPPER_BODY_BELOW) & (counts[0] > 2)) | (counts[1] <= 2)
    chosen = tf.where(takes_upper, upper, lower)
    count = tf.math.count_nonzero(chosen)
    fits = (counts[0] + counts[1] > HALF_BODY_KEYPOINTS) & (count >= 2)
    centre = tf.reduce_sum(tf.where(chosen[:, None], points, 0.0), 0)
    centre /= tf.maximum(tf.cast(count, tf.float32), 1)
    first = tf.reduce_min(tf.where(chosen[:, None], points, math.inf), 0)
    last = tf.reduce_max(tf.where(chosen[:, None], points, -math.inf), 0)
    width, height = tf.unstack(last - first)
    # Keypoints in one place would be a view without a size.
    width = tf.maximum(tf.maximum(width, aspect * height), 1.0)
    return fits, centre, HALF_BODY_PADDING * width


def to_crop(
    keypoints: tf.Tensor, view: View, size: tuple[int, int], picture_width: tf.Tensor
) -> tf.Tensor:
    """Where keypoints of a picture are in the crop.

    # Arguments
        keypoints: x, y in pixels of the picture and the weight, `(17, 3)`.
        view: What is cut out.
        size: Height and width of the crop.
        picture_width: In pixels, float32.

    # Returns
        x, y in pixels of the crop and the weight, `(17, 3)`; left and right have changed places if
        the picture was mirrored.
    """
    x, y, weight = tf.unstack(keypoints, axis=1)
    x = tf.where(view.mirrored, picture_width - 1 - x, x)
    factor = size[1] / view.width
    cosine, sine = factor * tf.cos(view.rotation), factor * tf.sin(view.rotation)
    right, down = x - view.centre[0], y - view.centre[1]
    found = tf.stack(
        [
            cosine * right + sine * down + size[1] / 2,
            cosine * down - sine * right + size[0] / 2,
            weight,
        ],
        axis=1,
    )
    return tf.where(view.mirrored, tf.gather(found, FLIPPED), found)


def from_crop(view: View, size: tuple[int, int], picture_width: tf.Tensor) -> tf.Tensor:
    """The map from the crop to the picture, float32 `(2, 3)`; arguments as `to_crop`."""
    step = view.width / size[1]
    cosine, sine = step * tf.cos(view.rotation), step * tf.sin(view.rotation)
    linear = tf.reshape(tf.stack([cosine, -sine, sine, cosine]), [2, 2])
    middle = tf.constant([size[1] / 2, size[0] / 2])
    offset = view.centre - tf.linalg.matvec(linear, middle)
    matrix = tf.concat([linear, offset[:, None]], 1)
    mirrored = tf.concat([-matrix[:1], matrix[1:]], 0)
    mirrored += tf.constant([[0.0, 0, 1], [0, 0, 0]]) * (picture_width - 1)
    return tf.where(view.mirrored, mirrored, matrix)


def mirrored_view(view: View, picture_width: tf.Tensor) -> View:
    """The view with its centre in the mirrored picture, if that is mirrored."""
    x, y = tf.unstack(view.centre)
    return view._replace(centre=tf.stack([tf.where(view.mirrored, picture_width - 1 - x, x), y]))


def cut_out(content: tf.Tensor, matrix: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decodes what a crop needs of a picture, and interpolates it bilinearly, zeros outside.

    # Arguments
        content: An encoded picture.
        matrix: The map from the crop to the picture, float32 `(2, 3)`.
        size: Height and width of the crop.

    # Returns
        Pixels uint8 `(height, width, 3)`.
    """
    bottom, right = size[0] - 1, size[1] - 1
    corners = tf.constant([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]], tf.float32)
    corners = tf.matmul(matrix, corners)
    first = tf.cast(tf.floor(tf.reduce_min(corners, 1)), tf.int32) - _MARGIN
    last = tf.cast(tf.math.ceil(tf.reduce_max(corners, 1)), tf.int32) + _MARGIN

    def bounds(height: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The part of the picture that is looked at: first and last x, y; never empty."""
        ends = tf.stack([width, height]) - 1
        return tf.clip_by_value(first, 0, ends), tf.clip_by_value(last, 0, ends)

    def window(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        begin, end = bounds(height, width)
        return tf.concat([begin[::-1], (end - begin + 1)[::-1]], 0)

    picture = tf.cast(decode(content, window), tf.float32)
    matrix -= tf.concat([tf.zeros([2, 2]), tf.cast(tf.maximum(first, 0), tf.float32)[:, None]], 1)
    found = tf.raw_ops.ImageProjectiveTransformV3(
        images=picture[None],
        transforms=tf.concat([tf.reshape(matrix, [1, 6]), tf.zeros([1, 2])], 1),
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]
    return tf.saturate_cast(tf.round(found), tf.uint8)
