"""Seeded configurations of the engine's operators: small, but with all the corners.

A case adds its operator to a graph and makes its own inputs. Only configurations that a kernel of
`larq_compute_engine` 0.16 accepts are generated; `oracle` names the kernel that knows the answer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from lce_models import SAME, VALID, Graph, output_size, pack, random_signs, words

MAX_WORK = 1_500_000  # word operations of a convolution: the engine's reference kernel is slow

CHANNELS_IN = [1, 3, 7, 16, 31, 32, 33, 48, 64, 64, 65, 96, 100, 128, 128, 160, 256]
CHANNELS_OUT = [1, 8, 16, 16, 24, 32, 32, 48, 64, 64, 96, 128]
KERNELS = [(1, 1), (2, 2), (3, 3), (3, 3), (3, 3), (5, 5), (1, 3), (3, 1), (2, 3), (4, 4), (5, 1)]
SPECIAL_FLOATS = [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-30, -1e-30, 1e38, -1e38]
# The engine takes these for zero, as TensorFlow does.
DENORMALS = [1e-45, -1e-45, 1e-39, -1e-39]


@dataclass(frozen=True)
class Conv:
    """LceBconv2d. `first` is the batch, height and width it is allocated with at first."""

    seed: int
    batch: int
    size: tuple[int, int]
    channels_in: int
    channels_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: int
    pad_value: int
    groups: int
    activation: str
    output: str
    numbers: str
    bits: str
    scale: float
    zero_point: int
    first: tuple[int, int, int] | None = None

    @property
    def depth(self) -> int:
        """How many products make one output."""
        return self.kernel[0] * self.kernel[1] * self.channels_in // self.groups

    @property
    def zero_padded(self) -> bool:
        return self.padding == SAME and self.pad_value == 0

    @property
    def oracle(self) -> str:
        """The reference kernel counts half of the channels for a padded pixel."""
        return "indirect" if self.zero_padded and self.channels_in % 2 else "reference"

    def inputs(self) -> list[np.ndarray]:
        shape = (self.batch, *self.size, self.channels_in)
        signs = random_signs(np.random.default_rng(self.seed), shape)
        if self.bits != "random":
            signs[...] = 1 if self.bits == "all +1" else -1
        return [pack(signs)]

    def filters(self) -> np.ndarray:
        shape = (self.channels_out, *self.kernel, self.channels_in // self.groups)
        if self.bits == "opposite":  # every product is -1: the largest counts there are
            return pack(np.ones(shape))
        return pack(random_signs(np.random.default_rng(self.seed + 1), shape))

    def transform(self) -> dict[str, np.ndarray]:
        """Multiplier and bias, or the thresholds of a bit-packed output."""
        rng = np.random.default_rng(self.seed + 2)
        out = self.channels_out
        if self.output == "int32":
            return {"thresholds": self._thresholds(rng)}
        multiplier = rng.standard_normal(out) * 2 / math.sqrt(self.depth)
        bias = rng.standard_normal(out)
        if self.numbers == "ties":  # multiples of one half: int8 outputs lie between two numbers
            multiplier = rng.integers(-3, 4, out) / 2
            bias = rng.integers(-9, 10, out) / 2
        elif self.numbers == "zeros":
            multiplier *= rng.integers(0, 2, out)
            bias *= rng.integers(0, 2, out)
        elif self.numbers == "large":
            multiplier, bias = multiplier * 1e3, bias * 1e4
        elif self.numbers == "negative":
            multiplier = -np.abs(multiplier)
        return {"multiplier": multiplier.astype(np.float32), "bias": bias.astype(np.float32)}

    def _thresholds(self, rng: np.random.Generator) -> np.ndarray:
        depth, out = self.depth, self.channels_out
        extremes = [-(2**31), -1, 0, depth - 1, depth, depth + 1, 2**31 - 1]
        middle = rng.normal(depth / 2, 1 + math.sqrt(depth) / 2, out)
        chosen = {
            "ties": rng.integers(-1, depth + 2, out),
            "zeros": rng.choice(extremes, out),
            "large": np.where(rng.integers(0, 2, out), middle, rng.choice(extremes, out)),
        }
        return chosen.get(self.numbers, middle).astype(np.int32)

    def add_to(self, graph: Graph, *, resized: bool = True, for_oracle: bool = False) -> int:
        """Adds input and operator, with the final sizes or those before resizing."""
        lead = self.first if self.first and not resized else (self.batch, *self.size)
        x = graph.input((*lead, words(self.channels_in)), "int32")
        quantization = {"scale": self.scale, "zero_point": self.zero_point}
        transform = self.transform()
        if for_oracle and self.output == "int32" and self.zero_padded:
            # The reference kernel reads a multiplier here even where it has no use for it.
            transform["multiplier"] = np.ones(self.channels_out, np.float32)
        return graph.bconv(
            x,
            self.filters(),
            channels_in=self.channels_in,
            stride=self.stride,
            dilation=self.dilation,
            padding=self.padding,
            pad_value=self.pad_value,
            activation=self.activation,
            output=self.output,
            **transform,
            **(quantization if self.output == "int8" else {}),
        )


@dataclass(frozen=True)
class Pool:
    """LceBMaxPool2d."""

    seed: int
    batch: int
    size: tuple[int, int]
    channels: int
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: int
    first: tuple[int, int, int] | None = None
    oracle: str = "reference"

    def inputs(self) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        # Mostly -1, because one +1 decides a window.
        signs = np.where(rng.random((self.batch, *self.size, self.channels)) < 0.2, 1.0, -1.0)
        return [pack(signs)]

    def add_to(self, graph: Graph, *, resized: bool = True, for_oracle: bool = False) -> int:
        lead = self.first if self.first and not resized else (self.batch, *self.size)
        x = graph.input((*lead, words(self.channels)), "int32")
        return graph.pool(x, self.window, self.stride, self.padding)


@dataclass(frozen=True)
class Quantize:
    """LceQuantize, of any rank."""

    seed: int
    shape: tuple[int, ...]
    dtype: str
    zero_point: int = 0
    values: str = "random"
    first: tuple[int, ...] | None = None
    oracle: str = "reference"

    def inputs(self) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        if self.dtype == "bool":
            return [rng.integers(0, 2, self.shape).astype(bool)]
        if self.dtype == "int8":
            near = rng.integers(-2, 3, self.shape) + self.zero_point
            wide = rng.integers(-128, 128, self.shape)
            return [np.clip(np.where(rng.random(self.shape) < 0.5, near, wide), -128, 127)
                    .astype(np.int8)]  # fmt: skip
        normal = rng.standard_normal(self.shape)
        special = {"special": SPECIAL_FLOATS, "denormal": DENORMALS}.get(self.values, [1.0])
        keep = rng.random(self.shape) < (1.0 if self.values == "random" else 0.4)
        return [np.where(keep, normal, rng.choice(special, self.shape)).astype(np.float32)]

    def add_to(self, graph: Graph, *, resized: bool = True, for_oracle: bool = False) -> int:
        shape = self.first if self.first and not resized else self.shape
        scale = 0.1 if self.dtype == "int8" else None
        return graph.quantize(graph.input(shape, self.dtype, scale, self.zero_point))


@dataclass(frozen=True)
class Dequantize:
    """LceDequantize, of any rank; it cannot be resized."""

    seed: int
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.1
    zero_point: int = 0
    first: None = None
    oracle: str = "reference"

    def inputs(self) -> list[np.ndarray]:
        return [pack(random_signs(np.random.default_rng(self.seed), self.shape))]

    def add_to(self, graph: Graph, *, resized: bool = True, for_oracle: bool = False) -> int:
        x = graph.input((*self.shape[:-1], words(self.shape[-1])), "int32")
        quantization = {"scale": self.scale, "zero_point": self.zero_point}
        return graph.dequantize(
            x, self.shape[-1], self.dtype, **(quantization if self.dtype == "int8" else {})
        )


Case = Conv | Pool | Quantize | Dequantize


def conv_cases(count: int, seed: int = 0) -> Iterator[Conv]:
    rng = random.Random(f"conv {seed}")
    made = 0
    while made < count:
        case = _conv(rng)
        if case is not None:
            yield case
            made += 1


def _conv(rng: random.Random) -> Conv | None:
    """One configuration, or None if no kernel of the engine takes it or the work is too large."""
    channels_in, channels_out, groups = _channels(rng)
    kernel, stride, dilation = _window(rng)
    size = _pair(rng, 1, 20 if rng.random() < 0.3 else 9)
    padding = rng.choice([SAME, VALID])
    output = rng.choice(["float32"] * 4 + ["int8"] * 3 + ["int32"] * 3)
    case = Conv(
        seed=rng.randrange(2**31),
        batch=rng.choice([1, 1, 1, 1, 2, 3]),
        size=size,
        channels_in=channels_in,
        channels_out=channels_out,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        pad_value=rng.randrange(2),
        groups=groups,
        activation=rng.choice(["NONE"] * 4 + ["RELU", "RELU", "RELU_N1_TO_1", "RELU6"]),
        output=output,
        numbers=rng.choice(["normal"] * 3 + ["ties", "zeros", "large", "negative"]),
        bits=rng.choice(["random"] * 12 + ["all +1", "all -1", "opposite"]),
        scale=rng.choice([0.02, 0.1, 0.5, 1.0, 0.0625]),
        zero_point=rng.choice([0, 0, 3, -11, -128, 127]),
        first=(rng.randint(1, 3), *_pair(rng, 1, 12)) if rng.random() < 0.15 else None,
    )
    return case if _is_accepted(case) else None


def _channels(rng: random.Random) -> tuple[int, int, int]:
    if rng.random() < 0.15:
        groups = rng.choice([2, 2, 3, 4])
        per_group = rng.choice([32, 32, 64, 96])
        return groups * per_group, groups * rng.randint(1, 32), groups
    channels_in = 512 if rng.random() < 0.02 else rng.choice(CHANNELS_IN)
    channels_out = rng.randint(1, 130) if rng.random() < 0.4 else rng.choice(CHANNELS_OUT)
    return channels_in, channels_out, 1


def _window(rng: random.Random) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    kernel = rng.choice(KERNELS) if rng.random() < 0.7 else _pair(rng, 1, 5)
    if rng.random() < 0.02:
        kernel = (7, 7)
    stride = rng.choice([(1, 1), (1, 1), (2, 2), _pair(rng, 1, 3)])
    dilation = (1, 1) if rng.random() < 0.7 else _pair(rng, 1, 3)
    return kernel, stride, dilation


def _pair(rng: random.Random, low: int, high: int) -> tuple[int, int]:
    return rng.randint(low, high), rng.randint(low, high)


def _is_accepted(case: Conv) -> bool:
    for size in filter(None, [case.size, case.first and case.first[1:]]):
        outputs = _outputs(size, case.kernel, case.stride, case.dilation, case.padding)
        if min(outputs) < 1:
            return False
    outputs = _outputs(case.size, case.kernel, case.stride, case.dilation, case.padding)
    work = case.batch * math.prod(outputs) * case.channels_out
    work *= math.prod(case.kernel) * words(case.channels_in // case.groups)
    if work > MAX_WORK:
        return False
    if case.oracle == "indirect":
        # Its correction of the border is right only if the window fits into the image.
        fits = all(
            (kernel - 1) * dilation + 1 <= size
            for kernel, dilation, size in zip(case.kernel, case.dilation, case.size, strict=True)
        )
        return case.output == "float32" and case.activation == "NONE" and fits
    return True


def _outputs(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: int,
) -> list[int]:
    axes = zip(size, kernel, stride, dilation, strict=True)
    return [output_size(*axis, padding) for axis in axes]


def pool_cases(count: int, seed: int = 0) -> Iterator[Pool]:
    rng = random.Random(f"pool {seed}")
    made = 0
    while made < count:
        padding = rng.choice([SAME, VALID])
        size, window, stride = _pair(rng, 1, 16), _pair(rng, 1, 5), _pair(rng, 1, 3)
        first = (rng.randint(1, 3), *_pair(rng, 1, 10)) if rng.random() < 0.2 else None
        sizes = filter(None, [size, first and first[1:]])
        if any(min(_outputs(s, window, stride, (1, 1), padding)) < 1 for s in sizes):
            continue
        batch, channels = rng.choice([1, 1, 2, 3]), rng.choice([*CHANNELS_IN, 512])
        seed_ = rng.randrange(2**31)
        yield Pool(seed_, batch, size, channels, window, stride, padding, first)
        made += 1


def quantize_cases(count: int, seed: int = 0) -> Iterator[Quantize]:
    rng = random.Random(f"quantize {seed}")
    for _ in range(count):
        rank = rng.choice([1, 2, 3, 4, 4, 4, 4, 5])
        last = rng.choice([*CHANNELS_IN, rng.randint(1, 200)])
        shape = (*(rng.randint(1, 7) for _ in range(rank - 1)), last)
        first = (*(rng.randint(1, 5) for _ in range(rank - 1)), last)
        yield Quantize(
            seed=rng.randrange(2**31),
            shape=shape,
            dtype=rng.choice(["float32"] * 6 + ["int8"] * 3 + ["bool"]),
            zero_point=rng.choice([0, 1, -1, 17, -128, -127, 127, rng.randint(-128, 127)]),
            values=rng.choice(["random", "random", "special", "denormal"]),
            first=first if rng.random() < 0.2 else None,
        )


def dequantize_cases(count: int, seed: int = 0) -> Iterator[Dequantize]:
    rng = random.Random(f"dequantize {seed}")
    for _ in range(count):
        rank = rng.choice([1, 2, 3, 4, 4, 4, 5])
        shape = (*(rng.randint(1, 7) for _ in range(rank - 1)), rng.choice(CHANNELS_IN))
        yield Dequantize(
            seed=rng.randrange(2**31),
            shape=shape,
            dtype=rng.choice(["float32", "float32", "int8", "bool"]),
            scale=rng.choice([0.001, 0.01, 0.1, 0.4, 0.7, 1.0, 2.5]),
            zero_point=rng.choice([0, 0, 5, -100, -128, 127]),
        )


def all_cases(count: int, seed: int = 0) -> list[Case]:
    """So many cases: eight of ten are convolutions."""
    tenth = count // 10
    return [
        *conv_cases(count - 2 * tenth, seed),
        *pool_cases(tenth * 8 // 10, seed),
        *quantize_cases(tenth * 8 // 10, seed),
        *dequantize_cases(2 * (tenth - tenth * 8 // 10), seed),
    ]
