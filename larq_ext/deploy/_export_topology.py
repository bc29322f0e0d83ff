"""Writes a converted network down in the few plain operators of docs/export_bits.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from larq_ext.deploy._flatbuffer import Op, Tensor, read_graph, unpack_filter
from larq_ext.deploy._flatbuffer_options import read_details
from larq_ext.deploy.errors import DeploymentError

FORMAT, VERSION = "larq-ext bits", 1

# TensorFlow Lite's numbers.
_SAME = 0
_BOUNDS: dict[int, dict[str, float]] = {
    0: {},
    1: {"minimum": 0.0},
    2: {"minimum": -1.0, "maximum": 1.0},
    3: {"minimum": 0.0, "maximum": 6.0},
}

# Operators that are a function of NumPy, and what their constant operand is called.
_NUMPY_FUNCTIONS = {
    "ADD": ("add", "addend"),
    "SUB": ("subtract", "operand"),
    "MUL": ("multiply", "factor"),
    "DIV": ("divide", "operand"),
    "MINIMUM": ("minimum", "bound"),
    "MAXIMUM": ("maximum", "bound"),
    "NEG": ("negative", "operand"),
    "ABS": ("absolute", "operand"),
    "EXP": ("exp", "operand"),
    "SQRT": ("sqrt", "operand"),
    "SQUARE": ("square", "operand"),
    "TANH": ("tanh", "operand"),
    "SIGN": ("sign", "operand"),
}
_CLIPS = {
    "RELU": _BOUNDS[1],
    "RELU_N1_TO_1": _BOUNDS[2],
    "RELU6": _BOUNDS[3],
    "RELU_0_TO_1": {"minimum": 0.0, "maximum": 1.0},
}
_WRITERS: dict[str, Callable[[_Network, Op], None]] = {}


def describe(
    flatbuffer: bytes,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Describes a converted network as operators on named arrays.

    # Arguments
        flatbuffer: the serialized TensorFlow Lite model.
        input_names: names for its inputs; by default those in its signature.
        output_names: names for its outputs; by default those in its signature.

    # Returns
        The topology, of plain values for JSON, and the arrays that it names.

    # Raises
        DeploymentError: if the network has an operator or a type of tensor that the format does
            not know.
        ValueError: if the content is damaged.
    """
    network = _Network(flatbuffer, input_names, output_names)
    for op in network.graph.ops:
        if op.name not in _WRITERS:
            raise DeploymentError(
                f"Operator {op.index} of the file is {op.name}, which the format of bits does not "
                f"know. It knows {', '.join(sorted(_WRITERS))}."
            )
        _WRITERS[op.name](network, op)
    return network.topology(), network.arrays


class _Network:
    """A network while it is written down."""

    def __init__(self, flatbuffer: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.graph = read_graph(flatbuffer)
        self.details = read_details(flatbuffer)
        self.arrays: dict[str, np.ndarray] = {}
        self.tensors: dict[str, dict[str, Any]] = {}
        self._ops: list[dict[str, Any]] = []
        self._names: dict[int, str] = {}
        self._batch = self.tensor(self.graph.inputs[0]).shape[0]
        self._given = self._ends(self.graph.outputs, outputs)
        for index, name in self._ends(self.graph.inputs, inputs).items():
            self._declare(index, name)

    def _ends(self, indices: Sequence[int], names: Sequence[str]) -> dict[int, str]:
        if names:
            return dict(zip(indices, names, strict=True))
        return {index: self.details.names.get(index, f"tensor_{index}") for index in indices}

    def topology(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "inputs": [self._names[index] for index in self.graph.inputs],
            "outputs": [self._names[index] for index in self.graph.outputs],
            "ops": self._ops,
            "tensors": self.tensors,
        }

    def tensor(self, index: int) -> Tensor:
        return self.graph.tensors[index]

    def option(self, op: Op, name: str) -> Any:
        return self.details.options[op.index][name]

    def constant(self, op: Op, position: int) -> np.ndarray:
        """The value of an input that has to be known now."""
        data = self.tensor(op.inputs[position]).data
        if data is None:
            raise DeploymentError(
                f"Operator {op.index} of the file ({op.name}) computes its input {position} while "
                "it runs; the format of bits takes a constant there."
            )
        return data

    def start(self, op: Op, channels: int | None = None, position: int = 0) -> str:
        """Names an output of an operator; `channels` tells how many a tensor of bits has."""
        index = op.outputs[position]
        return self._declare(index, self._given.get(index), channels)

    def values(self, op: Op, output: str, *roles: str) -> list[str]:
        """The names of the first inputs; constants are stored as those of `output`.

        # Arguments
            op: the operator.
            output: the name of its output.
            *roles: what each input is; with an empty one, the input is left out.

        # Returns
            The names of the inputs that are there.
        """
        names = []
        for index, role in zip(op.inputs, roles, strict=False):
            if index < 0 or not role:
                continue
            data = self.tensor(index).data
            if index not in self._names and data is not None:
                self.check_type(index)
                self._names[index] = self.add_array(f"{output}.{role}", data)
            names.append(self._names[index])
        return names

    def add_array(self, name: str, data: np.ndarray) -> str:
        self.arrays[name] = np.ascontiguousarray(data)
        return name

    def add(self, name: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._ops.append(
            {"op": name, "inputs": list(inputs), "output": output, "attributes": attributes}
        )

    def add_clipped(
        self, name: str, inputs: Sequence[str], output: str, activation: int, **attributes: Any
    ) -> None:
        """Adds an operator with an activation behind it, which becomes an operator of its own."""
        if activation not in _BOUNDS:
            raise DeploymentError(
                f"The operator {name} of {output} has the fused activation {activation}; the "
                f"format of bits knows {', '.join(map(str, _BOUNDS))} (TensorFlow Lite's numbers)."
            )
        bounds = _BOUNDS[activation]
        before = self.derived(output, "unclipped") if bounds else output
        self.add(name, inputs, before, **attributes)
        if bounds:
            self.add("clip", [before], output, **bounds)

    def derived(self, output: str, suffix: str, shape: Sequence[int] | None = None) -> str:
        """Names a tensor between two operators that are one in the file."""
        name = self._unused(f"{output}.{suffix}")
        known = self.tensors[output]
        self.tensors[name] = {**known, "shape": known["shape"] if shape is None else [*shape]}
        return name

    def _declare(self, index: int, name: str | None, channels: int | None = None) -> str:
        tensor = self.tensor(index)
        self.check_type(index, bits=channels is not None)
        if not tensor.shape or tensor.shape[0] != self._batch:
            raise DeploymentError(
                f"The tensor {tensor.name!r} has the shape {tensor.shape}; the format of bits "
                f"knows only operators that keep the samples apart (here {self._batch})."
            )
        shape = list(tensor.shape[1:])
        if channels is not None:
            shape[-1] = channels
        if name is None or name in self.tensors:
            name = self._unused(name or _layer(tensor.name))
        self._names[index] = name
        kind = "float32" if channels is None else "bits"
        self.tensors[name] = {"type": kind, "shape": shape}
        return name

    def check_type(self, index: int, bits: bool = False) -> None:
        tensor = self.tensor(index)
        if tensor.dtype != ("INT32" if bits else "FLOAT32"):
            raise DeploymentError(
                f"The tensor {tensor.name!r} is of the type {tensor.dtype}; the format of bits "
                "knows FLOAT32 and the bits of Larq Compute Engine."
            )

    def _unused(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self.tensors or candidate in self._given.values():
            count += 1
            candidate = f"{name}_{count}"
        return candidate


def _layer(name: str) -> str:
    """The layer that a tensor comes from, as far as its name in the file tells."""
    parts = name.split(";")[0].split("/")
    return re.sub(r"[^\w-]+", "_", parts[1] if len(parts) > 1 else parts[0])


def _writer(*names: str) -> Callable[[Callable[[_Network, Op], None]], Any]:
    def register(function: Callable[[_Network, Op], None]) -> Any:
        _WRITERS.update(dict.fromkeys(names, function))
        return function

    return register


# Bits


@_writer("LceQuantize")
def _pack_signs(network: _Network, op: Op) -> None:
    output = network.start(op, channels=network.tensor(op.inputs[0]).shape[-1])
    network.add("pack_signs", network.values(op, output, "operand"), output)


@_writer("LceDequantize")
def _unpack_signs(network: _Network, op: Op) -> None:
    output = network.start(op)
    channels = network.tensor(op.outputs[0]).shape[-1]
    network.add("unpack_signs", network.values(op, output, "bits"), output, channels=channels)


@_writer("LceBMaxPool2d")
def _max_pool_bits(network: _Network, op: Op) -> None:
    options = op.options
    inputs = network.values(op, "", "bits")
    output = network.start(op, channels=network.tensors[inputs[0]]["shape"][-1])
    size = options["filter_height"], options["filter_width"]
    strides = options["stride_height"], options["stride_width"]
    window = _window(network, op, size, strides, same=options["padding"] == _SAME)
    network.add("max_pool_bits", inputs, output, size=size, **window)


@_writer("LceBconv2d")
def _binary_conv2d(network: _Network, op: Op) -> None:
    options = op.options
    words = network.constant(op, 1)
    groups = network.tensor(op.inputs[0]).shape[-1] // words.shape[-1]
    channels = options["channels_in"] // groups
    has_thresholds = len(op.inputs) > 4 and op.inputs[4] >= 0
    output = network.start(op, channels=len(words) if has_thresholds else None)
    signs = np.packbits(unpack_filter(words, channels), axis=-1, bitorder="little")
    bits = network.add_array(f"{output}.bits", signs)
    source, *transform = network.values(op, output, "bits", "", "multiplier", "bias")
    strides = options["stride_height"], options["stride_width"]
    dilations = options["dilation_height_factor"], options["dilation_width_factor"]
    attributes = {
        "channels": channels,
        "groups": groups,
        "padding_value": options["pad_values"],
        "dilations": dilations,
        **_window(
            network,
            op,
            words.shape[1:3],
            strides,
            dilations=dilations,
            same=options["padding"] == _SAME,
        ),
    }
    if has_thresholds:
        thresholds = network.add_array(f"{output}.thresholds", network.constant(op, 4))
        network.add("binary_conv2d_to_bits", [source, bits, thresholds], output, **attributes)
    else:
        attributes.update(_BOUNDS[options["fused_activation_function"]])
        network.add("binary_conv2d", [source, bits, *transform], output, **attributes)


# Windows of floats


@_writer("CONV_2D", "DEPTHWISE_CONV_2D")
def _conv2d(network: _Network, op: Op) -> None:
    output = network.start(op)
    source, *bias = network.values(op, output, "operand", "", "bias")
    network.check_type(op.inputs[1])
    kernel = network.constant(op, 1)
    channels = network.tensor(op.inputs[0]).shape[-1]
    if op.name == "DEPTHWISE_CONV_2D":  # a group for each channel
        kernel = np.moveaxis(kernel, 3, 0).swapaxes(1, 3).swapaxes(1, 2)
    network.add_clipped(
        "conv2d",
        [source, network.add_array(f"{output}.kernel", kernel), *bias],
        output,
        network.option(op, "fusedActivationFunction"),
        groups=channels // kernel.shape[-1],
        **_builtin_window(network, op, kernel.shape[1:3]),
    )


@_writer("MAX_POOL_2D", "AVERAGE_POOL_2D")
def _pool(network: _Network, op: Op) -> None:
    output = network.start(op)
    size = network.option(op, "filterHeight"), network.option(op, "filterWidth")
    network.add_clipped(
        op.name.removesuffix("_2D").lower(),
        network.values(op, output, "operand"),
        output,
        network.option(op, "fusedActivationFunction"),
        size=size,
        **_builtin_window(network, op, size),
    )


def _builtin_window(network: _Network, op: Op, size: Sequence[int]) -> dict[str, Any]:
    options = network.details.options[op.index]
    strides = options["strideH"], options["strideW"]
    same = options["padding"] == _SAME
    if "dilationHFactor" not in options:
        return _window(network, op, size, strides, same=same)
    dilations = options["dilationHFactor"], options["dilationWFactor"]
    window = _window(network, op, size, strides, dilations=dilations, same=same)
    return {"dilations": dilations, **window}


def _window(
    network: _Network,
    op: Op,
    size: Sequence[int],
    strides: Sequence[int],
    *,
    dilations: Sequence[int] = (1, 1),
    same: bool,
) -> dict[str, Any]:
    """Strides and padding of a window, the padding in pixels on each side."""
    padding = []
    for axis in (0, 1):
        taken = network.tensor(op.inputs[0]).shape[axis + 1]
        given = network.tensor(op.outputs[0]).shape[axis + 1]
        reach = (given - 1) * strides[axis] + (size[axis] - 1) * dilations[axis] + 1
        missing = max(0, reach - taken) if same else 0
        padding.append((missing // 2, missing - missing // 2))
    return {"strides": strides, "padding": padding}


# Numbers


@_writer("FULLY_CONNECTED")
def _dense(network: _Network, op: Op) -> None:
    output = network.start(op)
    source, *parameters = network.values(op, output, "operand", "kernel", "bias")
    if not network.option(op, "keepNumDims"):
        source = _reshaped(network, source, [network.tensor(op.inputs[1]).shape[1]], output)
    activation = network.option(op, "fusedActivationFunction")
    network.add_clipped("dense", [source, *parameters], output, activation)


def _reshaped(network: _Network, source: str, shape: list[int], output: str) -> str:
    if network.tensors[source]["shape"] == shape:
        return source
    name = network.derived(output, "reshaped", shape)
    network.add("reshape", [source], name, shape=shape)
    return name


@_writer(*_NUMPY_FUNCTIONS)
def _numpy_function(network: _Network, op: Op) -> None:
    output = network.start(op)
    function, role = _NUMPY_FUNCTIONS[op.name]
    inputs = [
        _aligned(network, op, name, output) for name in network.values(op, output, role, role)
    ]
    activation = network.details.options[op.index].get("fusedActivationFunction", 0)
    network.add_clipped(function, inputs, output, activation)


def _aligned(network: _Network, op: Op, source: str, output: str) -> str:
    """Gives a computed operand as many axes as the result has.

    With one sample the converter leaves axes out in front; with several, the first axis of the
    operand would meet another one than that of the samples.
    """
    missing = len(network.tensors[output]["shape"])
    missing -= len(network.tensors.get(source, network.tensors[output])["shape"])
    if not missing:
        return source
    _keep_samples_apart(op, network.tensor(op.outputs[0]).shape[0] == 1)
    shape = [1] * missing + network.tensors[source]["shape"]
    return _reshaped(network, source, shape, output)


@_writer(*_CLIPS)
def _clip(network: _Network, op: Op) -> None:
    output = network.start(op)
    network.add("clip", network.values(op, output, "operand"), output, **_CLIPS[op.name])


@_writer("PRELU")
def _prelu(network: _Network, op: Op) -> None:
    output = network.start(op)
    network.add("prelu", network.values(op, output, "operand", "slopes"), output)


@_writer("LEAKY_RELU")
def _leaky_relu(network: _Network, op: Op) -> None:
    output = network.start(op)
    slope = np.array([network.option(op, "alpha")], np.float32)
    slopes = network.add_array(f"{output}.slopes", slope)
    network.add("prelu", [*network.values(op, output, "operand"), slopes], output)


@_writer("LOGISTIC")
def _sigmoid(network: _Network, op: Op) -> None:
    output = network.start(op)
    network.add("sigmoid", network.values(op, output, "operand"), output)


@_writer("SOFTMAX")
def _softmax(network: _Network, op: Op) -> None:
    output = network.start(op)
    inputs = network.values(op, output, "operand")
    network.add("softmax", inputs, output, beta=network.option(op, "beta"))


@_writer("MEAN", "SUM", "REDUCE_MAX")
def _reduce(network: _Network, op: Op) -> None:
    rank = len(network.tensor(op.inputs[0]).shape)
    axes = sorted(int(axis) % rank for axis in network.constant(op, 1).ravel())
    _keep_samples_apart(op, 0 not in axes)
    output = network.start(op)
    network.add(
        "reduce",
        network.values(op, output, "operand"),
        output,
        function=op.name.removeprefix("REDUCE_").lower(),
        axes=axes,
        keep=bool(network.option(op, "keepDims")),
    )


# Shapes


@_writer("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def _reshape(network: _Network, op: Op) -> None:
    output = network.start(op)
    shape = network.tensors[output]["shape"]
    network.add("reshape", network.values(op, output, "operand"), output, shape=shape)


@_writer("PAD", "PADV2")
def _pad(network: _Network, op: Op) -> None:
    padding = network.constant(op, 1).tolist()
    _keep_samples_apart(op, padding[0] == [0, 0])
    output = network.start(op)
    value = float(network.constant(op, 2).item()) if op.name == "PADV2" else 0.0
    inputs = network.values(op, output, "operand")
    network.add("pad", inputs, output, pad_width=padding, constant_values=value)


@_writer("CONCATENATION")
def _concatenate(network: _Network, op: Op) -> None:
    axis = network.option(op, "axis") % len(network.tensor(op.outputs[0]).shape)
    _keep_samples_apart(op, axis != 0)
    if any(network.tensor(i).data is not None for i in op.inputs):
        raise DeploymentError(
            f"Operator {op.index} of the file ({op.name}) joins a constant, which is there for one "
            "sample, and the format of bits is for any number of them."
        )
    output = network.start(op)
    inputs = network.values(op, output, *(f"part{i}" for i in range(len(op.inputs))))
    activation = network.option(op, "fusedActivationFunction")
    network.add_clipped("concatenate", inputs, output, activation, axis=axis)


@_writer("RESIZE_NEAREST_NEIGHBOR")
def _repeat(network: _Network, op: Op) -> None:
    """Pixels are repeated: an axis of copies behind each of the two, which becomes one with it."""
    height, width, channels = network.tensor(op.inputs[0]).shape[1:]
    rows, columns, _ = network.tensor(op.outputs[0]).shape[1:]
    if rows % height or columns % width or network.option(op, "alignCorners"):
        raise DeploymentError(
            f"Operator {op.index} of the file ({op.name}) makes {height} x {width} pixels "
            f"{rows} x {columns}; the format of bits repeats pixels, by whole factors."
        )
    output = network.start(op)
    (source,) = network.values(op, output, "operand")
    before, wide = [height, width, 1, channels], [height, 1, columns, channels]
    flat = network.derived(output, "pixels", before)
    network.add("reshape", [source], flat, shape=before)
    copies = network.derived(output, "columns", [height, width, columns // width, channels])
    network.add("concatenate", [flat] * (columns // width), copies, axis=3)
    line = network.derived(output, "line", wide)
    network.add("reshape", [copies], line, shape=wide)
    lines = network.derived(output, "rows", [height, rows // height, columns, channels])
    network.add("concatenate", [line] * (rows // height), lines, axis=2)
    network.add("reshape", [lines], output, shape=[rows, columns, channels])


@_writer("TRANSPOSE")
def _transpose(network: _Network, op: Op) -> None:
    axes = network.constant(op, 1).tolist()
    _keep_samples_apart(op, axes[0] == 0)
    output = network.start(op)
    network.add("transpose", network.values(op, output, "operand"), output, axes=axes)


@_writer("STRIDED_SLICE")
def _strided_slice(network: _Network, op: Op) -> None:
    options = network.details.options[op.index]
    if options["ellipsisMask"] or options["newAxisMask"]:
        raise DeploymentError(
            f"Operator {op.index} of the file (STRIDED_SLICE) has an ellipsis or a new axis; the "
            "format of bits knows a begin, an end and a step for each axis."
        )
    begins, ends, steps = (network.constant(op, i).tolist() for i in (1, 2, 3))
    slices = []
    for axis, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        if options["shrinkAxisMask"] >> axis & 1:  # the axis goes, and with it `end`
            slices.append((begin, begin + 1 or None, 1))
            continue
        first = None if options["beginMask"] >> axis & 1 else begin
        last = None if options["endMask"] >> axis & 1 else end
        slices.append((first, last, step))
    samples = network.tensor(op.inputs[0]).shape[0]
    _keep_samples_apart(op, range(samples)[slice(*slices[0])] == range(samples))
    slices[0] = (None, None, 1)
    output = network.start(op)
    shape = [
        len(range(size)[slice(*bounds)])
        for size, bounds in zip(network.tensor(op.inputs[0]).shape[1:], slices[1:], strict=False)
    ]
    shape += network.tensor(op.inputs[0]).shape[len(slices) :]
    inputs = network.values(op, output, "operand")
    if shape == network.tensors[output]["shape"]:
        network.add("slice", inputs, output, slices=slices)
    else:
        part = network.derived(output, "part", shape)
        network.add("slice", inputs, part, slices=slices)
        network.add("reshape", [part], output, shape=network.tensors[output]["shape"])


@_writer("SLICE")
def _slice(network: _Network, op: Op) -> None:
    begins, sizes = (network.constant(op, i).tolist() for i in (1, 2))
    _keep_samples_apart(
        op, begins[0] == 0 and sizes[0] in (-1, network.tensor(op.inputs[0]).shape[0])
    )
    output = network.start(op)
    slices = [(None, None, 1)] + [
        (begin, None if size == -1 else begin + size, 1)
        for begin, size in zip(begins[1:], sizes[1:], strict=True)
    ]
    network.add("slice", network.values(op, output, "operand"), output, slices=slices)


@_writer("SPLIT")
def _split(network: _Network, op: Op) -> None:
    """A slice for each output."""
    shape = network.tensor(op.inputs[1]).shape
    axis = int(network.constant(op, 0).item()) % len(shape)
    _keep_samples_apart(op, axis != 0)
    size = shape[axis] // len(op.outputs)
    for position in range(len(op.outputs)):
        output = network.start(op, position=position)
        slices = [(None, None, 1)] * axis + [(position * size, (position + 1) * size, 1)]
        network.add("slice", network.values(op, output, "", "operand"), output, slices=slices)


@_writer("DEPTH_TO_SPACE")
def _depth_to_space(network: _Network, op: Op) -> None:
    """A reshape, a transposition and a reshape."""
    output = network.start(op)
    block = network.option(op, "blockSize")
    height, width, channels = network.tensor(op.inputs[0]).shape[1:]
    split = [height, width, block, block, channels // block**2]
    moved = [height, block, width, block, channels // block**2]
    blocks, rows = (network.derived(output, "part", shape) for shape in (split, moved))
    network.add("reshape", network.values(op, output, "operand"), blocks, shape=split)
    network.add("transpose", [blocks], rows, axes=[0, 1, 3, 2, 4, 5])
    network.add("reshape", [rows], output, shape=network.tensors[output]["shape"])


def _keep_samples_apart(op: Op, does: bool) -> None:
    if not does:
        raise DeploymentError(
            f"Operator {op.index} of the file ({op.name}) works across samples; the format of "
            "bits knows only operators that keep them apart."
        )
