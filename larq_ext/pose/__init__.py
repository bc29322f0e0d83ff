"""Human poses: from a box in a picture to 17 keypoints, scored as COCO scores them.

Needs no TensorFlow to be imported: geometry, decoding, drawing and scoring are NumPy and Pillow.
"""

from larq_ext.pose.baseline import mean_pose, pose_in_boxes
from larq_ext.pose.boxes import BoxFile
from larq_ext.pose.draw import draw
from larq_ext.pose.estimator import Pose, PoseEstimator
from larq_ext.pose.keypoints import KEYPOINTS
from larq_ext.pose.scoring import evaluate, results

__all__ = [
    "KEYPOINTS",
    "BoxFile",
    "Pose",
    "PoseEstimator",
    "draw",
    "evaluate",
    "mean_pose",
    "pose_in_boxes",
    "results",
]
