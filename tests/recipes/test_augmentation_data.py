"""Augmentations against plain NumPy, and what keras-cv does to repeat exactly."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import tensorflow as tf

from larq_ext_recipes import UsageError, _keras_cv
from larq_ext_recipes._augmentation import Augmentation
from larq_ext_recipes._cutmix import cutmix
from larq_ext_recipes.datasets import ArrayDataset

PLAIN = {"crop_padding": 0, "flip": False}


def make_dataset(images, classes=10):
    labels = np.arange(len(images)) % classes
    channels = images.shape[-1]
    names = tuple(map(str, range(classes)))
    split = (images, labels)
    return ArrayDataset("made", split, split, names, (0.0,) * channels, (1.0,) * channels)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop_padding": -1}, "crop_padding must be 0 or more, received -1"),
        ({"mixup": math.nan}, "mixup must be 0 or more, received nan"),
        ({"crop_padding": 0, "crop_scale": (1.0, 0.1)}, "crop_scale must be two numbers above 0"),
        ({"crop_padding": 0, "crop_scale": (1.1, 1.2)}, "crops larger than the picture"),
        ({"crop_ratio": (0.0, 1.0)}, "crop_ratio must be two numbers above 0"),
        ({"crop_scale": (0.08, 1.0)}, r"crop_padding=4 are two ways to crop: give crop_padding=0"),
        ({"randaugment": 9.0}, "randaugment must be from 0 to 1, or none, received 9.0"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(UsageError, match=message):
        Augmentation(**fields)


def test_colours_need_colours():
    dataset = make_dataset(np.zeros((4, 8, 8, 1), np.uint8))
    with pytest.raises(
        UsageError, match=r"lighting=0\.1 is for RGB, and the images of made have 1"
    ):
        dataset.training(2, 0, Augmentation(lighting=0.1))


def test_keras_cv_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    dataset = make_dataset(np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match=r"type `pip install 'keras-cv>=0\.9,<0\.10'`"):
        dataset.training(2, 0, Augmentation(mixup=0.2))


def window_of(numbers, height, width, scale, ratio):
    """A random resized crop as torchvision describes it, one attempt after the other."""
    areas, ratios, corner = numbers[:10], numbers[10:20], numbers[20:]
    for area, shape in zip(areas, ratios, strict=True):
        area = (scale[0] + (scale[1] - scale[0]) * area) * height * width
        low, high = np.log(ratio)
        shape = np.exp(low + (high - low) * shape)
        h, w = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < h <= height and 0 < w <= width:
            return int(corner[0] * (height - h + 1)), int(corner[1] * (width - w + 1)), h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.08, 1.25), (0.9, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("size", [(97, 211), (300, 60), (64, 64)])
def test_windows_of_random_resized_crops(scale, size):
    numbers = np.random.default_rng(0).random((200, 22), np.float32)
    augmentation = Augmentation(crop_padding=0, crop_scale=scale)
    many = [np.full(200, side) for side in size]
    windows = augmentation.crop_windows({"crop": tf.constant(numbers)}, *many).numpy()
    expected = np.array([window_of(n, *size, scale, (3 / 4, 4 / 3)) for n in numbers])
    # In float32 a side that is half a pixel may be rounded to the other neighbour.
    assert (np.abs(windows - expected).max(axis=1) > 0).mean() < 0.02
    assert (np.abs(windows - expected)[:, 2:] <= 1).all()
    single = augmentation.crop_windows({"crop": tf.constant(numbers[7])}, *size)
    np.testing.assert_array_equal(single, windows[7])
    top, left, height, width = windows.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= size[0]).all() and (left + width <= size[1]).all()


def test_resized_crops_of_images_in_memory():
    """Images whose values are the coordinates show where each output pixel comes from."""
    rows, columns = np.mgrid[:24, :32].astype(np.float32)
    image = np.stack([rows, columns, 0 * rows], -1)
    dataset = make_dataset(np.repeat(image[None], 40, 0))
    augmentation = Augmentation(crop_padding=0, crop_scale=(0.08, 1.0))
    data = dataset.training(40, 3, augmentation)
    (result,) = data.batches(0)
    key = tf.stack([tf.constant(3, tf.int64), 0])
    draws = augmentation.draw(tf.random.split(key, 3)[1], 40)
    windows = augmentation.crop_windows(draws, np.full(40, 24), np.full(40, 32)).numpy()
    mirrored = draws["flip"].numpy()[:, 0] < 0.5
    assert 5 < mirrored.sum() < 35
    for output, (top, left, height, width), flip in zip(
        result[0].numpy(), windows, mirrored, strict=True
    ):
        down = np.clip(top + (np.arange(24) + 0.5) * height / 24 - 0.5, 0, 23)
        right = np.clip(left + (np.arange(32) + 0.5) * width / 32 - 0.5, 0, 31)
        right = right[::-1] if flip else right
        np.testing.assert_allclose(output[..., 0], np.tile(down[:, None], 32), atol=1e-3)
        np.testing.assert_allclose(output[..., 1], np.tile(right, (24, 1)), atol=1e-3)


def jittered(image, numbers, strength):
    """Colour jitter as torchvision has it, in plain NumPy, for one image in [0, 255]."""
    factors = 1 - strength + 2 * strength * numbers[:3]
    for change in np.argsort(numbers[3:]):
        gray = (image @ np.array([0.2989, 0.587, 0.114]))[..., None]
        other = [0.0, gray.mean(), gray][change]
        image = np.clip(factors[change] * image + (1 - factors[change]) * other, 0, 255)
    return image


def test_color_jitter():
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (30, 5, 4, 3)).astype(np.float32)
    numbers = generator.random((30, 6), np.float32)
    result = Augmentation(color_jitter=0.4).recolor(
        tf.constant(images), {"color": tf.constant(numbers)}, None, 255.0
    )
    expected = [jittered(i, n, 0.4) for i, n in zip(images, numbers, strict=True)]
    np.testing.assert_allclose(result, expected, atol=0.1)  # two digits more in their grays


def test_lighting():
    """The shifts of colour have the covariance that the eigenvectors and -values say."""
    numbers = np.random.default_rng(0).random((20_000, 3), np.float32)
    images = tf.zeros([20_000, 2, 1, 3])
    shifted = Augmentation(lighting=0.1).recolor(
        images, {"lighting": tf.constant(numbers)}, None, 255.0
    )
    shifted = shifted.numpy()[:, :, 0, :] / 255
    np.testing.assert_array_equal(shifted[:, 0], shifted[:, 1])  # all pixels alike
    values, vectors = np.linalg.eigh(np.cov(shifted[:, 0].T))
    np.testing.assert_allclose(np.sqrt(values)[::-1], [0.02175, 0.00188, 0.00045], rtol=0.02)
    # The first component is close to gray, as colours mostly vary in brightness.
    np.testing.assert_allclose(np.abs(vectors[:, -1]), [0.5675, 0.5808, 0.5836], atol=2e-3)
    assert abs(shifted.mean()) < 1e-3


def collect(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.parametrize("field", [pytest.param("mixup", marks=pytest.mark.slow), "cutmix"])
def test_mixing(field):
    if field == "mixup":
        pytest.importorskip("keras_cv")
    labels = np.arange(60) % 10
    images = np.broadcast_to(labels[:, None, None, None], (60, 6, 6, 3)).astype(np.float32) / 10
    data = make_dataset(images).training(16, 1, Augmentation(**PLAIN, **{field: 1.0}))
    mixed, shares = collect(data.batches(4))
    assert shares.shape == (60, 10) and shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert (shares.max(1) < 0.99).sum() > 20
    values = shares @ np.arange(10) / 10
    np.testing.assert_allclose(mixed.mean((1, 2, 3)), values, atol=1e-6)
    if field == "mixup":
        assert (np.ptp(mixed, (1, 2, 3)) < 1e-6).all()
    else:
        for image, share in zip(mixed, shares, strict=True):
            assert set(np.round(10 * np.unique(image))) <= set(np.flatnonzero(share))
    entered = collect(data.batches(4, start_step=2))
    np.testing.assert_array_equal(entered[0], mixed[32:])
    np.testing.assert_array_equal(entered[1], shares[32:])
    assert (collect(data.batches(5))[1] != shares).any()


def test_cutmix_is_that_of_the_paper():
    count, side = 4000, 32
    images = np.broadcast_to(np.arange(count)[:, None, None, None], (count, side, side, 1))
    labels = np.eye(count, dtype=np.float32)[:, :0]
    seed = tf.constant([3, 4])
    found, _ = cutmix(tf.constant(images, tf.float32), tf.constant(labels), seed, 1.0)
    pasted = found.numpy()[..., 0] != np.arange(count)[:, None, None]
    rows, columns = pasted.any(2), pasted.any(1)
    np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None, :])  # rectangles
    whole = np.abs(np.diff(rows.astype(int), axis=1)).sum(1) + rows[:, 0] + rows[:, -1]
    assert set(whole) <= {0, 2}, "in one piece"
    # The area inside is that of a rectangle of sqrt(1 - lambda) by the sides, lambda uniform,
    # around a uniform centre, here by integration.
    grid = (np.arange(400) + 0.5) / 400
    half = np.sqrt(grid)[:, None] / 2
    inside = np.minimum(grid + half, 1) - np.maximum(grid - half, 0)
    assert pasted.mean() == pytest.approx((inside.mean(1) ** 2).mean(), abs=0.01)
    # Everywhere alike but for the borders, and symmetric.
    share = pasted.mean((0, 2))
    np.testing.assert_allclose(share, share[::-1], atol=0.05)


@pytest.mark.slow
def test_mixup_needs_no_global_generator(monkeypatch):
    """Which TensorFlow refuses where operations are deterministic."""
    pytest.importorskip("keras_cv")

    def refused():
        raise RuntimeError("cannot be called if determinism is enabled")

    monkeypatch.setattr(tf.random, "get_global_generator", refused)
    images, labels = tf.random.normal([4, 6, 6, 3]), tf.eye(4)
    mixed, shares = _keras_cv.mixup(images, labels, tf.constant([1, 2]), 1.0)
    expected = tf.tensordot(shares, images, 1)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.001, 0.02])
def test_mixup_with_small_parameters_has_no_nan(alpha):
    """Most draws of their gamma distributions are 0 in float32."""
    pytest.importorskip("keras_cv")
    images, labels = tf.random.normal([500, 2, 2, 3]), tf.eye(500)
    for seed in range(4):
        mixed, shares = _keras_cv.mixup(images, labels, tf.constant([seed, 2]), alpha)
        assert np.isfinite(mixed).all()
        np.testing.assert_allclose(tf.reduce_sum(shares, 1), 1, atol=1e-5)


@pytest.mark.slow
def test_both_mixtures_take_turns():
    pytest.importorskip("keras_cv")
    images = np.repeat(np.eye(2, dtype=np.float32)[:, None, None, :], 4, 1).repeat(4, 2)
    images = np.concatenate([images, np.zeros((2, 4, 4, 1), np.float32)], -1).repeat(16, 0)
    data = make_dataset(images, 2).training(4, 0, Augmentation(**PLAIN, mixup=1.0, cutmix=1.0))
    batches = [images for images, _ in data.stream(0, 3).as_numpy_iterator()]
    pure = [set(np.unique(images)) <= {0.0, 1.0} for images in batches]
    pasted = [p and (i != i[:, :1, :1]).any() for p, i in zip(pure, batches, strict=True)]
    blended = [not p for p in pure]
    assert any(pasted) and any(blended)


@pytest.mark.slow
def test_randaugment_depends_on_the_seed_of_the_image_alone():
    pytest.importorskip("keras_cv")
    images = np.random.default_rng(0).uniform(0, 255, (12, 16, 16, 3)).astype(np.float32)
    seeds = np.stack([np.arange(12), np.arange(12)], 1)
    spec = [tf.TensorSpec([None, 16, 16, 3]), tf.TensorSpec([None, 2], tf.int64)]
    augment = tf.function(
        lambda images, seeds: _keras_cv.randaugment(images, seeds, 0.5, 255.0), spec
    )
    whole = augment(images, seeds).numpy()
    np.testing.assert_array_equal(augment(images[5:8], seeds[5:8]), whole[5:8])
    changed = np.abs(whole - images).reshape(12, -1).max(1) > 1
    assert changed.sum() > 6
    assert whole.min() >= 0 and whole.max() <= 255
    same = augment(np.repeat(images[:1], 12, 0), seeds).numpy()
    assert len(np.unique(same.reshape(12, -1), axis=0)) > 6
    graph = augment.get_concrete_function().graph.as_graph_def()
    names = {node.op for function in graph.library.function for node in function.node_def}
    random = {name for name in names if "Random" in name or "Rng" in name}
    assert random and all(name.startswith("Stateless") for name in random)
