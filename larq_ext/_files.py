"""Reads TensorFlow Lite files, without TensorFlow, and writes files of any kind whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every TensorFlow Lite file


def check_file(path: Path) -> None:
    """Checks that a path is a file.

    # Raises
        FileNotFoundError: if there is none, or it is a folder.
    """
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder: expected a file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def load_flatbuffer(flatbuffer_or_path: bytes | bytearray | str | Path) -> bytes:
    """Returns the bytes of a TensorFlow Lite model and checks that they are one.

    # Arguments
        flatbuffer_or_path: the serialized model, or the path of a `.tflite` file.

    # Returns
        The serialized model.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if the content is no TensorFlow Lite model.
    """
    if isinstance(flatbuffer_or_path, (bytes, bytearray, memoryview)):
        data, source = bytes(flatbuffer_or_path), "the given bytes"
    elif isinstance(flatbuffer_or_path, (str, Path)):
        path = Path(flatbuffer_or_path)
        check_file(path)
        data, source = path.read_bytes(), str(path)
    else:
        raise ValueError(
            "Expected the bytes of a TensorFlow Lite model or the path of a .tflite file, "
            f"received {type(flatbuffer_or_path).__name__}."
        )
    if data[4:8] != IDENTIFIER:
        raise ValueError(
            f"Expected a TensorFlow Lite model (bytes 4 to 8 are {IDENTIFIER!r}), but {source} "
            f"({len(data)} bytes) has {data[4:8]!r} there: it is damaged or another kind of file."
        )
    return data


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives a temporary path and renames it to `path` when the block ends without an error.

    So a reader sees the old file or the new one, never half of one, after a power cut too.

    # Arguments
        path: The file to write; missing folders are made. The temporary one is in the same folder,
            as a rename is atomic only within a file system, and keeps its suffix, because savers
            choose the format by it.
    """
    with together() as new:
        yield new(path)


@contextmanager
def together() -> Iterator[Callable[[Path], Path]]:
    """Several files as `atomic` writes one: all of them are on the disk before one is renamed.

    So what most often fails, a full disk, leaves every old file in its place.

    # Returns
        A function that gives the temporary path for a path; files get their names in the order of
        its calls.
    """
    temporaries: dict[Path, Path] = {}

    def new(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporaries[path] = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        return temporaries[path]

    try:
        yield new
        for temporary in temporaries.values():
            sync(temporary)
        for path, temporary in temporaries.items():
            temporary.replace(path)
        for folder in {path.parent for path in temporaries}:
            sync(folder)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Has a file, or the names in a folder, written to the disk before anything else happens.

    A rename may get there before what is in the file. Windows cannot be asked this way.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        # Some file systems refuse it for folders, and of some folders one may not read the names.
        if not path.is_dir():
            raise


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Keeps all others out who lock the same folder, until the block or the process ends.

    It leaves no file behind. Windows and some network file systems have no such lock: nobody is
    kept out there.

    # Arguments
        folder: An existing folder.
        wait: Whether to wait for the one who has it.

    # Raises
        BlockingIOError: if another has it, and this one does not wait.
    """
    descriptor = None
    try:
        with suppress(ImportError, PermissionError):
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise
            except OSError:
                pass
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
