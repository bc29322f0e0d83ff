"""How the integers of a file stand for numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Quantization(NamedTuple):
    """An integer q stands for `scale * (q - zero_point)`.

    # Arguments
        scale: the step from one integer to the next.
        zero_point: the integer that stands for 0.
        dtype: the type of the integers.
    """

    scale: float
    zero_point: int
    dtype: np.dtype

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """The integers nearest to numbers, at the ends of the range where they are outside.

        # Raises
            ValueError: if there are NaNs, which no integer stands for.
        """
        x = np.asarray(x)
        if np.isnan(x).any():
            raise ValueError("No integer stands for NaN: the numbers hold some.")
        limits = np.iinfo(self.dtype)
        # As XNNPACK computes QUANTIZE, to the last bit: halfway goes to the even integer.
        steps = np.rint(x.astype(np.float32) * (np.float32(1) / np.float32(self.scale)))
        return np.clip(steps + self.zero_point, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """The numbers that integers stand for, in float32."""
        return np.float32(self.scale) * (np.asarray(q).astype(np.float32) - self.zero_point)
