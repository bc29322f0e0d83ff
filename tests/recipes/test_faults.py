"""What goes wrong in a run says where and what to do, and loses nothing."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_experiment, tiny_network

import larq_ext as lqx
from larq_ext_recipes import TrainingError, train
from larq_ext_recipes._diagnosis import first_not_finite


@tf.custom_gradient
def bad_gradient(x):
    return tf.identity(x), lambda upstream: upstream * math.nan


def compiled(layers) -> tf.keras.Model:
    image = x = tf.keras.Input((4,))
    for layer in layers:
        x = layer(x)
    model = tf.keras.Model(image, tf.keras.layers.Softmax(name="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.compiled_loss(tf.zeros([1], tf.int64), tf.ones([1, 4]))
    return model


def dense(name):
    return tf.keras.layers.Dense(4, name=name)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([dense("a"), dense("b")], ""),
        (
            [dense("a"), tf.keras.layers.Lambda(lambda x: x / 0.0, name="zero"), dense("b")],
            ": the first output that is not finite is that of layer zero",
        ),
        (
            [dense("a"), tf.keras.layers.Lambda(bad_gradient, name="bad"), dense("b")],
            ": the gradient of a/bias:0 of layer a is not finite",
        ),
    ],
)
def test_where_a_number_that_is_not_finite_came_from(layers, message):
    batch = tf.ones((2, 4)), tf.zeros(2)
    found = first_not_finite(compiled(layers), batch)
    assert found == message or found == message.replace("bias", "kernel")


def test_a_weight_and_an_image_that_are_not_finite():
    model = compiled([dense("a"), dense("b")])
    images = np.full((2, 4), np.nan, np.float32)
    assert "the images of the step" in first_not_finite(model, (tf.constant(images), np.zeros(2)))
    model.get_layer("b").kernel.assign(np.full((4, 4), np.inf))
    found = first_not_finite(model, (tf.ones((2, 4)), np.zeros(2)))
    assert found == ": the weight b/kernel:0 of layer b is not finite"


def test_statistics_of_a_norm_are_not_where_it_began():
    """They hold the output of the layer before them after the step that went wrong."""
    norm = tf.keras.layers.BatchNormalization(name="norm")
    zero = tf.keras.layers.Lambda(lambda x: x / 0.0, name="zero")
    model = compiled([dense("a"), zero, norm, dense("b")])
    norm.moving_mean.assign(np.full(norm.moving_mean.shape, np.nan))
    found = first_not_finite(model, (tf.ones((2, 4)), tf.zeros(2)))
    assert found == ": the first output that is not finite is that of layer zero"


def test_a_nested_model_is_no_obstacle():
    inner = tf.keras.Sequential([dense("inner")], name="nested")
    model = compiled([inner, tf.keras.layers.Lambda(lambda x: x / 0.0, name="zero"), dense("b")])
    found = first_not_finite(model, (tf.ones((2, 4)), tf.zeros(2)))
    assert found == ": the first output that is not finite is that of layer zero"


def exploding_network(**arguments):
    """Its binary layer is followed by a division by what is 0 for some of the digits."""
    network = tiny_network(**arguments)
    features = network.get_layer("norm2").output
    ratio = tf.keras.layers.Lambda(lambda x: x / tf.nn.relu(x), name="ratio")(features)
    x = tf.keras.layers.GlobalAveragePooling2D()(ratio)
    x = tf.keras.layers.Dense(arguments["num_classes"], name="logits")(x)
    return tf.keras.Model(network.inputs, tf.keras.layers.Softmax()(x))


def test_a_run_names_the_layer_and_the_settings_to_change(tmp_path):
    with pytest.raises(TrainingError) as error:
        train(tiny_experiment(tmp_path, network=exploding_network))
    text = str(error.value)
    assert "became nan in epoch 1, step 1: the first output that is not finite is that" in text
    assert "layer ratio" in text and "lower learning_rate" in text
    assert "There is no checkpoint yet" in text


class Fill(tf.keras.callbacks.Callback):
    """Fills a file system after an epoch."""

    def __init__(self, folder: pathlib.Path):
        super().__init__()
        self.file = folder / "other peoples data"

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            with self.file.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_loses_nothing(small_disk):
    fill = Fill(small_disk)
    with pytest.raises(TrainingError, match=r"Cannot write to .*Make room .* --resume.*step-0000"):
        train(tiny_experiment(small_disk / "run"), callbacks=[fill])
    saved = [path.name for path in (small_disk / "run" / "checkpoints").glob("*")]
    assert saved == ["epoch-00001-step-000000"]
    fill.file.unlink()
    metrics = train(tiny_experiment(small_disk / "run"), resume=True)
    assert metrics["epochs"] == 2
    assert lqx.deploy.bake(tf.keras.models.load_model(small_disk / "run" / "model.keras"))
