"""Pictures of any size that stay on disk, encoded, until their batch needs them."""

from __future__ import annotations

import abc
import concurrent.futures
import functools
import sys
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from larq_ext._images import IMAGENET_MEAN, IMAGENET_STD, orientation
from larq_ext_recipes._augmentation import Augmentation, Draws
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._pipeline import Row, untransformed, without_fill
from larq_ext_recipes.datasets._dataset import Dataset, DatasetError
from larq_ext_zoo._preprocessing import without_far_ends

# How a whole JPEG or PNG file ends.
_ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")


class PictureDataset(Dataset, abc.ABC):
    """JPEG and PNG pictures, gray and CMYK ones too, brought to one size in RGB.

    To evaluate, the shorter side is resized to 256/224 of `image_size` and the centre is cut out.
    To train, a random crop is either resized (`crop_scale`) or cut out of that resized picture at
    most `crop_padding` pixels off the centre. Resizing is bilinear, with antialiasing where a
    picture becomes smaller.

    # Attributes
        image_size: Height and width as a network sees them, pixels.
        upright: Whether pictures are turned as their EXIF data say. The usual data sets are
            trained and evaluated as they are stored, everywhere.
    """

    image_size: int
    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    white = 255.0
    upright = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels as a network sees them."""
        return self.image_size, self.image_size, 3

    @abc.abstractmethod
    def fetch(self, image: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads one picture.

        # Arguments
            image: What the rows have as `image`.
            training: Whether it is of the training set.

        # Returns
            Encoded content, class number (int64) and a name for errors.
        """

    def read(self, rows: tf.data.Dataset, augmentation: Augmentation | None) -> tf.data.Dataset:
        def load(item: Row) -> tuple[tf.Tensor, tf.Tensor]:
            content, label, name = self.fetch(item["image"], augmentation is not None)
            content = checked(content, name)
            picture = self._picture(content, item.get("draws"), augmentation)
            return picture, label

        return read_batches(rows, load, self.input_shape, tf.TensorSpec([], tf.int64))

    def _picture(
        self, content: tf.Tensor, draws: Draws | None, augmentation: Augmentation | None
    ) -> tf.Tensor:
        """One picture, uint8 of `input_shape`."""
        if augmentation is not None and augmentation.crop_scale is not None:
            windows = functools.partial(augmentation.crop_windows, draws)
            picture = self._decode(content, windows)
            picture = resize(picture, [self.image_size, self.image_size])
        else:
            padding = augmentation.crop_padding if augmentation is not None else 0
            shift = augmentation.shifts(draws) if padding else tf.zeros([2], tf.int32)
            picture = self._cut_out(self._decode(content), padding, shift)
        picture = tf.saturate_cast(tf.round(picture), tf.uint8)
        if augmentation is not None and augmentation.flip:
            mirrored = augmentation.flips(draws)
            # Half of the time of all else, were it done for every picture or by slicing.
            return tf.cond(mirrored, lambda: tf.reverse(picture, [1]), lambda: picture)
        return picture

    def _decode(self, content: tf.Tensor, window=None) -> tf.Tensor:
        if not self.upright:
            return decode(content, window)
        orientation = tf.numpy_function(_orientation, [content], tf.int64, stateful=False)
        orientation = tf.ensure_shape(orientation, [])
        return tf.cond(
            orientation == 1,
            lambda: decode(content, window),
            lambda: _part(_turned(decode(content), orientation), window),
        )

    def _cut_out(self, picture: tf.Tensor, padding: int, shift: tf.Tensor) -> tf.Tensor:
        picture = without_far_ends(picture[None])[0]
        sides = tf.shape(picture)[:2]
        shorter = round(self.image_size * 256 / 224)
        sides = tf.cast(tf.round(sides * shorter / tf.reduce_min(sides)), tf.int32)
        picture = resize(picture, sides)
        picture = tf.pad(picture, [[padding, padding], [padding, padding], [0, 0]])
        top, left = tf.unstack((sides - self.image_size) // 2 + padding + shift)
        return tf.slice(picture, tf.stack([top, left, 0]), self.input_shape)


def read_batches(
    rows: tf.data.Dataset,
    load: Callable[[Row], tuple[tf.Tensor, tf.Tensor]],
    image_shape: tuple[int, int, int],
    label: tf.TensorSpec,
) -> tf.data.Dataset:
    """Reads the images of rows one by one, side by side, and puts them into batches again.

    # Arguments
        rows: Batches as the pipeline gives them.
        load: Reads one image and its label.
        image_shape: Height, width and channels of an image, uint8.
        label: Shape and type of a label.

    # Returns
        `(images, labels, row)` of each batch.
    """
    width = rows.element_spec["position"].shape[0]

    def nothing() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.zeros(image_shape, tf.uint8), tf.zeros(label.shape, label.dtype)

    @untransformed
    def picture(item: Row) -> tuple[tf.Tensor, tf.Tensor, Row]:
        image, answer = tf.cond(item["position"] >= 0, lambda: load(item), nothing)
        known = {name: value for name, value in item.items() if name != "image"}
        return tf.ensure_shape(image, image_shape), tf.ensure_shape(answer, label.shape), known

    @untransformed
    def whole(images: tf.Tensor, labels: tf.Tensor, row: Row):
        row = without_fill({**row, "images": images, "labels": labels})
        return row.pop("images"), row.pop("labels"), row

    pictures = rows.unbatch().map(picture, num_parallel_calls=tf.data.AUTOTUNE)
    return pictures.batch(width, drop_remainder=True).map(whole)


def decode(content: tf.Tensor, window=None) -> tf.Tensor:
    """Decodes a picture, or only a window of it.

    # Arguments
        content: An encoded picture.
        window: Function from height and width to top, left, height and width of the window.

    # Returns
        Pixels uint8 `(height, width, 3)`.
    """

    def jpeg() -> tf.Tensor:
        options = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
        if window is None:
            return tf.io.decode_jpeg(content, **options)
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(content), num=3)
        return tf.io.decode_and_crop_jpeg(content, window(height, width), **options)

    def other() -> tf.Tensor:
        picture = tf.io.decode_image(content, channels=3, expand_animations=False)
        return _part(tf.ensure_shape(picture, [None, None, 3]), window)

    return tf.cond(tf.io.is_jpeg(content), jpeg, other)


def _part(picture: tf.Tensor, window) -> tf.Tensor:
    if window is None:
        return picture
    size = tf.shape(picture)
    top, left, height, width = tf.unstack(window(size[0], size[1]), num=4)
    return picture[top : top + height, left : left + width]


def _orientation(content: bytes | np.ndarray) -> np.int64:
    return np.int64(orientation(np.asarray(content, object).item()))  # eager, it is an array


def _turned(picture: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """A picture as it is to be seen, by the number from 1 to 8 that EXIF data have."""
    picture = tf.cond(orientation > 4, lambda: tf.transpose(picture, [1, 0, 2]), lambda: picture)
    upside_down = tf.reduce_any(orientation == [3, 4, 7, 8])
    mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
    dims = tf.stack([upside_down, mirrored, False])
    return tf.ensure_shape(tf.raw_ops.Reverse(tensor=picture, dims=dims), [None, None, 3])


def resize(picture: tf.Tensor, size) -> tf.Tensor:
    """Bilinear resizing to float32; antialiasing costs time, so only where it does something."""
    picture = tf.cast(picture, tf.float32)
    return tf.cond(
        tf.reduce_any(tf.shape(picture)[:2] > size),
        lambda: tf.image.resize(picture, size, antialias=True),
        lambda: tf.image.resize(picture, size),
    )


def check_size(image_size: int | None, default: int) -> int:
    """The size to take.

    # Raises
        UsageError: if it is not above 0.
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"image_size must be 1 or more, received {image_size}.")
    return default if image_size is None else image_size


def decode_or_name(content: bytes, name: bytes) -> None:
    """Decodes a picture for the error alone.

    # Raises
        DatasetError: with the picture's name, if it cannot be decoded.
    """
    try:
        tf.io.decode_image(content, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        raise DatasetError(
            f"{name.decode(errors='replace')} is damaged or no picture ({len(content)} bytes): "
            "get or extract it again, or delete it and start again."
        ) from error


def decode_all(decoders: Iterable[Callable[[], None]]) -> None:
    """Decodes pictures side by side until one raises the error that names it.

    # Raises
        DatasetError: if a picture is damaged.
    """
    decoders = list(decoders)
    print(f"Looking for the damaged one of {len(decoders):,} pictures ...", file=sys.stderr)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            for _ in pool.map(lambda decoder: decoder(), decoders):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def checked(content: tf.Tensor, name: tf.Tensor) -> tf.Tensor:
    """The content, unchanged.

    TensorFlow's decoders do not know names of files, so what does not end as a picture does is
    decoded where an error can name it.
    """

    def check(content: bytes, name: bytes) -> bytes:
        decode_or_name(content, name)
        return content

    length = tf.strings.length(content)
    sound = tf.constant(False)
    for end in _ENDS:
        sound |= tf.strings.substr(content, tf.maximum(length - len(end), 0), len(end)) == end
    return tf.cond(sound, lambda: content, lambda: slowly(check, content, name))


def slowly(check: Callable[..., bytes], content: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
    """The content, unchanged, after a function of Python's that may raise, in a graph."""
    # Not stateful: otherwise TensorFlow's deterministic mode would read one file at a time.
    same = tf.numpy_function(check, [content, *others], tf.string, stateful=False)
    return tf.ensure_shape(same, [])
