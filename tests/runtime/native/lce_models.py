"""Builds small TensorFlow Lite files with the engine's custom operators, without the converter.

Names, versions, tensor order and option maps are those that `larq_compute_engine` 0.16 writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

SAME, VALID = 0, 1
ACTIVATIONS = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
ABSENT = -1  # the index of an optional input that is not there

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "int8": schema.TensorType.INT8,
    "bool": schema.TensorType.BOOL,
    "uint8": schema.TensorType.UINT8,
    "int64": schema.TensorType.INT64,
}


def words(channels: int) -> int:
    """How many 32-bit words hold so many channels."""
    return -(-channels // 32)


def output_size(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    """The size of a convolution's output along one axis, as TensorFlow Lite computes it."""
    effective = (kernel - 1) * dilation + 1
    return -(-size // stride) if padding == SAME else -(-(size - effective + 1) // stride)


def pack(signs: np.ndarray) -> np.ndarray:
    """Packs the last axis into words: a set bit where the value is negative, padding bits zero."""
    bits = np.signbit(np.where(np.isnan(signs) | (signs == 0), 1.0, signs))
    lead, channels = bits.shape[:-1], bits.shape[-1]
    padded = np.zeros((*lead, words(channels) * 32), bool)
    padded[..., :channels] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<i4")


def unpack(packed: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of `pack`: +1.0 and -1.0."""
    bytes_ = np.ascontiguousarray(packed, "<i4").view(np.uint8)
    bits = np.unpackbits(bytes_, axis=-1, bitorder="little")[..., :channels]
    return 1.0 - 2.0 * bits


def options(values: Mapping[str, object]) -> bytes:
    """The FlexBuffer map that holds the options of a custom operator."""
    builder = flexbuffers.Builder()
    with builder.Map():
        for key, value in values.items():
            builder.Key(key)
            builder.Add(value)
    return bytes(builder.Finish())


def conv_options(
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: int,
    pad_value: int,
    channels_in: int,
    activation: str,
) -> dict[str, object]:
    return {
        "channels_in": channels_in,
        "dilation_height_factor": dilation[0],
        "dilation_width_factor": dilation[1],
        "fused_activation_function": ACTIVATIONS[activation],
        "pad_values": pad_value,
        "padding": padding,
        "stride_height": stride[0],
        "stride_width": stride[1],
    }


def pool_options(size: Sequence[int], stride: Sequence[int], padding: int) -> dict[str, object]:
    return {
        "padding": padding,
        "stride_width": stride[1],
        "stride_height": stride[0],
        "filter_width": size[1],
        "filter_height": size[0],
    }


class Graph:
    """A graph under construction; tensors are named by their index."""

    def __init__(self) -> None:
        self.buffers = [schema.BufferT()]
        self._codes: dict[object, int] = {}
        self.operator_codes: list[schema.OperatorCodeT] = []
        self.tensors: list[schema.TensorT] = []
        self.operators: list[schema.OperatorT] = []
        self.inputs: list[int] = []

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "float32",
        scale: float | None = None,
        zero_point: int = 0,
        data: np.ndarray | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name = f"t{len(self.tensors)}"
        tensor.shape = [int(size) for size in shape]
        tensor.type = _TYPES[dtype]
        tensor.hasRank = True
        tensor.buffer = len(self.buffers)
        buffer = schema.BufferT()
        if data is not None:
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.buffers.append(buffer)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([scale], np.float32)
            tensor.quantization.zeroPoint = np.array([zero_point], np.int64)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def input(self, *args, **kwargs) -> int:
        self.inputs.append(self.tensor(*args, **kwargs))
        return self.inputs[-1]

    def constant(self, data: np.ndarray) -> int:
        return self.tensor(data.shape, data.dtype.name, data=data)

    def shape(self, tensor: int) -> list[int]:
        return list(self.tensors[tensor].shape)

    def custom(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], raw: bytes | None = None
    ) -> None:
        operator = self._operator(name, schema.BuiltinOperator.CUSTOM, inputs, outputs)
        if raw is not None:
            operator.customOptions = np.frombuffer(raw, np.uint8)

    def builtin(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        kind: int = 0,
        settings: object = None,
    ) -> None:
        operator = self._operator(code, code, inputs, outputs)
        operator.builtinOptionsType, operator.builtinOptions = kind, settings

    def _operator(
        self, key: object, code: int, inputs: Sequence[int], outputs: Sequence[int]
    ) -> schema.OperatorT:
        if key not in self._codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)
            entry.version = 1
            if isinstance(key, str):
                entry.customCode = key
            self._codes[key] = len(self.operator_codes)
            self.operator_codes.append(entry)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes[key]
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array(outputs, np.int32)
        self.operators.append(operator)
        return operator

    # The engine's operators.

    def quantize(self, x: int) -> int:
        *lead, channels = self.shape(x)
        y = self.tensor([*lead, words(channels)], "int32")
        self.custom("LceQuantize", [x], [y])
        return y

    def dequantize(self, x: int, channels: int, dtype: str = "float32", **quantization) -> int:
        y = self.tensor([*self.shape(x)[:-1], channels], dtype, **quantization)
        self.custom("LceDequantize", [x], [y])
        return y

    def bconv(
        self,
        x: int,
        filters: np.ndarray,
        *,
        channels_in: int,
        multiplier: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        thresholds: np.ndarray | None = None,
        stride: Sequence[int] = (1, 1),
        dilation: Sequence[int] = (1, 1),
        padding: int = SAME,
        pad_value: int = 1,
        activation: str = "NONE",
        output: str = "float32",
        **quantization,
    ) -> int:
        batch, *sizes, _ = self.shape(x)
        channels_out, *kernel, _ = filters.shape
        lead = [
            batch,
            *(output_size(*axis, padding) for axis in zip(sizes, kernel, stride, dilation)),  # noqa: B905
        ]
        inputs = [
            x,
            self.constant(filters),
            *(
                ABSENT if array is None else self.constant(array)
                for array in (multiplier, bias, thresholds)
            ),
        ]
        last = words(channels_out) if output == "int32" else channels_out
        y = self.tensor([*lead, last], output, **quantization)
        raw = options(conv_options(stride, dilation, padding, pad_value, channels_in, activation))
        self.custom("LceBconv2d", inputs, [y], raw)
        return y

    def pool(self, x: int, size: Sequence[int], stride: Sequence[int], padding: int = VALID) -> int:
        batch, height, width, last = self.shape(x)
        y = self.tensor(
            [
                batch,
                output_size(height, size[0], stride[0], 1, padding),
                output_size(width, size[1], stride[1], 1, padding),
                last,
            ],
            "int32",
        )
        self.custom("LceBMaxPool2d", [x], [y], options(pool_options(size, stride, padding)))
        return y

    # The runtime's own operators that stand between them.

    def add(self, x: int, y: int, activation: str = "NONE") -> int:
        kind = schema.BuiltinOptions.AddOptions
        return self._sum(schema.BuiltinOperator.ADD, x, y, kind, schema.AddOptionsT(), activation)

    def subtract(self, x: int, y: int, activation: str = "NONE") -> int:
        kind = schema.BuiltinOptions.SubOptions
        return self._sum(schema.BuiltinOperator.SUB, x, y, kind, schema.SubOptionsT(), activation)

    def _sum(self, code: int, x: int, y: int, kind: int, settings, activation: str) -> int:
        settings.fusedActivationFunction = ACTIVATIONS[activation]
        z = self.tensor(np.broadcast_shapes(self.shape(x), self.shape(y)))
        self.builtin(code, [x, y], [z], kind, settings)
        return z

    def relu(self, x: int) -> int:
        y = self.tensor(self.shape(x))
        self.builtin(schema.BuiltinOperator.RELU, [x], [y])
        return y

    def negate(self, x: int) -> int:
        y = self.tensor(self.shape(x))
        self.builtin(schema.BuiltinOperator.NEG, [x], [y])
        return y

    def prelu(self, x: int, slopes: np.ndarray) -> int:
        y = self.tensor(self.shape(x))
        self.builtin(schema.BuiltinOperator.PRELU, [x, self.constant(slopes)], [y])
        return y

    def to_int8(self, x: int, scale: float, zero_point: int) -> int:
        y = self.tensor(self.shape(x), "int8", scale=scale, zero_point=zero_point)
        settings = schema.QuantizeOptionsT()
        kind = schema.BuiltinOptions.QuantizeOptions
        self.builtin(schema.BuiltinOperator.QUANTIZE, [x], [y], kind, settings)
        return y

    def to_float(self, x: int) -> int:
        y = self.tensor(self.shape(x))
        settings = schema.DequantizeOptionsT()
        kind = schema.BuiltinOptions.DequantizeOptions
        self.builtin(schema.BuiltinOperator.DEQUANTIZE, [x], [y], kind, settings)
        return y

    def build(self, outputs: Sequence[int]) -> bytes:
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs = np.array(self.inputs, np.int32)
        graph.outputs = np.array(outputs, np.int32)
        model = schema.ModelT()
        model.version, model.description = 3, "test"
        model.operatorCodes = self.operator_codes
        model.subgraphs, model.buffers = [graph], self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def random_signs(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.integers(0, 2, shape) * 2.0 - 1.0


def random_filters(rng: np.random.Generator, out: int, kernel: Sequence[int], channels: int):
    return pack(random_signs(rng, (out, *kernel, channels)))


def random_transform(
    rng: np.random.Generator, out: int, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Multiplier and bias whose results have about the size of a normalised activation."""
    size = 1.0 / math.sqrt(depth)
    multiplier = (size * rng.standard_normal(out)).astype(np.float32)
    return multiplier, rng.standard_normal(out).astype(np.float32)
