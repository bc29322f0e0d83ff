"""Measures how long a converted model takes, side by side with what else could run it."""

from larq_ext.benchmark._contenders import CONTENDERS
from larq_ext.benchmark._machine import machine
from larq_ext.benchmark._report import BenchmarkReport, Contest, NativeDetails, Operation
from larq_ext.benchmark._run import benchmark, binary_macs
from larq_ext.benchmark._twin import convert_twin, float_twin

__all__ = [
    "CONTENDERS",
    "BenchmarkReport",
    "Contest",
    "NativeDetails",
    "Operation",
    "benchmark",
    "binary_macs",
    "convert_twin",
    "float_twin",
    "machine",
]
