"""Writes a binary network as bits, for those who run it with nothing of ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from larq_ext._files import atomic, load_flatbuffer
from larq_ext.deploy._export_topology import describe
from larq_ext.deploy.convert import Conversion, convert


def export_bits(model: tf.keras.Model | Conversion | bytes | str | Path, path: str | Path) -> Path:
    """Writes packed bits, scales, thresholds and topology of a network to one `.npz` file.

    It holds what the converted file computes, operator by operator, in a layout that needs
    NumPy alone, or anything that unpacks a zip archive: `docs/export_bits.md` describes it
    and has a reader that runs the network.

    # Arguments
        model: a Keras model, which is converted; a `Conversion`; or the path or the bytes of a
            converted file.
        path: the `.npz` file to write; missing folders are made.

    # Returns
        The path.

    # Raises
        DeploymentError: if a Keras model cannot be converted or is not binary throughout (convert
            it with `allow_float=True` and give the `Conversion`), or if the network has an
            operator that the format does not know.
        FileNotFoundError: if there is no such file.
        ValueError: if the path has another suffix, or the content is no TensorFlow Lite model.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"Bits are written to a .npz file, received {path}.")
    conversion = convert(model) if isinstance(model, tf.keras.Model) else model
    if isinstance(conversion, Conversion):
        names = conversion.model.input_names, conversion.model.output_names
        topology, arrays = describe(conversion.flatbuffer, *names)
    else:
        topology, arrays = describe(load_flatbuffer(conversion))
    text = json.dumps(topology, separators=(",", ":"), allow_nan=False).encode()
    # An array of bytes, because NumPy's strings take four bytes a letter.
    arrays = {"topology": np.frombuffer(text, np.uint8), **arrays}
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path
