"""A network and an experiment that train in seconds; as a program, a run that can be stopped."""

from __future__ import annotations

import os
import signal
import sys

import tensorflow as tf
import zookeeper

import larq_ext as lqx
import larq_ext_recipes as recipes


def tiny_network(*, input_shape, num_classes, quantizer):
    layers = tf.keras.layers
    image = x = tf.keras.Input(input_shape)
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    x = layers.BatchNormalization(momentum=0.8, name="norm1")(x)
    x = lqx.layers.QuantConv2D(8, 3, use_bias=False, quantizer=quantizer, name="binary")(x)
    x = layers.BatchNormalization(momentum=0.8, name="norm2")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(num_classes, name="logits")(x)
    return tf.keras.Model(image, layers.Softmax(name="softmax")(x), name="tiny")


@zookeeper.component
class Tiny(recipes.Experiment):
    """A test."""


def tiny_experiment(output_dir, **fields) -> recipes.Experiment:
    defaults = {
        "network": tiny_network,
        "quantizer": "fda",
        "dataset": "digits",
        "epochs": 2,
        "batch_size": 100,
        "learning_rate": 0.05,
        "crop_padding": 1,
        "flip": False,
        "progress": "none",
        "output_dir": str(output_dir),
    }
    return recipes.configure(Tiny, {**defaults, **fields})


class SignalAt(tf.keras.callbacks.Callback):
    """Sends this process a signal after a number of steps."""

    def __init__(self, steps: int, number: int = signal.SIGTERM):
        super().__init__()
        self.left, self.number = steps, number

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


def main(output_dir: str, steps: str, *options: str) -> None:
    experiment = tiny_experiment(
        output_dir, deterministic=True, weight_decay=1e-4, progress="lines"
    )
    callbacks = [SignalAt(int(steps))] if int(steps) else []
    try:
        recipes.train(experiment, resume="--resume" in options, callbacks=callbacks)
    except recipes.TrainingInterrupted as stop:
        print(stop)
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
