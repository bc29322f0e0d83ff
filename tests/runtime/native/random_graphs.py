"""Random graphs of binary and float operators, to catch wrong decisions about what to fuse.

All float tensors of a graph have the same shape, so that any two can be added. As in `chains`,
every number is exact: each tensor carries the largest magnitude and the step of its numbers, and
an operator that could need more than float32's digits is not added.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from chains import Chain, Maker, Size
from lce_models import SAME

MAX_DIGITS = 2.0**22


@dataclass(frozen=True)
class Numbers:
    """A float tensor."""

    tensor: int
    bound: float
    step: float


class _Graph:
    """Grows a graph by random operators."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"graph {seed}")
        batch, height, width = (self.random.randint(1, top) for top in (2, 7, 7))
        self.size = Size(batch, height, width, self.random.choice([8, 32, 40, 64]))
        self.make = Maker(self.size, seed)
        self.graph = self.make.graph
        self.inputs: list[np.ndarray] = []
        self.bits: list[int] = []
        self.floats = [self.input() for _ in range(self.random.choice([1, 1, 2]))]

    def input(self) -> Numbers:
        self.inputs.append(self.make.images())
        return Numbers(self.graph.input(self.size.shape), 4.0, 1 / 8)

    def grow(self) -> None:
        kinds = ["quantize", "conv", "conv", "conv", "add", "add", "prelu", "relu", "bits", "pool"]
        others = ["dequantize", "negate", "scalar", "scalar", "threshold"]
        kind = self.random.choice([*kinds, *others])
        if kind in ("conv", "bits", "pool", "dequantize") and not self.bits:
            kind = "quantize"
        getattr(self, f"_{kind}")()

    def _recent(self, tensors: list):
        """Mostly one of the newest, so that long chains appear."""
        return self.random.choice(tensors[-2:] if self.random.random() < 0.7 else tensors)

    def _keep(self, tensor: int, bound: float, step: float) -> None:
        self.floats.append(Numbers(tensor, bound, step))

    def _quantize(self) -> None:
        self.bits.append(self.graph.quantize(self._recent(self.floats).tensor))

    def _conv(self) -> None:
        channels = self.size.channels
        kernel = self.random.choice([(1, 1), (3, 3), (2, 3)])
        activation = self.random.choice(["NONE"] * 3 + ["RELU", "RELU6"])
        y = self.make.conv(
            self._recent(self.bits), channels, channels, kernel, activation=activation
        )
        self._keep(y, kernel[0] * kernel[1] * channels + 8.0, 1 / 4)

    def _bits(self) -> None:
        channels = self.size.channels
        bits = self._recent(self.bits)
        self.bits.append(self.make.conv(bits, channels, channels, (3, 3), output="int32"))

    def _pool(self) -> None:
        self.bits.append(self.graph.pool(self._recent(self.bits), (2, 3), (1, 1), SAME))

    def _dequantize(self) -> None:
        y = self.graph.dequantize(self._recent(self.bits), self.size.channels)
        self._keep(y, 1.0, 1.0)

    def _add(self) -> None:
        x, y = self._recent(self.floats), self.random.choice(self.floats)
        if self.random.random() < 0.5:
            x, y = y, x
        bound, step = x.bound + y.bound, min(x.step, y.step)
        if bound / step < MAX_DIGITS:
            activation = self.random.choice(["NONE"] * 4 + ["RELU", "RELU6", "RELU_N1_TO_1"])
            self._keep(self.graph.add(x.tensor, y.tensor, activation), bound, step)

    def _scalar(self) -> None:
        x = self._recent(self.floats)
        shape = self.random.choice([(1,), (self.size.channels,)])
        constant = self.graph.constant(self.make.images(*shape))
        if (x.bound + 4) / x.step < MAX_DIGITS:
            activation = self.random.choice(["NONE"] * 4 + ["RELU", "RELU6", "RELU_N1_TO_1"])
            combine = self.random.choice([self.graph.add, self.graph.subtract])
            y = combine(x.tensor, constant, activation)
            self._keep(y, x.bound + 4, min(x.step, 1 / 8))

    def _threshold(self) -> None:
        """Signs of numbers that others read, too, at a threshold by channel."""
        x = self._recent(self.floats)
        if (x.bound + 4) / x.step < MAX_DIGITS:
            moved = self.make.shifted(x.tensor, self.size.channels)
            self.bits.append(self.graph.quantize(moved))

    def _prelu(self) -> None:
        x = self._recent(self.floats)
        if 8 * x.bound / x.step < MAX_DIGITS:
            slopes = self.make.slopes(self.random.choice([self.size.channels] * 4 + [1]))
            self._keep(self.graph.prelu(x.tensor, slopes), 2 * x.bound, x.step / 4)

    def _relu(self) -> None:
        x = self._recent(self.floats)
        self._keep(self.graph.relu(x.tensor), x.bound, x.step)

    def _negate(self) -> None:
        """An operator that the delegate leaves to the runtime."""
        x = self._recent(self.floats)
        self._keep(self.graph.negate(x.tensor), x.bound, x.step)


def random_graph(seed: int) -> Chain:
    """Outputs are all float tensors that nothing reads (the runtime's own delegate for floats does
    not bear dead operators), and some others."""
    grown = _Graph(seed)
    for _ in range(grown.random.randint(3, 16)):
        grown.grow()
    graph, random = grown.graph, grown.random
    floats = [numbers.tensor for numbers in grown.floats]
    computed = [tensor for tensor in (*floats, *grown.bits) if tensor not in graph.inputs]
    if not computed:
        return random_graph(seed + 1_000_000)
    read = {tensor for operator in graph.operators for tensor in operator.inputs}
    outputs = {tensor for tensor in computed if tensor in floats and tensor not in read}
    outputs.update(random.sample(computed, min(len(computed), random.randint(1, 3))))
    return Chain(f"random graph {seed}", graph, sorted(outputs), grown.inputs)
