"""Compares a converted file with its Keras model, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from larq_ext._text import for_json
from larq_ext.deploy._flatbuffer import load_flatbuffer
from larq_ext.deploy._int8_layers import Int8Conv2D
from larq_ext.deploy._parting import Parting, first_parting
from larq_ext.deploy._surgery import replaced

if TYPE_CHECKING:
    from larq_ext.runtime.interpreter import EngineName

# Files agree to about 1e-5 of the output's scale; one activation whose sign turned changes an
# output by 1e-3 and more.
DEFAULT_TOLERANCE = 1e-3

# How far inputs and biases are moved, relative to their size, to see whether Keras itself is
# stable: some rounding errors, so that a few draws find what rounding can do.
_PERTURBATION = 1e-5
_DRAWS = 8
# How many samples that differ are followed through the layers.
_EXAMINED = 4
# A step of integers that an output may be off by, relative to its scale.
_LARGEST_STEP = 0.02
_BIASES = ("beta", "bias", "offset", "moving_mean")


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
        unstable: those of them for which Keras disagrees with itself when inputs and biases
            change by a rounding error.
        parting: the first layer where file and Keras part, looked for if samples differ that are
            not unstable.
        precision: what the model computes in, if that is not float32 throughout: the file is then
            compared with the deployed form of the model, in float32 as the file, and what `bake`
            does is not checked.
        without_numbers: for how many samples Keras gives NaN, of which nothing can be proven.
    """

    samples: int
    equal_top1: int | None
    max_difference: float
    max_difference_at: tuple[int, ...]
    relative_difference: float
    tolerance: float
    different: tuple[int, ...]
    unstable: tuple[int, ...] = ()
    parting: Parting | None = None
    precision: str | None = None
    without_numbers: int = 0

    @property
    def ok(self) -> bool:
        """Whether all samples agree, or all but unstable ones and these are at most half.

        Never where Keras gives NaN.
        """
        explained = self.different == self.unstable and 2 * len(self.different) <= self.samples
        return self.samples > 0 and explained and not self.without_numbers

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if self.ok:
            return "equal, unstable samples aside" if self.unstable else "equal"
        if self.different == self.unstable and self.without_numbers:
            return f"NOT PROVEN: Keras gives NaN for {self.without_numbers} samples"
        if self.different == self.unstable:
            return "NOT PROVEN: most samples are unstable (is the network trained?)"
        return "NOT EQUAL"

    @property
    def share(self) -> float | None:
        """The share of samples with equal top-1, from 0 to 1."""
        return None if self.equal_top1 is None else self.equal_top1 / max(1, self.samples)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        values = {
            "ok": self.ok,
            "verdict": self.verdict,
            **asdict(self),
            "share": self.share,
        }
        return for_json(values)

    def __str__(self) -> str:
        lines = [f"Samples compared     {self.samples}"]
        if self.precision is not None:
            lines.append(
                f"Compared with        the deployed form in float32: the model has {self.precision}"
            )
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
            lines.append(
                f"Of them unstable     {len(self.unstable)} "
                f"(Keras differs from itself after a change of {_PERTURBATION:g})"
            )
        if self.parting is not None:
            lines.append(f"They part at         {self.parting}")
        lines.append(f"Verdict              {self.verdict}")
        return "\n".join(lines)


def verify(
    model: tf.keras.Model,
    flatbuffer: bytes | str | Path,
    inputs: np.ndarray | Sequence[np.ndarray],
    *,
    batch_size: int = 128,
    tolerance: float = DEFAULT_TOLERANCE,
    verbose: int = 0,
    engine: EngineName = "auto",
) -> VerifyReport:
    """Runs the Keras model and the converted file on the same inputs and compares the outputs.

    The sums of a binary convolution are integers and agree exactly; the float operations between
    them are rounded differently, which shows as some 1e-6 of the output's scale. But where such an
    error turns the sign of an activation that is almost zero, the outputs of that sample change
    visibly, in deep networks for one sample in a hundred, in some for one in three. A sample that
    differs is therefore tried again in Keras alone, with inputs and biases changed by a relative
    1e-5: if Keras then disagrees with itself, the sample is called unstable and proves nothing. A
    wrong conversion shows in the others. Untrained networks with zero padding can be unstable
    throughout in Larq Compute Engine: a sum of exactly zero stays zero in Keras as long as batch
    normalization adds nothing, while the engine's correction of the border rounds it to a tiny
    number. So can those with a scale in the kernel be, whatever they pad with: there a sum of +c
    and -c is exactly zero in the file, and rounded in Keras.

    # Arguments
        model: the Keras model, as trained or baked.
        flatbuffer: the converted model or the path of its file.
        inputs: an array of shape `(samples, ...)`, or a list of them for several inputs.
        batch_size: the batch size in Keras.
        tolerance: the largest difference allowed, relative to the largest absolute value of
            the output in Keras over all samples.
        verbose: 1 shows a progress bar.
        engine: what runs the file: `"native"`, `"lce"` or `"auto"`, as in
            `larq_ext.runtime.Interpreter`.

    # Returns
        The report; `ok` if for every sample top-1 is equal and the difference is within the
        tolerance, leaving out unstable samples, which may be at most half of all. Where Keras and
        the file part is looked for unless the file takes integers.

    # Raises
        ValueError: if the file's inputs or outputs have other shapes than the model's.
    """
    from larq_ext.deploy.bake import bake
    from larq_ext.runtime import Interpreter  # `deploy` itself needs no runtime

    if not tolerance >= 0 or batch_size < 1:
        raise ValueError(
            "Expected tolerance >= 0 and batch_size >= 1, received "
            f"tolerance={tolerance}, batch_size={batch_size}."
        )
    several = isinstance(inputs, (list, tuple))
    arrays = [np.asarray(array) for array in (inputs if several else [inputs])]
    interpreter = Interpreter(flatbuffer, engine=engine)
    integers = interpreter.input_quantization
    given = [
        quantization.quantize(array) if quantization else array
        for array, quantization in zip(arrays, [*integers, *[None] * len(arrays)], strict=False)
    ]
    actual = _as_list(interpreter.predict(given, verbose=verbose))
    if not len(actual[0]):
        raise ValueError("There is nothing to compare: inputs hold no sample.")
    structured = arrays[0] if len(arrays) == 1 else arrays
    precision = _other_precision(model)
    if precision is not None:
        # What halves round is more than a file may be off by, in each sample.
        model = bake(model)
    expected = _as_list(model.predict(structured, batch_size=batch_size, verbose=0))
    shapes = [[output.shape[1:] for output in outputs] for outputs in (expected, actual)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The model's outputs have the shapes {shapes[0]}, those of the file {shapes[1]} "
            "(without the batch): the file was made from another model."
        )
    tolerances = [tolerance] * len(expected)
    for index, quantization in enumerate(interpreter.output_quantization):
        if quantization is not None:
            actual[index] = quantization.dequantize(actual[index])
            # Operators round to integers differently where the result lies halfway. A range that
            # is much wider than the outputs is a fault of the file.
            step = quantization.scale / _scale(expected[index])
            if step <= _LARGEST_STEP:
                tolerances[index] = max(tolerance, 1.01 * step)
    report = replace(_compare(expected, actual, tolerances), precision=precision)
    if not report.different:
        return report
    baked = bake(model)
    unstable = _unstable(baked, arrays, expected, report.different, tolerances)
    stable = [sample for sample in report.different if sample not in unstable]
    parting = None
    if stable and not any(integers):
        few = [array[stable[:_EXAMINED]] for array in arrays]
        parting = first_parting(baked, load_flatbuffer(flatbuffer), few, tolerance, engine)
    return replace(report, unstable=unstable, parting=parting)


def _other_precision(model: tf.keras.Model) -> str | None:
    """The types, other than float32, that layers compute in."""
    computed = {str(getattr(layer, "compute_dtype", None)) for layer in model._flatten_layers()}
    return ", ".join(sorted(computed & {"float16", "bfloat16", "float64"})) or None


def _as_list(outputs: Any) -> list[np.ndarray]:
    return [np.asarray(output) for output in tf.nest.flatten(outputs)]


def _compare(
    expected: list[np.ndarray], actual: list[np.ndarray], tolerances: list[float]
) -> VerifyReport:
    samples = len(expected[0])
    scales = [_scale(output) for output in expected]
    worst: tuple[float, tuple[int, ...]] = (0.0, ())
    relative = 0.0
    for index, (keras, file) in enumerate(zip(expected, actual, strict=True)):
        difference = _difference(keras, file)
        largest = float(difference.max(initial=0.0))
        relative = max(relative, largest / scales[index])
        if largest > worst[0]:
            place = np.unravel_index(difference.argmax(), difference.shape)
            worst = (largest, (index, *map(int, place)))
    has_classes = any(_has_classes(output) for output in expected)
    other_top1 = _other_top1(expected, actual)
    return VerifyReport(
        samples=samples,
        equal_top1=int(samples - other_top1.sum()) if has_classes else None,
        max_difference=worst[0],
        max_difference_at=worst[1],
        relative_difference=relative,
        tolerance=max(tolerances),
        different=_indices(_differs(expected, actual, scales, tolerances)),
        without_numbers=int(_has_nan(expected).sum()),
    )


def _unstable(
    baked: tf.keras.Model,
    inputs: list[np.ndarray],
    expected: list[np.ndarray],
    different: tuple[int, ...],
    tolerances: list[float],
) -> tuple[int, ...]:
    """Those samples of `different` for which Keras disagrees with itself as well."""
    shaken = _copy(baked)
    scales = [_scale(output) for output in expected]
    generator = np.random.default_rng(0)
    pending = np.array(different, int)
    unstable: list[int] = []
    # Not `expected`: a fault of baking is no rounding error.
    at_rest = _predicted(baked, [array[pending] for array in inputs])
    for _ in range(_DRAWS):
        if not len(pending):
            break
        shaken.set_weights(baked.get_weights())
        _shake_biases(shaken, generator)
        moved = [_moved(array[pending], generator) for array in inputs]
        turned = _differs(at_rest, _predicted(shaken, moved), scales, tolerances)
        unstable.extend(pending[turned].tolist())
        pending, at_rest = pending[~turned], [output[~turned] for output in at_rest]
    return tuple(sorted(unstable))


def _copy(baked: tf.keras.Model) -> tf.keras.Model:
    nested = [layer for layer in baked.layers if isinstance(layer, tf.keras.Model)]
    return replaced(baked, {layer.name: _copy(layer) for layer in nested})


def _predicted(model: tf.keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return _as_list(model.predict(inputs[0] if len(inputs) == 1 else inputs, verbose=0))


def _shake_biases(model: tf.keras.Model, generator: np.random.Generator) -> None:
    """Adds a rounding error to what is added to activations."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            _shake_biases(layer, generator)
            continue
        names = [weight.name.split("/")[-1].split(":")[0] for weight in layer.weights]
        values = layer.get_weights()
        sizes = {
            name: np.abs(value).max(initial=0.0)
            for name, value in zip(names, values, strict=True)
            if value.ndim == 1 or name in _BIASES
        }
        for index, name in enumerate(names):
            if name in _BIASES:
                noise = generator.uniform(-1.0, 1.0, values[index].shape)
                values[index] = values[index] + _PERTURBATION * _size(name, sizes) * noise
                if isinstance(layer, Int8Conv2D):
                    # Some kernels round their sums twice, which is wrong by up to this.
                    values[index] = values[index] + layer.bias_step * noise
        layer.set_weights(values)


def _size(name: str, sizes: Mapping[str, float]) -> float:
    """How large a summand counts: one of zero as large as the scale that stands beside it."""
    if name == "beta":
        return max(sizes["beta"], sizes.get("gamma", 1.0))
    if name == "moving_mean":
        return max(sizes["moving_mean"], sizes.get("moving_variance", 1.0) ** 0.5)
    return max(sizes.values(), default=1.0)


def _moved(array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    signs = generator.choice([-1.0, 1.0], array.shape)
    return (array * (1.0 + _PERTURBATION * signs)).astype(array.dtype)


def _differs(
    expected: list[np.ndarray],
    actual: list[np.ndarray],
    scales: list[float],
    tolerances: list[float],
) -> np.ndarray:
    """Which samples disagree in top-1 or beyond the tolerance."""
    differs = _other_top1(expected, actual)
    for keras, file, scale, tolerance in zip(expected, actual, scales, tolerances, strict=True):
        difference = _difference(keras, file).reshape(len(keras), -1)
        differs |= difference.max(axis=1, initial=0.0) > tolerance * scale
    return differs


def _other_top1(expected: list[np.ndarray], actual: list[np.ndarray]) -> np.ndarray:
    other = np.zeros(len(expected[0]), bool)
    for keras, file in zip(expected, actual, strict=True):
        if _has_classes(keras):
            other |= keras.argmax(axis=1) != file.argmax(axis=1)
    return other


def _has_nan(outputs: list[np.ndarray]) -> np.ndarray:
    """Which samples have an output that is no number."""
    found = np.zeros(len(outputs[0]), bool)
    for output in outputs:
        found |= np.isnan(output.reshape(len(output), -1)).any(axis=1)
    return found


def _has_classes(output: np.ndarray) -> bool:
    return output.ndim == 2 and output.shape[1] > 1


def _scale(output: np.ndarray) -> float:
    """The largest absolute value of an output; 1 if it is zero throughout."""
    finite = np.abs(output[np.isfinite(output)])
    return float(finite.max(initial=0.0)) or 1.0


def _indices(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())


def _difference(keras: np.ndarray, file: np.ndarray) -> np.ndarray:
    """Absolute difference; infinite where only one of the two is a number."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(keras.astype(np.float64) - file.astype(np.float64))
    same = (keras == file) | (np.isnan(keras) & np.isnan(file))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
