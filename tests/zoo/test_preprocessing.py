"""Preprocessing against plain numpy and against the data sets that the recipes train on."""

import pathlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import larq_ext as lqx  # noqa: F401  isort: skip  (Keras 2, before anything uses tf.keras)
import tensorflow as tf

import larq_ext_zoo as zoo
from larq_ext_zoo._class_lists import CLASS_LISTS
from larq_ext_zoo._data import DATASETS
from larq_ext_zoo._preprocessing import apply

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def triangle(size, new):
    """The matrix of a bilinear resize that is smooth when it makes smaller, row by row."""
    matrix = np.zeros((new, size))
    step = size / new
    width = max(step, 1.0)
    for row in range(new):
        centre = (row + 0.5) * step
        weights = np.maximum(0, 1 - np.abs(np.arange(size) + 0.5 - centre) / width)
        matrix[row] = weights / weights.sum()
    return matrix


def resized(image, height, width):
    rows = np.einsum("ij,jkc->ikc", triangle(image.shape[0], height), image.astype(float))
    return np.einsum("ij,kjc->kic", triangle(image.shape[1], width), rows)


@pytest.mark.parametrize("name", ["resnet20.fda", "vgg_small.siman", "resnet18_cifar.ste_sign"])
def test_cifar10(name):
    images = pixels(5, 32, 32, 3)
    expected = (images / 255 - MEAN) / STD
    np.testing.assert_allclose(zoo.preprocess(name, images), expected, atol=1e-6)


def test_as_the_recipes_train():
    datasets = pytest.importorskip("larq_ext_recipes.datasets")
    data = datasets.cifar10
    images = pixels(5, 32, 32, 3)
    expected = (images.astype("float32") - np.float32(data.MEAN)) * (1 / np.float32(data.STD))
    np.testing.assert_array_equal(zoo.preprocess("resnet20.fda", images), expected)
    assert zoo.entry("resnet20.fda").class_names == tuple(data.CLASSES)
    assert CLASS_LISTS["imagenette"] == tuple(datasets.imagenette.CLASSES.values())
    mnist = DATASETS["mnist"].preprocessing
    assert (mnist.mean, mnist.std) == (datasets.mnist.MEAN, datasets.mnist.STD)
    assert DATASETS.keys() == {*datasets.LOADERS, "coco_keypoints"}


@pytest.mark.parametrize("side", [64, 96, 160, 224])
def test_other_sizes_are_those_of_the_recipes(side):
    """One picture through what evaluates in training, and through what predicts."""
    pictures = pytest.importorskip("larq_ext_recipes.datasets._pictures")
    picture = pixels(180, 250, 3)
    shorter = round(side * 256 / 224)
    preparation = DATASETS["imagenette"].for_side(side)
    assert preparation.resize == shorter
    reader = SimpleNamespace(image_size=side, input_shape=(side, side, 3))
    cut_out = pictures.PictureDataset._cut_out
    trained = cut_out(reader, tf.constant(picture), 0, tf.zeros(2, tf.int32))
    expected = preparation.normalise(np.clip(np.round(trained.numpy()), 0, 255))
    found = apply(preparation, (side, side, 3), [picture])[0]
    # Where a pixel lies halfway between two levels, sums in another order round to the other.
    level = 1 / (255 * STD.min())
    np.testing.assert_allclose(found, expected, atol=1.01 * level)
    assert (np.abs(found - expected) > 1e-5).mean() < 0.005


def test_digits(digits):
    expected = (digits.pixels / 16 - 0.5) / 0.5
    found = zoo.preprocess("digits_net.fda", digits.pixels, white=16)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    eight_bits = np.round(digits.pixels * 255 / 16).astype("uint8")
    found = zoo.preprocess("digits_net.fda", eight_bits)
    np.testing.assert_allclose(found, expected, atol=1.01 / 255)
    assert (found.min(), found.max()) == (-1, 1)
    # Grey images need no axis for their only channel.
    np.testing.assert_array_equal(zoo.preprocess("digits_net.fda", list(eight_bits[..., 0])), found)


@pytest.mark.parametrize("size", [(300, 400), (500, 260), (100, 130), (224, 224)])
def test_imagenet(size):
    """The shorter side to 256, then the 224 x 224 in the middle."""
    image = pixels(*size, 3)
    height, width = (round(256 * side / min(size)) for side in size)
    top, left = (height - 224) // 2, (width - 224) // 2
    expected = resized(image, height, width)[top : top + 224, left : left + 224]
    expected = (expected / 255 - MEAN) / STD
    found = zoo.preprocess("resnet18.fda", image[None])
    assert (found.shape, found.dtype) == ((1, 224, 224, 3), np.float32)
    # Half a pixel value, which rounding to 8 bits takes, and float32.
    np.testing.assert_allclose(found[0], expected, atol=0.51 / 255 / 0.224)


def test_imagenet_as_the_recipes_evaluate():
    pictures = pytest.importorskip("larq_ext_recipes.datasets._pictures")
    image = pixels(231, 340, 3)

    dataset = SimpleNamespace(image_size=224, input_shape=(224, 224, 3))
    cut_out = pictures.PictureDataset._cut_out
    expected = cut_out(dataset, tf.constant(image), 0, tf.zeros([2], tf.int32))
    expected = tf.saturate_cast(tf.round(expected), tf.uint8).numpy().astype("float32")
    expected = (expected - np.float32(pictures.PictureDataset.mean)) * (
        1 / np.float32(pictures.PictureDataset.std)
    )
    np.testing.assert_array_equal(zoo.preprocess("resnet34.fda", image[None])[0], expected)


def test_images_of_different_sizes():
    images = [pixels(40, 50, 3), pixels(32, 32, 3), pixels(20, 64, 3)]
    together = zoo.preprocess("resnet20.fda", images)
    assert together.shape == (3, 32, 32, 3)
    for image, one in zip(images, together, strict=True):
        np.testing.assert_array_equal(zoo.preprocess("resnet20.fda", image[None])[0], one)
    assert zoo.preprocess("resnet20.fda", []).shape == (0, 32, 32, 3)


@pytest.mark.slow
def test_commands_know_the_layers_of_an_h5_file(tmp_path):
    """Which names no modules to import."""
    # Not as a model inside of the model, of whose layers Keras forgets the package there.
    layers = [tf.keras.Input((40, 50, 3)), *zoo.preprocessing_layers("resnet20.fda").layers]
    tf.keras.Sequential(layers).save(tmp_path / "model.h5")
    command = pathlib.Path(sys.executable).with_name("larq-ext")
    done = subprocess.run([command, "summary", tmp_path / "model.h5"], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_very_long_pictures_take_no_gigabytes():
    layers = zoo.preprocessing_layers("resnet18.fda")
    one = pixels(1, 1, 1, 3)
    expected = layers(np.tile(one, (1, 300, 300, 1)))
    np.testing.assert_allclose(layers(np.tile(one, (1, 20_000, 1, 1))), expected, atol=1e-5)
    np.testing.assert_allclose(layers(np.tile(one, (1, 1, 20_000, 1))), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet20.fda", "digits_net.fda"])
def test_layers_do_the_same_and_travel_with_a_model(name, tmp_path):
    entry = zoo.entry(name)
    channels = entry.input_size[-1]
    model = tf.keras.Sequential(
        [
            tf.keras.Input((None, None, channels), dtype="uint8"),
            zoo.preprocessing_layers(name),
            tf.keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.weights
    for size in ((2, 48, 61), (2, *entry.input_size[:2])):
        images = pixels(*size, channels)
        expected = zoo.preprocess(name, images)
        found = zoo.preprocessing_layers(name)(images).numpy()
        if size[1:] == entry.input_size[:2]:
            # Resized to what it is, or not at all.
            np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(
            loaded.predict_on_batch(images), expected.mean((1, 2)), atol=1e-4
        )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pixels(32, 32, 3), r"has the shape \(rows, columns, 3\), received \(32, 3\)"),
        (pixels(1, 32, 32, 4), r"received \(32, 32, 4\)"),
        (np.array([["a"]]), "arrays of numbers"),
    ],
)
def test_images_of_another_form(images, message):
    with pytest.raises(ValueError, match=message):
        zoo.preprocess("resnet20.fda", images)


def test_one_grey_image_is_not_many():
    with pytest.raises(ValueError, match=r"one more dimension in front"):
        zoo.preprocess("digits_net.fda", np.zeros((8, 8, 1)))
    assert zoo.preprocess("digits_net.fda", np.zeros((3, 8, 8))).shape == (3, 8, 8, 1)
    assert zoo.preprocess("digits_net.fda", [np.zeros((8, 8, 1))]).shape == (1, 8, 8, 1)
    several = [np.zeros((8, 8)), np.zeros((10, 12))]
    assert zoo.preprocess("digits_net.fda", several).shape == (2, 8, 8, 1)


def test_one_person_is_not_many():
    person = np.zeros((256, 192, 3))
    with pytest.raises(ValueError, match="one more dimension in front"):
        zoo.preprocess("sbpn18.fda", person)
    assert zoo.preprocess("sbpn18.fda", person[None]).shape == (1, 256, 192, 3)


def test_an_image_too_small_to_be_cut():
    with pytest.raises(ValueError, match="20 x 40 pixels is too small for an input of 32 x 32"):
        apply(zoo.Preprocessing(), (32, 32, 3), [pixels(40, 20, 3)])


def test_an_unknown_model():
    with pytest.raises(ValueError, match=r"no model 'resnet20.fd'"):
        zoo.preprocess("resnet20.fd", pixels(1, 32, 32, 3))
