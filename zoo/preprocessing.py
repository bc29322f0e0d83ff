"""What is done to images before a network sees them, by the name of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from larq_ext_zoo import _preprocessing
from larq_ext_zoo._data import DATASETS
from larq_ext_zoo._entry import Entry
from larq_ext_zoo._preprocessing import Preprocessing, ResizeAndCrop
from larq_ext_zoo.registry import entry

__all__ = ["Preprocessing", "ResizeAndCrop", "preprocess", "preprocessing_layers"]


def preprocess(name: str | Entry, images, *, white: float = 255.0) -> np.ndarray:
    """Makes the input of a network from images, as it was trained with.

    # Arguments
        name: Name of a model of the zoo, or an entry.
        images: Array `(samples, rows, columns, channels)`, or a list of images
            `(rows, columns, channels)` of any sizes; RGB. For a pose network they are persons that
            are cut out at the size of its input already.
        white: The value of a white pixel in `images`: 255 for images of 8 bits, 16 for
            scikit-learn's digits, 1 for floats from 0 to 1.

    # Returns
        float32 array `(samples, height, width, channels)`.

    # Raises
        ValueError: if there is no such model, or the images have another form.
    """
    found = _known(name)
    height, width, _ = found.input_size
    is_one = isinstance(images, np.ndarray) and images.ndim == 3  # `apply` says what is missing
    sizes = set() if is_one else {np.shape(image)[:2] for image in images}
    if found.task == "pose" and sizes - {(height, width)}:
        raise ValueError(
            f"{found.name} takes persons that are cut out at {width} x {height} pixels: "
            "larq_ext.pose.PoseEstimator does that, or larq-ext pose."
        )
    return _preprocessing.apply(found.preprocessing, found.input_size, images, white)


def preprocessing_layers(name: str | Entry) -> tf.keras.Sequential:
    """The same as layers, so that they travel with a model.

    !!! example
        ```python
        network = zoo.get("resnet20.fda")
        model = tf.keras.Sequential(
            [tf.keras.Input((None, None, 3)), zoo.preprocessing_layers("resnet20.fda"), network]
        )
        ```

    A file of such a model loads after `import larq_ext_zoo`.

    # Arguments
        name: Name of a model of the zoo, or an entry.

    # Returns
        A model without weights, from pixels of 0 to 255 `(samples, rows, columns, channels)` to
        the input of the network.

    # Raises
        ValueError: if there is no such model.
    """
    found = _known(name)
    fit = found.task == "classification"  # persons are cut out of pictures before
    return _preprocessing.layers(found.preprocessing, found.input_size, fit)


def _known(name: str | Entry) -> Entry:
    found = name if isinstance(name, Entry) else entry(name)
    if found.preprocessing is None:
        raise ValueError(f"The entry {found.name} does not say how its images are prepared.")
    return found


class Preparation(NamedTuple):
    """How images are prepared for one model, for use with another.

    `size` is the height, width and channels of that model's input, `classes` what
    `decode_predictions` takes.
    """

    preprocessing: Preprocessing
    size: tuple[int, int, int | None]
    classes: Sequence[str] | str | None

    def for_size(self, size: Sequence[int]) -> Preprocessing:
        """The preprocessing for another size of the input."""
        return self.preprocessing.scaled(max(size[:2]) / max(self.size[:2]))


def preparation(name: str) -> Preparation:
    """Preprocessing, input size and classes of a classifier or of its data set in the zoo.

    # Raises
        ValueError: if there is none of this name, or it is a pose network.
    """
    known = {other: data for other, data in DATASETS.items() if data.task == "classification"}
    if name in known:
        data = known[name]
        return Preparation(data.preprocessing, (data.side, data.side, None), data.classes)
    try:
        found = _known(name)
    except ValueError as error:
        raise ValueError(f"{error} Data sets: {', '.join(sorted(known))}.") from error
    found.check_task("classification", f"type `larq-ext pose {name} IMAGE -o OUT.png`")
    return Preparation(found.preprocessing, found.input_size, found.class_names)
