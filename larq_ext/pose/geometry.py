"""From a box in a picture to the crop that a network sees, and back.

A *view* is what is cut out: its centre in pixels and its scale, the size in units of 200 pixels, as
the official code of the parents has them. Coordinates are those of pixel centres: the first pixel
of a row is at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PADDING = 1.25  # a view is this much larger than the box
PIXEL_STD = 200.0


def clip_box(box: Sequence[float], image_size: Sequence[int]) -> np.ndarray | None:
    """Clips a box to a picture as the standard pipeline does with labelled boxes.

    \\[ x_1 = \\max(0, x), \\quad x_2 = \\min(W - 1, x_1 + \\max(0, w - 1)) \\]
    and the same for y: the corners are pixel centres, so a box becomes one pixel smaller.

    # Arguments
        box: x, y, width, height in pixels.
        image_size: Height and width of the picture.

    # Returns
        float64 array `(4,)` of x, y, width, height; `None` if no area is left.

    # References
        - [Official code](https://github.com/leoxiaobin/deep-high-resolution-net.pytorch)
    """
    first = np.maximum(0.0, box[:2])
    last = np.asarray(image_size[::-1], float) - 1
    last = np.minimum(last, first + np.maximum(0.0, np.asarray(box[2:], float) - 1))
    size = last - first
    # A comparison that NaN fails.
    return np.concatenate([first, size]) if size.min() > 0 else None


def view_area(scale: np.ndarray) -> np.ndarray:
    """Areas of views in square pixels, from their scales `(..., 2)`."""
    return scale.prod(-1) * PIXEL_STD**2


def box_to_view(
    box: np.ndarray | Sequence[float], aspect: float, padding: float = PADDING
) -> tuple[np.ndarray, np.ndarray]:
    """The view around a box: the smallest of the aspect that holds it, made larger.

    # Arguments
        box: x, y, width, height in pixels; `(..., 4)`.
        aspect: Width by height of the network's input.
        padding: Factor of the size.

    # Returns
        The centre `(..., 2)` in pixels, and the scale `(..., 2)`: width and height in units of
        200 pixels.
    """
    box = np.asarray(box, np.float64)
    width = np.maximum(box[..., 2], box[..., 3] * aspect)
    scale = np.stack([width, width / aspect], -1) * (padding / PIXEL_STD)
    return box[..., :2] + box[..., 2:] / 2, scale


def affine(
    centre: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
    rotation: float,
    size: Sequence[int],
) -> np.ndarray:
    """The map from a picture to a crop of it.

    \\[ x_{out} = k R (x - c) + (W_{out}, H_{out}) / 2, \\quad k = W_{out} / (200 s_w) \\]
    with \\( R = [[\\cos r, \\sin r], [-\\sin r, \\cos r]] \\). Heat maps a quarter of the crop
    in size take the same view with their own `size`: their coordinates are a quarter of the
    crop's.

    # Arguments
        centre: Centre of the view in pixels.
        scale: Its width and height in units of 200 pixels; only the width is used.
        rotation: Degrees.
        size: Height and width of the crop.

    # Returns
        float64 array `(2, 3)`, for `transform`.

    # References
        - [Official code](https://github.com/leoxiaobin/deep-high-resolution-net.pytorch)
          (a closed form of its construction from three points)
    """
    factor = size[1] / (PIXEL_STD * scale[0])
    angle = np.deg2rad(rotation)
    cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
    linear = np.array([[cosine, sine], [-sine, cosine]])
    middle = np.array([[size[1] / 2], [size[0] / 2]])
    return np.hstack([linear, middle - linear @ np.reshape(centre, (2, 1))])


def invert(matrix: np.ndarray) -> np.ndarray:
    """The map from the crop back to the picture, `(2, 3)`."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], 1)


def transform(matrix: np.ndarray, points: np.ndarray | Sequence[float]) -> np.ndarray:
    """Maps points.

    # Arguments
        matrix: `(2, 3)`, or `(..., 2, 3)` to go with the points by the rules of broadcasting.
        points: x and y, `(..., 2)`.

    # Returns
        Their images, `(..., 2)`.
    """
    return np.einsum("...ij,...j->...i", matrix[..., :2], points) + matrix[..., 2]


def crop(image: np.ndarray, matrix: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Cuts a view out of a picture, bilinearly, with zeros outside of it.

    # Arguments
        image: uint8 array `(rows, columns, 3)`.
        matrix: The map from the picture to the crop, `(2, 3)`.
        size: Height and width of the crop.

    # Returns
        uint8 array `(height, width, 3)`, rounded as in training (Pillow cuts the fractions off).
    """
    back = invert(matrix)
    if not back[0, 1] and not back[1, 0]:
        # Without a rotation line by line, which is ten times as fast.
        columns, rows = (back[i, i] * np.arange(size[1 - i]) + back[i, 2] for i in (0, 1))
        (first, before), (last, behind) = _neighbours(columns, image.shape[1])
        part = slice(min(first.min(), last.min()), max(first.max(), last.max()) + 1)
        lines = sum(w[:, None, None] * image[y, part] for y, w in _neighbours(rows, image.shape[0]))
        first, last = first - part.start, last - part.start
        found = before[:, None] * lines[:, first] + behind[:, None] * lines[:, last]
    else:
        grid = np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), -1)
        x, y = np.moveaxis(transform(back, grid), -1, 0)
        found = sum(
            (right * down)[..., None] * image[row, column]
            for column, right in _neighbours(x, image.shape[1])
            for row, down in _neighbours(y, image.shape[0])
        )
    return np.rint(found).astype(np.uint8)


def _neighbours(places: np.ndarray, length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two pixels that each place lies between, with their weights, 0 outside of the picture."""
    first = np.floor(places).astype(int)
    beyond = (places - first).astype(np.float32)
    return [
        (index.clip(0, length - 1), np.where((index >= 0) & (index < length), weight, 0))
        for index, weight in ((first, 1 - beyond), (first + 1, beyond))
    ]
