"""Trains a step on two logical CPUs; prints what a norm made of the batch, as JSON."""

from __future__ import annotations

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import larq_ext  # noqa: F401  isort: skip  (Keras 2, before anything uses tf.keras)
import numpy as np
import tensorflow as tf

import larq_ext_zoo as zoo


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32")
    images[8:] += 5.0  # the second device's half
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = zoo.DigitsNet(quantizer="ste_sign")
        model.compile("sgd", "sparse_categorical_crossentropy")
    norm = model.get_layer("stem_norm")
    stem = tf.nn.conv2d(images, model.get_layer("stem").kernel.numpy(), 1, "SAME").numpy()
    model.fit(images, np.arange(16) % 10, batch_size=16, shuffle=False, verbose=0)
    # Moving averages begin at 1 and take a tenth of what is new.
    variance = (norm.moving_variance.numpy() - 0.9) / 0.1
    expected = stem.var((0, 1, 2))
    answer = {
        "synchronized": norm.synchronized,
        "variance": variance.tolist(),
        "expected": expected.tolist(),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
