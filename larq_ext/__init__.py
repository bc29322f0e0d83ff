"""Binarized neural networks for small devices: quantizers, layers and proven deployment.

`import larq_ext` makes `tf.keras` stand for Keras 2, which Larq needs, and registers the
quantizers, so that `quantizer="fda"` works in a layer.
"""

import importlib
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from larq_ext._keras import use_legacy_keras
from larq_ext._version import __version__

if TYPE_CHECKING:
    from larq_ext import callbacks, deploy, layers, quantizers, runtime

__all__ = ["__version__", "callbacks", "deploy", "layers", "quantizers", "runtime"]

use_legacy_keras()


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"larq_ext.{name}")
    raise AttributeError(f"module 'larq_ext' has no attribute {name!r}")


# The command imports what it needs when it needs it: its help does not wait for TensorFlow.
if pathlib.Path(*sys.argv[:1]).stem != "larq-ext":
    for _name in __all__[1:]:
        importlib.import_module(f"larq_ext.{_name}")
