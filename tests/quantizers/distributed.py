"""Trains the methods that are named on two logical CPUs; prints one line of JSON per method."""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import larq_ext as lqx  # isort: skip
import larq as lq
import numpy as np
import tensorflow as tf


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    x = np.random.default_rng(0).normal(size=(32, 5, 5, 4)).astype("float32")
    y = np.sign(x.sum((1, 2))[:, :2])
    for name in sys.argv[1:]:
        tf.keras.utils.set_random_seed(0)
        arguments = lqx.quantizers.network_arguments(name)
        with strategy.scope():
            model = tf.keras.Sequential(
                [
                    tf.keras.Input((5, 5, 4)),
                    lqx.layers.QuantConv2D(4, 3, **arguments()),
                    tf.keras.layers.Flatten(),
                    tf.keras.layers.BatchNormalization(),
                    lqx.layers.QuantDense(2, **arguments()),
                    tf.keras.layers.BatchNormalization(),
                ]
            )
            model.compile(tf.keras.optimizers.Adam(0.02), "mse")
        before = model.get_weights()
        callbacks = lqx.callbacks.method_schedules(name, 6)
        losses = model.fit(x, y, batch_size=16, epochs=6, verbose=0, callbacks=callbacks).history
        with lq.context.quantized_scope(True):
            binary = model.get_weights()[0]
        with lq.context.quantized_scope(False):
            after = model.get_weights()
        moved = [
            w.name for w, a, b in zip(model.weights, before, after, strict=True) if np.any(a != b)
        ]
        still = [w.name for w in model.trainable_weights if w.name not in moved]
        answer = {
            "name": name,
            "losses": losses["loss"],
            "magnitudes": len(np.unique(np.round(np.abs(binary[..., 0]), 5))),
            "latent": len(np.unique(np.abs(after[0]))),
            "still": still,
            "scheduled": {c.attribute: losses[c.attribute] for c in callbacks},
        }
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
