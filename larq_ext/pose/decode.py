"""From heat maps to coordinates."""

from __future__ import annotations

import numpy as np

from larq_ext.pose.keypoints import FLIPPED

METHODS = ("argmax", "quarter", "dark")
_TAPS = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 2.0**2))
_BLUR = _TAPS / _TAPS.sum()  # sigma 2, as the targets have it


def mirror_back(maps: np.ndarray) -> np.ndarray:
    """Turns the heat maps of a mirrored crop into those of the crop, for the flip test.

    Columns are mirrored, left and right keypoints change places, and all is shifted right by one
    pixel (the first column stays): targets sit at a quarter of the crop's coordinate, which the
    mirror takes to 0.75 pixels too far left.

    # Arguments
        maps: `(samples, rows, columns, 17)`.

    # Returns
        Array of the same shape.
    """
    mirrored = maps[:, :, ::-1][..., FLIPPED]
    return np.concatenate([mirrored[:, :, :1], mirrored[:, :, :-1]], 2)


def decode(maps: np.ndarray, method: str = "quarter") -> tuple[np.ndarray, np.ndarray]:
    """Finds the peak of each heat map.

    `"argmax"` is the highest pixel. `"quarter"` moves it by a quarter of a pixel on each axis
    towards the higher neighbour. `"dark"` blurs the map, and takes one Newton step to the maximum
    of its logarithm, which is exact for a Gaussian. Peaks at the border are not refined.

    # Arguments
        maps: `(samples, rows, columns, keypoints)`.
        method: One of the three.

    # Returns
        Coordinates x, y in pixels of the map, float64 `(samples, keypoints, 2)`, (0, 0) for a map
        that is nowhere above 0; and the values of the peaks `(samples, keypoints)`.

    # Raises
        ValueError: for another method.

    # References
        - [Official code](https://github.com/leoxiaobin/deep-high-resolution-net.pytorch)
        - [Distribution-Aware Coordinate Representation for Human Pose
          Estimation](https://arxiv.org/abs/1910.06278) (DARK)
    """
    if method not in METHODS:
        raise ValueError(f"The method of decoding is one of {list(METHODS)}, received {method!r}.")
    samples, rows, columns, keypoints = maps.shape
    flat = maps.reshape(samples, -1, keypoints)
    best = flat.argmax(1)
    scores = flat.max(1)
    peak = np.stack([best % columns, best // columns], -1) * (scores > 0)[..., None]
    if method == "argmax":
        return peak.astype(np.float64), scores
    border = 1 if method == "quarter" else 2
    inside = ((peak > 1) & (peak < np.array([columns, rows]) - border)).all(-1, keepdims=True)
    step = _quarter(maps, peak) if method == "quarter" else _newton(maps, peak, scores)
    return peak + np.where(inside, step, 0.0), scores


def _quarter(maps: np.ndarray, peak: np.ndarray) -> np.ndarray:
    near = _Neighbours(maps, peak)
    return 0.25 * np.sign(
        np.stack([near.at(1, 0) - near.at(-1, 0), near.at(0, 1) - near.at(0, -1)], -1)
    )


def _newton(maps: np.ndarray, peak: np.ndarray, scores: np.ndarray) -> np.ndarray:
    blurred = _blur(maps)
    highest = blurred.max((1, 2), keepdims=True)
    # A map nowhere above 0 is not refined; whatever the scale, it must not divide by 0.
    scaled = blurred * (scores[:, None, None] / np.where(highest > 0, highest, 1.0))
    near = _Neighbours(np.log(np.maximum(scaled, 1e-10)), peak)
    dx = (near.at(1, 0) - near.at(-1, 0)) / 2
    dy = (near.at(0, 1) - near.at(0, -1)) / 2
    dxx = (near.at(2, 0) - 2 * near.at(0, 0) + near.at(-2, 0)) / 4
    dyy = (near.at(0, 2) - 2 * near.at(0, 0) + near.at(0, -2)) / 4
    dxy = (near.at(1, 1) - near.at(-1, 1) - near.at(1, -1) + near.at(-1, -1)) / 4
    determinant = dxx * dyy - dxy**2
    # Without a maximum of the parabola the step would lead away from the peak.
    curved = (determinant > 0) & (dxx < 0)
    divisor = np.where(curved, determinant, 1.0)
    step = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / divisor[..., None]
    return np.where(curved[..., None], step, 0.0)


def _blur(maps: np.ndarray) -> np.ndarray:
    """Convolves rows and columns with the Gaussian, with zeros outside."""
    reach = len(_BLUR) // 2
    for axis in (1, 2):
        first = np.moveaxis(maps, axis, 0)
        padded = np.pad(first, [(reach, reach), (0, 0), (0, 0), (0, 0)])
        blurred = sum(tap * padded[i : i + len(first)] for i, tap in enumerate(_BLUR))
        maps = np.moveaxis(np.asarray(blurred), 0, axis)
    return maps


class _Neighbours:
    """The values of maps at an offset from their peaks, at the border those of the border."""

    def __init__(self, maps: np.ndarray, peak: np.ndarray) -> None:
        self._maps, self._peak = maps, peak

    def at(self, right: int, down: int) -> np.ndarray:
        samples, rows, columns, keypoints = self._maps.shape
        x = np.clip(self._peak[..., 0] + right, 0, columns - 1)
        y = np.clip(self._peak[..., 1] + down, 0, rows - 1)
        return self._maps[np.arange(samples)[:, None], y, x, np.arange(keypoints)]
