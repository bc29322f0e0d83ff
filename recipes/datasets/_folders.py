"""Data sets that are folders of pictures, a folder for each class."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf

from larq_ext_recipes._pipeline import Steps
from larq_ext_recipes.datasets._dataset import DatasetError, fingerprint_of_pictures
from larq_ext_recipes.datasets._looking import describe, how_to_extract
from larq_ext_recipes.datasets._pictures import PictureDataset, decode_all, decode_or_name

TRAIN = ("train",)
TEST = ("val", "validation", "test")  # the first that is there
SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclasses.dataclass(frozen=True)
class Split:
    """Pictures of a training or test set, sorted by class and name.

    # Arguments
        folder: Where they are.
        files: Paths `<class>/<file>`, as bytes.
        labels: Class numbers, int64.
        sizes: Bytes of the files, int64.
    """

    folder: pathlib.Path
    files: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def part(self, chosen: np.ndarray) -> Split:
        """Some of the pictures."""
        return Split(self.folder, self.files[chosen], self.labels[chosen], self.sizes[chosen])

    @functools.cached_property
    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Files and labels for a pipeline."""
        with tf.init_scope(), tf.device("CPU"):  # for every graph, and also where there is a GPU
            return tf.constant(self.files), tf.constant(self.labels)


@dataclasses.dataclass(frozen=True)
class FolderDataset(PictureDataset):
    """Pictures in folders `train/<class>` and `val/<class>`, read when their batch needs them.

    # Arguments
        name: Name of the data set.
        train: Training pictures.
        test: Pictures to evaluate on.
        classes: Class names in the order of the labels.
        image_size: Height and width as a network sees them, pixels.
        evaluated: What `test` is: `"test"`, or `"holdout"` where training pictures stand in.
        upright: Whether pictures are turned as their EXIF data say.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    image_size: int
    evaluated: str = "test"
    upright: bool = False

    @property
    def train_size(self) -> int:
        """Number of training pictures."""
        return len(self.train)

    @property
    def test_size(self) -> int:
        """Number of pictures to evaluate on."""
        return len(self.test)

    def hold_out(self, count: int) -> FolderDataset:
        held = self._chosen(self.train.labels, count, "holdout")
        return dataclasses.replace(
            self, train=self.train.part(~held), test=self.train.part(held), evaluated="holdout"
        )

    def limit(self, count: int) -> FolderDataset:
        kept = self._chosen(self.train.labels, count, "limit")
        return dataclasses.replace(self, train=self.train.part(kept))

    def find_damage(self, training: bool) -> None:
        splits = (self.test, self.train) if training else (self.test,)  # the smaller one first
        decode_all(
            functools.partial(_decode_file, split.folder / os.fsdecode(file))
            for split in splits
            for file in split.files
        )

    def fingerprint(self) -> str:
        """A SHA-256 of the names of all files and the preprocessing, and the bytes of all.

        Not of the pictures: reading those of ImageNet would take an hour.
        """
        digest = hashlib.sha256(repr((self.mean, self.std, self.image_size)).encode())
        for split in (self.train, self.test):
            digest.update(f"{len(split)}\n".encode())
            for file in split.files:
                digest.update(b"%b\n" % file)
        sizes = np.concatenate([split.sizes for split in (self.train, self.test)])
        return fingerprint_of_pictures(digest.hexdigest(), sizes)

    def shuffled(self, key: tf.Tensor, steps: Steps, start_step: tf.Tensor) -> tf.data.Dataset:
        return steps.shuffled(self.train_size, key, start_step)

    def in_order(self, steps: Steps) -> tf.data.Dataset:
        return steps.dataset()

    def fetch(self, image: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        split = self.train if training else self.test
        files, labels = split.tensors
        path = tf.strings.join([f"{split.folder}{os.sep}", tf.gather(files, image)])
        return tf.io.read_file(path), tf.gather(labels, image), path


def read_folder(
    name: str,
    data_dir: str | pathlib.Path | None,
    image_size: int,
    *,
    count: int | None = None,
    names: dict[str, str] | None = None,
    advice: str = "",
    upright: bool = False,
) -> FolderDataset:
    """Finds the pictures of a data set and checks that all of them are there.

    # Arguments
        name: Name of the data set.
        data_dir: The folder with `train` and `val`, or the one above.
        image_size: Height and width as a network sees them, pixels.
        count: How many classes there must be.
        names: The folders that there must be, with the names of their classes; by default they
            are the names.
        advice: Where the data comes from, in a sentence for errors.
        upright: Whether pictures are turned as their EXIF data say.

    # Returns
        The data set.

    # Raises
        DatasetError: if the folder is missing, not extracted or not complete.
    """
    if data_dir is None:
        raise DatasetError(f"{name} needs a folder: give data_dir=FOLDER. {advice}".strip())
    root = _find_root(name, pathlib.Path(data_dir).expanduser(), advice)
    train, test = (_find_split(root, kinds) for kinds in (TRAIN, TEST))
    classes, test_classes = _class_folders(train), _class_folders(test)
    _compare(train, classes, test, test_classes)
    _compare_with_names(train, classes, names)
    if count is not None and len(classes) != count:
        raise DatasetError(
            f"{train} has {len(classes)} class folders, and {name} has {count} classes: extract "
            "the archive again, or load other classes as dataset=folder."
        )
    splits = [_read_split(folder, classes) for folder in (train, test)]
    labels = tuple((names or {}).get(folder, folder) for folder in classes)
    return FolderDataset(name, *splits, labels, image_size, upright=upright)


def _find_root(name: str, folder: pathlib.Path, advice: str) -> pathlib.Path:
    if folder.is_dir():
        inner = [path for path in sorted(folder.iterdir()) if (path / TRAIN[0]).is_dir()]
        if (folder / TRAIN[0]).is_dir():
            return folder
        if len(inner) == 1:
            return inner[0]
    command = how_to_extract(folder) if folder.exists() else None
    if command:
        raise DatasetError(
            f"{folder} has the archive of {name}, not its pictures: extract it with `{command}`."
        )
    raise DatasetError(
        f"No pictures in {folder}: looked for train/<class>/*.jpg and val/<class>/*.jpg there and "
        f"in its folders; found {describe(folder)}. {advice}".strip()
    )


def _find_split(root: pathlib.Path, kinds: tuple[str, ...]) -> pathlib.Path:
    for kind in kinds:
        if (root / kind).is_dir():
            return root / kind
    command = how_to_extract(root)
    advice = f"extract the archive with `{command}`" if command else "extract the archive again"
    raise DatasetError(
        f"{root} has no folder {' or '.join(kinds)}: {advice}; found {describe(root)}."
    )


def _class_folders(split: pathlib.Path) -> list[str]:
    with os.scandir(split) as entries:
        entries = list(entries)
    folders = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if folders:
        return folders
    if any(_is_picture(entry.name) for entry in entries):
        raise DatasetError(
            f"The pictures in {split} are not sorted by class: move each into a folder "
            f"{split}/<class>, for ImageNet with the script valprep.sh that goes with it."
        )
    if any(entry.name.endswith(".tar") for entry in entries):
        raise DatasetError(
            f"{split} has the archives of the classes, not their pictures: extract each into a "
            f"folder of its name with `cd {split}; for f in *.tar; do mkdir ${{f%.tar}}; "
            "tar -xf $f -C ${f%.tar}; done`."
        )
    raise DatasetError(f"{split} has no class folders; found {describe(split)}.")


def _compare(
    train: pathlib.Path, classes: list[str], test: pathlib.Path, test_classes: list[str]
) -> None:
    for missing, here in ((test, train), (train, test)):
        have, want = (test_classes, classes) if missing == test else (classes, test_classes)
        absent = sorted(set(want) - set(have))
        if absent:
            raise DatasetError(
                f"{missing} has no folder for {_some(absent)}, which {here} has: extract the "
                "archive again, or remove the class from both."
            )


def _compare_with_names(
    train: pathlib.Path, classes: list[str], names: dict[str, str] | None
) -> None:
    if names is None or set(names) == set(classes):
        return
    absent, foreign = sorted(set(names) - set(classes)), sorted(set(classes) - set(names))
    parts = [f"lacks {_some(absent)}"] * bool(absent) + [f"has {_some(foreign)}"] * bool(foreign)
    raise DatasetError(
        f"{train} has not the {len(names)} class folders that it should: it {' and '.join(parts)}. "
        "Extract the archive again, or load other classes as dataset=folder."
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _read_split(split: pathlib.Path, classes: list[str]) -> Split:
    files, labels, sizes = [], [], []
    latest, latest_file = -1, ""
    for label, folder in enumerate(classes):
        with os.scandir(split / folder) as entries:
            pictures = sorted((e for e in entries if _is_picture(e.name)), key=lambda e: e.name)
        if not pictures:
            raise DatasetError(
                f"{split / folder} has no pictures ({', '.join(SUFFIXES)}): extract the archive "
                "again, or remove the class."
            )
        for entry in pictures:
            status = entry.stat()
            files.append(os.fsencode(f"{folder}{os.sep}{entry.name}"))
            sizes.append(status.st_size)
            if status.st_ctime_ns > latest:
                latest, latest_file = status.st_ctime_ns, entry.path
        labels.extend([label] * len(pictures))
    empty = [os.fsdecode(file) for file, size in zip(files, sizes, strict=True) if not size]
    if empty:
        raise DatasetError(
            f"{len(empty)} files in {split} are empty ({_some(empty)}): extract the archive again."
        )
    # Where extracting was cut off, the file written last is cut off.
    _decode_file(pathlib.Path(latest_file))
    return Split(split, np.array(files), np.array(labels, np.int64), np.array(sizes, np.int64))


def _decode_file(path: pathlib.Path) -> None:
    decode_or_name(path.read_bytes(), os.fsencode(path))
