"""Data sets by name. Each has a module with a function `load(data_dir, image_size)`."""

from __future__ import annotations

import pathlib

from larq_ext_recipes._errors import UsageError
from larq_ext_recipes._names import unknown_name
from larq_ext_recipes.datasets import cifar10, digits
from larq_ext_recipes.datasets._arrays import ArrayDataset
from larq_ext_recipes.datasets._dataset import Dataset, DatasetError

LOADERS = {"cifar10": cifar10.load, "digits": digits.load}


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
    dataset = LOADERS[name](data_dir)
    if image_size not in (None, dataset.input_shape[0]):
        height, width, _ = dataset.input_shape
        raise UsageError(
            f"image_size={image_size} is for pictures of any size, and the images of {name} have "
            f"{height} x {width} pixels: leave it out."
        )
    return dataset


__all__ = ["LOADERS", "ArrayDataset", "Dataset", "DatasetError", "load"]
