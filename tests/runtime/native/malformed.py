"""Models with something wrong in them: damaged options, shapes and types that do not fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from flatbuffers import flexbuffers
from lce_models import ABSENT, SAME, Graph, conv_options, options, pool_options, words
from tensorflow.lite.python import schema_py_generated as schema

# ANY: may run or be refused, but must not crash.
REFUSED, ANY, RUNS = "refused", "any", "runs"

ADD, CAST, NEG = 0, 53, 59  # builtin operators

HUGE = [2**31 - 1, 2**31, 2**32 + 1, 2**63 - 1, -(2**31), -(2**63)]


@dataclass(frozen=True)
class Malformed:
    name: str
    model: bytes
    wanted: str = REFUSED


def conv_model(
    raw: bytes | None = None,
    changes: dict[str, object] | None = None,
    *,
    input_shape=(1, 4, 5, 2),
    input_type="int32",
    filter_shape=(16, 3, 3, 2),
    filter_type="int32",
    lengths=((16,), (16,)),
    transform_type="float32",
    thresholds: tuple | None = None,
    threshold_type="int32",
    output_type="float32",
    output_shape=(1, 4, 5, 16),
    channels_in=48,
    variable: tuple[int, ...] = (),
    edit: Callable[[list[int]], list[int]] = list,
    outputs=1,
    **quantization,
) -> bytes:
    """A convolution 3x3 of 48 channels that works, but for what the arguments change.

    `variable` names operands that are inputs of the graph instead of constants; `edit` changes
    the list of operands.
    """
    graph = Graph()

    def operand(position: int, shape, dtype: str) -> int:
        if position in variable:
            return graph.input(shape, dtype)
        return graph.constant(np.ones(shape, dtype))

    x = graph.input(input_shape, input_type)
    multiplier, bias = lengths
    operands = [
        x,
        operand(1, filter_shape, filter_type),
        ABSENT if multiplier is None else operand(2, multiplier, transform_type),
        ABSENT if bias is None else operand(3, bias, transform_type),
        ABSENT if thresholds is None else operand(4, thresholds, threshold_type),
    ]
    results = [graph.tensor(output_shape, output_type, **quantization) for _ in range(outputs)]
    if raw is None:
        values = conv_options((1, 1), (1, 1), SAME, 1, channels_in, "NONE")
        raw = options({**values, **(changes or {})})
    graph.custom("LceBconv2d", edit(operands), results, raw)
    return graph.build(results)


def pool_model(
    raw: bytes | None = None,
    changes: dict[str, object] | None = None,
    *,
    input_shape=(1, 6, 6, 2),
    dtype="int32",
    output_type="int32",
    inputs: int = 1,
) -> bytes:
    graph = Graph()
    x = graph.input(input_shape, dtype)
    y = graph.tensor((1, 3, 3, 2), output_type)
    if raw is None:
        raw = options({**pool_options((2, 2), (2, 2), SAME), **(changes or {})})
    graph.custom("LceBMaxPool2d", [x] * inputs, [y], raw)
    return graph.build([y])


def one_op(name: str, input_shape, input_type, output_shape, output_type, **how) -> bytes:
    graph = Graph()
    x = graph.input(input_shape, input_type)
    quantization = how.get("quantization", {})
    results = [
        graph.tensor(output_shape, output_type, **quantization)
        for _ in range(how.get("outputs", 1))
    ]
    graph.custom(name, [x] * how.get("inputs", 1), results, how.get("raw"))
    return graph.build(results or [x])


def _valid_options() -> Iterator[tuple[str, Callable[..., bytes], dict[str, object]]]:
    yield "conv", conv_model, conv_options((1, 1), (1, 1), SAME, 1, 48, "NONE")
    yield "pool", pool_model, pool_options((2, 2), (2, 2), SAME)


def _other_roots() -> Iterator[tuple[str, bytes]]:
    """FlexBuffers that hold something else than a map."""
    for value in (7, 1.5, "text", [1, 2, 3], None, True):
        builder = flexbuffers.Builder()
        builder.Add(value)
        yield repr(value), bytes(builder.Finish())


def damaged_options() -> Iterator[Malformed]:
    for op, model, valid in _valid_options():
        whole = options(valid)
        for length in range(len(whole)):
            yield Malformed(f"{op}: the first {length} bytes of the options", model(whole[:length]))
        for length in range(len(whole)):
            name = f"{op}: the last {length} bytes of the options"
            yield Malformed(name, model(whole[len(whole) - length :]), ANY)
        for name, raw in _other_roots():
            yield Malformed(f"{op}: options are {name}", model(raw))
        for length in (1, 2, 3, 4, 5, 8, 16):
            for byte in (0x00, 0x01, 0x24, 0x27, 0xFF):
                name = f"{op}: options are {length} times {byte:#x}"
                yield Malformed(name, model(bytes([byte]) * length))


def wrong_values() -> Iterator[Malformed]:
    for op, model, valid in _valid_options():
        for key in valid:
            fewer = {k: v for k, v in valid.items() if k != key}
            yield Malformed(f"{op}: no {key}", model(options(fewer)))
            for value in ("3", [1, 2], None, {"a": 1}, b"\x01"):
                yield Malformed(f"{op}: {key} is {value!r}", model(changes={key: value}))
            for value in (1.0, 1.5, True, float("nan")):
                yield Malformed(f"{op}: {key} is {value!r}", model(changes={key: value}), ANY)
            small = {"padding": [2, 3, 5], "pad_values": [2], "fused_activation_function": [4, 5]}
            at_least_one = [] if key in small else [0]
            for value in (*at_least_one, *small.get(key, []), -1, -2, -(2**31), -(2**63)):
                yield Malformed(f"{op}: {key} is {value}", model(changes={key: value}))
            for value in HUGE:
                # A huge stride or window is a legal way to say "one output" with padding.
                legal = key not in (*small, "channels_in") and value > 0
                name = f"{op}: {key} is {value}"
                yield Malformed(name, model(changes={key: value}), ANY if legal else REFUSED)
    for channels, wanted in ((32, REFUSED), (33, RUNS), (64, RUNS), (65, REFUSED), (128, REFUSED)):
        yield Malformed(f"conv: {channels} channels in 2 words", conv_model(channels_in=channels),
                        wanted)  # fmt: skip
    for both in (2**16, 2**30, 2**31 - 1):
        names = ("dilation_height_factor", "dilation_width_factor")
        changes = dict.fromkeys(names, both)
        yield Malformed(f"conv: dilations of {both}", conv_model(changes=changes), ANY)
        changes.update(stride_height=both, stride_width=both)
        yield Malformed(f"conv: strides, dilations of {both}", conv_model(changes=changes), ANY)
        changes.update(padding=1)
        yield Malformed(f"conv: valid, all of {both}", conv_model(changes=changes), ANY)
        window = dict.fromkeys(("filter_height", "filter_width"), both)
        yield Malformed(f"pool: windows of {both}", pool_model(changes=window), ANY)
        window.update(padding=1)
        yield Malformed(f"pool: valid, windows of {both}", pool_model(changes=window), ANY)


def wrong_conv_tensors() -> Iterator[Malformed]:
    bits = {"lengths": (None, None), "output_type": "int32", "output_shape": (1, 4, 5, 1)}
    variants: list[tuple[str, str, dict]] = [
        ("works as it is", RUNS, {}),
        ("input of rank 3", REFUSED, {"input_shape": (4, 5, 2)}),
        ("input of rank 5", REFUSED, {"input_shape": (1, 1, 4, 5, 2)}),
        ("input of rank 0", REFUSED, {"input_shape": ()}),
        ("input of 3 words", REFUSED, {"input_shape": (1, 4, 5, 3)}),
        ("input of 1 word", REFUSED, {"input_shape": (1, 4, 5, 1)}),
        ("empty batch", ANY, {"input_shape": (0, 4, 5, 2)}),
        ("empty rows", ANY, {"input_shape": (1, 0, 5, 2)}),
        ("empty columns", ANY, {"input_shape": (1, 4, 0, 2)}),
        ("no words", REFUSED, {"input_shape": (1, 4, 5, 0)}),
        ("filter of rank 3", REFUSED, {"filter_shape": (16, 3, 2)}),
        ("filter of rank 5", REFUSED, {"filter_shape": (16, 3, 3, 2, 1)}),
        ("filter of 3 words", REFUSED, {"filter_shape": (16, 3, 3, 3)}),
        ("filter without words", REFUSED, {"filter_shape": (16, 3, 3, 0)}),
        ("filter without rows", REFUSED, {"filter_shape": (16, 0, 3, 2)}),
        ("filter without channels", REFUSED,
         {"filter_shape": (0, 3, 3, 2), "lengths": ((0,), (0,))}),
        ("group of 24 channels", REFUSED, {"filter_shape": (16, 3, 3, 1)}),
        ("odd channels in two groups", REFUSED,
         {"filter_shape": (15, 3, 3, 1), "lengths": ((15,), (15,)), "channels_in": 64}),
        ("huge channels", REFUSED, {"channels_in": 2**31 - 1}),
        ("channels of another word count", REFUSED,
         {"input_shape": (1, 4, 5, 4), "filter_shape": (16, 3, 3, 4)}),
        ("multiplier too short", REFUSED, {"lengths": ((15,), (16,))}),
        ("multiplier too long", REFUSED, {"lengths": ((17,), (16,))}),
        ("multiplier of one", REFUSED, {"lengths": ((1,), (16,))}),
        ("multiplier empty", REFUSED, {"lengths": ((0,), (16,))}),
        ("multiplier of rank 2", REFUSED, {"lengths": ((1, 16), (16,))}),
        ("multiplier of rank 0", REFUSED, {"lengths": ((), (16,))}),
        ("bias too short", REFUSED, {"lengths": ((16,), (8,))}),
        ("bias of rank 2", REFUSED, {"lengths": ((16,), (16, 1))}),
        ("no multiplier", REFUSED, {"lengths": (None, (16,))}),
        ("no bias", REFUSED, {"lengths": ((16,), None)}),
        ("float input", REFUSED, {"input_type": "float32"}),
        ("int8 input", REFUSED, {"input_type": "int8"}),
        ("float filter", REFUSED, {"filter_type": "float32"}),
        ("int8 filter", REFUSED, {"filter_type": "int8"}),
        ("integer multiplier", REFUSED, {"transform_type": "int32"}),
        ("filter is no constant", ANY, {"variable": (1,)}),
        ("multiplier is no constant", ANY, {"variable": (2,)}),
        ("bias is no constant", ANY, {"variable": (3,)}),
        ("no input", REFUSED, {"edit": lambda o: [ABSENT, *o[1:]]}),
        ("no filter", REFUSED, {"edit": lambda o: [o[0], ABSENT, *o[2:]]}),
        ("no operands", REFUSED, {"edit": lambda o: []}),
        ("one operand", REFUSED, {"edit": lambda o: o[:1]}),
        ("four operands", REFUSED, {"edit": lambda o: o[:4]}),
        ("six operands", REFUSED, {"edit": lambda o: [*o, ABSENT]}),
        ("operand out of range", REFUSED, {"edit": lambda o: [o[0], 99, *o[2:]]}),
        ("operand of -2", REFUSED, {"edit": lambda o: [o[0], -2, *o[2:]]}),
        ("input is its own filter", REFUSED, {"edit": lambda o: [o[0], o[0], *o[2:]]}),
        ("no outputs", ANY, {"outputs": 0}),
        ("two outputs", REFUSED, {"outputs": 2}),
        ("output of int64", REFUSED, {"output_type": "int64"}),
        ("output of bool", REFUSED, {"output_type": "bool"}),
        ("output of uint8", REFUSED, {"output_type": "uint8"}),
        ("output of int8 without scale", REFUSED, {"output_type": "int8"}),
        ("output of another shape", ANY, {"output_shape": (2, 2, 2, 2)}),
        ("output of another rank", ANY, {"output_shape": (7,)}),
        ("output of rank 0", ANY, {"output_shape": ()}),
        ("bits without thresholds", REFUSED, bits),
        ("thresholds too short", REFUSED, {**bits, "thresholds": (15,)}),
        ("thresholds too long", REFUSED, {**bits, "thresholds": (32,)}),
        ("thresholds of rank 2", REFUSED, {**bits, "thresholds": (1, 16)}),
        ("thresholds of rank 0", REFUSED, {**bits, "thresholds": ()}),
        ("float thresholds", REFUSED,
         {**bits, "thresholds": (16,), "threshold_type": "float32"}),
        ("thresholds are no constant", ANY, {**bits, "thresholds": (16,), "variable": (4,)}),
        ("thresholds and multiplier", ANY, {"thresholds": (16,)}),
    ]  # fmt: skip
    for scale in (0.0, -1.0, float("nan"), float("inf"), 1e-45, 1e38):
        quantization = {"output_type": "int8", "scale": scale, "zero_point": 3}
        variants.append((f"int8 scale {scale}", ANY, quantization))
    for zero_point in (-129, 128, 2**31 - 1, 2**40):
        quantization = {"output_type": "int8", "scale": 0.5, "zero_point": zero_point}
        variants.append((f"int8 zero point {zero_point}", ANY, quantization))
    for name, wanted, arguments in variants:
        yield Malformed(f"conv: {name}", conv_model(**arguments), wanted)
    for name, size in (("taller", (5, 1)), ("wider", (1, 6))):
        filter_shape = (16, *size, 2)
        model = conv_model(changes={"padding": 1}, filter_shape=filter_shape)
        yield Malformed(f"conv: window {name} than the image", model, ANY)


def wrong_other_tensors() -> Iterator[Malformed]:
    pools: list[tuple[str, str, dict]] = [
        ("works as it is", RUNS, {}),
        ("input of rank 3", REFUSED, {"input_shape": (6, 6, 2)}),
        ("input of rank 0", REFUSED, {"input_shape": ()}),
        ("float input", REFUSED, {"dtype": "float32"}),
        ("float output", REFUSED, {"output_type": "float32"}),
        ("no input", REFUSED, {"inputs": 0}),
        ("two inputs", REFUSED, {"inputs": 2}),
        ("empty batch", ANY, {"input_shape": (0, 6, 6, 2)}),
        ("empty rows", ANY, {"input_shape": (1, 0, 6, 2)}),
        ("window larger than the image", ANY,
         {"changes": {"filter_height": 9, "filter_width": 9, "padding": 1}}),
    ]  # fmt: skip
    for name, wanted, arguments in pools:
        yield Malformed(f"pool: {name}", pool_model(**arguments), wanted)

    image, bits, q, d = (1, 2, 3, 40), (1, 2, 3, 2), "LceQuantize", "LceDequantize"
    scale = {"quantization": {"scale": 0.5, "zero_point": 0}}
    for name, wanted, op, *rest in [
        ("works as it is", RUNS, q, image, "float32", bits, "int32", {}),
        ("with options", ANY, q, image, "float32", bits, "int32", {"raw": b"\xff" * 9}),
        ("float output", REFUSED, q, image, "float32", bits, "float32", {}),
        ("int32 input", REFUSED, q, image, "int32", bits, "int32", {}),
        ("int64 input", REFUSED, q, image, "int64", bits, "int32", {}),
        ("uint8 input", REFUSED, q, image, "uint8", bits, "int32", {}),
        ("rank 0", REFUSED, q, (), "float32", (), "int32", {}),
        ("another rank", ANY, q, image, "float32", (6, 2), "int32", {}),
        ("no channels", ANY, q, (1, 2, 3, 0), "float32", (1, 2, 3, 0), "int32", {}),
        ("empty", ANY, q, (0, 2, 3, 40), "float32", (0, 2, 3, 2), "int32", {}),
        ("another shape", ANY, q, image, "float32", (4, 4, 4, 4), "int32", {}),
        ("no input", REFUSED, q, image, "float32", bits, "int32", {"inputs": 0}),
        ("two inputs", REFUSED, q, image, "float32", bits, "int32", {"inputs": 2}),
        ("no output", ANY, q, image, "float32", bits, "int32", {"outputs": 0}),
        ("two outputs", REFUSED, q, image, "float32", bits, "int32", {"outputs": 2}),
        ("works as it is", RUNS, d, bits, "int32", image, "float32", {}),
        ("float input", REFUSED, d, bits, "float32", image, "float32", {}),
        ("int8 input", REFUSED, d, bits, "int8", image, "float32", {}),
        ("int32 output", REFUSED, d, bits, "int32", image, "int32", {}),
        ("uint8 output", REFUSED, d, bits, "int32", image, "uint8", {}),
        ("int8 without scale", ANY, d, bits, "int32", image, "int8", {}),
        ("another rank", REFUSED, d, bits, "int32", (6, 40), "float32", {}),
        ("too many channels", REFUSED, d, bits, "int32", (1, 2, 3, 65), "float32", {}),
        ("too few channels", REFUSED, d, bits, "int32", (1, 2, 3, 32), "float32", {}),
        ("no channels", REFUSED, d, bits, "int32", (1, 2, 3, 0), "float32", {}),
        ("more rows", ANY, d, bits, "int32", (1, 4, 3, 40), "float32", {}),
        ("rank 0", REFUSED, d, (), "int32", (), "float32", {}),
        ("no input", REFUSED, d, bits, "int32", image, "float32", {"inputs": 0}),
        ("two outputs", REFUSED, d, bits, "int32", image, "float32", {"outputs": 2}),
        ("int8", ANY, d, bits, "int32", image, "int8", scale),
        ("unknown operator", REFUSED, "LceUnknown", image, "float32", bits, "int32", {}),
        ("operator Lce", REFUSED, "Lce", image, "float32", bits, "int32", {}),
        ("operator LceBconv2d3", REFUSED, "LceBconv2d3", image, "float32", bits, "int32", {}),
        ("foreign operator", REFUSED, "Foreign", image, "float32", bits, "int32", {}),
    ]:
        yield Malformed(f"{op}: {name}", one_op(op, *rest[:-1], **rest[-1]), wanted)


def constant_outputs() -> Iterator[Malformed]:
    """Outputs whose memory is that of the file."""
    for op, shape, dtype in (("LceQuantize", (1, 2, 3, 2), "int32"),):
        graph = Graph()
        x = graph.input((1, 2, 3, 40), "float32")
        y = graph.constant(np.zeros(shape, dtype))
        graph.custom(op, [x], [y], None)
        yield Malformed(f"{op}: its output is a constant", graph.build([y]))


def wrong_neighbours() -> Iterator[Malformed]:
    """Operators of the runtime that the delegate may take, with something wrong."""
    for slopes, wanted in [((1, 1, 33), REFUSED), ((1, 1, 32), ANY), ((0,), ANY), ((), ANY),
                           ((3, 1, 32), REFUSED), ((2, 1, 1, 1, 32), ANY)]:  # fmt: skip
        graph, y = _after_conv()
        y = graph.prelu(y, np.ones(slopes, np.float32))
        yield Malformed(f"prelu: slopes {slopes}", graph.build([y]), wanted)
    for other, wanted in [((1, 4, 5, 31), REFUSED), ((2, 4, 5), REFUSED), ((1, 4, 6, 32), REFUSED),
                          ((3, 7), REFUSED), ((33,), REFUSED), ((1, 1, 1, 31), REFUSED),
                          ((0,), ANY), ((), ANY), ((1, 1, 1, 1, 32), ANY)]:  # fmt: skip
        for code in (0, 41):
            graph, y = _after_conv()
            z = graph.tensor((1, 4, 5, 32))
            graph.builtin(code, [y, graph.constant(np.ones(other, np.float32))], [z])
            yield Malformed(f"builtin {code}: {other}", graph.build([z]), wanted)
    for name, dtype in (("int32", "int32"), ("int64", "int64")):
        graph, y = _after_conv()
        z = graph.tensor((1, 4, 5, 32))
        graph.builtin(0, [y, graph.constant(np.ones((1, 4, 5, 32), dtype))], [z])
        yield Malformed(f"add: {name}", graph.build([z]))
    for code in (0, 19, 41, 54):
        for count in (0, 1, 2, 3):
            graph, y = _after_conv()
            z = graph.tensor((1, 4, 5, 32))
            graph.builtin(code, [y] * count, [z])
            yield Malformed(f"builtin {code} with {count} inputs", graph.build([z]), ANY)
        graph, y = _after_conv()
        z = graph.tensor((1, 4, 5, 32), "int8", scale=1.0)
        graph.builtin(code, [y, y][: 1 if code == 19 else 2], [z])
        # The runtime itself makes most of these outputs float.
        yield Malformed(f"builtin {code} with an int8 output", graph.build([z]), ANY)


def shared_outputs() -> Iterator[Malformed]:
    """Two operators that write one tensor, the first one much more than the second."""
    for inner in (False, True):
        graph = Graph()
        large, small = graph.input((1, 64, 64, 256)), graph.input((1, 1, 1, 32))
        bits = graph.quantize(large)
        graph.quantize(small)
        graph.operators[-1].outputs = [bits]
        outputs = [graph.dequantize(bits, 32)] if inner else [bits]
        yield Malformed(f"two operators write one tensor, {inner=}", graph.build(outputs))

    graph = Graph()
    packed, small = graph.input((1, 64, 64, 8), "int32"), graph.input((1, 1, 1, 32))
    outputs = [graph.dequantize(packed, 256)]
    graph.quantize(small)
    graph.operators[-1].outputs = [packed]
    yield Malformed("an input is overwritten after it was read", graph.build(outputs))

    for bits, small in [((1, 64, 64, 8), (1, 1, 1, 1)), ((1, 64, 64, 8), (1, 64, 64, 1))]:
        graph = Graph()
        large, other = graph.input((1, 64, 64, 256)), graph.input(small, "int32")
        packed, copy = graph.quantize(large), graph.tensor(bits, "float32")
        graph.builtin(CAST, [packed], [copy])
        graph.builtin(NEG, [other], [packed])
        yield Malformed(f"the runtime makes an output smaller: {small}", graph.build([copy]))

    graph = Graph()
    large = graph.input((1, 64, 64, 256))
    packed, copy = graph.quantize(large), graph.tensor((1, 64, 64, 8), "float32")
    graph.builtin(CAST, [packed], [copy])
    graph.quantize(copy)
    graph.operators[-1].outputs = [packed]
    numbers = graph.tensor((1, 64, 64, 1), "float32")
    graph.builtin(CAST, [packed], [numbers])
    yield Malformed("two partitions write one tensor", graph.build([copy, numbers]), ANY)

    graph = Graph()
    bits = graph.quantize(graph.input((1, 4, 4, 32)))
    first = graph.dequantize(bits, 32)
    later = graph.quantize(first)
    last = graph.dequantize(later, 32)
    for name, tensor in (("itself", bits), ("a later one", later)):
        graph.operators[1].inputs = [tensor]
        graph.operators[1].outputs = [bits if name == "itself" else first]
        yield Malformed(f"an operator reads what {name} writes", graph.build([last]))

    graph = Graph()
    x, y = graph.input((1, 4, 4, 32)), graph.input((1, 4, 4, 32))
    numbers = graph.dequantize(graph.quantize(x), 32)
    graph.add(numbers, y)
    graph.operators[-1].outputs = [ABSENT]
    yield Malformed("a sum without an output", graph.build([numbers]), ANY)


def changed_inputs() -> Iterator[Malformed]:
    """Inputs of which the file says more than there is."""
    graph = Graph()
    x, y = (graph.input((1, 64, 64, 64), "int8", scale=1.0) for _ in range(2))
    total = graph.tensor((1, 64, 64, 64), "float32", scale=1.0)
    graph.builtin(ADD, [x, y], [total])
    bits = graph.quantize(total)
    yield Malformed("the runtime makes bytes of an input", graph.build([bits]))

    graph = Graph()
    sparse = graph.constant(np.zeros(1, np.float32))
    shape = [1, 256, 512, 64]
    graph.tensors[sparse].shape = shape
    graph.tensors[sparse].sparsity = schema.SparsityParametersT()
    graph.tensors[sparse].sparsity.traversalOrder = list(range(4))
    graph.tensors[sparse].sparsity.dimMetadata = []
    for size in shape:
        dimension = schema.DimensionMetadataT()
        dimension.denseSize = size
        graph.tensors[sparse].sparsity.dimMetadata.append(dimension)
    bits = graph.quantize(sparse)
    yield Malformed("a sparse constant", graph.build([bits]))


def _after_conv() -> tuple[Graph, int]:
    graph = Graph()
    ones = np.ones(32, np.float32)
    x = graph.input((1, 4, 5, words(32)), "int32")
    filters = np.zeros((32, 3, 3, 1), np.int32)
    return graph, graph.bconv(x, filters, channels_in=32, multiplier=ones, bias=ones)


def flipped_bytes(count: int, seed: int = 0) -> Iterator[Malformed]:
    """The region of the options in a finished file, with a few bytes changed."""
    rng = random.Random(seed)
    for index in range(count):
        op, model, valid = rng.choice(list(_valid_options()))
        file, raw = bytearray(model()), options(valid)
        start = file.index(raw)
        positions = range(start, start + len(raw))
        if rng.random() < 0.5:  # values and types lie behind the keys
            positions = positions[-len(valid) * 3 - 8 :]
        for position in rng.sample(positions, rng.choice([1, 1, 2, 3, 8])):
            file[position] = rng.choice(
                [rng.randrange(256), file[position] ^ 1 << rng.randrange(8)]
            )
        yield Malformed(f"{op}: flipped bytes {index}", bytes(file), ANY)


def all_malformed() -> list[Malformed]:
    return [
        *damaged_options(),
        *wrong_values(),
        *wrong_conv_tensors(),
        *wrong_other_tensors(),
        *constant_outputs(),
        *wrong_neighbours(),
        *shared_outputs(),
        *changed_inputs(),
        *flipped_bytes(300),
    ]
