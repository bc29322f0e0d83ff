"""What the operators must compute: by the engine's kernels, and by NumPy from first principles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from cases import Case, Conv, Dequantize, Pool, Quantize
from lce_models import SAME, Graph, output_size, pack, unpack

FLOAT_TOLERANCE = 1e-3  # of the largest magnitude in the output
BOUNDS = {
    "NONE": (-np.inf, np.inf),
    "RELU": (0, np.inf),
    "RELU_N1_TO_1": (-1, 1),
    "RELU6": (0, 6),
}


def batched(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def run_engine(model: bytes, inputs: Sequence[np.ndarray], oracle: str) -> list[np.ndarray]:
    """Runs a model with the engine's reference kernels, or with its indirect ones."""
    import larq_compute_engine as lce

    interpreter = lce.testing.Interpreter(
        model,
        num_threads=1,
        use_reference_bconv=oracle == "reference",
        use_indirect_bgemm=oracle == "indirect",
    )
    return [np.asarray(output) for output in interpreter.interpreter.predict(list(inputs))]


def engine_outputs(cases: Sequence[Case], together: int = 25) -> list[np.ndarray]:
    """The engine's output of each case, many cases in one model."""
    by_oracle: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        by_oracle[case.oracle].append(index)
    results: list[np.ndarray] = [np.empty(0)] * len(cases)
    for oracle, indices in by_oracle.items():
        for batch in batched(indices, together):
            graph = Graph()
            outputs = [cases[index].add_to(graph, for_oracle=True) for index in batch]
            inputs = [array for index in batch for array in cases[index].inputs()]
            found = run_engine(graph.build(outputs), inputs, oracle)
            for index, output in zip(batch, found, strict=True):
                results[index] = output
    return results


def numpy_output(case: Case) -> np.ndarray:
    (x,) = case.inputs()
    if isinstance(case, Conv):
        return conv(case, x)
    if isinstance(case, Pool):
        return pool(case, x)
    if isinstance(case, Quantize):
        return quantize(case, x)
    return dequantize(case, x)


def _padded(x: np.ndarray, window, stride, dilation, padding: int, fill: float):
    """The image with its border, and the size of the output."""
    sizes = []
    for axis in (0, 1):
        size = x.shape[axis + 1]
        out = output_size(size, window[axis], stride[axis], dilation[axis], padding)
        reach = (out - 1) * stride[axis] + (window[axis] - 1) * dilation[axis] + 1
        missing = max(0, reach - size) if padding == SAME else 0
        before = missing // 2
        sizes.append((out, before, missing - before))
    (height, top, bottom), (width, left, right) = sizes
    border = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(x, border, constant_values=fill), (height, width)


def _taps(x: np.ndarray, outputs, window, stride, dilation) -> Iterator[np.ndarray]:
    """For each position of the window the pixels under it, row by row."""
    for row in range(window[0]):
        for column in range(window[1]):
            top, left = row * dilation[0], column * dilation[1]
            yield x[
                :,
                top : top + (outputs[0] - 1) * stride[0] + 1 : stride[0],
                left : left + (outputs[1] - 1) * stride[1] + 1 : stride[1],
            ]


def products(case: Conv, x: np.ndarray) -> np.ndarray:
    """The convolution of +1 and -1, in float64."""
    image = unpack(x, case.channels_in)
    filters = unpack(case.filters(), case.channels_in // case.groups)
    window = (case.kernel, case.stride, case.dilation)
    image, outputs = _padded(image, *window, case.padding, case.pad_value)
    flat = filters.reshape(case.groups, -1, np.prod(case.kernel), filters.shape[-1])
    total = np.zeros((case.batch, *outputs, case.groups, flat.shape[1]))
    for tap, pixels in enumerate(_taps(image, outputs, *window)):
        grouped = pixels.reshape(*pixels.shape[:-1], case.groups, -1)
        for group in range(case.groups):
            total[..., group, :] += grouped[..., group, :] @ flat[group, :, tap].T
    return total.reshape(case.batch, *outputs, -1)


def conv(case: Conv, x: np.ndarray) -> np.ndarray:
    dot = products(case, x)
    transform = case.transform()
    if case.output == "int32":
        different = (case.depth - dot) / 2
        return pack(np.where(different > transform["thresholds"], -1.0, 1.0))
    clipped = np.clip(dot, *BOUNDS[case.activation])
    multiplier, bias = (transform[k].astype(np.float64) for k in ("multiplier", "bias"))
    if case.output == "float32":
        return (clipped * multiplier + bias).astype(np.float32)
    # The engine folds scale and zero point into float32 constants, and rounds ties from zero.
    slope = (-multiplier / np.float64(np.float32(case.scale))).astype(np.float32)
    offset = (bias + case.depth * multiplier) / np.float64(np.float32(case.scale))
    offset = (offset + case.zero_point).astype(np.float32)
    value = (case.depth - clipped).astype(np.float32) * slope + offset
    rounded = np.trunc(value.astype(np.float64) + np.copysign(0.5, value))
    return np.clip(rounded, -128, 127).astype(np.int8)


def pool(case: Pool, x: np.ndarray) -> np.ndarray:
    window = (case.window, case.stride, (1, 1))
    image, outputs = _padded(unpack(x, case.channels), *window, case.padding, -1.0)
    return pack(np.max(list(_taps(image, outputs, *window)), axis=0))


def quantize(case: Quantize, x: np.ndarray) -> np.ndarray:
    if case.dtype == "bool":
        return pack(np.where(x, 1.0, -1.0))
    if case.dtype == "int8":
        return pack(np.where(x.astype(int) < case.zero_point, -1.0, 1.0))
    return pack(np.where(np.abs(x) < np.finfo(np.float32).tiny, 0.0, x))


def dequantize(case: Dequantize, x: np.ndarray) -> np.ndarray:
    signs = unpack(x, case.shape[-1])
    if case.dtype == "bool":
        return signs > 0
    if case.dtype == "float32":
        return signs.astype(np.float32)
    step = np.floor(np.float32(1) / np.float32(case.scale) + np.float32(0.5))
    return np.clip(case.zero_point + signs * step, -128, 127).astype(np.int8)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """0 where both agree; for floats relative to the largest magnitude; inf if they cannot."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return np.inf
    if found.dtype != np.float32:
        return 0.0 if np.array_equal(found, expected) else np.inf
    if found.size == 0:
        return 0.0
    largest = np.max(np.abs(found.astype(np.float64) - expected)) / max(
        1e-30, float(np.max(np.abs(expected)))
    )
    return float(largest) if np.isfinite(largest) else np.inf
