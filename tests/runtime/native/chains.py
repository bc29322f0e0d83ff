"""Graphs of several operators, with numbers that are exact in float32 whatever the order.

Multipliers, biases and slopes are small multiples of powers of two, so that a fused kernel and
the engine's separate ones must agree bit for bit, also where a sum is binarized again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from lce_models import SAME, VALID, Graph, random_filters


@dataclass(frozen=True)
class Chain:
    """A graph, its outputs and its inputs."""

    name: str
    graph: Graph
    outputs: Sequence[int]
    inputs: Sequence[np.ndarray]

    def model(self) -> bytes:
        return self.graph.build(self.outputs)


@dataclass(frozen=True)
class Size:
    batch: int = 1
    height: int = 6
    width: int = 5
    channels: int = 32

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, self.height, self.width, self.channels)


class Maker:
    """Draws the constants, and adds convolutions whose results are exact."""

    def __init__(self, size: Size, seed: int) -> None:
        self.graph, self.size = Graph(), size
        self.rng = np.random.default_rng(seed)

    def images(self, *shape: int) -> np.ndarray:
        """Multiples of 1/8 between -4 and 4, zeros included."""
        return (self.rng.integers(-32, 33, shape or self.size.shape) / 8).astype(np.float32)

    def slopes(self, channels: int) -> np.ndarray:
        return (self.rng.integers(-4, 9, (1, 1, channels)) / 4).astype(np.float32)

    def shifted(self, x: int, channels: int, activation: str = "NONE") -> int:
        """ADD of a constant by channel."""
        return self.graph.add(x, self.graph.constant(self.images(channels)), activation)

    def conv(self, x: int, channels_in: int, out: int, kernel=(3, 3), **settings) -> int:
        """Multipliers of +-1/4, +-1/2 and +-1, biases of up to +-8 in steps of 1/4."""
        filters = random_filters(self.rng, out, kernel, channels_in)
        if settings.get("output") == "int32":
            depth = kernel[0] * kernel[1] * channels_in
            spread = self.rng.integers(-3, 4, out)
            settings["thresholds"] = (depth // 2 + spread).astype(np.int32)
        else:
            sign = self.rng.choice([-1.0, 1.0, 1.0], out)
            settings["multiplier"] = (sign * self.rng.choice([0.25, 0.5, 1.0], out)).astype("f4")
            settings["bias"] = (self.rng.integers(-32, 33, out) / 4).astype("f4")
        return self.graph.bconv(x, filters, channels_in=channels_in, **settings)


def bit_packed_between(size: Size, seed: int) -> Chain:
    """Quantize -> Bconv (bits) -> Bconv (float)."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    bits = make.conv(g.quantize(g.input(size.shape)), c, c + 8, output="int32")
    return Chain("bits between", g, [make.conv(bits, c + 8, c)], [make.images()])


def pooled(size: Size, seed: int) -> Chain:
    """Bconv (bits) -> BMaxPool -> Bconv (float)."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    bits = make.conv(g.quantize(g.input(size.shape)), c, 2 * c, output="int32")
    smaller = g.pool(bits, (2, 2), (2, 2), SAME)
    return Chain("pooled", g, [make.conv(smaller, 2 * c, c)], [make.images()])


def shared_quantize(size: Size, seed: int) -> Chain:
    """One Quantize feeds two Bconvs; its bits are an output too."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    bits = g.quantize(g.input(size.shape))
    one, two = make.conv(bits, c, c), make.conv(bits, c, 2 * c, (1, 1), stride=(2, 2))
    return Chain("shared quantize", g, [one, two, bits], [make.images()])


def bi_real(size: Size, seed: int, blocks: int = 3) -> Chain:
    """Blocks of Quantize -> Bconv -> ADD with the block's input."""
    make = Maker(size, seed)
    x = make.graph.input(size.shape)
    for _ in range(blocks):
        x = make.graph.add(make.conv(make.graph.quantize(x), size.channels, size.channels), x)
    return Chain("bi-real", make.graph, [x], [make.images()])


def bi_real_prelu_first(size: Size, seed: int, blocks: int = 2) -> Chain:
    """Blocks of Quantize -> Bconv -> PRELU -> ADD (the shortcut is the first operand)."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x = g.input(size.shape)
    for _ in range(blocks):
        x = g.add(x, g.prelu(make.conv(g.quantize(x), c, c), make.slopes(c)))
    return Chain("prelu then add", g, [x], [make.images()])


def bi_real_prelu_last(size: Size, seed: int, blocks: int = 2) -> Chain:
    """Blocks of Quantize -> Bconv -> ADD -> PRELU."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x = g.input(size.shape)
    for _ in range(blocks):
        x = g.prelu(g.add(make.conv(g.quantize(x), c, c), x), make.slopes(c))
    return Chain("add then prelu", g, [x], [make.images()])


def two_prelus(size: Size, seed: int) -> Chain:
    """Bconv -> PRELU -> ADD -> PRELU -> Quantize -> Bconv."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x = g.input(size.shape)
    y = g.add(g.prelu(make.conv(g.quantize(x), c, c), make.slopes(c)), x)
    y = g.prelu(y, make.slopes(c))
    return Chain("two prelus", g, [make.conv(g.quantize(y), c, c, (1, 1))], [make.images()])


def reactnet(size: Size, seed: int, blocks: int = 2) -> Chain:
    """Blocks of ADD -> Quantize -> Bconv -> ADD with the block's input -> ADD -> PRELU -> ADD,
    where the others add a constant by channel."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x = g.input(size.shape)
    for _ in range(blocks):
        y = make.conv(g.quantize(make.shifted(x, c)), c, c)
        x = make.shifted(g.prelu(make.shifted(g.add(y, x), c), make.slopes(c)), c)
    return Chain("reactnet", g, [x], [make.images()])


def shifts(size: Size, seed: int) -> Chain:
    """Bconv, then constants by channel in every order with the other float operators."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x = g.input(size.shape)
    bits = g.quantize(x)
    behind_each = make.shifted(g.prelu(make.conv(bits, c, c), make.slopes(c)), c)
    behind_each = g.subtract(g.relu(behind_each), g.constant(make.images(c)))
    three = make.shifted(make.shifted(make.shifted(make.conv(bits, c, c), c), c), c)
    clipped = g.add(make.shifted(make.conv(bits, c, c), c, "RELU6"), x)
    clipped = make.shifted(make.shifted(clipped, c, "RELU_N1_TO_1"), c)
    first = make.shifted(g.add(g.relu(make.shifted(make.conv(bits, c, c), c)), x), c)
    again = make.conv(g.quantize(make.shifted(g.relu(make.shifted(behind_each, c)), c)), c, c)
    return Chain("shifts", g, [behind_each, three, clipped, first, again], [make.images()])


def thresholds(size: Size, seed: int) -> Chain:
    """Signs of the same numbers at two thresholds, at one behind everything else, of a sum, and
    next to plain signs."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x = g.input(size.shape)
    y = g.relu(make.conv(g.quantize(x), c, c))
    bits = [g.quantize(make.shifted(y, c)) for _ in range(2)]
    full = make.shifted(make.shifted(make.conv(bits[0], c, c), c), c)
    bits.append(g.quantize(g.subtract(full, g.constant(make.images(c)))))
    total = g.relu(g.add(y, x))  # not a convolution's: y is an output, too
    bits.append(g.quantize(make.shifted(total, c)))
    signs = make.conv(g.quantize(make.shifted(x, c)), c, c)
    plain = [g.quantize(signs), g.quantize(make.shifted(signs, c))]
    sums = [make.conv(one, c, c) for one in (*bits[1:], *plain)]
    return Chain("thresholds", g, [y, total, *sums], [make.images()])


def rounded(size: Size, seed: int) -> Chain:
    """A block as in `reactnet` whose numbers are rounded at every step: the order shows."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels

    def normal(*shape: int) -> np.ndarray:
        return make.rng.normal(size=shape).astype(np.float32)

    x = g.input(size.shape)
    filters = random_filters(make.rng, c, (3, 3), c)
    numbers = {"multiplier": normal(c), "bias": normal(c)}
    y = g.add(g.bconv(g.quantize(x), filters, channels_in=c, **numbers), x)
    y = g.prelu(g.add(y, g.constant(normal(c))), normal(1, 1, c))
    y = g.add(y, g.constant(normal(c)))
    # The signs of y and more are numbers of their own: few differ if one of them is wrong.
    signs = g.dequantize(g.quantize(g.add(y, g.constant(normal(c)))), c)
    return Chain("rounded", g, [y, signs], [normal(*size.shape)])


def shared_slope(size: Size, seed: int) -> Chain:
    """PRELU with one slope for all channels, and with one for each value."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    y = make.conv(g.quantize(g.input(size.shape)), c, c)
    one = g.prelu(y, make.slopes(1))
    per_value = (make.rng.integers(-4, 9, size.shape[1:]) / 4).astype(np.float32)
    return Chain("slopes of other shapes", g, [one, g.prelu(y, per_value)], [make.images()])


def relus(size: Size, seed: int) -> Chain:
    """Bconv -> RELU -> Quantize -> Bconv -> RELU -> ADD -> RELU."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x = g.input(size.shape)
    y = g.relu(make.conv(g.quantize(x), c, c))
    z = g.relu(make.conv(g.quantize(y), c, c))
    return Chain("relus", g, [g.relu(g.add(z, y))], [make.images()])


def add_activations(size: Size, seed: int) -> Chain:
    """Blocks whose ADD has each of the fused activations."""
    make = Maker(size, seed)
    x = make.graph.input(size.shape)
    for activation in ("RELU", "RELU6", "RELU_N1_TO_1"):
        y = make.conv(make.graph.quantize(x), size.channels, size.channels)
        x = make.graph.add(y, x, activation)
    return Chain("activations of add", make.graph, [x], [make.images()])


def used_twice(size: Size, seed: int) -> Chain:
    """The convolution's result is an output and an operand; so is the sum."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x = g.input(size.shape)
    y = make.conv(g.quantize(x), c, c)
    z = g.add(y, x)
    return Chain("used twice", g, [y, z, make.conv(g.quantize(z), c, c)], [make.images()])


def add_to_itself(size: Size, seed: int) -> Chain:
    """Both operands of ADD are the convolution's result."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    y = make.conv(g.quantize(g.input(size.shape)), c, c)
    return Chain("add to itself", g, [g.add(y, y)], [make.images()])


def sum_of_two(size: Size, seed: int) -> Chain:
    """ADD of two convolutions."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    bits = g.quantize(g.input(size.shape))
    total = g.add(make.conv(bits, c, c), make.conv(bits, c, c, (1, 1)))
    return Chain("sum of two", g, [make.conv(g.quantize(total), c, c)], [make.images()])


def broadcast_adds(size: Size, seed: int) -> Chain:
    """ADD with constants of several shapes, and with a smaller image."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x, row = g.input(size.shape), g.input((1, 1, size.width, c))
    bits = g.quantize(x)
    sums = [
        g.add(make.conv(bits, c, c), g.constant(make.images(*shape)))
        for shape in [(c,), (1,), (1, 1, 1, c), (1, size.height, 1, 1), size.shape]
    ]
    sums.append(g.add(row, make.conv(bits, c, c)))
    return Chain("broadcast adds", g, sums, [make.images(), make.images(1, 1, size.width, c)])


def narrow_convolution_grows(size: Size, seed: int) -> Chain:
    """ADD broadcasts the convolution's result of one pixel over an image."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x, small = g.input(size.shape), g.input((1, 1, 1, c))
    return Chain(
        "result broadcast",
        g,
        [g.add(make.conv(g.quantize(small), c, c, (1, 1)), x)],
        [make.images(), make.images(1, 1, 1, c)],
    )


def int8_model(size: Size, seed: int) -> Chain:
    """QUANTIZE -> LceQuantize -> Bconv (int8) -> LceQuantize -> Bconv (int8) -> DEQUANTIZE."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    y = g.to_int8(g.input(size.shape), 0.125, -5)
    for scale, zero_point in ((0.5, 7), (0.25, -3)):
        y = make.conv(g.quantize(y), c, c, output="int8", scale=scale, zero_point=zero_point)
    return Chain("int8", g, [g.to_float(y)], [make.images()])


def dequantized(size: Size, seed: int) -> Chain:
    """Quantize -> Bconv (bits) -> Dequantize -> ADD -> Quantize, next to a plain Dequantize."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    x = g.input(size.shape)
    bits = g.quantize(x)
    signs = g.dequantize(make.conv(bits, c, c, output="int32"), c)
    total = g.add(signs, x)
    return Chain("dequantized", g, [g.dequantize(bits, c), g.quantize(total)], [make.images()])


def inception(size: Size, seed: int) -> Chain:
    """Branches of different kernels and strides from the same bits, several outputs."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    bits = g.quantize(g.input(size.shape))
    one = make.conv(bits, c, 16, (1, 1), padding=VALID, activation="RELU")
    two = make.conv(make.conv(bits, c, 40, (1, 3), output="int32"), 40, 16, (3, 1))
    three = make.conv(g.pool(bits, (3, 3), (1, 1), SAME), c, 16, (1, 1))
    return Chain("inception", g, [g.add(g.add(one, two), three), bits], [make.images()])


def runtime_between(size: Size, seed: int) -> Chain:
    """An operator that stays with the runtime (DEQUANTIZE of int8) cuts the graph in two."""
    make = Maker(size, seed)
    g, c = make.graph, size.channels
    y = make.conv(g.quantize(g.input(size.shape)), c, c, output="int8", scale=0.5, zero_point=1)
    return Chain(
        "runtime between", g, [make.conv(g.quantize(g.to_float(y)), c, c)], [make.images()]
    )


BUILDERS: list[Callable[[Size, int], Chain]] = [
    bit_packed_between,
    pooled,
    shared_quantize,
    bi_real,
    bi_real_prelu_first,
    bi_real_prelu_last,
    two_prelus,
    reactnet,
    shifts,
    thresholds,
    rounded,
    shared_slope,
    relus,
    add_activations,
    used_twice,
    add_to_itself,
    sum_of_two,
    broadcast_adds,
    narrow_convolution_grows,
    int8_model,
    dequantized,
    inception,
    runtime_between,
]

SIZES = [
    Size(),
    Size(batch=2, height=9, width=7, channels=64),
    Size(height=1, width=1, channels=32),
    Size(height=5, width=12, channels=20),
    Size(batch=3, height=4, width=4, channels=100),
    Size(height=14, width=14, channels=128),
]


def all_chains() -> list[Chain]:
    return [builder(size, seed=index) for builder in BUILDERS for index, size in enumerate(SIZES)]
