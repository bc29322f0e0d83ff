"""Peaks of heat maps and the flip test, against known positions."""

import numpy as np
import pytest

from larq_ext.pose.decode import decode, mirror_back
from larq_ext.pose.keypoints import FLIPPED

ROWS, COLUMNS = 64, 48


def gaussians(points):
    """Maps `(1, rows, columns, points)` of sigma 2 around unrounded centres."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    maps = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for px, py in points]
    return np.stack(maps, -1)[None].astype("float32")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("argmax", [(20, 31), (21, 30)]),
        ("quarter", [(20.25, 30.75), (20.75, 30.25)]),
        ("dark", [(20.29985, 30.70016), (20.60024, 30.39976)]),
    ],
)
def test_known_examples(method, expected):
    coordinates, scores = decode(gaussians([(20.3, 30.7), (20.6, 30.4)]), method)
    np.testing.assert_allclose(coordinates[0], expected, atol=2e-5)
    # The score is the peak before any refinement.
    np.testing.assert_allclose(scores[0], [np.exp(-0.18 / 8), np.exp(-0.32 / 8)], rtol=1e-6)


def one_by_one(maps, method):
    """The rules in loops, one map after the other."""
    found = np.zeros((*maps.shape[::3], 2))
    for n, k in np.ndindex(found.shape[:2]):
        one = maps[n, ..., k]
        y, x = np.unravel_index(one.argmax(), one.shape)
        if one.max() <= 0:
            continue
        found[n, k] = x, y
        if method == "quarter" and 1 < x < COLUMNS - 1 and 1 < y < ROWS - 1:
            found[n, k, 0] += 0.25 * np.sign(one[y, x + 1] - one[y, x - 1])
            found[n, k, 1] += 0.25 * np.sign(one[y + 1, x] - one[y - 1, x])
    return found


@pytest.mark.parametrize("method", ["argmax", "quarter"])
def test_a_batch_equals_one_by_one(method):
    maps = np.random.default_rng(0).standard_normal((3, ROWS, COLUMNS, 17)).astype("float32")
    maps[0, ..., :2] = -1 - np.abs(maps[0, ..., :2])
    maps[0, 5, 6, 1] = 0
    for index, (y, x) in enumerate([(0, 0), (1, 1), (1, 20), (2, 2), (63, 47), (62, 46), (61, 45)]):
        maps[1, y, x, index] = 9
    coordinates, scores = decode(maps, method)
    np.testing.assert_array_equal(coordinates, one_by_one(maps, method))
    np.testing.assert_array_equal(scores, maps.max((1, 2)))


def test_dark_blurs_as_written():
    """Noise on the peak is smoothed by an 11 x 11 Gaussian of sigma 2 before the Newton step."""
    generator = np.random.default_rng(1)
    maps = gaussians([(20.3, 30.7)]) + 0.05 * generator.random((1, ROWS, COLUMNS, 1))
    (y,), (x,) = (axis for axis in np.where(maps[0, ..., 0] == maps.max()))
    offsets = np.arange(-5, 6)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / 8)
    kernel /= kernel.sum()
    h = np.zeros((5, 5))
    for down, right in np.ndindex(5, 5):
        top, left = y + down - 7, x + right - 7
        h[down, right] = (maps[0, top : top + 11, left : left + 11, 0] * kernel).sum()
    h = np.log(h)
    gradient = np.array([h[2, 3] - h[2, 1], h[3, 2] - h[1, 2]]) / 2
    dxx, dyy = h[2, 4] - 2 * h[2, 2] + h[2, 0], h[4, 2] - 2 * h[2, 2] + h[0, 2]
    dxy = h[3, 3] - h[3, 1] - h[1, 3] + h[1, 1]
    step = -np.linalg.solve(np.array([[dxx, dxy], [dxy, dyy]]) / 4, gradient)
    np.testing.assert_allclose(decode(maps, "dark")[0][0, 0], np.add((x, y), step), atol=1e-6)


def test_dark_takes_no_step_at_the_border_and_without_a_maximum():
    maps = gaussians([(1.3, 30.2), (46.2, 30.2), (20.2, 0.4)])
    np.testing.assert_array_equal(decode(maps, "dark")[0][0], [(1, 30), (46, 30), (20, 0)])
    flat = np.full((1, ROWS, COLUMNS, 1), -1.0)
    np.testing.assert_array_equal(decode(flat, "dark")[0], np.zeros((1, 1, 2)))
    # Blurred, the highest pixel lies between two hills, where a step would go anywhere.
    hills = gaussians([(14.0, 30.2)]) + gaussians([(26.0, 30.2)])
    hills[0, 30, 21] = 1.1
    np.testing.assert_array_equal(decode(hills, "dark")[0], [[[21, 30]]])


def test_an_unknown_method():
    with pytest.raises(ValueError, match=r"one of \['argmax', 'quarter', 'dark'\].*'udp'"):
        decode(gaussians([(1, 1)]), "udp")


def test_the_flip_test_leaves_a_quarter_of_a_pixel():
    """A keypoint at x of the crop is at W - 1 - x of the mirrored one; a map has x / 4."""
    width = 4 * COLUMNS
    points = np.random.default_rng(0).uniform((40, 40), (width - 40, 4 * ROWS - 40), (17, 2))
    mirrored = np.stack([width - 1 - points[FLIPPED, 0], points[FLIPPED, 1]], -1)
    back = mirror_back(gaussians(mirrored / 4))
    np.testing.assert_allclose(back, gaussians(points / 4 + (0.25, 0)), atol=1e-5)


def test_the_first_column_stays():
    maps = np.random.default_rng(0).standard_normal((2, 4, 5, 17))
    back = mirror_back(maps)
    np.testing.assert_array_equal(back[:, :, 0], maps[:, :, 4][..., FLIPPED])
    np.testing.assert_array_equal(back[:, :, 1], maps[:, :, 4][..., FLIPPED])
    np.testing.assert_array_equal(back[:, :, 4], maps[:, :, 1][..., FLIPPED])
