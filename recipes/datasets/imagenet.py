"""ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 validation pictures of 1,000 classes.

O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015,
<https://www.image-net.org>. The publisher gives it out for non-commercial research, by hand.
"""

from __future__ import annotations

import pathlib

from larq_ext_recipes.datasets._folders import read_folder
from larq_ext_recipes.datasets._pictures import PictureDataset, check_size
from larq_ext_recipes.datasets._records import find_prepared, read_records

CLASSES = 1000
IMAGE_SIZE = 224
_ADVICE = (
    "Get the archives from image-net.org and extract them to train/<class>/ and val/<class>/, or "
    "have tensorflow-datasets prepare imagenet2012 in it."
)


def load(
    data_dir: str | pathlib.Path | None = None, image_size: int | None = None
) -> PictureDataset:
    """Finds the pictures of ImageNet; the validation set stands in for the test set.

    # Arguments
        data_dir: A folder with `train/<class>/*.JPEG` and `val/<class>/*.JPEG` (or `validation`),
            or the one above; or a folder in which tensorflow-datasets has prepared
            `imagenet2012/<version>`.
        image_size: Height and width as a network sees them, pixels; default 224.

    # Returns
        The data set, normalised with its usual statistics. The classes are the names of their
        folders (WordNet ids), in alphabetical order, as tensorflow-datasets has them too.

    # Raises
        UsageError: if the size is not above 0.
        DatasetError: if the folder is missing, not extracted or not complete, or
            tensorflow-datasets is needed and not installed.
    """
    size = check_size(image_size, IMAGE_SIZE)
    prepared = find_prepared("imagenet2012", data_dir)
    if prepared is not None:
        return read_records("imagenet", prepared, size, count=CLASSES)
    return read_folder("imagenet", data_dir, size, count=CLASSES, advice=_ADVICE)
