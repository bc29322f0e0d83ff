"""A binary pose network in the style of BHRNet: a high-resolution network of binary units."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from larq_ext_zoo import _common as common
from larq_ext_zoo.pose import _common as pose
from larq_ext_zoo.pose._bottlenecks import binary_bottleneck, real_projection
from larq_ext_zoo.pose._hrnet import GROUPS, HighResolution, check_modules, finish
from larq_ext_zoo.pose._units import Units
from larq_ext_zoo.pose.hrnet import LAYER1_BLOCKS, real_layer1

# The groups that are binary.
_BUDGETS = {
    "A": GROUPS[:1],
    "B": GROUPS[:3],
    "C": GROUPS[:4],
    "D": GROUPS[:5],
    "E": GROUPS,
}


def _bottlenecks(x, units: Units, binary: Sequence[str]):
    """Four binary bottlenecks."""

    def binary_projection(x, filters: int, strides: int, name: str):
        return units.binary(x, filters, 1, strides, name=name, activated=False)

    projection = binary_projection if "projection" in binary else real_projection
    narrow, filters = x, x.shape[-1]
    for block in range(1, LAYER1_BLOCKS + 1):
        name = f"layer1_block{block}"
        x, narrow = binary_bottleneck(x, narrow, filters, units, 1, name, projection=projection)
    return x


def _basic(x, units: Units, binary: Sequence[str]):
    """Eight binary 3x3 units."""
    for unit in range(1, 2 * LAYER1_BLOCKS + 1):
        x = units.binary(x, x.shape[-1], name=f"layer1_unit{unit}")
    return x


def _real(x, units: Units, binary: Sequence[str]):
    return real_layer1(x, units)


_LAYER1 = {"bottleneck": _bottlenecks, "basic": _basic, "real": _real}


def BHRNet(
    *,
    input_shape: tuple[int, int, int] = (256, 192, 3),
    input_tensor=None,
    weights: str | None = None,
    width: int = 32,
    stem_filters: int = 64,
    budget: str = "E",
    layer1: str | None = None,
    modules: Sequence[int] = (1, 4, 3),
    blocks: int = 4,
    num_keypoints: int = 17,
    num_classes: int | None = None,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
) -> tf.keras.Model:
    r"""BHRNet-style binary pose network: `HRNet` with binary units and unbroken real shortcuts.

    A reconstruction: of BHRNet the paper's abstract was found, its layers were not. Each binary
    convolution has a shortcut of its own, \\( y = \mathrm{norm}(\mathrm{sign}(x) * K) + r \\),
    where r is x: averaged over 2x2 pixels where the map shrinks, its channels repeated where
    they become more and averaged in groups where they become fewer, without parameters. A PReLU
    follows each sum, but for the terms of a merge, which has one behind its sum.

    | budget | binary convolutions |
    |---|---|
    | `"A"` | branches |
    | `"B"` | also merges, and the transitions to three and four branches |
    | `"C"` | also the transition to two branches |
    | `"D"` | also the first layer, but for its projection |
    | `"E"` | all but the stem and the last |

    | layer1 | first layer | budgets |
    |---|---|---|
    | `"real"` | four real bottlenecks | A, B, C |
    | `"bottleneck"` | four binary bottlenecks in the manner of Bi-Real-50 | D, E |
    | `"basic"` | eight binary 3x3 units; D and E are the same | D, E |

    Bottlenecks end in four times the channels of the stem.

    # Arguments
        input_shape: Height, width and channels; the sides divide by 32.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        width: Channels of the largest branch; the runtime packs multiples of 32 without waste.
        stem_filters: Channels of the stem, and of the 3x3 convolutions of the first layer.
        budget: `"A"` to `"E"`.
        layer1: Kind of the first layer; `None` is the first that goes with the budget.
        modules: How many modules have two branches, three and four.
        blocks: Blocks of two 3x3 convolutions per branch and module.
        num_keypoints: Number of heatmaps.
        num_classes: Makes it a classifier of so many classes, to be trained first: a dense layer
            on the means of all branches.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.

    # Returns
        A model from images to heatmaps `(samples, height / 4, width / 4, num_keypoints)`, or to
        probabilities `(samples, num_classes)`.

    # Raises
        ValueError: for an unknown budget, first layer or method, with the known ones, a first
            layer that does not go with the budget, sides that do not divide by 32 and wrong
            `modules` or `blocks`.

    # References
        - [Binarizing by Classification](https://arxiv.org/abs/2205.07433)
        - [Deep High-Resolution Representation Learning](https://arxiv.org/abs/1902.09212)
        - [Bi-Real Net](https://arxiv.org/abs/1808.00278)
    """
    binary = common.choose(budget, _BUDGETS, "budget")
    first = _first_layer(layer1, budget)
    check_modules(modules)
    image = pose.network_input(input_shape, input_tensor)
    units = Units(common.BinaryLayers(quantizer, pad_values, "glorot_uniform"))
    network = HighResolution(units, width, blocks, frozenset(binary))
    maps = network.body(image, stem_filters, lambda x: first(x, units, binary), modules)
    return finish(
        *(image, maps, f"bhrnet_w{width}", weights),
        num_keypoints=num_keypoints,
        num_classes=num_classes,
    )


def _first_layer(layer1: str | None, budget: str) -> Callable:
    """What makes the first layer.

    # Raises
        ValueError: if it does not go with the budget.
    """
    kinds = ["bottleneck", "basic"] if "layer1" in _BUDGETS[budget] else ["real"]
    if layer1 is not None and layer1 not in kinds:
        raise ValueError(f"With budget {budget!r} `layer1` is one of {kinds}, received {layer1!r}.")
    return _LAYER1[layer1 or kinds[0]]
