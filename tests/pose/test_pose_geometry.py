"""Views, affine maps and crops against the numbers of the official construction and NumPy."""

import numpy as np
import pytest

from larq_ext.pose import geometry
from larq_ext.pose.keypoints import FLIP_PAIRS, FLIPPED, KEYPOINTS, LIMBS, SIGMAS, UPPER_BODY

pytest.importorskip("PIL.Image")

SIZE, ASPECT = (256, 192), 0.75


def test_keypoints_are_cocos():
    assert len(KEYPOINTS) == len(SIGMAS) == 17
    assert KEYPOINTS[:3] == ("nose", "left_eye", "right_eye")
    assert KEYPOINTS[9:13] == ("left_wrist", "right_wrist", "left_hip", "right_hip")
    assert FLIP_PAIRS == ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
    swap = {"left": "right", "right": "left", "nose": "nose"}
    mirrored = [swap[n.partition("_")[0]] + n[len(n.partition("_")[0]) :] for n in KEYPOINTS]
    assert [KEYPOINTS[index] for index in FLIPPED] == mirrored
    assert KEYPOINTS[UPPER_BODY] == "left_hip"


def test_sigmas_are_those_of_cocos_tool():
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    np.testing.assert_allclose(SIGMAS, cocoeval.Params("keypoints").kpt_oks_sigmas, rtol=1e-12)


def test_limbs_are_cocos_skeleton():
    skeleton = (
        "16-14 14-12 17-15 15-13 12-13 6-12 7-13 6-7 6-8 7-9 8-10 9-11 2-3 1-2 1-3 2-4 3-5 4-6 5-7"
    )
    expected = {frozenset(int(i) - 1 for i in limb.split("-")) for limb in skeleton.split()}
    limbs = [frozenset(limb) for group in LIMBS.values() for limb in group]
    assert set(limbs) == expected and len(limbs) == len(expected)
    for side in ("left", "right"):
        assert all(KEYPOINTS[i].startswith(side) for limb in LIMBS[side] for i in limb)


def test_view_of_a_tall_and_of_a_wide_box():
    centre, scale = geometry.box_to_view([100, 50, 80, 200], ASPECT)
    np.testing.assert_allclose(centre, (140, 150))
    np.testing.assert_allclose(scale, (0.9375, 1.25))
    boxes = [[100, 50, 80, 200], [10, 20, 300, 100]]
    centres, scales = geometry.box_to_view(boxes, ASPECT, 1.5)
    np.testing.assert_allclose(centres, [(140, 150), (160, 70)])
    np.testing.assert_allclose(scales[1], (300 / 200 * 1.5, 400 / 200 * 1.5))


@pytest.mark.parametrize(
    ("box", "rotation", "expected"),
    [
        ((100, 50, 80, 200), 0, [[1.024, 0, -47.36], [0, 1.024, -25.6]]),
        ((100, 50, 80, 200), 30, [[0.88681, 0.512, -104.9534], [-0.512, 0.88681, 66.6585]]),
        (
            (10, 20, 300, 100),
            -45,
            [[0.362039, -0.362039, 63.41652], [0.362039, 0.362039, 44.73111]],
        ),
    ],
)
def test_affine_is_the_official_one(box, rotation, expected):
    matrix = geometry.affine(*geometry.box_to_view(box, ASPECT), rotation, SIZE)
    np.testing.assert_allclose(matrix, expected, atol=5e-5)


def test_from_the_heat_map_back_to_the_picture():
    view = geometry.box_to_view([100, 50, 80, 200], ASPECT)
    back = geometry.invert(geometry.affine(*view, 0, (64, 48)))
    np.testing.assert_allclose(back, [[3.90625, 0, 46.25], [0, 3.90625, 25]], atol=1e-12)
    np.testing.assert_allclose(geometry.transform(back, [24, 32]), (140, 150))


def test_the_heat_map_has_a_quarter_of_the_crops_coordinates():
    view = geometry.box_to_view([3, 7, 31, 90], ASPECT)
    points = np.random.default_rng(0).uniform(0, 100, (5, 17, 2))
    crops = geometry.transform(geometry.affine(*view, 20, SIZE), points)
    maps = geometry.transform(geometry.affine(*view, 20, (64, 48)), points)
    np.testing.assert_allclose(maps, crops / 4)
    matrix = geometry.affine(*view, 20, SIZE)
    np.testing.assert_allclose(geometry.transform(geometry.invert(matrix), crops), points)


def test_transform_takes_a_matrix_for_each_person():
    generator = np.random.default_rng(0)
    matrices = generator.standard_normal((3, 2, 3))
    points = generator.standard_normal((3, 17, 2))
    found = geometry.transform(matrices[:, None], points)
    for matrix, rows, result in zip(matrices, points, found, strict=True):
        np.testing.assert_allclose(result, rows @ matrix[:, :2].T + matrix[:, 2])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 20, 30, 40), (10, 20, 29, 39)),
        ((-5, -5, 30, 40), (0, 0, 29, 39)),  # only the corner moves, as in the official code
        ((90, 40, 30, 40), (90, 40, 9, 29)),
        ((10, 20, 1, 40), None),
        ((200, 20, 30, 40), None),
        ((10, 20, 1, 1), None),
        ((10, 20, 0, 0), None),
        ((np.nan, 20, 10, 10), None),
    ],
)
def test_clipping(box, expected):
    found = geometry.clip_box(box, (70, 100))
    assert found is None if expected is None else found.tolist() == list(expected)


def bilinear(image, x, y):
    """The value at x, y, with integers at pixel centres and zeros outside."""
    padded = np.pad(image.astype(float), [(1, 1), (1, 1), (0, 0)])
    left, top = int(np.floor(x)), int(np.floor(y))
    if not (-1 <= left < image.shape[1] and -1 <= top < image.shape[0]):
        return np.zeros(3)
    right, down = x - left, y - top
    rows = padded[top + 1 : top + 3, left + 1 : left + 3]
    return (1 - down) * ((1 - right) * rows[0, 0] + right * rows[0, 1]) + down * (
        (1 - right) * rows[1, 0] + right * rows[1, 1]
    )


@pytest.mark.parametrize("rotation", [0, 30, -75])
def test_crop_is_bilinear_with_integer_pixel_centres(rotation):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    matrix = geometry.affine((23.3, 17.8), (0.21, 0.21), rotation, (32, 24))
    found = geometry.crop(image, matrix, (32, 24))
    assert found.shape == (32, 24, 3) and found.dtype == np.uint8
    back = geometry.invert(matrix)
    compared = 0
    for row in range(32):
        for column in range(24):
            x, y = geometry.transform(back, [column, row])
            np.testing.assert_allclose(found[row, column], bilinear(image, x, y), atol=0.501)
            compared += found[row, column].any()
    assert 300 < compared < 32 * 24


def test_a_crop_without_scaling_is_a_slice():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    matrix = np.array([[1.0, 0, -10], [0, 1.0, -5]])
    np.testing.assert_array_equal(geometry.crop(image, matrix, (20, 30)), image[5:25, 10:40])
