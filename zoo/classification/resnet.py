"""Residual networks for small images."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.classification._residual import REACTNET, Residual, residual_network

# PyTorch's default: uniform within 1 / sqrt(fan in).
_PYTORCH = common.initializer("VarianceScaling", scale=1 / 3, mode="fan_in", distribution="uniform")
_NORMAL = common.initializer("RandomNormal", stddev=0.01)

_RESNET20 = {
    "default": Residual(downsampling="subsampled", top_norm=True),
    "siman": Residual(downsampling="subsampled", top_norm=True, stem_activation="relu"),
    "fda": Residual(
        unit=("conv", "prelu", "norm"),
        shortcuts=1,
        activation=None,
        downsampling="subsampled",
        last="relu",
        real_initializer=_NORMAL,
        logits_initializer=_NORMAL,
    ),
    "reactnet": Residual(unit=REACTNET, downsampling="subsampled", top_norm=True),
}
_RESNET18 = {
    "default": Residual(top_norm=True),
    "siman": Residual(
        shortcuts=1,
        activation="hard_tanh",
        downsampling="binary",
        top_norm=True,
        initializer=_PYTORCH,
        real_initializer=_PYTORCH,
        logits_initializer=_PYTORCH,
    ),
    "reactnet": Residual(unit=REACTNET, top_norm=True),
}


def ResNet20(
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    input_tensor=None,
    weights: str | None = None,
    include_top: bool = True,
    num_classes: int = 10,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
    variant: str = "default",
) -> tf.keras.Model:
    """ResNet-20 for CIFAR: three stages with 16, 32 and 64 filters and 18 binary layers.

    A real 3x3 convolution with 16 filters and a norm, three stages of six 3x3 binary
    convolutions, average pooling and a real classifier; 267,264 binary weights. Where the
    feature map shrinks, the shortcut takes every second pixel and fills new channels with zeros.

    | variant | unit | shortcuts | stem | top |
    |---|---|---|---|---|
    | `"default"` | conv, norm, sum, PReLU | one around each convolution | | pool, norm |
    | `"siman"` | the same | the same | ReLU | pool, norm |
    | `"fda"` | conv, PReLU, norm | one around each two convolutions | | ReLU, pool |
    | `"reactnet"` | bias, conv, norm, sum, PReLU | one around each convolution | | pool, norm |

    `"siman"` is that of SiMaN's official code, with 271,194 parameters; only a method that
    centres its inputs should follow the stem's ReLU. `"fda"` is that of FDA-BNN's official
    code, but for the first values of the binary kernels, which it does not tell. Both pad with
    zeros: `pad_values=0.0`. Where a convolution has the stride 2, `padding="same"` has its centres
    one pixel further than PyTorch's padding on both sides: weights of the official code would see
    the pixel beside. `"reactnet"` is the default network with a trained threshold for the signs of
    each channel. ReActNet's biases before and behind the PReLU are left out: with them a classifier
    can compute nothing that it cannot without.

    # Arguments
        input_shape: Height, width and channels.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        include_top: Whether to end in the classifier, or in the last feature map.
        num_classes: Number of classes.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.
        variant: `"default"`, `"siman"`, `"fda"` or `"reactnet"`.

    # Returns
        A model from images to probabilities `(samples, num_classes)`, or features
        `(samples, height / 4, width / 4, 64)`.

    # Raises
        ValueError: for an unknown variant or method, with the known ones.

    # References
        - [Bi-Real Net](https://arxiv.org/abs/1808.00278)
        - [SiMaN](https://arxiv.org/abs/2102.07981)
        - [FDA-BNN](https://arxiv.org/abs/2103.00841)
        - [ReActNet](https://arxiv.org/abs/2003.03488)
    """
    return residual_network(
        "resnet20",
        common.choose(variant, _RESNET20),
        (3, 3, 3),
        (16, 32, 64),
        large_images=False,
        input_shape=input_shape,
        input_tensor=input_tensor,
        weights=weights,
        include_top=include_top,
        num_classes=num_classes,
        quantizer=quantizer,
        pad_values=pad_values,
    )


def ResNet18Cifar(
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    input_tensor=None,
    weights: str | None = None,
    include_top: bool = True,
    num_classes: int = 10,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
    variant: str = "default",
) -> tf.keras.Model:
    """ResNet-18 for CIFAR: four stages with 64, 128, 256 and 512 filters.

    A real 3x3 convolution with 64 filters and a norm, four stages of four 3x3 binary
    convolutions, average pooling, a norm and a real classifier.

    | variant | block | shortcut where the map shrinks |
    |---|---|---|
    | `"default"` | twice (conv, norm, sum, PReLU) | 2x2 mean, real 1x1 conv, norm |
    | `"siman"` | conv, norm, Hardtanh, conv, norm, sum, Hardtanh | binary 1x1 conv, norm |
    | `"reactnet"` | twice (bias, conv, norm, sum, PReLU) | 2x2 mean, real 1x1 conv, norm |

    `"default"` is the block of Bi-Real Net with PReLU: 16 binary layers, 10,985,472 binary
    weights. `"siman"` is that of SiMaN's official code, which pads with zeros: 19 binary layers,
    11,157,504 binary weights, 11,179,722 parameters. `"reactnet"` is the default network with a
    trained threshold for the signs of each channel, see `ResNet20`.

    # Arguments
        input_shape: Height, width and channels.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        include_top: Whether to end in the classifier, or in the last feature map.
        num_classes: Number of classes.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.
        variant: `"default"`, `"siman"` or `"reactnet"`.

    # Returns
        A model from images to probabilities `(samples, num_classes)`, or features
        `(samples, height / 8, width / 8, 512)`.

    # Raises
        ValueError: for an unknown variant or method, with the known ones.

    # References
        - [Bi-Real Net](https://arxiv.org/abs/1808.00278)
        - [SiMaN](https://arxiv.org/abs/2102.07981)
        - [ReActNet](https://arxiv.org/abs/2003.03488)
    """
    return residual_network(
        "resnet18_cifar",
        common.choose(variant, _RESNET18),
        (2, 2, 2, 2),
        (64, 128, 256, 512),
        large_images=False,
        input_shape=input_shape,
        input_tensor=input_tensor,
        weights=weights,
        include_top=include_top,
        num_classes=num_classes,
        quantizer=quantizer,
        pad_values=pad_values,
    )
