"""The real-valued parent of BHRNet."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from larq_ext_zoo.pose import _common as pose
from larq_ext_zoo.pose._bottlenecks import real_bottleneck
from larq_ext_zoo.pose._hrnet import HighResolution, check_modules, finish
from larq_ext_zoo.pose._units import Units

LAYER1_BLOCKS = 4


def real_layer1(x, units: Units):
    """Four bottlenecks, whose outputs have four times the channels of the stem."""
    filters = x.shape[-1]
    for block in range(1, LAYER1_BLOCKS + 1):
        x = real_bottleneck(x, filters, units, 1, f"layer1_block{block}")
    return x


def HRNet(
    *,
    input_shape: tuple[int, int, int] = (256, 192, 3),
    input_tensor=None,
    weights: str | None = None,
    width: int = 32,
    stem_filters: int = 64,
    modules: Sequence[int] = (1, 4, 3),
    blocks: int = 4,
    num_keypoints: int = 17,
    num_classes: int | None = None,
    quantizer: None = None,
) -> tf.keras.Model:
    """HRNet, a real-valued pose network with branches of up to four sizes.

    The network of the official code: two 3x3 convolutions of stride 2 and four bottlenecks, then
    modules of two, three and four branches with `width`, twice, four and eight times as many
    channels at 1/4, 1/8, 1/16 and 1/32 of the size. A module has four basic blocks per branch
    and then adds to each branch all others. 28,536,113 parameters with the width 32, 63,595,745
    with 48.

    # Arguments
        input_shape: Height, width and channels; the sides divide by 32.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        width: Channels of the largest branch.
        stem_filters: Channels of the stem, and of the 3x3 convolutions of the first layer.
        modules: How many modules have two branches, three and four.
        blocks: Blocks of two 3x3 convolutions per branch and module.
        num_keypoints: Number of heatmaps.
        num_classes: Makes it a classifier of so many classes, to be trained first: a dense layer
            on the means of all branches, which is not the official classification head.
        quantizer: `None`: the network is real-valued.

    # Returns
        A model from images to heatmaps `(samples, height / 4, width / 4, num_keypoints)`, or to
        probabilities `(samples, num_classes)`.

    # Raises
        ValueError: for sides that do not divide by 32, wrong `modules` or `blocks`, and a
            quantizer.

    # References
        - [Deep High-Resolution Representation Learning](https://arxiv.org/abs/1902.09212)
    """
    pose.check_real("HRNet", quantizer, "BHRNet")
    check_modules(modules)
    image = pose.network_input(input_shape, input_tensor)
    units = Units(activation="relu", initializer=pose.SMALL_NORMAL)
    network = HighResolution(units, width, blocks, frozenset())
    maps = network.body(image, stem_filters, lambda x: real_layer1(x, units), modules)
    return finish(
        *(image, maps, f"hrnet_w{width}", weights),
        num_keypoints=num_keypoints,
        num_classes=num_classes,
    )
