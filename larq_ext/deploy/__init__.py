"""From a trained model to a file of one-bit convolutions, and the proof that it is one.

`lint` -> `bake` -> `convert` -> `audit` -> `verify`; each can be used alone.
"""

from larq_ext.deploy._rewrite import REWRITES, WEIGHT_DEPENDENT, Rewrite
from larq_ext.deploy.audit import AuditReport, audit
from larq_ext.deploy.bake import applied_rewrites, bake, float_reasons
from larq_ext.deploy.convert import Conversion, convert
from larq_ext.deploy.errors import DeploymentError
from larq_ext.deploy.export_bits import export_bits
from larq_ext.deploy.export_onnx import export_onnx
from larq_ext.deploy.int8 import int8_edges
from larq_ext.deploy.layers import BinaryConv2D, BinaryDense
from larq_ext.deploy.lint import LintReport, lint
from larq_ext.deploy.verify import VerifyReport, verify

__all__ = [
    "REWRITES",
    "WEIGHT_DEPENDENT",
    "AuditReport",
    "BinaryConv2D",
    "BinaryDense",
    "Conversion",
    "DeploymentError",
    "LintReport",
    "Rewrite",
    "VerifyReport",
    "applied_rewrites",
    "audit",
    "bake",
    "convert",
    "export_bits",
    "export_onnx",
    "float_reasons",
    "int8_edges",
    "lint",
    "verify",
]
