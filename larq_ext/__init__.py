"""Binarized neural networks for small devices: quantizers, layers and proven deployment.

`import larq_ext` makes `tf.keras` stand for Keras 2, which Larq needs, and registers the
quantizers, so that `quantizer="fda"` works in a layer. Without TensorFlow or Larq,
`larq_ext.runtime` and `larq_ext.pose` work alone.
"""

import importlib
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from larq_ext._keras import can_train, require_training, use_legacy_keras
from larq_ext._version import __version__

if TYPE_CHECKING:
    from larq_ext import callbacks, deploy, inspection, layers, models, pose, quantizers, runtime

__all__ = [
    "__version__",
    "callbacks",
    "deploy",
    "inspection",
    "layers",
    "models",
    "pose",
    "quantizers",
    "runtime",
]
_ALONE = ("pose", "runtime")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'larq_ext' has no attribute {name!r}")
    if name not in _ALONE:
        require_training()
    return importlib.import_module(f"larq_ext.{name}")


if can_train():
    use_legacy_keras()
    # The command imports what it needs when it needs it: its help does not wait for TensorFlow.
    if pathlib.Path(*sys.argv[:1]).stem != "larq-ext":
        for _name in __all__[1:]:
            importlib.import_module(f"larq_ext.{_name}")
