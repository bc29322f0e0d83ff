"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 pixels.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST Database of Handwritten Digits", 1998.
"""

from __future__ import annotations

import gzip
import pathlib
import struct
import zlib

import numpy as np

from larq_ext_recipes.datasets._arrays import ArrayDataset
from larq_ext_recipes.datasets._dataset import DatasetError
from larq_ext_recipes.datasets._looking import describe
from larq_ext_recipes.datasets._records import TFDS_PIP

CLASSES = tuple(str(digit) for digit in range(10))

# Statistics of the training images.
MEAN = (33.3184,)
STD = (78.5675,)

_IMAGES = (28, 28)
_SIZES = {"train": 60_000, "t10k": 10_000}

Split = tuple[np.ndarray, np.ndarray]


def load(data_dir: str | pathlib.Path | None = None) -> ArrayDataset:
    """Loads MNIST from wherever it is.

    # Arguments
        data_dir: A folder with the publisher's four IDX files, as they come (`.gz`) or unpacked,
            or one with a folder `mnist` that has them, or one in which tensorflow-datasets has
            prepared `mnist/<version>`. `None` downloads through tensorflow-datasets, which has
            the images in another order.

    # Returns
        The data set, images uint8 `(n, 28, 28, 1)`.

    # Raises
        DatasetError: if the folder holds none of these, a file is missing or damaged, or
            tensorflow-datasets is needed and not installed.
    """
    folder = None if data_dir is None else pathlib.Path(data_dir).expanduser()
    if folder is None or any(folder.glob("mnist/*/dataset_info.json")):
        train, test = _read_tfds(folder)
    else:
        folder = _find(folder)
        train, test = (_read_split(folder, kind) for kind in _SIZES)
    return ArrayDataset("mnist", train, test, CLASSES, MEAN, STD)


def _find(folder: pathlib.Path) -> pathlib.Path:
    for candidate in (folder, folder / "mnist"):
        if any(_file(candidate, kind, part) for kind in _SIZES for part in ("images", "labels")):
            return candidate
    raise DatasetError(
        f"No MNIST in {folder}: looked for train-images-idx3-ubyte or train-images-idx3-ubyte.gz "
        f"there and in its folder mnist, and for mnist/<version> of tensorflow-datasets; found "
        f"{describe(folder)}."
    )


def _name(kind: str, part: str) -> str:
    return f"{kind}-{part}-idx{3 if part == 'images' else 1}-ubyte"


def _file(folder: pathlib.Path, kind: str, part: str) -> pathlib.Path | None:
    name = _name(kind, part)
    # Some programs unpack to names with a dot.
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_split(folder: pathlib.Path, kind: str) -> Split:
    size = _SIZES[kind]
    images = _read_idx(folder, kind, "images", (size, *_IMAGES))
    labels = _read_idx(folder, kind, "labels", (size,))
    if labels.max() > 9:
        raise DatasetError(f"MNIST labels are 0 to 9, found {labels.max()} in {folder}.")
    return images[..., None], labels.astype(np.int64)


def _read_idx(folder: pathlib.Path, kind: str, part: str, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an IDX file: two zero bytes, type (8: uint8), dimensions, their sizes, values."""
    path = _file(folder, kind, part)
    if path is None:
        raise DatasetError(
            f"{folder / _name(kind, part)} is missing, with .gz and without; the folder holds "
            f"{describe(folder)}."
        )
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetError(
                f"{path} is damaged: expected gzip, found {len(content)} bytes that end in "
                f"{type(error).__name__} ({error}). Download it again."
            ) from error
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    if not content.startswith(header) or len(content) != len(header) + np.prod(shape):
        raise DatasetError(
            f"{path} is damaged: expected an IDX file of {' x '.join(map(str, shape))} bytes "
            f"({len(header) + np.prod(shape)} with its header {header.hex()}), found "
            f"{len(content)} that begin with {content[: len(header)].hex()}. Download it again."
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _read_tfds(folder: pathlib.Path | None) -> tuple[Split, Split]:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DatasetError(
            "Without a data folder MNIST comes from tensorflow-datasets, which is not installed: "
            f"type `{TFDS_PIP}`, or give data_dir=FOLDER with train-images-idx3-ubyte.gz in it."
        ) from error
    arrays = tfds.as_numpy(tfds.load("mnist", data_dir=folder and str(folder), batch_size=-1))
    train, test = (
        (arrays[split]["image"], arrays[split]["label"].astype(np.int64))
        for split in ("train", "test")
    )
    return train, test
