"""Weights in a file: what is binary as bits, the rest as floats.

The file is a `safetensors` file, which holds a JSON header and plain bytes, so reading it runs no
code and any reader of that format opens it:

    8 bytes             length of the header, little-endian
    header              JSON: for each tensor dtype, shape and place; `__metadata__` with texts
    data                the tensors, one after the other

A tensor whose values are all +1 or -1 is stored as bits: one byte (`U8`) holds eight values, the
first in the lowest bit, in the order of the elements (the last axis is the fastest), and a one
stands for -1, as in the Larq Compute Engine. The metadata `bits` has the shapes of these tensors.
The metadata `sha256` is the hash of everything else in the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from larq_ext._files import atomic

FORMAT, VERSION = "larq-ext weights", 1
_DTYPES = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "|u1",
    "BOOL": "|b1",
}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


class WeightsError(ValueError):
    """A file of weights is damaged, of another kind, or does not fit; the message says which."""


class Weights(NamedTuple):
    """The content of a file.

    `tensors` are by name, `about` is what the writer said about them.
    """

    tensors: dict[str, np.ndarray]
    about: dict[str, Any]


def write(
    path: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
    floats: str = "float32",
) -> str:
    """Writes a file, atomically and the same bytes for the same content.

    # Arguments
        path: The file.
        tensors: Arrays by name.
        about: What to say about them; plain values.
        floats: `"float32"` keeps all values; `"float16"` rounds float32 ones that are not +-1.

    # Returns
        The SHA-256 of the file.

    # Raises
        WeightsError: if a value is too large for float16, or not finite.
    """
    header: dict[str, Any] = {}
    bits: dict[str, list[int]] = {}
    parts: list[bytes] = []
    position = 0
    for name, tensor in sorted(tensors.items()):
        array = np.asarray(tensor)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WeightsError(f"The weights {name} have values that are not finite.")
        if _is_binary(array):
            bits[name] = list(array.shape)
            array = np.packbits(array.reshape(-1) < 0, bitorder="little")
        elif floats == "float16" and array.dtype == np.float32:
            array = _rounded(name, array)
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": _CODES[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [position, position + len(data)],
        }
        parts.append(data)
        position += len(data)
    # Texts only: that is what the format allows.
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "bits": json.dumps(bits),
        "about": json.dumps(dict(about), sort_keys=True),
    }
    data = b"".join(parts)
    metadata["sha256"] = _digest(metadata, header, data)
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = len(text).to_bytes(8, "little") + text + data
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _is_binary(array: np.ndarray) -> bool:
    return array.dtype == np.float32 and array.size >= 8 and bool((np.abs(array) == 1).all())


def _rounded(name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise WeightsError(
            f"The weights {name} reach {np.abs(array).max():g}, and float16 ends at 65504: store "
            "them with floats='float32'."
        )
    return rounded


def _digest(metadata: Mapping[str, str], header: Mapping[str, Any], data: bytes) -> str:
    rest = {name: value for name, value in metadata.items() if name != "sha256"}
    text = json.dumps([rest, header], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode() + b"\0" + data).hexdigest()


def read(path: pathlib.Path) -> Weights:
    """Reads a file and checks it.

    # Arguments
        path: The file.

    # Returns
        Tensors and what was said about them; float16 comes back as float32.

    # Raises
        FileNotFoundError: if there is no such file.
        WeightsError: if the file is truncated, altered, of another kind or of a newer version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = path.read_bytes()
    metadata, header, data = _split(path, content)
    end = max((part["data_offsets"][1] for part in header.values()), default=0)
    if len(data) < end:
        raise _truncated(path, len(content), len(content) - len(data) + end)
    if _digest(metadata, header, data) != metadata.get("sha256"):
        raise WeightsError(
            f"{path} was altered: its content does not have the SHA-256 that it names. Get the "
            "file again."
        )
    try:
        bits = json.loads(metadata["bits"])
        tensors = {name: _tensor(part, data, bits.get(name)) for name, part in header.items()}
        return Weights(tensors, json.loads(metadata["about"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} contradicts itself ({error}): it was written wrong.") from error


def _split(path: pathlib.Path, content: bytes) -> tuple[dict, dict, bytes]:
    """Metadata, description of the tensors, and data."""
    foreign = WeightsError(
        f"{path} is no file of larq-ext weights (.safetensors), but another kind of file."
    )
    length = int.from_bytes(content[:8], "little")
    if len(content) < 10 or content[8:10] != b'{"' or length > 2**28:
        raise foreign
    if len(content) < 8 + length:
        raise _truncated(path, len(content), 8 + length, "or more ")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        kind = metadata.get("format")
    except (ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path} was altered: its header is no JSON ({error}). Get the file again."
        ) from error
    if kind != FORMAT:
        raise foreign
    if not str(metadata.get("version")).isdigit() or int(metadata["version"]) > VERSION:
        raise WeightsError(
            f"{path} has version {metadata.get('version')} of the format, and this larq-ext reads "
            f"up to {VERSION}: install a newer one."
        )
    for name, part in header.items():
        if not _is_sound(part):
            raise WeightsError(
                f"{path} was altered: its header describes {name} as {part!r}. Get the file again."
            )
    return metadata, header, content[8 + length :]


def _is_sound(part: Any) -> bool:
    try:
        start, end = part["data_offsets"]
        size = math.prod(part["shape"]) * np.dtype(_DTYPES[part["dtype"]]).itemsize
        return 0 <= start <= end and end - start == size and min(part["shape"], default=0) >= 0
    except (KeyError, TypeError, ValueError):
        return False


def _truncated(path: pathlib.Path, size: int, whole: int, more: str = "") -> WeightsError:
    return WeightsError(
        f"{path} is truncated: it has {size} bytes of {whole} {more}".rstrip()
        + ". Get the file again."
    )


def _tensor(part: Mapping[str, Any], data: bytes, bit_shape: list[int] | None) -> np.ndarray:
    start, end = part["data_offsets"]
    array = np.frombuffer(data[start:end], _DTYPES[part["dtype"]]).reshape(part["shape"])
    if bit_shape is not None:
        count = math.prod(bit_shape)
        if array.dtype != np.uint8 or array.size != -(-count // 8):
            raise ValueError(f"{array.size} bytes for {count} bits")
        negative = np.unpackbits(array, count=count, bitorder="little").reshape(bit_shape)
        return np.where(negative, np.float32(-1), np.float32(1))
    return array.astype(np.float32) if array.dtype == np.float16 else array.copy()
