"""CutMix: a rectangle of another image of the batch is pasted into each."""

from __future__ import annotations

import tensorflow as tf


def cutmix(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, alpha: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a rectangle of another image into each, and shares the label by their areas.

    The share that an image keeps is drawn from Beta(alpha, alpha), for each image its own. The
    centre of the rectangle is anywhere in the image; what is left of it inside counts.

    # Arguments
        images: float32 `(batch, height, width, channels)`.
        labels: float32 `(batch, classes)`.
        seed: Two integers.
        alpha: Parameter of the beta distribution.

    # Returns
        Images and labels of the same shapes.

    # References
        - [CutMix](https://arxiv.org/abs/1905.04899)
    """
    # keras-cv takes the share of the rectangle as it is before the borders cut it.
    seeds = tf.random.split(seed, 3)
    shape = tf.shape(images)
    count = shape[0]
    gammas = tf.random.stateless_gamma([2, count], seeds[0], alpha)
    # Of small alphas both may be 0 in float32: nothing is pasted then.
    pasted = tf.math.divide_no_nan(gammas[1], tf.reduce_sum(gammas, axis=0))
    centres = tf.random.stateless_uniform([2, count], seeds[1])
    inside = []
    for axis in (0, 1):
        extent = tf.cast(shape[1 + axis], tf.float32)
        half, centre = extent * tf.sqrt(pasted) / 2, extent * centres[axis]
        first, last = tf.round(centre - half), tf.round(centre + half)
        position = tf.range(extent)[None]
        inside.append((position >= first[:, None]) & (position < last[:, None]))
    mask = inside[0][:, :, None] & inside[1][:, None, :]
    other = tf.random.experimental.stateless_shuffle(tf.range(count), seeds[2])
    images = tf.where(mask[..., None], tf.gather(images, other), images)
    share = tf.reduce_mean(tf.cast(mask, tf.float32), axis=(1, 2))[:, None]
    return images, (1 - share) * labels + share * tf.gather(labels, other)
