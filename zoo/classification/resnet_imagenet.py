"""Residual networks for images of ImageNet's size."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.classification._residual import REACTNET, Residual, residual_network

VARIANTS = {
    "default": Residual(),
    "siman": Residual(downsampling="strided", stem_activation="relu", top_norm=True, gamma=1e-8),
    "mlp_classifier": Residual(stem_activation="prelu", initializer="glorot_uniform"),
    "learnable_scale": Residual(
        unit=("norm", "conv"), shortcuts=1, activation=None, downsampling="binary", last="norm"
    ),
    "reactnet": Residual(unit=REACTNET),
}
# Blocks of two convolutions per stage, by the number of the network's layers.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def widths(width: int) -> tuple[int, ...]:
    """Filters per stage, from those of the first."""
    return tuple(width * 2**stage for stage in range(4))


def _resnet(depth: int, variant: str, gamma: float | None, width: int, **arguments):
    style = common.choose(variant, VARIANTS)
    if gamma is not None:
        style = dataclasses.replace(style, gamma=gamma)
    return residual_network(
        f"resnet{depth}", style, BLOCKS[depth], widths(width), large_images=True, **arguments
    )


def ResNet18(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    input_tensor=None,
    weights: str | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
    variant: str = "default",
    gamma: float | None = None,
    width: int = 64,
) -> tf.keras.Model:
    """ResNet-18 for ImageNet: four stages with 64, 128, 256 and 512 filters.

    A real 7x7 convolution of stride 2, a norm and 3x3 max pooling of stride 2, four stages of
    four 3x3 binary convolutions, average pooling and a real classifier; 10,985,472 binary
    weights in 16 binary layers.

    | variant | stem | block | shortcut where the map shrinks | top |
    |---|---|---|---|---|
    | `"default"` | | twice (conv, norm, sum, PReLU) | 2x2 mean, real 1x1 conv, norm | pool |
    | `"mlp_classifier"` | PReLU | the same | the same | pool |
    | `"siman"` | ReLU | the same | real 1x1 conv of stride 2, norm | pool, norm |
    | `"learnable_scale"` | | norm, conv, norm, conv, sum | norm, binary 1x1 conv | norm, pool |
    | `"reactnet"` | | twice (bias, conv, norm, sum, PReLU) | 2x2 mean, real 1x1 conv, norm | pool |

    `"default"` is Bi-Real Net with PReLU. `"mlp_classifier"` (11,693,716
    parameters) and `"siman"` (11,698,216) are those of the official code, which pads with zeros:
    `pad_values=0.0`; Glorot's initializer and scales of norms from 1e-8 are theirs. With the stride
    2, `padding="same"` has its centres one pixel further than their padding on both sides: weights
    of the official code would see the pixel beside. Only a method
    that centres its inputs should follow the ReLU of SiMaN's stem. Of `"learnable_scale"` it is
    inferred, from another paper's table and a count of operations, that its 1x1 convolutions are
    binary, which makes 19 binary layers and 11,157,504 binary weights; the order in the block is
    ours, after XNOR-Net. In floating point (`quantizer=None`) ReLUs take the place of its
    binarization. `"reactnet"` is ReActNet on Bi-Real Net's ResNet-18, which was tried with the
    gradient of FDA-BNN, too. The bias is ReActNet's threshold of the signs; those before and behind
    each PReLU are left out: with them a classifier can compute nothing that it cannot without.

    # Arguments
        input_shape: Height, width and channels.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        include_top: Whether to end in the classifier, or in the last feature map.
        num_classes: Number of classes.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.
        variant: `"default"`, `"siman"`, `"mlp_classifier"`, `"learnable_scale"` or `"reactnet"`.
        gamma: Where the scales of norms start; `None` is what the variant says, 1e-8 for
            `"siman"`, else 1.
        width: Filters of the first stage, doubled in each later one.

    # Returns
        A model from images to probabilities `(samples, num_classes)`, or features
        `(samples, height / 32, width / 32, 512)`.

    # Raises
        ValueError: for an unknown variant or method, with the known ones.

    # References
        - [Bi-Real Net](https://arxiv.org/abs/1808.00278)
        - [Binarizing by Classification](https://arxiv.org/abs/2205.07433)
        - [SiMaN](https://arxiv.org/abs/2102.07981)
        - [Trained Binarization](https://arxiv.org/abs/1909.11366)
        - [ReActNet](https://arxiv.org/abs/2003.03488)
    """
    return _resnet(
        18,
        variant,
        gamma,
        width,
        input_shape=input_shape,
        input_tensor=input_tensor,
        weights=weights,
        include_top=include_top,
        num_classes=num_classes,
        quantizer=quantizer,
        pad_values=pad_values,
    )


def ResNet34(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    input_tensor=None,
    weights: str | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
    variant: str = "default",
    gamma: float | None = None,
    width: int = 64,
) -> tf.keras.Model:
    """ResNet-34 for ImageNet: `ResNet18` with stages of 6, 8, 12 and 6 binary convolutions.

    21,086,208 binary weights in 32 binary layers; 21,805,588 parameters in the variant
    `"mlp_classifier"`, 21,813,800 in `"siman"`. Trained Binarization has no ResNet-34: its block
    is offered for comparison.

    # Arguments
        input_shape: Height, width and channels.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        include_top: Whether to end in the classifier, or in the last feature map.
        num_classes: Number of classes.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.
        variant: One of those of `ResNet18`.
        gamma: Where the scales of norms start; `None` is what the variant says, see `ResNet18`.
        width: Filters of the first stage, doubled in each later one.

    # Returns
        A model from images to probabilities `(samples, num_classes)`, or features
        `(samples, height / 32, width / 32, 512)`.

    # Raises
        ValueError: for an unknown variant or method, with the known ones.

    # References
        - [Binarizing by Classification](https://arxiv.org/abs/2205.07433)
        - [SiMaN](https://arxiv.org/abs/2102.07981)
        - [ReActNet](https://arxiv.org/abs/2003.03488)
    """
    return _resnet(
        34,
        variant,
        gamma,
        width,
        input_shape=input_shape,
        input_tensor=input_tensor,
        weights=weights,
        include_top=include_top,
        num_classes=num_classes,
        quantizer=quantizer,
        pad_values=pad_values,
    )
