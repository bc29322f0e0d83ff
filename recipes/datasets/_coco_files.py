"""Where the annotations and the pictures of COCO's person keypoints are."""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from larq_ext.pose.scoring import read_json
from larq_ext_recipes.datasets._dataset import DatasetError
from larq_ext_recipes.datasets._looking import describe, how_to_extract

# Names of the two parts: COCO's own, then those of a smaller copy.
PARTS = {"train": ("train2017", "train"), "test": ("val2017", "val", "eval")}
_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile)
_ADVICE = (
    "COCO's layout is annotations/person_keypoints_{train,val}2017.json (or .json.gz) next to the "
    "folders train2017 and val2017."
)


class Pictures(abc.ABC):
    """Encoded pictures by number.

    # Attributes
        names: Their file names, in the order of the numbers.
    """

    names: tuple[str, ...]

    @abc.abstractmethod
    def fetch(self, number: tf.Tensor) -> tf.Tensor:
        """The encoded content of a picture, in a graph."""

    @abc.abstractmethod
    def sizes(self) -> list[int]:
        """Bytes of each picture."""

    def part(self, numbers: Sequence[int]) -> Pictures:
        """Some of them, numbered anew."""
        return dataclasses.replace(self, names=tuple(self.names[number] for number in numbers))

    def name(self, number: tf.Tensor) -> tf.Tensor:
        """Where a picture is, in a graph, for errors."""
        return tf.strings.join([f"{self.place}{os.sep}", tf.gather(self._names, number)])

    @functools.cached_property
    def _names(self) -> tf.Tensor:
        with tf.init_scope(), tf.device("CPU"):  # for every graph, and also where there is a GPU
            return tf.constant(self.names)


@dataclasses.dataclass(frozen=True)
class PictureFolder(Pictures):
    """Pictures that are files.

    # Arguments
        place: Their folder.
        names: Their file names, with the folders inside of it that some may be in.
    """

    place: pathlib.Path
    names: tuple[str, ...]

    def fetch(self, number: tf.Tensor) -> tf.Tensor:
        return tf.io.read_file(self.name(number))

    def sizes(self) -> list[int]:
        with os.scandir(self.place) as entries:
            known = {entry.name: entry.stat().st_size for entry in entries}
        return [
            self._size_inside(name) if "/" in name else known.get(name, 0) for name in self.names
        ]

    def _size_inside(self, name: str) -> int:
        file = self.place / name
        return file.stat().st_size if file.is_file() else 0


@dataclasses.dataclass(frozen=True)
class PictureArchive(Pictures):
    """Pictures in a ZIP file, all of them held in memory as they are encoded.

    # Arguments
        place: The archive.
        names: The ends of their paths in the archive: COCO's name no folder.
    """

    place: pathlib.Path
    names: tuple[str, ...]

    def fetch(self, number: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._contents, number)

    def sizes(self) -> list[int]:
        with zipfile.ZipFile(self.place) as archive:
            known = self._by_name({info.filename: info.file_size for info in archive.infolist()})
        return [known.get(name, 0) for name in self.names]

    @functools.cached_property
    def _contents(self) -> tf.Tensor:
        try:
            with zipfile.ZipFile(self.place) as archive:
                inside = self._by_name({path: path for path in archive.namelist()})
                contents = [archive.read(inside[name]) for name in self.names]
        except (*_UNREADABLE, zlib.error, RuntimeError) as error:  # the last where it is encrypted
            raise _unreadable(self.place, error) from error
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(contents)

    def _by_name(self, by_path: dict[str, Any]) -> dict[str, Any]:
        lengths = {name.count("/") + 1 for name in self.names}
        return {
            "/".join(path.split("/")[-length:]): value
            for path, value in by_path.items()
            for length in lengths
        }


def find_part(folder: pathlib.Path, part: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Finds one part of the data.

    # Arguments
        folder: Where to look.
        part: `"train"` or `"test"`.

    # Returns
        The file of annotations, and the folder or archive of pictures.

    # Raises
        DatasetError: if one of them is missing.
    """
    file, name = find_annotations(folder, part)
    return file, _find_pictures(folder, name)


def find_annotations(folder: pathlib.Path, part: str) -> tuple[pathlib.Path, str]:
    """Finds the annotations of one part, and the name that it goes by, one of `PARTS`.

    # Raises
        DatasetError: if they are missing.
    """
    for name in PARTS[part]:
        for place in (folder / "annotations", folder):
            for suffix in (".json", ".json.gz"):
                file = place / f"person_keypoints_{name}{suffix}"
                if file.is_file():
                    return file, name
    command = how_to_extract(folder) if folder.is_dir() else None
    advice = f"Extract the archive first, with `{command}`." if command else _ADVICE
    raise DatasetError(
        f"No person_keypoints_{PARTS[part][0]}.json in {folder} or its folder annotations; found "
        f"{describe(folder)}. {advice}"
    )


def _find_pictures(folder: pathlib.Path, name: str) -> pathlib.Path:
    for place in (folder / name, folder / "images" / name, folder / f"{name}_images.zip"):
        if place.exists():
            return place
    raise DatasetError(
        f"The pictures of {name} are missing: looked for the folder {folder / name} and the "
        f"archive {name}_images.zip; found {describe(folder)}. {_ADVICE}"
    )


def open_pictures(place: pathlib.Path, names: Sequence[str]) -> Pictures:
    """The pictures of a folder or archive.

    # Raises
        DatasetError: if one is missing or empty.
    """
    kind = PictureFolder if place.is_dir() else PictureArchive
    pictures = kind(place, tuple(names))
    try:
        sizes = pictures.sizes()
    except _UNREADABLE as error:
        raise _unreadable(place, error) from error
    bad = [name for name, size in zip(names, sizes, strict=True) if not size]
    if bad:
        raise DatasetError(
            f"{len(bad)} of {len(names)} pictures are missing in {place} or empty, the first is "
            f"{bad[0]}: get or extract them again."
        )
    return pictures


def read_annotations(file: pathlib.Path) -> dict[str, Any]:
    """The content of a file of annotations.

    # Raises
        DatasetError: if it is not what COCO's are.
    """
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{error} Get it again.") from error
    lists = ("images", "annotations")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in lists):
        raise DatasetError(
            f"{file} has no lists `images` and `annotations`: it is not one of COCO's."
        )
    return content


def _unreadable(place: pathlib.Path, error: Exception) -> DatasetError:
    return DatasetError(f"{place} cannot be read: {error}. Get it again.")
