"""Writes CIFAR-10 in its official binary (and Python) form from lossless WebP strips.

The test data folder keeps the pictures as strips of 500 (`cifar10/train/*.webp`,
`cifar10/test/*.webp`, `labels.npz`). The readers of the package expect what the publisher
offers for download, so this tool rebuilds that, and proves it by the publisher's checksums:

    LARQ_EXT_DATA=/path/to/data python tests/tools/cifar10_official.py /tmp/cifar10
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import pickle
import sys

import numpy as np

# fmt: off
CLASSES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]
# fmt: on
RECORDS_PER_FILE = 10_000
SHA1 = {
    "data_batch_1": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch": "67eb016db431130d61cd03c7ad570b013799c88c",
}


def read_strips(folder: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split.

    # Arguments
        folder: The folder with `train/`, `test/` and `labels.npz`.
        split: `"train"` or `"test"`.

    # Returns
        Images, uint8 `(n, 32, 32, 3)`, and labels, uint8 `(n,)`, in the official order.
    """
    from PIL import Image

    strips = [
        np.asarray(Image.open(path).convert("RGB")).reshape(-1, 32, 32, 3)
        for path in sorted((folder / split).glob("*.webp"))
    ]
    with np.load(folder / "labels.npz") as labels:
        return np.concatenate(strips), labels[split].reshape(-1)


def batches(folder: pathlib.Path):
    """Yields `(name, rows, labels)`; rows are `(10000, 3072)`, the planes red, green, blue."""
    for split in ("train", "test"):
        images, labels = read_strips(folder, split)
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        for number, start in enumerate(range(0, len(rows), RECORDS_PER_FILE), 1):
            name = f"data_batch_{number}" if split == "train" else "test_batch"
            part = slice(start, start + RECORDS_PER_FILE)
            yield name, rows[part], labels[part]


def write_bin(name: str, rows: np.ndarray, labels: np.ndarray, folder: pathlib.Path) -> None:
    """Writes one file of the binary form."""
    folder.mkdir(parents=True, exist_ok=True)
    content = np.concatenate([labels[:, None], rows], axis=1).tobytes()
    (folder / f"{name}.bin").write_bytes(content)


def write_py(name: str, rows: np.ndarray, labels: np.ndarray, folder: pathlib.Path) -> None:
    """Writes one file of the Python form; its original also lists file names."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": rows}
    (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path, help="gets cifar-10-batches-bin/ (and -py/)")
    parser.add_argument("--data", type=pathlib.Path, help="default: $LARQ_EXT_DATA")
    parser.add_argument("--py", action="store_true", help="also write cifar-10-batches-py/")
    arguments = parser.parse_args()
    data = arguments.data or os.environ.get("LARQ_EXT_DATA")
    if not data:
        parser.error("say where the test data is: --data FOLDER, or export LARQ_EXT_DATA=FOLDER")
    source = pathlib.Path(data) / "cifar10"
    if not (source / "labels.npz").is_file():
        parser.error(f"looked for {source / 'labels.npz'}, and it is not there")

    target = arguments.output / "cifar-10-batches-bin"
    for name, rows, labels in batches(source):
        write_bin(name, rows, labels, target)
        found = hashlib.sha1((target / f"{name}.bin").read_bytes()).hexdigest()
        if found != SHA1[name]:
            sys.exit(f"{name}.bin has SHA-1 {found}, not the official {SHA1[name]}")
        if arguments.py:
            write_py(name, rows, labels, arguments.output / "cifar-10-batches-py")
    (target / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")
    print(f"{target}: {len(SHA1)} files, all SHA-1 values official")


if __name__ == "__main__":
    main()
