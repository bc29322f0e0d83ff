"""Layers that the networks need and Keras does not have."""

from __future__ import annotations

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="larq_ext_zoo")
class PadChannels(tf.keras.layers.Layer):
    """Adds channels of zeros before and behind those there are: a shortcut without parameters.

    # Arguments
        before: Number of channels added in front.
        after: Number of channels added behind.

    # Returns
        Tensor of shape `(..., before + channels + after)`.
    """

    def __init__(self, before: int, after: int, **kwargs):
        super().__init__(**kwargs)
        self.before, self.after = before, after

    def call(self, inputs):
        none = [[0, 0]] * (len(inputs.shape) - 1)
        return tf.pad(inputs, [*none, [self.before, self.after]])

    def compute_output_shape(self, input_shape):
        *outer, channels = input_shape
        return tf.TensorShape([*outer, self.before + channels + self.after])

    def get_config(self):
        return {**super().get_config(), "before": self.before, "after": self.after}
