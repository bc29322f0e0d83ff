"""Data sets by name. Each has a module with a function `load(data_dir)`.

Those of pictures of any size take `image_size` too.
"""

from __future__ import annotations

import pathlib

from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._names import unknown_name
from larq_ext_recipes.datasets import cifar10, digits, folder, imagenet, imagenette, mnist
from larq_ext_recipes.datasets._arrays import ArrayDataset
from larq_ext_recipes.datasets._dataset import Dataset, DatasetError, readable_errors

_OF_ONE_SIZE = {"cifar10": cifar10.load, "digits": digits.load, "mnist": mnist.load}
OF_ANY_SIZE = {
    "folder": folder.load,
    "imagenet": imagenet.load,
    "imagenette": imagenette.load,
}
LOADERS = _OF_ONE_SIZE | OF_ANY_SIZE


def load(
    name: str, data_dir: str | pathlib.Path | None = None, *, image_size: int | None = None
) -> Dataset:
    """Loads a data set by its name.

    # Arguments
        name: One of `LOADERS`.
        data_dir: Where the data is; see the data set's own module.
        image_size: Height and width that pictures of any size are brought to, pixels; `None` for
            the data set's usual one.

    # Returns
        The data set.

    # Raises
        UsageError: if there is no such data set, or its images cannot have that size.
        DatasetError: if its data is not found.
    """
    if name not in LOADERS:
        raise UsageError(unknown_name("data set", name, LOADERS))
    if name in OF_ANY_SIZE:
        return OF_ANY_SIZE[name](data_dir, image_size)
    dataset = _OF_ONE_SIZE[name](data_dir)
    if image_size not in (None, dataset.input_shape[0]):
        height, width, _ = dataset.input_shape
        raise UsageError(
            f"image_size={image_size} is for pictures of any size, and the images of {name} have "
            f"{height} x {width} pixels: leave it out."
        )
    return dataset


__all__ = [
    "LOADERS",
    "OF_ANY_SIZE",
    "ArrayDataset",
    "Dataset",
    "DatasetError",
    "load",
    "readable_errors",
]
