"""Handwritten digits of scikit-learn: 1,797 real images of 8 x 8 pixels, no download.

The test set of UCI's "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak,
1998. Small enough to try a recipe in seconds.
"""

from __future__ import annotations

import pathlib

import numpy as np

from larq_ext_recipes.datasets._arrays import ArrayDataset
from larq_ext_recipes.datasets._dataset import DatasetError

TEST_IMAGES = 360
SPLIT_SEED = 0  # one split for everyone, so that accuracies can be compared


def load(data_dir: str | pathlib.Path | None = None) -> ArrayDataset:
    """Loads the digits with a fixed split, stratified by class.

    # Arguments
        data_dir: Not used: the images come with scikit-learn.

    # Returns
        The data set: 1,437 training and 360 test images, float32 `(n, 8, 8, 1)` in [0, 1]; a
        network sees them in [-1, 1].

    # Raises
        DatasetError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise DatasetError(
            "The digits come with scikit-learn, which is not installed: type "
            "`pip install scikit-learn`."
        ) from error
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None]
    labels = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=TEST_IMAGES, stratify=labels, random_state=SPLIT_SEED
    )
    classes = tuple(str(digit) for digit in range(10))
    return ArrayDataset("digits", (x_train, y_train), (x_test, y_test), classes, (0.5,), (0.5,))
