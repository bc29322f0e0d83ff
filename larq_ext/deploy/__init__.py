"""From a trained model to a file of one-bit convolutions, and the proof that it is one.

`bake` -> `convert` -> `audit` -> `verify`; each can be used alone.
"""

from larq_ext.deploy.audit import AuditReport, audit
from larq_ext.deploy.bake import bake, float_reasons
from larq_ext.deploy.convert import Conversion, convert
from larq_ext.deploy.errors import DeploymentError
from larq_ext.deploy.layers import BinaryConv2D, BinaryDense
from larq_ext.deploy.verify import VerifyReport, verify

__all__ = [
    "AuditReport",
    "BinaryConv2D",
    "BinaryDense",
    "Conversion",
    "DeploymentError",
    "VerifyReport",
    "audit",
    "bake",
    "convert",
    "float_reasons",
    "verify",
]
