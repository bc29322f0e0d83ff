"""A network whose answer is known, and pictures of bright spots for it."""

from __future__ import annotations

import numpy as np

import larq_ext  # noqa: F401  isort: skip  (Keras 2, before anything uses tf.keras)
import tensorflow as tf

from larq_ext._images import IMAGENET_MEAN, IMAGENET_STD
from larq_ext.pose.keypoints import KEYPOINTS

SIZE = (96, 72)


def spot_network(size=SIZE, keypoints=17):
    """Blue light is a nose; red light is the left wrist in the right half, else the right wrist.

    So a mirrored person is one with left and right swapped, as it is for a real network. A map's
    pixel is the crop's at four times its coordinates.
    """
    network = tf.keras.Sequential(
        [
            tf.keras.Input((*size, 3)),
            tf.keras.layers.Conv2D(keypoints, 1, strides=4),
            tf.keras.layers.Rescaling(_halves(size[1] // 4, keypoints).tolist(), name="heatmaps"),
        ],
        name="spots",
    )
    channel = {"nose": 2, "left_wrist": 0, "right_wrist": 0}
    kernel, bias = np.zeros((1, 1, 3, keypoints)), np.zeros(keypoints)
    for name, colour in channel.items():
        kernel[..., colour, KEYPOINTS.index(name)] = IMAGENET_STD[colour] / 255
        bias[KEYPOINTS.index(name)] = IMAGENET_MEAN[colour] / 255
    network.layers[0].set_weights([kernel, bias])
    return network


def _halves(columns, keypoints):
    mask = np.ones((columns, keypoints))
    mask[: columns // 2, KEYPOINTS.index("left_wrist")] = 0
    mask[columns // 2 :, KEYPOINTS.index("right_wrist")] = 0
    return mask


BOX = (60.0, 40.0, 90.0, 140.0)
SPOTS = {"nose": (104.3, 80.6), "left_wrist": (128.8, 120.2), "right_wrist": (81.7, 141.4)}


def spot_picture(spots=SPOTS, rows=240, columns=200, sigma=9.0):
    """A dark picture with a round spot at each place, blue for the nose, else red."""
    y, x = np.mgrid[:rows, :columns]
    picture = np.zeros((rows, columns, 3))
    for name, (px, py) in spots.items():
        light = 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
        picture[..., 2 if name == "nose" else 0] += light
    return np.clip(np.round(picture), 0, 255).astype("uint8")
