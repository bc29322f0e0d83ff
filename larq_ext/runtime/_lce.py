"""Larq Compute Engine's interpreter."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Sequence

import numpy as np

from larq_ext.runtime._engine import TensorInfo
from larq_ext.runtime.errors import EngineError


def is_installed() -> bool:
    """Whether Larq Compute Engine is there."""
    return importlib.util.find_spec("larq_compute_engine") is not None


class LceEngine:
    """Runs a model in Larq Compute Engine.

    On machines other than ARM it takes the binary kernels with indirection, which are 2 to 5
    times as fast there as the default ones and run grouped convolutions.

    # Arguments
        flatbuffer: the serialized model.
        num_threads: the number of threads.

    # Raises
        EngineError: if Larq Compute Engine is not installed.
        ValueError: if it cannot load the model.
    """

    name = "lce"
    takes_any_batch = False

    def __init__(self, flatbuffer: bytes, num_threads: int) -> None:
        if not is_installed():
            raise EngineError(
                "Larq Compute Engine is not installed: type "
                "`pip install 'larq-compute-engine>=0.16,<0.17'`. It has no wheels for ARM "
                f"Linux (this machine is {platform.machine()})."
            )
        import larq_compute_engine as lce

        indirect = not _is_arm()
        self.kernel = "indirect" if indirect else "default"
        try:
            self._lce = lce.testing.Interpreter(
                flatbuffer, num_threads=num_threads, use_indirect_bgemm=indirect
            )
        except RuntimeError as error:
            raise ValueError(
                f"Larq Compute Engine cannot load this model ({' '.join(str(error).split())}): "
                "the file is damaged, or holds an operator or a form of one that the engine "
                "does not run."
            ) from error
        self.inputs = self._infos("input")
        self.outputs = self._infos("output")

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Computes the outputs of one batch of the file's size."""
        return self._lce.interpreter.predict(list(arrays))

    def _infos(self, kind: str) -> list[TensorInfo]:
        fields = ("shapes", "types", "scales", "zero_points")
        columns = [getattr(self._lce, f"{kind}_{field}") for field in fields]
        return [
            TensorInfo(tuple(shape), np.dtype(dtype), scale, zero_point)
            for shape, dtype, scale, zero_point in zip(*columns, strict=True)
        ]


def _is_arm() -> bool:
    return platform.machine().lower().startswith(("arm", "aarch64"))
