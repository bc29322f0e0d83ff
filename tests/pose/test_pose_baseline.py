"""The mean pose of known persons."""

import numpy as np
import pytest

from larq_ext.pose.baseline import mean_pose, pose_in_boxes

RELATIVE = np.random.default_rng(0).uniform(0, 1, (17, 2))


def person(relative, box, visibility=2):
    points = np.array(box[:2]) + relative * box[2:]
    keypoints = np.column_stack([points, np.broadcast_to(visibility, 17)])
    return {"keypoints": keypoints.ravel().tolist(), "bbox": list(box), "iscrowd": 0}


def test_one_pose_in_boxes_of_any_size():
    boxes = np.array([[10, 20, 30, 40], [0, 5, 300, 100.0]])
    persons = [person(RELATIVE, box) for box in boxes]
    np.testing.assert_allclose(mean_pose(persons), RELATIVE)
    back = pose_in_boxes(mean_pose(persons), boxes)
    expected = [np.reshape(each["keypoints"], (17, 3)) for each in persons]
    np.testing.assert_allclose(back[..., :2], np.stack(expected)[..., :2])
    assert (back[..., 2] == 1).all() and back.shape == (2, 17, 3)


def test_only_labelled_keypoints_of_persons_count():
    labelled = np.where(np.arange(17) < 5, 2, 0)
    persons = [
        person(RELATIVE, (0, 0, 10, 10)),
        person(RELATIVE + 0.2, (5, 5, 10, 10), np.where(labelled, 1, 0)),
        person(RELATIVE + 9, (5, 5, 10, 10), 0),
        person(RELATIVE + 9, (5, 5, 0, 10)),
        {**person(RELATIVE + 9, (5, 5, 10, 10)), "iscrowd": 1},
        {"bbox": [1, 1, 1, 1]},
    ]
    expected = RELATIVE + 0.1 * (labelled > 0)[:, None]
    np.testing.assert_allclose(mean_pose(persons), expected)


def test_a_keypoint_that_nobody_has():
    visibility = np.where(np.arange(17) == 3, 0, 2)
    with pytest.raises(ValueError, match="of 1 persons 1 of 17 keypoints are never labelled"):
        mean_pose([person(RELATIVE, (0, 0, 10, 10), visibility)])
    with pytest.raises(ValueError, match="of 0 persons 17 of 17"):
        mean_pose([])
