"""Quantizers of four papers on training networks with one bit per weight and activation.

Each can be named by a string wherever Larq takes a quantizer, or be given as an instance; as an
activation, as an instance only (`ApproxSign` always: the string stands for Larq's). The following
are equivalent:

```python
lq.layers.QuantConv2D(64, 3, kernel_quantizer="siman")
lq.layers.QuantConv2D(64, 3, kernel_quantizer=lqx.quantizers.SiMaN(role="kernel"))
```

`lqx.layers.QuantConv2D(64, 3, quantizer="siman")` takes the whole method: the quantizers of
inputs and kernels, the scale, the constraint and the padding that belong together.
"""

from larq_ext.quantizers._base import (
    BinaryQuantizer,
    Hyperparameter,
    InputForm,
    KernelForm,
    factor_kernel,
    hyperparameters,
)
from larq_ext.quantizers._methods import METHODS, Method, method, network_arguments
from larq_ext.quantizers.approx_sign import ApproxSign, polynomial_sign
from larq_ext.quantizers.fda import FDA, fda_sign, fourier_slope
from larq_ext.quantizers.int8 import Int8, int8_kernel, int8_range
from larq_ext.quantizers.learnable_scale import LearnableScale, surrogate_sign, surrogate_step
from larq_ext.quantizers.mlp_classifier import MLPClassifier, classify
from larq_ext.quantizers.siman import (
    MagnitudeClip,
    SiMaN,
    centred_sign,
    magnitude_sign,
)

__all__ = [
    "FDA",
    "METHODS",
    "ApproxSign",
    "BinaryQuantizer",
    "Hyperparameter",
    "InputForm",
    "Int8",
    "KernelForm",
    "LearnableScale",
    "MLPClassifier",
    "MagnitudeClip",
    "Method",
    "SiMaN",
    "centred_sign",
    "classify",
    "factor_kernel",
    "fda_sign",
    "fourier_slope",
    "hyperparameters",
    "int8_kernel",
    "int8_range",
    "magnitude_sign",
    "method",
    "network_arguments",
    "polynomial_sign",
    "surrogate_sign",
    "surrogate_step",
]
