"""A binary pose network in the style of SBPN: a residual backbone and three doubling stages."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.classification import resnet_imagenet
from larq_ext_zoo.classification._residual import residual_body
from larq_ext_zoo.pose import _common as pose
from larq_ext_zoo.pose._bottlenecks import bottleneck_body
from larq_ext_zoo.pose._heads import HEADS, STAGES
from larq_ext_zoo.pose._units import Units

_STYLE = resnet_imagenet.VARIANTS["mlp_classifier"]
_BACKBONES = {**resnet_imagenet.BLOCKS, 50: (3, 4, 6, 3)}


def SBPN(
    *,
    input_shape: tuple[int, int, int] = (256, 192, 3),
    input_tensor=None,
    weights: str | None = None,
    backbone: int = 18,
    head: str = "nearest",
    width: int = 64,
    head_filters: int | None = None,
    num_keypoints: int = 17,
    num_classes: int | None = None,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
) -> tf.keras.Model:
    """SBPN-style binary pose network: a binary ResNet and three stages that double its map.

    A reconstruction: of SBPN the paper's abstract was found, its layers were not. The backbone
    of 18 or 34 layers is the binary ResNet of the same paper (`ResNet18` and `ResNet34` of the
    variant `"mlp_classifier"`, whose layers have the same names and shapes, so its weights
    load); that of 50 follows Bi-Real-50. Each of the head's stages is
    `PReLU(norm(conv(sign(x))) + shortcut)`, the shortcut without parameters.

    | head | stage | deploys as |
    |---|---|---|
    | `"nearest"` | each pixel 2x2 times, binary 3x3 convolution | binary |
    | `"transposed"` | binary 4x4 transposed convolution, as four 2x2 convolutions | binary |
    | `"real_transposed"` | real 4x4 transposed convolution, norm, PReLU | float |

    Stem, 1x1 convolutions of shortcuts and the last convolution are real.

    # Arguments
        input_shape: Height, width and channels; the sides divide by 32.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        backbone: 18, 34 or 50.
        head: `"nearest"`, `"transposed"` or `"real_transposed"`.
        width: Filters of the backbone's first stage, doubled in each later one.
        head_filters: Filters of the head's stages; `None` is four times the width.
        num_keypoints: Number of heatmaps.
        num_classes: Makes the backbone a classifier of so many classes, to be trained first.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says. Those of
            transposed convolutions are what signs make of 0: +1 (of `"siman"`, which centres its
            inputs, that of minus the mean).

    # Returns
        A model from images to heatmaps `(samples, height / 4, width / 4, num_keypoints)`, or to
        probabilities `(samples, num_classes)`.

    # Raises
        ValueError: for an unknown backbone, head or method, with the known ones, and for sides
            that do not divide by 32.

    # References
        - [Binarizing by Classification](https://arxiv.org/abs/2205.07433)
        - [Simple Baselines for Human Pose Estimation](https://arxiv.org/abs/1804.06208)
        - [Bi-Real Net](https://arxiv.org/abs/1808.00278)
    """
    blocks = common.choose(backbone, _BACKBONES, "backbone")
    stage = common.choose(head, HEADS, "head")
    image = pose.network_input(input_shape, input_tensor)
    layers = _STYLE.binary_layers(quantizer, pad_values)
    units = Units(layers)
    widths = resnet_imagenet.widths(width)
    if backbone in resnet_imagenet.BLOCKS:
        x = residual_body(image, _STYLE, layers, blocks, widths, large_images=True)
    else:
        x = bottleneck_body(image, blocks, widths, units)
    features = [x]
    if num_classes is None:
        for number in range(1, STAGES + 1):
            x = stage(x, head_filters or 4 * width, units, f"head{number}")
    x = pose.ending(x, features, num_keypoints=num_keypoints, num_classes=num_classes)
    return common.finish(image, x, f"sbpn{backbone}", weights)
