"""Loss and accuracy of heat maps, whose targets are made of coordinates in the graph."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from larq_ext.pose.estimator import STRIDE

# Elbows and knees count more than the head and the trunk, wrists and ankles most.
JOINT_WEIGHTS = np.array([1.0] * 7 + [1.2, 1.2, 1.5, 1.5, 1, 1, 1.2, 1.2, 1.5, 1.5], np.float32)

_NEAR = 0.5  # of a tenth of the map


def map_positions(labels: tf.Tensor) -> tf.Tensor:
    """Pixels of the map at keypoints: \\( \\mathrm{int}(x / 4 + 0.5) \\), which cuts towards 0.

    # Arguments
        labels: x, y in pixels of the network's input, and the weight; `(batch, 17, 3)`.

    # Returns
        float32 `(batch, 17, 2)`.
    """
    return tf.cast(tf.cast(labels[..., :2] / STRIDE + 0.5, tf.int32), tf.float32)


def weights_on_map(labels: tf.Tensor, size: tuple[int, int], sigma: float) -> tf.Tensor:
    """Weights of the keypoints: those of the labels, 0 where the window misses the map.

    # Arguments
        labels: x, y in pixels of the network's input, and the weight; `(batch, 17, 3)`.
        size: Height and width of the maps.
        sigma: Of the Gaussians, in pixels of the map; the window is of 3 to each side.

    # Returns
        `(batch, 17)`.
    """
    positions, reach = map_positions(labels), 3 * sigma
    sides = tf.constant([size[1], size[0]], tf.float32)
    inside = (positions - reach < sides) & (positions + reach + 1 >= 0)
    return labels[..., 2] * tf.cast(tf.reduce_all(inside, -1), tf.float32)


def gaussian_targets(
    labels: tf.Tensor, size: tuple[int, int], *, sigma: float = 2.0, unrounded: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    r"""The maps that a network is to give.

    \\[ t(p) = \exp \frac{-|p - \mu|^2}{2 \sigma^2} \\]
    in the window of \\( \pm 3 \sigma \\) around \\( \mu = \mathrm{int}(x / 4 + 0.5) \\), 0 outside.

    # Arguments
        labels: x, y in pixels of the network's input, and the weight; `(batch, 17, 3)`.
        size: Height and width of the maps.
        sigma: In pixels of the map.
        unrounded: Whether \\( \mu = x / 4 \\), as the training of DARK has it.

    # Returns
        Maps float32 `(batch, height, width, 17)`, and weights `(batch, 17)`, see `weights_on_map`.

    # References
        - [Simple Baselines for Human Pose Estimation](https://arxiv.org/abs/1804.06208)
        - [Distribution-Aware Coordinate Representation](https://arxiv.org/abs/1910.06278)
    """
    reach = 3 * sigma
    rounded = map_positions(labels)
    sides = tf.constant([size[1], size[0]], tf.float32)
    weights = weights_on_map(labels, size, sigma)
    centre = labels[..., :2] / STRIDE if unrounded else rounded

    def along(axis: int) -> tf.Tensor:
        distance = tf.range(sides[axis])[:, None] - centre[:, None, :, axis]
        return tf.where(abs(distance) <= reach, tf.exp(-(distance**2) / (2 * sigma**2)), 0.0)

    maps = along(1)[:, :, None] * along(0)[:, None]
    return maps * tf.cast(weights > 0, tf.float32)[:, None, None], weights


def pose_loss(
    labels: tf.Tensor,
    maps: tf.Tensor,
    *,
    sigma: float = 2.0,
    unrounded: bool = False,
    hardest: int = 0,
    joint_weights: bool = False,
) -> tf.Tensor:
    r"""Weighted mean squared error to Gaussian targets.

    \\[ L = \mathrm{mean}_k \tfrac{1}{2} \mathrm{mean}_p (w_k (m_k(p) - t_k(p)))^2 \\]

    # Arguments
        labels: x, y in pixels of the network's input, and the weight; `(batch, 17, 3)`.
        maps: The network's, `(batch, height, width, 17)`.
        sigma: Of the Gaussians, in pixels of the map.
        unrounded: Whether they are centred at the keypoints themselves.
        hardest: How many keypoints of a person, those with the largest loss, count (online hard
            keypoint mining); 0 for all.
        joint_weights: Whether the weight of a keypoint is that of `JOINT_WEIGHTS`, not 1.

    # Returns
        The loss of each example, `(batch,)`.
    """
    maps = tf.cast(maps, tf.float32)
    size = maps.shape[1], maps.shape[2]
    targets, weights = gaussian_targets(labels, size, sigma=sigma, unrounded=unrounded)
    if joint_weights:
        weights *= JOINT_WEIGHTS
    errors = tf.reduce_mean((maps - targets) ** 2, (1, 2)) * weights**2 / 2
    if hardest:
        errors = tf.math.top_k(errors, hardest, sorted=False).values
    return tf.reduce_mean(errors, -1)


class KeypointAccuracy(tf.keras.metrics.Mean):
    """Share of the labelled keypoints whose peak is near, after the parents' training accuracy.

    Near is half of a tenth of the map, with x divided by a tenth of the height and y by one of the
    width. What does not count: keypoints whose target misses the map, and those in the first two
    pixels of the map, left or above. One further to the right or below than the map is looked for
    at its border, where its target is the highest. All keypoints of an epoch have the same weight,
    so the numbers are not those that the parents' code logs, which are means of means.

    # Arguments
        sigma: Of the Gaussians, in pixels of the map.
        name: Its name.
    """

    def __init__(self, sigma: float = 2.0, name: str = "accuracy", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.sigma = sigma

    def update_state(self, labels: tf.Tensor, maps: tf.Tensor, sample_weight=None):
        """Takes in a batch; arguments as `pose_loss`."""
        height, width = maps.shape[1], maps.shape[2]
        flat = tf.reshape(tf.cast(maps, tf.float32), [-1, height * width, maps.shape[-1]])
        best = tf.argmax(flat, 1, output_type=tf.int32)
        peak = tf.cast(tf.stack([best % width, best // width], -1), tf.float32)
        peak *= tf.cast(tf.reduce_max(flat, 1) > 0, tf.float32)[..., None]
        wanted = tf.minimum(map_positions(labels), tf.constant([width - 1.0, height - 1.0]))
        weights = weights_on_map(labels, (height, width), self.sigma)
        counted = (weights > 0) & tf.reduce_all(wanted > 1, -1)
        distance = tf.norm((peak - wanted) / tf.constant([height / 10, width / 10]), axis=-1)
        right = tf.cast(distance < _NEAR, tf.float32)
        return super().update_state(right, tf.cast(counted, tf.float32))
