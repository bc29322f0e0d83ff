"""The former place of `larq_ext_zoo._common`."""

from larq_ext_zoo._common import BinaryLayers, classes, norm, prelu, real_conv

__all__ = ["BinaryLayers", "classes", "norm", "prelu", "real_conv"]
