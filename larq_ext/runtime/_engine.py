"""What the interpreter asks of the engine below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from larq_ext.runtime._quantization import Quantization


@dataclass(frozen=True)
class TensorInfo:
    """An input or output as the file declares it; scale and zero point where it is quantized."""

    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float | None = None
    zero_point: int | None = None

    @property
    def quantization(self) -> Quantization | None:
        """What its integers stand for, where they stand for other numbers."""
        if self.dtype.kind not in "iu" or not self.scale or self.zero_point is None:
            return None
        return Quantization(float(self.scale), int(self.zero_point), self.dtype)


class Engine(Protocol):
    """A loaded model. `run` takes and gives one array for each input and output, in their order."""

    name: str
    kernel: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    takes_any_batch: bool

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]: ...


def batch_of(infos: list[TensorInfo]) -> int:
    """Returns the batch that a file was made for, or raises a `ValueError` if it has none."""
    if not infos or not infos[0].shape:
        raise ValueError("The model has no input with a batch dimension.")
    return infos[0].shape[0]
