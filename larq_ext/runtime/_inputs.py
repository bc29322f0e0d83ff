"""Brings inputs to the form that the engines take, or says what is wrong with them; makes some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from larq_ext.runtime._engine import TensorInfo


def batches(x: Any) -> Iterator[Sequence[Any]]:
    """Brings every accepted form of input to batches with one array per input."""
    if isinstance(x, (list, tuple)):
        yield x
    elif hasattr(x, "shape"):  # NumPy arrays and eager tensors
        yield [x]
    elif isinstance(x, Iterable) and not isinstance(x, (str, bytes, dict)):
        for batch in x:
            yield batch if isinstance(batch, (list, tuple)) else [batch]
    else:
        raise ValueError(
            "Expected an array, a list of arrays or an iterable of batches; received "
            f"{type(x).__name__}."
        )


def checked(batch: Sequence[Any], infos: list[TensorInfo]) -> list[np.ndarray]:
    """Returns the arrays of a batch in the types of the model.

    # Arguments
        batch: one array for each input.
        infos: what the model takes.

    # Returns
        Contiguous arrays with the same number of samples.

    # Raises
        ValueError: if their number, their shapes or their types are wrong.
    """
    if len(batch) != len(infos):
        shapes = ", ".join(str(info.shape) for info in infos)
        raise ValueError(
            f"The model has {len(infos)} input(s) of shapes {shapes}; received "
            f"{len(batch)} array(s)."
        )
    arrays = [
        _converted(index, _checked_shape(np.asarray(array), info.shape, index), info)
        for index, (array, info) in enumerate(zip(batch, infos, strict=True))
    ]
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) != 1:
        raise ValueError(f"All inputs need the same number of samples; received {lengths}.")
    return arrays


def _converted(index: int, array: np.ndarray, info: TensorInfo) -> np.ndarray:
    # True and false are numbers, and not the integers that stand for them.
    unquantized = array.dtype.kind == "b" and info.quantization is not None
    if array.dtype != info.dtype and (unquantized or not _fits(array, info.dtype)):
        hint = ""
        if info.quantization is not None:
            limits = np.iinfo(info.dtype)
            hint = (
                f" Quantize it first: round(x / {info.scale}) + {info.zero_point}, "
                f"clipped to {limits.min}..{limits.max}, which is what "
                f"`Interpreter.input_quantization[{index}].quantize` computes."
            )
        raise ValueError(
            f"Input {index} must be {info.dtype} (or convert to it without loss); received "
            f"{array.dtype}.{hint}"
        )
    return np.ascontiguousarray(array, dtype=info.dtype)


def _checked_shape(array: np.ndarray, shape: tuple[int, ...], index: int) -> np.ndarray:
    if array.shape[1:] == shape[1:] and array.ndim == len(shape):
        return array
    expected = f"({', '.join(['samples', *map(str, shape[1:])])})"
    hint = ""
    if array.shape == shape[1:]:
        hint = " Add the batch dimension: x[None]."
    raise ValueError(f"Input {index} must have the shape {expected}; received {array.shape}.{hint}")


def _fits(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether a conversion keeps the values; between floats, rounding is accepted."""
    if np.can_cast(array.dtype, dtype, "safe"):
        return True
    if dtype.kind != "f":
        return False
    if array.dtype.kind == "f":
        return True
    return array.dtype.kind in "iu" and bool((array.astype(dtype) == array).all())


def random_inputs(
    shapes: Sequence[Sequence[int]], dtypes: Sequence[Any], seed: int = 0
) -> list[np.ndarray]:
    """Standard normal floats, booleans, and integers of 8 bits: what pixels are, in any type."""
    generator = np.random.default_rng(seed)
    inputs = []
    for shape, dtype in zip(shapes, map(np.dtype, dtypes), strict=True):
        if dtype.kind == "b":
            inputs.append(generator.integers(0, 2, tuple(shape)).astype(dtype))
        elif dtype.kind in "iu":
            low, high = (-128, 127) if dtype == np.int8 else (0, 255)
            inputs.append(generator.integers(low, high, tuple(shape), dtype, True))
        else:  # bfloat16 too, which NumPy does not count among its floats
            inputs.append(generator.standard_normal(tuple(shape)).astype(dtype))
    return inputs


def described(dtypes: Sequence[Any], seed: int) -> str:
    """What `random_inputs` makes, in words."""
    kinds = {np.dtype(dtype).kind in "biu" for dtype in dtypes}
    parts = ["standard normal"] * (False in kinds) + ["integers of 8 bits"] * (True in kinds)
    return f"{' and '.join(parts)}, seed {seed}"
