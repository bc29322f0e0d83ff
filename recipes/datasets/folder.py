"""Any folder of pictures with a folder for each class."""

from __future__ import annotations

import pathlib

from larq_ext_recipes.datasets._folders import FolderDataset, read_folder
from larq_ext_recipes.datasets._pictures import check_size

IMAGE_SIZE = 224


def load(
    data_dir: str | pathlib.Path | None = None, image_size: int | None = None
) -> FolderDataset:
    """Finds the pictures of a folder; their classes are named as their folders.

    # Arguments
        data_dir: A folder with `train/<class>/` and `val/<class>/` (or `validation`, or `test`;
            the first that is there is evaluated on), or the folder above. The pictures are
            `.jpg`, `.jpeg` or `.png` files of any size, turned as their EXIF data say.
        image_size: Height and width as a network sees them, pixels; default 224.

    # Returns
        The data set, normalised with the statistics of ImageNet.

    # Raises
        UsageError: if the size is not above 0.
        DatasetError: if the folder is missing, not extracted or not complete.
    """
    return read_folder("folder", data_dir, check_size(image_size, IMAGE_SIZE), upright=True)
