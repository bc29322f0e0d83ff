"""Compares a converted file with its Keras model, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

DEFAULT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class VerifyReport:
    """How far a converted file and its Keras model agree.

    # Arguments
        samples: how many inputs were compared.
        equal_top1: for how many of them the largest class is the same; `None` if no output has
            the form (samples, classes).
        max_difference: the largest absolute difference of any output.
        max_difference_at: where it is: (output, sample, position in the sample...).
        relative_difference: the largest difference relative to the largest absolute value of
            the same output in Keras.
        tolerance: what `relative_difference` may be.
        different: the samples that disagree in top-1 or beyond the tolerance.
    """

    samples: int
    equal_top1: int | None
    max_difference: float
    max_difference_at: tuple[int, ...]
    relative_difference: float
    tolerance: float
    different: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """Whether every sample agrees, and there was one to compare."""
        return self.samples > 0 and not self.different

    @property
    def share(self) -> float | None:
        """The share of samples with equal top-1, from 0 to 1."""
        return None if self.equal_top1 is None else self.equal_top1 / max(1, self.samples)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        values = {"ok": self.ok, **asdict(self), "share": self.share}
        # JSON has no infinity.
        return {
            name: str(value) if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in values.items()
        }

    def __str__(self) -> str:
        lines = [f"Samples compared     {self.samples}"]
        if self.equal_top1 is not None:
            lines.append(f"Equal top-1          {self.equal_top1} ({self.share:.2%})")
        lines.append(
            f"Largest difference   {self.max_difference:.3g} "
            f"({self.relative_difference:.2g} of the output's scale, "
            f"{self.tolerance:.2g} allowed)"
        )
        if self.max_difference_at:
            output, sample, *position = self.max_difference_at
            lines.append(f"                     output {output}, sample {sample}, at {position}")
        if self.different:
            shown = ", ".join(map(str, self.different[:10]))
            more = f" and {len(self.different) - 10} more" if len(self.different) > 10 else ""
            lines.append(f"Samples that differ  {shown}{more}")
        lines.append(f"Verdict              {'equal' if self.ok else 'NOT EQUAL'}")
        return "\n".join(lines)


def verify(
    model: tf.keras.Model,
    flatbuffer: bytes | str | Path,
    inputs: np.ndarray | Sequence[np.ndarray],
    *,
    batch_size: int = 128,
    tolerance: float = DEFAULT_TOLERANCE,
    verbose: int = 0,
) -> VerifyReport:
    """Runs the Keras model and the converted file on the same inputs and compares the outputs.

    The sums of a binary convolution are integers and agree exactly. What differs is the rounding
    of the float operations between them, some 1e-6 of the output's scale. Where such a rounding
    error turns the sign of an activation that is almost zero, the outputs of that sample differ
    by more; a wrong conversion differs in most samples. Raise `tolerance` for deep networks if
    `different` names a few samples only.

    # Arguments
        model: the Keras model, as trained or baked.
        flatbuffer: the converted model or the path of its file.
        inputs: an array of shape `(samples, ...)`, or a list of them for several inputs.
        batch_size: the batch size in Keras.
        tolerance: the largest difference allowed, relative to the largest absolute value of
            the output in Keras over all samples.
        verbose: 1 shows a progress bar.

    # Returns
        The report; `ok` if every top-1 is equal and every difference within the tolerance.

    # Raises
        ValueError: if the file's inputs or outputs have other shapes than the model's.
    """
    # The runtime reads files with a module of this package, so it is imported when needed.
    from larq_ext.runtime import Interpreter

    if tolerance < 0 or batch_size < 1:
        raise ValueError(
            "Expected tolerance >= 0 and batch_size >= 1, received "
            f"tolerance={tolerance}, batch_size={batch_size}."
        )
    arrays = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    interpreter = Interpreter(flatbuffer)
    actual = _as_list(interpreter.predict(arrays, verbose=verbose))
    if not len(actual[0]):
        raise ValueError("There is nothing to compare: inputs hold no sample.")
    structured = arrays[0] if len(arrays) == 1 else arrays
    expected = _as_list(model.predict(structured, batch_size=batch_size, verbose=0))
    shapes = [[output.shape[1:] for output in outputs] for outputs in (expected, actual)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The model's outputs have the shapes {shapes[0]}, those of the file {shapes[1]} "
            "(without the batch): the file was made from another model."
        )
    return _compare(expected, actual, tolerance)


def _as_list(outputs: Any) -> list[np.ndarray]:
    return [np.asarray(output) for output in tf.nest.flatten(outputs)]


def _compare(
    expected: list[np.ndarray], actual: list[np.ndarray], tolerance: float
) -> VerifyReport:
    samples = len(expected[0])
    too_far = np.zeros(samples, bool)
    other_top1 = np.zeros(samples, bool)
    has_classes = False
    worst: tuple[float, tuple[int, ...]] = (0.0, ())
    relative = 0.0
    for index, (keras, file) in enumerate(zip(expected, actual, strict=True)):
        difference = _difference(keras, file)
        finite = np.abs(keras[np.isfinite(keras)])
        scale = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
        relative = max(relative, float(difference.max(initial=0)) / scale)
        too_far |= difference.reshape(samples, -1).max(axis=1, initial=0) > tolerance * scale
        if difference.size and difference.max() > worst[0]:
            place = np.unravel_index(difference.argmax(), difference.shape)
            worst = (float(difference.max()), (index, *map(int, place)))
        if keras.ndim == 2 and keras.shape[1] > 1:
            has_classes = True
            other_top1 |= keras.argmax(axis=1) != file.argmax(axis=1)
    return VerifyReport(
        samples=samples,
        equal_top1=int(samples - other_top1.sum()) if has_classes else None,
        max_difference=worst[0],
        max_difference_at=worst[1],
        relative_difference=relative,
        tolerance=tolerance,
        different=tuple(np.flatnonzero(too_far | other_top1).tolist()),
    )


def _difference(keras: np.ndarray, file: np.ndarray) -> np.ndarray:
    """Absolute difference; infinite where only one of the two is a number."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(keras.astype(np.float64) - file.astype(np.float64))
    same = (keras == file) | (np.isnan(keras) & np.isnan(file))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
