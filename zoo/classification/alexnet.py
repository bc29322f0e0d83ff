"""AlexNet for images of ImageNet's size."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo import _common as common

# Filters, size of the kernel, and whether pooling follows: the second to the fifth convolution.
_CONVOLUTIONS = ((256, 5, True), (384, 3, False), (384, 3, False), (256, 3, True))
_VARIANTS = {"default": False, "learnable_scale": True}  # whether pooling stands before the norm


def AlexNet(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    input_tensor=None,
    weights: str | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
    variant: str = "default",
) -> tf.keras.Model:
    """AlexNet with norms, for ImageNet: four convolutions and two dense layers are binary.

    A real 11x11 convolution of stride 4 with 96 filters; binary convolutions with 256 (5x5), 384,
    384 and 256 (3x3) filters; binary dense layers with 4096 outputs each; a real classifier. 3x3
    max pooling of stride 2 follows the first, second and fifth convolution. 58,236,928 binary
    weights in 6 binary layers.

    The papers that report AlexNet (Trained Binarization, FDA-BNN) were not found to give its
    layers. The choice is ours, after XNOR-Net: the widths of the first AlexNet without groups, no
    local response normalization, a norm in front of each binary layer, no dropout. `"default"`
    pools after the norm, which the runtime joins with the convolution; `"learnable_scale"` pools
    before it, as XNOR-Net does. In floating point (`quantizer=None`) ReLUs take the place of the
    binarization.

    # Arguments
        input_shape: Height, width and channels.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        include_top: Whether to end in the classifier, or in the last feature map.
        num_classes: Number of classes.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.
        variant: `"default"` or `"learnable_scale"`.

    # Returns
        A model from images to probabilities `(samples, num_classes)`, or features, for the usual
        size `(samples, 6, 6, 256)`.

    # Raises
        ValueError: for an unknown variant or method, with the known ones.

    # References
        - [XNOR-Net](https://arxiv.org/abs/1603.05279)
        - [Trained Binarization](https://arxiv.org/abs/1909.11366)
        - [FDA-BNN](https://arxiv.org/abs/2103.00841)
    """
    pool_first = common.choose(variant, _VARIANTS)
    layers = common.BinaryLayers(quantizer, pad_values, instead="relu")

    def pool_and_norm(x, name: str):
        pool = tf.keras.layers.MaxPool2D(3, 2, name=f"{name}_pool")
        if pool_first:
            return common.norm(pool(x), f"{name}_norm")
        return pool(common.norm(x, f"{name}_norm", beta=common.POOLED_BETA))

    image = common.network_input(input_shape, input_tensor)
    x = tf.keras.layers.ZeroPadding2D(2, name="pad")(image)
    x = tf.keras.layers.Conv2D(
        96, 11, strides=4, use_bias=False, kernel_initializer="he_normal", name="stem"
    )(x)
    x = pool_and_norm(x, "stem")
    for index, (filters, size, pooled) in enumerate(_CONVOLUTIONS):
        name = f"conv{index + 2}"
        x = layers.conv(x, filters, size, name=name)
        x = pool_and_norm(x, name) if pooled else common.norm(x, f"{name}_norm")
    if include_top:
        x = tf.keras.layers.Flatten(name="flatten")(x)
        for name in ("dense6", "dense7"):
            x = common.norm(layers.dense(x, 4096, name=name), f"{name}_norm")
        # Without it this layer and the classifier would be one linear map.
        x = common.activate(x, "relu", "dense7")
        x = common.classes(x, num_classes)
    return common.finish(image, x, "alexnet", weights)
