"""Looks at every binary layer of a model: its kernel, and the inputs that reach it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from larq_ext._scope import flips_unnoticed, quantized_scope
from larq_ext.deploy._expected import (
    POINTWISE,
    _leaf_layers,
    _quantized_kernels,
    _rows_of_keras,
    input_shape,
    kernels_of_one_bit,
)
from larq_ext.deploy._probe import computes_otherwise, is_binary_input
from larq_ext.deploy.bake import _input_form
from larq_ext.deploy.layers import BinaryConv2D
from larq_ext.inspection._report import (
    STARVED,
    InputInspection,
    InspectReport,
    KernelInspection,
    LayerInspection,
)
from larq_ext.inspection._statistics import BitCounter, entropy, outside_window
from larq_ext.quantizers import BinaryQuantizer
from larq_ext.runtime._inputs import described, random_inputs
from larq_ext.runtime._progress import progress

_BATCH = 16
_BINS = 64


class BinaryKernel(NamedTuple):
    """A binary kernel; rows are output channels."""

    name: str
    layer: Any
    quantizer: Any
    latent: np.ndarray
    bits: np.ndarray  # true where +1
    scale: np.ndarray


def inspect(
    model: tf.keras.Model,
    before: tf.keras.Model | None = None,
    inputs: Any = None,
    *,
    samples: int = 16,
    seed: int = 0,
    verbose: int = 0,
) -> InspectReport:
    """Tells what the binary layers of a model are made of.

    Of each binary kernel: the share of +1, the entropy of its bits, the share of latent weights
    that get no gradient, its scales, and how many bits have flipped. Of each binary input, on the
    inputs given: the share of +1, its entropy, and channels that never change. All as it is at
    inference.

    !!! example
        ```python
        report = lqx.inspection.inspect(model, inputs=images[:64])
        print(report)
        report.draw("bits.png")
        ```

    # Arguments
        model: Model with layers of Larq or of `larq_ext.layers`.
        before: The same network at another time: kernel bits are compared by layer name.
        inputs: Array of shape `(samples, ...)`, preprocessed, or a list of them for several
            inputs. By default standard normal numbers (integers: of 8 bits), which
            say little of real images.
        samples: How many random inputs to take without `inputs`.
        seed: Seed of these.
        verbose: 1 shows a progress bar.

    # Returns
        An `InspectReport`; `str()` of it is a table.

    # Raises
        ValueError: if there is nothing binary in the model, it is baked, the inputs do not fit,
            or `before` has none of its layers.
    """
    if not isinstance(model, tf.keras.Model):
        raise ValueError(f"inspect takes a tf.keras.Model, received {type(model).__name__}.")
    kernels = list(binary_kernels(model))
    layers = _binary_layers(model)
    if not layers:
        raise ValueError(
            f"The model {model.name!r} has no binary layer: no kernel quantizer and no input "
            "quantizer of one bit."
        )
    arrays, source = _arrays(model, inputs, samples, seed)
    counters = _watch_inputs(model, layers, arrays)
    earlier = None if before is None else {k.name: k for k in binary_kernels(before)}
    rows: list[LayerInspection] = []
    notes: list[str] = []
    for name, layer in progress(iter(layers), len(layers)) if verbose else layers:
        seen = _input_inspection(counters[id(layer)])
        parts: list[Any] = [kernel for kernel in kernels if kernel.layer is layer]
        if all(kernel.name.endswith(POINTWISE) for kernel in parts):
            parts = [None, *parts]  # its inputs go into a float kernel first
        for kernel in parts:
            old, note = _earlier(kernel, earlier)
            notes += note
            # The second kernel of a separable layer takes the sums of the first, which are real.
            real = kernel is not None and kernel.name.endswith(POINTWISE)
            rows.append(_row(name, layer, kernel, old, None if real else seen, real))
    if before is not None and all(r.kernel is None or r.kernel.flipped is None for r in rows):
        raise ValueError(
            f"No binary kernel of {model.name!r} has the name and the shape of one in "
            f"{before.name!r}, so that no bits can be compared: take two states of one network."
        )
    return InspectReport(
        model.name,
        tuple(rows),
        len(arrays[0]),
        source,
        None if before is None else before.name,
        tuple(notes),
    )


def _layers(model: tf.keras.Model) -> Iterator[tuple[str, Any]]:
    """The layers with their paths, those inside of layers too."""
    for name, layer in _leaf_layers(model):
        yield from _within(name, layer)


def _within(name: str, layer: Any) -> Iterator[tuple[str, Any]]:
    yield name, layer
    uses: dict[str, int] = {}
    for part in layer._flatten_layers(recursive=False, include_self=False):
        # Nothing keeps layers inside of a layer from having equal names.
        uses[part.name] = uses.get(part.name, 0) + 1
        number = "" if uses[part.name] == 1 else f"_{uses[part.name]}"
        yield from _within(f"{name}/{part.name}{number}", part)


def _binary_layers(model: tf.keras.Model) -> list[tuple[str, Any]]:
    """Layers with a binary kernel or input, each once, by the first of its paths."""
    found: dict[int, tuple[str, Any]] = {}
    for name, layer in _layers(model):
        if isinstance(layer, BinaryConv2D):
            raise ValueError("The model is baked already: take the one it was made from.")
        if _has_binary_input(layer) or next(kernels_of_one_bit(layer), None):
            found.setdefault(id(layer), (name, layer))
    return list(found.values())


def _has_binary_input(layer: Any) -> bool:
    return is_binary_input(getattr(layer, "input_quantizer", None), input_shape(layer))


def binary_kernels(model: tf.keras.Model) -> Iterator[BinaryKernel]:
    """The binary kernels of a model, as they are at inference."""
    for name, layer in _binary_layers(model):
        for part, variable, quantizer, _ in kernels_of_one_bit(layer):
            with quantized_scope(False):
                latent = np.asarray(tf.cast(tf.convert_to_tensor(variable), tf.float32))
            signs, scale = _signs_and_scale(layer, part, quantizer, latent)
            if getattr(layer, "scale_mode", None) == "learned":
                scale = scale * np.asarray(layer.scale)
            yield BinaryKernel(f"{name}{part}", layer, quantizer, latent, signs, scale)


def _signs_and_scale(layer, part, quantizer, latent) -> tuple[np.ndarray, np.ndarray]:
    def rows(values: np.ndarray) -> np.ndarray:
        kind = type(layer).__name__
        return _rows_of_keras(values, kind, part == " (depthwise)" or "Depthwise" in kind)

    # The scales of a transposed kernel's last axis are not those of its output channels.
    is_ours = isinstance(quantizer, BinaryQuantizer) and "Transpose" not in type(layer).__name__
    if is_ours and not computes_otherwise(quantizer, "kernel_form"):
        # Not through the product: a scale of zero would lose the signs.
        form = quantizer.kernel_form(latent)
        if form is not None:
            return rows(form.signs) > 0, form.scale
    with flips_unnoticed(quantizer):
        values = rows(np.asarray(quantizer(tf.constant(latent))))
    return values > 0, np.abs(values).max(1)


def _row(name, layer, kernel, old, seen, real_inputs) -> LayerInspection:
    if kernel is None:
        inspected, histogram, warnings = None, None, [_other_kernel(layer)]
    else:
        inspected = _kernel_inspection(kernel, old)
        finite = kernel.latent[np.isfinite(kernel.latent)]
        histogram = np.histogram(finite, _BINS)
        warnings = list(_kernel_warnings(kernel, inspected))
        name = kernel.name
    warnings += _input_warnings(layer, seen, real_inputs)
    return LayerInspection(name, type(layer).__name__, inspected, seen, tuple(warnings), histogram)


def _other_kernel(layer: Any) -> str:
    """What a kernel is that is not of one bit."""
    quantizers = [quantizer for _, _, quantizer in _quantized_kernels(layer)]
    if not quantizers:
        return "its kernel is float"
    bits = getattr(quantizers[0], "precision", None)
    return "its kernel is not binary" if bits in (None, 1) else f"its kernel has {bits} bits"


def _kernel_inspection(kernel: BinaryKernel, old: BinaryKernel | None) -> KernelInspection:
    by_filter = kernel.bits.mean(1)
    outside, exact = outside_window(kernel.quantizer, kernel.latent)
    positive = float(kernel.bits.mean())
    return KernelInspection(
        shape=tuple(kernel.latent.shape),
        positive=positive,
        entropy=float(entropy(positive)),
        filter_entropy=float(entropy(by_filter).mean()),
        uniform_filters=int(np.sum((by_filter == 0) | (by_filter == 1))),
        outside=outside,
        outside_exact=exact,
        scale=(
            float(kernel.scale.min()),
            float(kernel.scale.mean()),
            float(kernel.scale.max()),
        ),
        zero_scales=int(np.sum(~np.isfinite(kernel.scale) | (kernel.scale == 0))),
        flipped=None if old is None else float(np.mean(kernel.bits != old.bits)),
    )


def _kernel_warnings(kernel: BinaryKernel, found: KernelInspection) -> Iterator[str]:
    filters = len(kernel.bits)
    if not np.isfinite(kernel.latent).all():
        yield "latent weights that are not finite: training has failed"
    # A filter of one weight has no choice.
    if found.uniform_filters and kernel.bits.shape[1] > 1:
        yield f"{found.uniform_filters} of {filters} filters have equal bits throughout"
    if found.outside > STARVED:
        about = "" if found.outside_exact else "about "
        yield f"{about}{100 * found.outside:.0f} % of the latent weights get no gradient"
    if found.zero_scales:
        yield f"the scale of {found.zero_scales} of {filters} output channels is 0 or not finite"


def _input_inspection(counter: BitCounter) -> InputInspection | None:
    shares = counter.shares()
    if shares is None:
        return None
    positive = float(shares.mean())
    return InputInspection(
        positive=positive,
        entropy=float(entropy(positive)),
        channel_entropy=float(entropy(shares).mean()),
        channels=len(shares),
        always_positive=int(np.sum(shares == 1)),
        always_negative=int(np.sum(shares == 0)),
    )


def _input_warnings(layer: Any, seen: InputInspection | None, real_inputs: bool) -> Iterator[str]:
    if seen is None:
        quantizer = getattr(layer, "input_quantizer", None)
        if real_inputs or quantizer is None:
            yield "its inputs are float"
        elif not _has_binary_input(layer):
            bits = getattr(quantizer, "precision", None)
            yield f"its inputs have {bits} bits" if bits else "its inputs are not binary"
        return
    if seen.always_positive == seen.channels:
        yield "all inputs are +1; is there a ReLU before the sign?"
    elif seen.always_positive or seen.always_negative:
        yield (
            f"{seen.always_positive + seen.always_negative} of {seen.channels} input channels "
            f"never change ({seen.always_positive} always +1)"
        )


def _earlier(kernel, earlier) -> tuple[BinaryKernel | None, list[str]]:
    """The kernel of this name in the model before, and what is to be said if there is none."""
    if kernel is None or earlier is None:
        return None, []
    old = earlier.get(kernel.name)
    if old is None:
        return None, [f"{kernel.name}: the model before has no such binary kernel."]
    if old.bits.shape != kernel.bits.shape:
        shapes = f"{old.latent.shape} before, {kernel.latent.shape} now"
        return None, [f"{kernel.name}: another shape, {shapes}."]
    return old, []


def _arrays(model, inputs, samples: int, seed: int) -> tuple[list[np.ndarray], str]:
    """The inputs as a list of arrays, and what they are in words."""
    if inputs is None:
        if samples < 1:
            raise ValueError(f"`samples` is a number from 1, received {samples!r}.")
        shapes = [(samples, *tensor.shape[1:]) for tensor in model.inputs or []]
        if not shapes or any(None in shape for shape in shapes):
            raise ValueError(
                f"The model {model.name!r} does not say what shape its inputs have: give some, "
                "as `inputs`."
            )
        dtypes = [tensor.dtype.as_numpy_dtype for tensor in model.inputs]
        words = f"{samples} random inputs, {described(dtypes, seed)}"
        return random_inputs(shapes, dtypes, seed), words
    arrays = [np.asarray(a) for a in (inputs if isinstance(inputs, (list, tuple)) else [inputs])]
    expected = [tuple(tensor.shape) for tensor in model.inputs or []]
    fits = not expected or (
        len(expected) == len(arrays)
        and all(
            len(shape) == array.ndim
            and all(a in (None, b) for a, b in zip(shape[1:], array.shape[1:], strict=True))
            for shape, array in zip(expected, arrays, strict=True)
        )
    )
    lengths = {len(array) if array.ndim else 0 for array in arrays}
    if not fits or len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"The model takes inputs of shapes {expected}, with the same number of samples from "
            f"1, received {[array.shape for array in arrays]}."
        )
    return arrays, f"{len(arrays[0])} samples given"


def _watch_inputs(
    model: tf.keras.Model, layers: Sequence[tuple[str, Any]], arrays: list[np.ndarray]
) -> dict[int, BitCounter]:
    """Runs the model and counts the bits that enter its layers."""
    counters = {}
    with ExitStack() as stack:
        for _, layer in layers:
            axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
            counters[id(layer)] = BitCounter(axis, _is_zero_one(layer))
            stack.enter_context(_watched(layer, counters[id(layer)]))
            for _, _, quantizer in _quantized_kernels(layer):
                stack.enter_context(flips_unnoticed(quantizer))
        dtypes = [tensor.dtype for tensor in model.inputs or []] or [tf.float32] * len(arrays)
        for start in range(0, len(arrays[0]), _BATCH):
            batch = [
                tf.cast(array[start : start + _BATCH], dtype)
                for array, dtype in zip(arrays, dtypes, strict=True)
            ]
            model(batch if len(batch) > 1 else batch[0], training=False)
    return counters


def _is_zero_one(layer: Any) -> bool:
    form = _input_form(getattr(layer, "input_quantizer", None))
    return form is not None and form.zero_one


@contextmanager
def _watched(layer: Any, counter: BitCounter) -> Iterator[None]:
    """Lets a counter see what enters a layer, after its input quantizer."""
    call = layer.call
    quantizer = getattr(layer, "input_quantizer", None)

    def watched_call(inputs, *args, **kwargs):
        if isinstance(inputs, tf.Tensor) and hasattr(inputs, "numpy"):
            counter.update(np.asarray(inputs if quantizer is None else quantizer(inputs)))
        return call(inputs, *args, **kwargs)

    # Past Keras, which would take notice of an attribute that is set.
    own = layer.__dict__.get("call")
    layer.__dict__["call"] = watched_call
    try:
        yield
    finally:
        layer.__dict__.pop("call")
        if own is not None:
            layer.__dict__["call"] = own
