"""Properties of what is drawn on a picture."""

import numpy as np
import pytest

from larq_ext.pose import Pose, draw
from larq_ext.pose.draw import COLOURS
from larq_ext.pose.keypoints import KEYPOINTS, LIMBS

pytest.importorskip("PIL.Image")

GREY = np.full((200, 160, 3), 128, np.uint8)


def pose(confidence=1.0, shift=(0, 0), score=1.0):
    """A person who stands with arms stretched; left is right in the picture."""
    half = {"eye": (4, 12), "ear": (8, 14), "shoulder": (15, 35), "elbow": (30, 38)}
    half |= {"wrist": (45, 40), "hip": (10, 80), "knee": (12, 110), "ankle": (13, 140)}
    points = [(60, 16)]
    for name in KEYPOINTS[1:]:
        side, part = name.split("_")
        x, y = half[part]
        points.append((60 + (x if side == "left" else -x), y))
    keypoints = np.column_stack([np.add(points, shift), np.full(17, confidence)]).astype(float)
    return Pose(keypoints, score, np.array([10.0, 5.0, 100.0, 140.0]))


def pixel(image, point):
    x, y = np.round(point).astype(int)
    return image[y, x].astype(int)


def test_limbs_have_the_colour_of_their_part():
    person = pose()
    drawn = draw(GREY, [person])
    for group, limbs in LIMBS.items():
        if group == "head":
            continue  # its limbs are too short to have a middle free of joints
        for first, second in limbs:
            middle = person.keypoints[[first, second], :2].mean(0)
            np.testing.assert_allclose(pixel(drawn, middle), COLOURS[group], atol=60)
    # Left and right differ for the colour-blind: by blue against red.
    left, right = np.array(COLOURS["left"]), np.array(COLOURS["right"])
    assert left[2] - left[0] > 100 and right[0] - right[2] > 100


def test_what_is_not_near_the_person_stays():
    drawn = draw(GREY, [pose()], boxes=True)
    changed = np.argwhere((drawn != GREY).any(-1))
    assert (changed.min(0) >= (1, 6)).all() and (changed.max(0) <= (160, 114)).all()
    assert (GREY == 128).all() and drawn.dtype == np.uint8


def test_confidence_is_opacity_and_a_threshold():
    person = pose()
    middle = person.keypoints[[11, 13], :2].mean(0)
    contrast = [
        np.abs(pixel(draw(GREY, [pose(confidence)]), middle) - 128).sum()
        for confidence in (1.0, 0.6, 0.3)
    ]
    assert contrast[0] > contrast[1] > contrast[2] > 20
    np.testing.assert_array_equal(draw(GREY, [pose(0.3)], threshold=0.31), GREY)
    # A limb needs both of its ends.
    person.keypoints[13, 2] = 0.1
    assert (pixel(draw(GREY, [person]), middle) == 128).all()


def test_boxes_are_drawn_if_asked_for():
    unsure = pose(0.0)
    np.testing.assert_array_equal(draw(GREY, [unsure]), GREY)
    drawn = draw(GREY, [unsure], boxes=True)
    assert (drawn[5, 10:110] > 150).all() and (drawn[5:145, 10] > 150).all()
    assert (drawn[8:140, 14:106] == 128).all()


def test_lines_grow_with_the_person():
    def painted(size):
        picture = np.full((size, size, 3), 128, np.uint8)
        keypoints = pose().keypoints * (size / 160, size / 160, 1)
        return (draw(picture, [Pose(keypoints, 1.0, np.zeros(4))]) != 128).any(-1).mean()

    assert painted(1600) == pytest.approx(painted(320), rel=0.25)


def test_the_surest_person_is_on_top():
    back, front = pose(score=0.2), pose(score=0.9)
    front.keypoints[:, :2] = front.keypoints[:, :2] * (-1, 1) + (120, 0)  # left and right swapped
    for order in ([back, front], [front, back]):
        drawn = draw(GREY, order)
        middle = front.keypoints[[7, 9], :2].mean(0)
        np.testing.assert_allclose(pixel(drawn, middle), COLOURS["left"], atol=40)


@pytest.mark.parametrize("shift", [(1000, 0), (-60, -20), (np.nan, 0), (1e12, -1e12)])
def test_keypoints_outside_of_the_picture_are_not_drawn(shift):
    drawn = draw(GREY, [pose(shift=shift)])
    assert drawn.shape == GREY.shape
    assert (drawn != GREY).any() == (shift == (-60, -20))


def test_the_smallest_picture():
    one = np.zeros((1, 1, 3), np.uint8)
    person = Pose(np.tile([0.0, 0, 1], (17, 1)), 1.0, np.array([0.0, 0, 1, 1]))
    assert draw(one, [person], boxes=True).shape == (1, 1, 3)
    np.testing.assert_array_equal(draw(one, []), one)
