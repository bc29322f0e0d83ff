"""Plain convolutional networks for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from larq_ext_zoo import _common as common


@dataclass(frozen=True)
class _Plain:
    """What the variants differ in.

    # Arguments
        pool_first: Whether pooling stands before the norm.
        activation: After each norm: `"prelu"` or `None`.
        initializer: Of the convolutions' kernels.
        logits_initializer: Of the classifier's kernel.
    """

    pool_first: bool = False
    activation: str | None = "prelu"
    initializer: Any = "he_normal"
    logits_initializer: Any = "glorot_uniform"


_VARIANTS = {
    "default": _Plain(),
    "siman": _Plain(
        pool_first=True,
        initializer=common.initializer(
            "VarianceScaling", scale=2.0, mode="fan_out", distribution="untruncated_normal"
        ),
        logits_initializer=common.initializer("RandomNormal", stddev=0.01),
    ),
    "learnable_scale": _Plain(pool_first=True, activation=None),
}


def VGGSmall(
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
    """VGG-Small for CIFAR: one real and five binary 3x3 convolutions, then a real classifier.

    128, 128, pool, 256, 256, pool, 512, 512, pool; 4,571,136 binary weights.

    | variant | after a binary convolution |
    |---|---|
    | `"default"` | norm, pool, PReLU: the runtime joins the norm with the convolution |
    | `"siman"` | pool, norm, PReLU |
    | `"learnable_scale"` | pool, norm |

    `"siman"` is that of SiMaN's official code, with 4,663,562 parameters, which pads with zeros.
    The layers of Trained Binarization's network are not known: `"learnable_scale"` is ours, in
    the order of XNOR-Net. In floating point (`quantizer=None`) ReLUs take the place of its
    binarization.

    # Arguments
        input_shape: Height, width and channels.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        include_top: Whether to end in the classifier, or in the last feature map.
        num_classes: Number of classes.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.
        variant: `"default"`, `"siman"` or `"learnable_scale"`.

    # Returns
        A model from images to probabilities `(samples, num_classes)`, or features
        `(samples, height / 8, width / 8, 512)`.

    # Raises
        ValueError: for an unknown variant or method, with the known ones.

    # References
        - [SiMaN](https://arxiv.org/abs/2102.07981), for the activations
        - [Trained Binarization](https://arxiv.org/abs/1909.11366)
    """
    style = common.choose(variant, _VARIANTS)
    layers = common.BinaryLayers(
        quantizer,
        pad_values,
        style.initializer,
        instead="relu" if style.activation is None else None,
    )
    image = common.network_input(input_shape, input_tensor)
    x = common.real_conv(image, 128, 3, name="stem", initializer=style.initializer)
    x = common.activate(common.norm(x, "stem_norm"), style.activation, "stem")
    for index, filters in enumerate((128, 256, 256, 512, 512)):
        name = f"conv{index + 2}"
        pool = tf.keras.layers.MaxPool2D(2, name=f"{name}_pool")
        x = layers.conv(x, filters, name=name)
        if index % 2 == 1:
            x = common.norm(x, f"{name}_norm")
        elif style.pool_first:
            x = common.norm(pool(x), f"{name}_norm")
        else:
            x = pool(common.norm(x, f"{name}_norm", beta=common.POOLED_BETA))
        x = common.activate(x, style.activation, name)
    if include_top:
        x = tf.keras.layers.Flatten(name="flatten")(x)
        x = common.classes(x, num_classes, style.logits_initializer)
    return common.finish(image, x, "vgg_small", weights)
