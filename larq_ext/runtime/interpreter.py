"""The interpreter that runs converted models on this machine."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from larq_ext.deploy._flatbuffer import load_flatbuffer
from larq_ext.deploy.errors import require_engine


class Interpreter:
    """Runs a model that `larq_ext.deploy.convert` (or Larq Compute Engine) made.

    On machines other than ARM it takes the binary kernels with indirection, which are about five
    times as fast there as the default ones and run grouped convolutions.

    # Arguments
        flatbuffer_or_path: the serialized model, or the path of a `.tflite` file.
        num_threads: the number of threads, at least 1.

    # Raises
        FileNotFoundError: if there is no such file.
        ValueError: if the content is no TensorFlow Lite model, or `num_threads` is wrong.
        DeploymentError: if Larq Compute Engine is not installed.
    """

    def __init__(
        self, flatbuffer_or_path: bytes | bytearray | str | Path, num_threads: int = 1
    ) -> None:
        if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
            raise ValueError(f"num_threads must be an integer of at least 1, not {num_threads!r}.")
        flatbuffer = load_flatbuffer(flatbuffer_or_path)
        require_engine()
        import larq_compute_engine as lce

        try:
            self._lce = lce.testing.Interpreter(
                flatbuffer, num_threads=num_threads, use_indirect_bgemm=not _is_arm()
            )
        except RuntimeError as error:
            raise ValueError(
                f"Larq Compute Engine cannot load this model ({' '.join(str(error).split())}): "
                "the file is damaged, or holds an operator or a form of one that the engine "
                "does not run."
            ) from error

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the inputs, batch dimension first."""
        return [tuple(shape) for shape in self._lce.input_shapes]

    @property
    def input_types(self) -> list[np.dtype]:
        """The NumPy types of the inputs."""
        return [np.dtype(dtype) for dtype in self._lce.input_types]

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the outputs, batch dimension first."""
        return [tuple(shape) for shape in self._lce.output_shapes]

    @property
    def output_types(self) -> list[np.dtype]:
        """The NumPy types of the outputs."""
        return [np.dtype(dtype) for dtype in self._lce.output_types]

    def predict(self, x: Any, verbose: int = 0) -> np.ndarray | list[np.ndarray]:
        """Computes the outputs for inputs with a batch dimension.

        # Arguments
            x: an array; a list of arrays for a model with several inputs; or an iterable
                (generator, `tf.data.Dataset`) of batches, each an array or a tuple of arrays.
            verbose: 1 shows a progress bar on standard error.

        # Returns
            One array of shape `(samples, ...)`, or a list of them for several outputs.

        # Raises
            ValueError: if number, shape or type of the inputs is not what the model takes.
        """
        results: list[list[np.ndarray]] = [[] for _ in self.output_shapes]
        for sample in _progress(self._samples(x), verbose, total=_count(x)):
            for result, output in zip(results, self._lce.interpreter.predict(sample), strict=True):
                result.append(output)
        outputs = [
            np.concatenate(result) if result else np.empty((0, *shape[1:]), dtype)
            for result, shape, dtype in zip(
                results, self.output_shapes, self.output_types, strict=True
            )
        ]
        return outputs[0] if len(outputs) == 1 else outputs

    def _samples(self, x: Any) -> Iterator[list[np.ndarray]]:
        """Cuts the inputs into pieces of the batch size that the file was made for."""
        step = self.input_shapes[0][0]
        for batch in _batches(x):
            arrays = self._checked(batch)
            if len(arrays[0]) % step:
                raise ValueError(
                    f"The model takes batches of {step}; received {len(arrays[0])} samples, "
                    "which is no multiple of it."
                )
            for start in range(0, len(arrays[0]), step):
                yield [array[start : start + step] for array in arrays]

    def _checked(self, batch: Sequence[Any]) -> list[np.ndarray]:
        shapes, types = self.input_shapes, self.input_types
        if len(batch) != len(shapes):
            raise ValueError(
                f"The model has {len(shapes)} input(s) of shapes {_show(shapes)}; received "
                f"{len(batch)} array(s)."
            )
        arrays = [
            self._converted(index, _checked_shape(np.asarray(array), shape, index), dtype)
            for index, (array, shape, dtype) in enumerate(zip(batch, shapes, types, strict=True))
        ]
        lengths = [len(array) for array in arrays]
        if len(set(lengths)) != 1:
            raise ValueError(f"All inputs need the same number of samples; received {lengths}.")
        return arrays

    def _converted(self, index: int, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
        if array.dtype != dtype and not _fits(array, dtype):
            hint = ""
            if dtype == np.int8:
                scale = self._lce.input_scales[index]
                zero = self._lce.input_zero_points[index]
                hint = f" Quantize it first: round(x / {scale}) + {zero}, clipped to -128..127."
            raise ValueError(
                f"Input {index} must be {dtype} (or convert to it without loss); received "
                f"{array.dtype}.{hint}"
            )
        return np.ascontiguousarray(array, dtype=dtype)


def _is_arm() -> bool:
    return platform.machine().lower().startswith(("arm", "aarch64"))


def _batches(x: Any) -> Iterator[Sequence[Any]]:
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


def _show(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(str(shape) for shape in shapes)


def _count(x: Any) -> int | None:
    arrays = x if isinstance(x, (list, tuple)) else [x]
    return len(arrays[0]) if arrays and getattr(arrays[0], "shape", ()) else None


def _progress(
    samples: Iterator[list[np.ndarray]], verbose: int, total: int | None
) -> Iterable[list[np.ndarray]]:
    if not verbose:
        return samples
    from rich.console import Console
    from rich.progress import track

    return track(samples, "Running", total=total, console=Console(stderr=True), transient=True)
