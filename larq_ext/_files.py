"""Reads TensorFlow Lite files, without TensorFlow."""

from __future__ import annotations

from pathlib import Path

IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every TensorFlow Lite file


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
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
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
