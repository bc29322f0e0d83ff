"""Readers for the two forms in which the publisher of CIFAR-10 offers it for download."""

from __future__ import annotations

import io
import pathlib
import pickle

import numpy as np

from larq_ext_recipes.datasets._dataset import DatasetError
from larq_ext_recipes.datasets._looking import describe

TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
TEST = ["test_batch"]
FORMS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}
PIXELS = 3 * 32 * 32

Split = tuple[np.ndarray, np.ndarray]


def read_official(folder: pathlib.Path) -> tuple[Split, Split]:
    """Reads CIFAR-10 from a downloaded folder.

    # Arguments
        folder: `cifar-10-batches-bin`, `cifar-10-batches-py` or the folder above.

    # Returns
        Training and test split, each uint8 images `(n, 32, 32, 3)` and int64 labels `(n,)`, in
        the official order.

    # Raises
        DatasetError: if the folder has neither form, or one of the files is missing or damaged.
    """
    folder, suffix = _find(folder)
    read = _read_bin if suffix else _read_pickle
    return tuple(
        _join([read(_existing(folder, name + suffix)) for name in names]) for names in (TRAIN, TEST)
    )


def _find(folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """The folder that holds the files, and how their names end."""
    candidates = [(folder, suffix) for suffix in FORMS.values()]
    candidates += [(folder / name, suffix) for name, suffix in FORMS.items()]
    for candidate, suffix in candidates:
        if any((candidate / (name + suffix)).is_file() for name in TRAIN + TEST):
            return candidate, suffix
    raise DatasetError(
        f"No CIFAR-10 in {folder}: looked for data_batch_1.bin (binary form) and data_batch_1 "
        f"(Python form) there and in its folders {' and '.join(FORMS)}, and for cifar10/<version> "
        f"of tensorflow-datasets; found {describe(folder)}."
    )


def _existing(folder: pathlib.Path, name: str) -> pathlib.Path:
    if not (folder / name).is_file():
        raise DatasetError(f"{folder / name} is missing; the folder holds {describe(folder)}.")
    return folder / name


def _read_bin(path: pathlib.Path) -> Split:
    content = np.fromfile(path, np.uint8)
    if not content.size or content.size % (PIXELS + 1):
        raise DatasetError(
            f"{path} is damaged: expected records of {PIXELS + 1} bytes (official: 10000 of "
            f"them), found {content.size} bytes. Download it again."
        )
    records = content.reshape(-1, PIXELS + 1)
    return records[:, 1:], records[:, 0]


def _read_pickle(path: pathlib.Path) -> Split:
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        rows, labels = np.asarray(content[b"data"]), np.asarray(content[b"labels"])
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DatasetError(
            f"{path} is damaged: expected a pickle with `data` and `labels`, found "
            f"{path.stat().st_size} bytes that end in {type(error).__name__} ({error}). "
            "Download it again."
        ) from error
    if rows.dtype != np.uint8 or rows.shape != (len(labels), PIXELS):
        raise DatasetError(
            f"{path} is damaged: expected uint8 rows of {PIXELS} pixels for {len(labels)} "
            f"labels, found {rows.dtype} of shape {rows.shape}."
        )
    return rows, labels


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays and plain values only, because a pickle can otherwise run any program."""

    ALLOWED = frozenset(
        {
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str):
        if (module, name) in self.ALLOWED:
            return super().find_class(module, name)
        raise DatasetError(f"refused to load {module}.{name}, which no CIFAR-10 file contains.")


def _join(parts: list[Split]) -> Split:
    rows = np.concatenate([rows for rows, _ in parts])
    labels = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    if labels.min() < 0 or labels.max() > 9:
        raise DatasetError(f"CIFAR-10 labels are 0 to 9, found {labels.min()} to {labels.max()}.")
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels
