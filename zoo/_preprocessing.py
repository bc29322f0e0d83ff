"""What is done to an image before a network sees it: data in the entry, one function, layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext_zoo._checks import check, is_count, is_number

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "area")


@dataclass(frozen=True)
class Preprocessing:
    r"""How pixels become the input of a network.

    \\[ x = \frac{\mathrm{scale} \cdot p - \mathrm{mean}}{\mathrm{std}} \\]
    with pixels p from 0 to 255, after the image was brought to the size of the input.

    # Arguments
        mean: Mean per channel, or one for all.
        std: Standard deviation per channel, or one for all.
        scale: Factor of the pixels.
        resize: What the shorter side of an image is resized to, pixels, before the centre is cut
            out; `None` if images are not resized.
        interpolation: `"bilinear"`, `"bicubic"`, `"nearest"` or `"area"`; smooth when it makes
            images smaller.
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    scale: float = 1.0
    resize: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            right = isinstance(values, list | tuple) and values and all(map(is_number, values))
            check(bool(right), name, "a list of numbers, one per channel", values)
            object.__setattr__(self, name, tuple(float(value) for value in values))
        check(all(value > 0 for value in self.std), "std", "above 0 in each channel", self.std)
        right = is_number(self.scale) and self.scale > 0
        check(right, "scale", "a number above 0", self.scale)
        right = self.resize is None or is_count(self.resize)
        check(right, "resize", "a number of pixels or null", self.resize)
        right = self.interpolation in INTERPOLATIONS
        check(right, "interpolation", f"one of {list(INTERPOLATIONS)}", self.interpolation)

    def check_size(self, input_size: Sequence[int]) -> None:
        """Whether this fits a network's input.

        # Raises
            ValueError: if it does not, with the field.
        """
        *sides, channels = input_size
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            check(count in (1, channels), name, f"1 or {channels} numbers", getattr(self, name))
        right = self.resize is None or self.resize >= max(sides)
        check(right, "resize", f"at least {max(sides)}, the size of the input", self.resize)

    def scaled(self, factor: float) -> Preprocessing:
        """The same for an input that is this much larger."""
        if self.resize is None:
            return self
        return dataclasses.replace(self, resize=round(self.resize * factor))

    def normalise(self, images: np.ndarray, white: float = 255.0) -> np.ndarray:
        """The formula alone, in float32, in the order of the recipes.

        # Arguments
            images: Array with the channels last, of integers or floats.
            white: The value of a white pixel in `images`.

        # Returns
            float32 array of the same shape.
        """
        x = np.asarray(images, np.float32)
        factor = np.float32(self.scale * 255.0 / white)
        if factor != 1:
            x = x * factor
        return (x - np.float32(self.mean)) * (1 / np.float32(self.std))


def without_far_ends(images: tf.Tensor, seen: float = 1.0) -> tf.Tensor:
    """The middle of images that are more than eight times as long as they are wide.

    The centre is cut out of them in any case, and resized as a whole a small file of 20,000 x 1
    pixels would take gigabytes.

    # Arguments
        images: `(samples, rows, columns, channels)`.
        seen: How many times the shorter side is looked at.

    # Returns
        The images, or their middle.
    """
    sides = tf.shape(images)[1:3]
    longest = math.ceil(8 * max(1.0, seen)) * tf.reduce_min(sides)
    top, left = tf.unstack(tf.maximum(sides - longest, 0) // 2)
    return images[:, top : top + longest, left : left + longest]


@lq.utils.register_keras_custom_object  # nested in `.h5` files it has no package
@tf.keras.utils.register_keras_serializable(package="larq_ext_zoo")
class ResizeAndCrop(tf.keras.layers.Layer):
    """Resizes the shorter side and cuts out the centre, as recipes do to evaluate.

    # Arguments
        resize: What the shorter side becomes, pixels; `None` only cuts out.
        height, width: Size of the output, pixels.
        interpolation: Method of `tf.image.resize`, with antialiasing.

    # Input shape
        `(samples, rows, columns, channels)` of any size

    # Output shape
        `(samples, height, width, channels)`, float32
    """

    def __init__(self, resize, height: int, width: int, interpolation="bilinear", **kwargs):
        super().__init__(**kwargs)
        self.resize, self.height, self.width = resize, height, width
        self.interpolation = interpolation

    def call(self, images):
        if self.resize is not None:
            images = without_far_ends(images, max(self.height, self.width) / self.resize)
        images = tf.cast(images, tf.float32)
        sides = tf.shape(images)[1:3]
        if self.resize is not None:
            sides = tf.cast(tf.round(sides * self.resize / tf.reduce_min(sides)), tf.int32)
            images = tf.image.resize(images, sides, self.interpolation, antialias=True)
            # Pixels are of 8 bits, here as in training.
            images = tf.clip_by_value(tf.round(images), 0.0, 255.0)
        top, left = tf.unstack((sides - [self.height, self.width]) // 2)
        images = images[:, top : top + self.height, left : left + self.width]
        return tf.ensure_shape(images, [None, self.height, self.width, images.shape[-1]])

    def get_config(self):
        names = ("resize", "height", "width", "interpolation")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def apply(
    preprocessing: Preprocessing, input_size: Sequence[int], images, white: float = 255.0
) -> np.ndarray:
    """Makes the input of a network from images.

    # Arguments
        preprocessing: What to do.
        input_size: Height, width and channels of the network's input.
        images: Array `(samples, rows, columns, channels)`, or a list of images
            `(rows, columns, channels)` or `(rows, columns)` of any sizes.
        white: The value of a white pixel in `images`.

    # Returns
        float32 array `(samples, height, width, channels)`.

    # Raises
        ValueError: if the images have another form, other channels or are too small.
    """
    height, width, channels = input_size
    if channels == 1 and getattr(images, "shape", ())[2:] == (1,):  # one image, not many columns
        _checked(np.asarray(images)[None], channels)
    images = [_checked(image, channels) for image in images]
    if not images:
        return np.zeros((0, height, width, channels), np.float32)
    fit = ResizeAndCrop(preprocessing.resize, height, width, preprocessing.interpolation)
    fitted = []
    for image in images:
        as_it_is = preprocessing.resize in (None, min(image.shape[:2]))
        if as_it_is and image.shape[:2] == (height, width):
            fitted.append(preprocessing.normalise(image, white))
            continue
        if preprocessing.resize is None and (image.shape[0] < height or image.shape[1] < width):
            raise ValueError(
                f"An image of {image.shape[1]} x {image.shape[0]} pixels is too small for an input "
                f"of {width} x {height}, and this network's images are not resized: resize it "
                "yourself."
            )
        pixels = image[None].astype(np.float32) * np.float32(255.0 / white)
        fitted.append(preprocessing.normalise(fit(pixels).numpy()[0]))
    return np.stack(fitted)


def _checked(image, channels: int) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype.kind not in "uif":
        raise ValueError(f"Images are arrays of numbers, received {image.dtype}.")
    if image.ndim == 2 and channels == 1:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] != channels or 0 in image.shape:
        raise ValueError(
            f"Each image has the shape (rows, columns, {channels}), received {image.shape}. "
            "Several images are an array with one more dimension in front, or a list."
        )
    return image


def layers(
    preprocessing: Preprocessing, input_size: Sequence[int], fit: bool = True
) -> tf.keras.Sequential:
    """The same as `apply` as layers, so that it travels with a model.

    # Arguments
        preprocessing: What to do.
        input_size: Height, width and channels of the network's input.
        fit: Whether pictures of other sizes are resized and cut.

    # Returns
        A sequential model without weights, from pixels of 0 to 255 `(samples, rows, columns,
        channels)` to the input of the network.
    """
    height, width, _ = input_size
    mean, std = (np.float64(values) for values in (preprocessing.mean, preprocessing.std))
    scale, offset = preprocessing.scale / std, -mean / std
    resizing = ResizeAndCrop(preprocessing.resize, height, width, preprocessing.interpolation)
    normalising = tf.keras.layers.Rescaling((scale + 0 * offset).tolist(), offset.tolist())
    parts = [resizing, normalising] if fit else [normalising]
    return tf.keras.Sequential(parts, name="preprocessing")
