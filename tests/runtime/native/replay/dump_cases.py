"""Writes cases with the engine's outputs to a file for the stand-alone program `replay`.

`python dump_cases.py FILE [COUNT] [SEED]`; what the file looks like is in case_file.cc.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from cases import all_cases
from chains import all_chains
from lce_models import Graph
from random_graphs import random_graph
from tensorflow.lite.python import schema_py_generated as schema
from truth import FLOAT_TOLERANCE, engine_outputs, run_engine

# From the type in a file to the type in the runtime.
_RUNTIME_TYPES = {
    schema.TensorType.FLOAT32: 1,
    schema.TensorType.INT32: 2,
    schema.TensorType.BOOL: 6,
    schema.TensorType.INT8: 9,
}


class Writer:
    def __init__(self) -> None:
        self._parts: list[bytes] = [b"LQXR"]

    def number(self, value: int) -> None:
        self._parts.append(struct.pack("<i", value))

    def real(self, value: float) -> None:
        self._parts.append(struct.pack("<f", value))

    def blob(self, data: bytes) -> None:
        self._parts += [struct.pack("<q", len(data)), data]

    def numbers(self, values: Sequence[int]) -> None:
        self.number(len(values))
        for value in values:
            self.number(int(value))

    def arrays(self, tensors: Sequence[int], arrays: Sequence[np.ndarray]) -> None:
        self.number(len(arrays))
        for tensor, array in zip(tensors, arrays, strict=True):
            self.number(tensor)
            self.numbers(array.shape)
            self.blob(np.ascontiguousarray(array).tobytes())

    def graph(self, graph: Graph) -> None:
        self.number(len(graph.tensors))
        for tensor in graph.tensors:
            self.number(_RUNTIME_TYPES[tensor.type])
            self.numbers(tensor.shape)
            quantization = tensor.quantization
            self.number(quantization is not None)
            self.real(0.0 if quantization is None else quantization.scale[0])
            self.number(0 if quantization is None else int(quantization.zeroPoint[0]))
            data = graph.buffers[tensor.buffer].data
            self.number(data is not None)
            self.blob(b"" if data is None else data.tobytes())
        self.number(len(graph.operators))
        for operator in graph.operators:
            code = graph.operator_codes[operator.opcodeIndex]
            self.number(code.builtinCode)
            self.blob((code.customCode or "").encode())
            self.number(operator.customOptions is not None)
            options = operator.customOptions
            self.blob(b"" if options is None else options.tobytes())
            settings = operator.builtinOptions
            self.number(getattr(settings, "fusedActivationFunction", 0))
            self.numbers(operator.inputs)
            self.numbers(operator.outputs)

    def case(
        self,
        name: str,
        graph: Graph,
        outputs: Sequence[int],
        inputs: Sequence[np.ndarray],
        expected: Sequence[np.ndarray],
    ) -> None:
        self.blob(name.encode())
        self.graph(graph)
        self.arrays(graph.inputs, inputs)
        self.arrays(outputs, expected)
        self.real(FLOAT_TOLERANCE)

    def bytes(self) -> bytes:
        return b"".join(self._parts)


def dump(path: Path, count: int, seed: int) -> int:
    """Writes so many single operators, all chains and some random graphs; returns the total."""
    writer = Writer()
    cases = all_cases(count, seed)
    chains = [*all_chains(), *(random_graph(seed + index) for index in range(count // 4))]
    writer.number(len(cases) + len(chains))
    for case, expected in zip(cases, engine_outputs(cases), strict=True):
        graph = Graph()
        output = case.add_to(graph, resized=False)
        writer.case(str(case), graph, [output], case.inputs(), [expected])
    for chain in chains:
        expected = run_engine(chain.model(), chain.inputs, "reference")
        writer.case(
            f"{chain.name} {chain.inputs[0].shape}",
            chain.graph,
            chain.outputs,
            chain.inputs,
            expected,
        )
    path.write_bytes(writer.bytes())
    return len(cases) + len(chains)


if __name__ == "__main__":
    file, *numbers = sys.argv[1:]
    wanted, first_seed = (*map(int, numbers), *(400, 0)[len(numbers) :])
    print(dump(Path(file), wanted, first_seed), "cases")
