"""Random changes of training images as pure functions of random numbers drawn before.

The numbers of an epoch are drawn for all its images at once, so they depend on the position of an
image in the epoch only, not on batches, workers or where a run was resumed.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from larq_ext_recipes import _keras_cv
from larq_ext_recipes._cutmix import cutmix
from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._pipeline import Normalise, Row, Source

Draws = dict[str, tf.Tensor]

ATTEMPTS = 10  # of a random resized crop, as in torchvision and DALI

# Principal components of the colours of ImageNet, in [0, 1], as AlexNet's authors computed and
# everybody has copied them: eigenvalues, and eigenvectors in columns.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images, in the order of the arguments (`lighting` after
    `randaugment`).

    With `mixup` or `cutmix` the labels become float32 shares of the classes `(batch, classes)`;
    otherwise they are class numbers `(batch,)`, and a loss has to take both.

    All of it repeats exactly, also after resuming in the middle of an epoch. `mixup` and `cutmix`
    mix images of one replica's batch, so they alone depend on how many workers and replicas share
    a batch.

    # Arguments
        crop_padding: How far a crop of the image's size may be off its centre, pixels. What lies
            outside is black; pictures on disk, which are resized to 256/224 of the size first,
            do have pixels there, so 16 is the usual random 224 crop out of 256.
        flip: Whether half of the images are mirrored left to right.
        crop_scale: Smallest and largest share of the picture's area in a random resized crop,
            usually `(0.08, 1.0)`; `None` for none. A crop that does not fit into the picture is
            drawn again, up to ten times, then the largest centred one is taken; so an upper bound
            above 1, such as 1.25 in the code of SiMaN, only makes that last case more frequent.
        crop_ratio: Smallest and largest ratio of width to height of that crop.
        color_jitter: Brightness, contrast and saturation are multiplied in random order by
            factors in `1 +- color_jitter`.
        lighting: Standard deviation of AlexNet's noise along the principal components of
            ImageNet's colours; 0.1 is usual.
        randaugment: Magnitude of RandAugment in [0, 1], three operations an image; `None` for
            none. Needs keras-cv.
        mixup: Parameter of the beta distribution of mixup; 0 for none. Needs keras-cv.
        cutmix: The same for CutMix. With both, each batch gets one of them, by halves.

    # Raises
        UsageError: if a value is not possible.

    # References
        - ImageNet Classification with Deep Convolutional Neural Networks (`lighting`)
        - [Going Deeper with Convolutions](https://arxiv.org/abs/1409.4842) (`crop_scale`)
        - [RandAugment](https://arxiv.org/abs/1909.13719)
        - [mixup](https://arxiv.org/abs/1710.09412)
        - [CutMix](https://arxiv.org/abs/1905.04899)
    """

    crop_padding: int = 4
    flip: bool = True
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    color_jitter: float = 0.0
    lighting: float = 0.0
    randaugment: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for field in ("crop_padding", "color_jitter", "lighting", "mixup", "cutmix"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{field} must be 0 or more, received {value}.")
        for field in ("crop_scale", "crop_ratio"):
            self._check_range(field, getattr(self, field))
        if self.crop_scale is not None and self.crop_scale[0] > 1:
            raise UsageError(
                f"crop_scale={self.crop_scale} asks for crops larger than the picture: its first "
                "number must be 1 or less."
            )
        if self.crop_scale is not None and self.crop_padding:
            raise UsageError(
                f"crop_scale={self.crop_scale} and crop_padding={self.crop_padding} are two ways "
                "to crop: give crop_padding=0 or crop_scale=none."
            )
        if self.randaugment is not None and not 0 <= self.randaugment <= 1:
            raise UsageError(
                f"randaugment must be from 0 to 1, or none, received {self.randaugment}."
            )

    def _check_range(self, field: str, value: tuple[float, float] | None) -> None:
        if value is not None and (
            len(value) != 2
            or not all(math.isfinite(number) for number in value)
            or not 0 < value[0] <= value[1]
        ):
            raise UsageError(
                f"{field} must be two numbers above 0, the smaller one first, received {value}."
            )

    def check(self, name: str, channels: int) -> None:
        """Refuses changes of colour for images without colours, and names missing packages.

        # Arguments
            name: Name of the data set.
            channels: Channels of its images.

        # Raises
            UsageError: if a change needs RGB and the images are not, or keras-cv is missing.
        """
        for field in ("color_jitter", "lighting", "randaugment"):
            if getattr(self, field) and channels != 3:
                raise UsageError(
                    f"{field}={getattr(self, field)} is for RGB, and the images of {name} have "
                    f"{channels} channel: leave it out."
                )
        if self.randaugment is not None or self.mixup:
            _keras_cv.load()

    @property
    def mixes(self) -> bool:
        """Whether images and labels of a batch are mixed."""
        return bool(self.mixup or self.cutmix)

    def draw(self, key: tf.Tensor, size: int) -> Draws:
        """Random numbers in [0, 1) for all images of an epoch.

        # Arguments
            key: Seed of two integers.
            size: Images in the epoch.

        # Returns
            Arrays `(size, numbers)` by the change they are for, as far as it is wanted.
        """
        numbers = {
            "shift": 2 if self.crop_padding else 0,
            "flip": 1 if self.flip else 0,
            "crop": 2 * ATTEMPTS + 2 if self.crop_scale is not None else 0,
            "color": 6 if self.color_jitter else 0,
            "lighting": 3 if self.lighting else 0,
        }
        keys = tf.random.split(key, len(numbers))
        return {
            name: tf.random.stateless_uniform([size, count], keys[i])
            for i, (name, count) in enumerate(numbers.items())
            if count
        }

    # Geometry, which each kind of data set applies in its own way.

    def shifts(self, draws: Draws) -> tf.Tensor:
        """Pixels that crops are off the centre, down and right, int32 `(..., 2)`."""
        steps = 2 * self.crop_padding + 1
        return tf.cast(draws["shift"] * steps, tf.int32) - self.crop_padding

    def flips(self, draws: Draws) -> tf.Tensor:
        """Which images are mirrored, bool `(...)`."""
        return draws["flip"][..., 0] < 0.5

    def crop_windows(self, draws: Draws, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """Windows of random resized crops.

        # Arguments
            draws: What `draw` gave, for one image or for several.
            height: Height of the picture(s), pixels.
            width: Width of the picture(s), pixels.

        # Returns
            Top, left, height and width, int32 `(..., 4)`.
        """
        numbers = draws["crop"]
        height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
        low, high = self.crop_scale
        area = (low + (high - low) * numbers[..., :ATTEMPTS]) * (height * width)[..., None]
        low, high = (math.log(ratio) for ratio in self.crop_ratio)
        ratio = tf.exp(low + (high - low) * numbers[..., ATTEMPTS:-2])
        heights, widths = tf.round(tf.sqrt(area / ratio)), tf.round(tf.sqrt(area * ratio))
        fits = (heights >= 1) & (heights <= height[..., None])
        fits &= (widths >= 1) & (widths <= width[..., None])
        # If none fits: the largest centred window with an allowed ratio.
        least, most = self.crop_ratio
        whole = tf.stack(
            [
                tf.clip_by_value(tf.round(width / least), 1, height),
                tf.clip_by_value(tf.round(height * most), 1, width),
            ],
            axis=-1,
        )
        any_fits = tf.reduce_any(fits, axis=-1, keepdims=True)
        first = tf.argmax(tf.cast(fits, tf.int32), axis=-1, output_type=tf.int32)[..., None]
        drawn = tf.stack([heights, widths], axis=-1)  # (..., attempts, 2)
        drawn = tf.squeeze(tf.gather(drawn, first, axis=-2, batch_dims=first.shape.rank - 1), -2)
        size = tf.where(any_fits, drawn, whole)
        room = tf.stack([height, width], axis=-1) - size
        corner = tf.where(any_fits, tf.floor(numbers[..., -2:] * (room + 1)), tf.floor(room / 2))
        return tf.cast(tf.concat([tf.minimum(corner, room), size], axis=-1), tf.int32)

    # Colours and mixtures, on batches.

    def finish(
        self, images: tf.Tensor, labels: tf.Tensor, row: Row, source: Source, normalise: Normalise
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Changes colours, normalises and mixes a batch.

        # Arguments
            images: `(batch, height, width, channels)`, cropped and flipped.
            labels: Class numbers `(batch,)`.
            row: What the pipeline knows of the batch.
            source: The data set.
            normalise: What gives images the mean and deviation that a network sees.

        # Returns
            Images float32 of the same shape and labels, `(batch, classes)` if they are mixed.
        """
        keys, position = None, row["position"]
        if self.randaugment is not None:
            keys = tf.map_fn(
                lambda item: tf.random.fold_in(*item),
                (row["key"], position),
                fn_output_signature=row["key"].dtype,
            )
        images = self.recolor(tf.cast(images, tf.float32), row["draws"], keys, source.white)
        images = normalise(images)
        if not self.mixes:
            return images, labels
        # The negative numbers: no image's own key is used for the batch again.
        key = tf.random.fold_in(row["key"][0], -1 - position[0])
        return self.mix(images, tf.one_hot(labels, len(source.classes)), key)

    def recolor(self, images: tf.Tensor, draws: Draws, keys: tf.Tensor, white: float) -> tf.Tensor:
        """Changes colours, and whatever RandAugment does.

        # Arguments
            images: float32 `(batch, height, width, channels)` in [0, white].
            draws: Random numbers of these images.
            keys: A seed for each image, `(batch, 2)`.
            white: Largest value of a pixel.

        # Returns
            Images of the same shape and range; only `lighting` may leave it a little.
        """
        if self.color_jitter:
            images = self._jitter(images, draws["color"], white)
        if self.randaugment is not None:
            images = _keras_cv.randaugment(images, keys, self.randaugment, white)
        if self.lighting:
            normal = tf.math.ndtri(tf.maximum(draws["lighting"], 2.0**-24))
            amounts = self.lighting * normal * tf.constant(_EIGENVALUES)
            shift = tf.matmul(amounts, tf.constant(_EIGENVECTORS), transpose_b=True)
            images += white * shift[:, None, None, :]
        return images

    def _jitter(self, images: tf.Tensor, draws: tf.Tensor, white: float) -> tf.Tensor:
        """Brightness, contrast and saturation: each blends with another image."""
        low = max(0.0, 1 - self.color_jitter)
        factors = low + (1 + self.color_jitter - low) * draws[:, :3]
        order = tf.argsort(draws[:, 3:])
        for turn in range(3):
            change = order[:, turn]
            factor = tf.gather(factors, change, batch_dims=1)[:, None, None, None]
            gray = tf.image.rgb_to_grayscale(images)
            level = tf.reduce_mean(gray, axis=(1, 2), keepdims=True)
            change = change[:, None, None, None]
            # Towards black is less brightness, towards a plain gray less contrast.
            other = tf.where(change == 0, 0.0, tf.where(change == 1, level, gray))
            images = tf.clip_by_value(other + factor * (images - other), 0, white)
        return images

    def mix(
        self, images: tf.Tensor, labels: tf.Tensor, key: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies mixup or CutMix to a batch.

        # Arguments
            images: float32 `(batch, height, width, channels)`.
            labels: float32 `(batch, classes)`.
            key: Seed of two integers.

        # Returns
            Images and labels of the same shapes.
        """
        if self.mixup and self.cutmix:
            coin = tf.random.stateless_uniform([], key)
            return tf.cond(
                coin < 0.5,
                lambda: _keras_cv.mixup(images, labels, key, self.mixup),
                lambda: cutmix(images, labels, key, self.cutmix),
            )
        if self.mixup:
            return _keras_cv.mixup(images, labels, key, self.mixup)
        return cutmix(images, labels, key, self.cutmix)
