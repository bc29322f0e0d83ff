"""Data sets by name. Each has a module with a function `load(data_dir)`."""

from __future__ import annotations

import pathlib

from larq_ext_recipes._names import unknown_name
from larq_ext_recipes.datasets import cifar10, digits
from larq_ext_recipes.datasets._dataset import Dataset, DatasetError

LOADERS = {"cifar10": cifar10.load, "digits": digits.load}


def load(name: str, data_dir: str | pathlib.Path | None = None) -> Dataset:
    """Loads a data set by its name.

    # Arguments
        name: One of `LOADERS`.
        data_dir: Where the data is; see the data set's own module.

    # Returns
        The data set.

    # Raises
        ValueError: if there is no such data set.
        DatasetError: if its data is not found.
    """
    if name not in LOADERS:
        raise ValueError(unknown_name("data set", name, LOADERS))
    return LOADERS[name](data_dir)


__all__ = ["LOADERS", "Dataset", "DatasetError", "load"]
