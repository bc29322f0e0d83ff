"""The real-valued parent of SBPN."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.classification.resnet_imagenet import widths
from larq_ext_zoo.pose import _common as pose
from larq_ext_zoo.pose._bottlenecks import real_bottleneck
from larq_ext_zoo.pose._heads import STAGES, real_transposed
from larq_ext_zoo.pose._units import Units


def _basic_block(x, filters: int, units: Units, strides: int, name: str):
    """Two 3x3 convolutions and their sum with x."""
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = units.real(
            x, filters, 1, strides, name=f"{name}_unit2_shortcut", activated=False
        )
    y = units.real(x, filters, 3, strides, name=f"{name}_unit1")
    return units.real(y, filters, name=f"{name}_unit2", shortcut=shortcut)


# Kind and number of the blocks per stage.
_BACKBONES = {
    18: (_basic_block, (2, 2, 2, 2)),
    34: (_basic_block, (3, 4, 6, 3)),
    50: (real_bottleneck, (3, 4, 6, 3)),
    101: (real_bottleneck, (3, 4, 23, 3)),
    152: (real_bottleneck, (3, 8, 36, 3)),
}


def SimpleBaseline(
    *,
    input_shape: tuple[int, int, int] = (256, 192, 3),
    input_tensor=None,
    weights: str | None = None,
    backbone: int = 18,
    width: int = 64,
    head_filters: int | None = None,
    num_keypoints: int = 17,
    num_classes: int | None = None,
    quantizer: None = None,
) -> tf.keras.Model:
    """Simple Baseline, a real-valued pose network: a ResNet and three transposed convolutions.

    The network of the official code: padding on both sides as in PyTorch, the stride of a
    bottleneck in its 3x3 convolution, three 4x4 transposed convolutions of stride 2 with norms
    and ReLUs. 15,376,721 parameters with the backbone of 18 layers, 33,999,697 with that of 50.

    # Arguments
        input_shape: Height, width and channels; the sides divide by 32.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        backbone: 18, 34, 50, 101 or 152.
        width: Filters of the backbone's first stage, doubled in each later one.
        head_filters: Filters of the transposed convolutions; `None` is four times the width.
        num_keypoints: Number of heatmaps.
        num_classes: Makes the backbone a classifier of so many classes, to be trained first.
        quantizer: `None`: the network is real-valued.

    # Returns
        A model from images to heatmaps `(samples, height / 4, width / 4, num_keypoints)`, or to
        probabilities `(samples, num_classes)`.

    # Raises
        ValueError: for an unknown backbone, with the known ones, sides that do not divide by 32,
            and a quantizer.

    # References
        - [Simple Baselines for Human Pose Estimation](https://arxiv.org/abs/1804.06208)
    """
    pose.check_real("SimpleBaseline", quantizer, "SBPN")
    block, counts = common.choose(backbone, _BACKBONES, "backbone")
    image = pose.network_input(input_shape, input_tensor)
    units = Units(activation="relu")
    x = units.real(image, width, 7, 2, name="stem")
    x = pose.pad_before(x, 3, "stem_pool_pad")
    x = tf.keras.layers.MaxPool2D(3, 2, name="stem_pool")(x)
    for stage, (count, filters) in enumerate(zip(counts, widths(width), strict=True)):
        for index in range(count):
            strides = 2 if stage > 0 and index == 0 else 1
            x = block(x, filters, units, strides, f"stage{stage + 1}_block{index + 1}")
    features = [x]
    if num_classes is None:
        for number in range(1, STAGES + 1):
            x = real_transposed(x, head_filters or 4 * width, units, f"head{number}")
    x = pose.ending(x, features, num_keypoints=num_keypoints, num_classes=num_classes)
    return common.finish(image, x, f"simple_baseline{backbone}", weights)
