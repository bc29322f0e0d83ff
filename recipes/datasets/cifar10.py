"""CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in ten classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
<https://www.cs.toronto.edu/~kriz/cifar.html>.
"""

from __future__ import annotations

import pathlib

import numpy as np

from larq_ext._images import IMAGENET_MEAN, IMAGENET_STD
from larq_ext_recipes.datasets._arrays import ArrayDataset
from larq_ext_recipes.datasets._cifar_files import Split, read_official
from larq_ext_recipes.datasets._dataset import DatasetError
from larq_ext_recipes.datasets._records import TFDS_PIP

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

# The statistics of ImageNet, not of CIFAR-10: the released code of FDA-BNN and of SiMaN
# normalises CIFAR-10 with them.
MEAN, STD = IMAGENET_MEAN, IMAGENET_STD


def load(data_dir: str | pathlib.Path | None = None) -> ArrayDataset:
    """Loads CIFAR-10 in the official order, from wherever it is.

    # Arguments
        data_dir: A folder in one of the publisher's forms (`cifar-10-batches-bin` or
            `cifar-10-batches-py`, or the folder above), or a folder that tensorflow-datasets
            has prepared (it has `cifar10/<version>`). `None` downloads through
            tensorflow-datasets.

    # Returns
        The data set, images uint8 `(n, 32, 32, 3)` in RGB. All sources give the same numbers in
        the same order.

    # Raises
        DatasetError: if the folder holds none of these, a file is missing or damaged, or
            tensorflow-datasets is needed and not installed.
    """
    folder = None if data_dir is None else pathlib.Path(data_dir).expanduser()
    if folder is None or any(folder.glob("cifar10/*/dataset_info.json")):
        train, test = _read_tfds(folder)
    else:
        train, test = read_official(folder)
    return ArrayDataset("cifar10", train, test, CLASSES, MEAN, STD)


def _read_tfds(folder: pathlib.Path | None) -> tuple[Split, Split]:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DatasetError(
            "Without a data folder CIFAR-10 comes from tensorflow-datasets, which is not "
            f"installed: type `{TFDS_PIP}`, or "
            "give data_dir=FOLDER with cifar-10-batches-bin in it."
        ) from error
    arrays = tfds.as_numpy(tfds.load("cifar10", data_dir=folder and str(folder), batch_size=-1))
    return tuple(_official_order(arrays[split]) for split in ("train", "test"))


def _official_order(columns: dict[str, np.ndarray]) -> Split:
    """Undoes the shuffling of tensorflow-datasets; its ids carry the official position."""
    order = np.argsort(columns["id"])
    return columns["image"][order], columns["label"][order].astype(np.int64)
