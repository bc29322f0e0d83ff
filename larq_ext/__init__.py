"""Binarized neural networks for small devices: quantizers, layers and proven deployment.

`import larq_ext` makes `tf.keras` stand for Keras 2, which Larq needs, and registers the
quantizers, so that `quantizer="fda"` works in a layer.
"""

from larq_ext._keras import use_legacy_keras

use_legacy_keras()

from larq_ext import callbacks, deploy, layers, quantizers, runtime  # noqa: E402
from larq_ext._version import __version__  # noqa: E402

__all__ = ["__version__", "callbacks", "deploy", "layers", "quantizers", "runtime"]
