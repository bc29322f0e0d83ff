"""Runs converted models. Needs no TensorFlow where `ai_edge_litert` is installed."""

from larq_ext.runtime._quantization import Quantization
from larq_ext.runtime.delegate import available_kernels, library_path, load_delegate
from larq_ext.runtime.errors import EngineError
from larq_ext.runtime.interpreter import Interpreter

__all__ = [
    "EngineError",
    "Interpreter",
    "Quantization",
    "available_kernels",
    "library_path",
    "load_delegate",
]
