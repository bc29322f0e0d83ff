"""Plain convolutional networks for small images."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo.classification import _common as common


def VGGSmall(
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    input_tensor=None,
    weights: str | None = None,
    include_top: bool = True,
    num_classes: int = 10,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
    pool_first: bool = False,
) -> tf.keras.Model:
    """VGG-Small for CIFAR: one real and five binary 3x3 convolutions, then a real classifier.

    128, 128, pool, 256, 256, pool, 512, 512, pool; 4,571,136 binary weights. Normalization
    stands before pooling, so that the runtime keeps bits between two layers.

    # Arguments
        input_shape: Height, width and channels.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        include_top: Whether to end in the classifier, or in the last feature map.
        num_classes: Number of classes.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.
        pool_first: Whether pooling stands before normalization, as in SiMaN's code.

    # Returns
        A model from images to probabilities `(samples, num_classes)`, or features
        `(samples, height / 8, width / 8, 512)`.

    # References
        - [SiMaN](https://arxiv.org/abs/2102.07981), for the activations
    """
    convolve = common.binary_convolutions(quantizer, pad_values)
    image = common.network_input(input_shape, input_tensor)
    x = tf.keras.layers.Conv2D(
        128, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name="stem"
    )(image)
    x = common.prelu(common.norm(x, "stem_norm"), "stem_prelu")
    for index, filters in enumerate((128, 256, 256, 512, 512)):
        name = f"conv{index + 2}"
        pool = tf.keras.layers.MaxPool2D(2, name=f"{name}_pool")
        x = convolve(x, filters, 1, name)
        pooled = index % 2 == 0
        if pooled and pool_first:
            x = pool(x)
        x = common.norm(x, f"{name}_norm")
        if pooled and not pool_first:
            x = pool(x)
        x = common.prelu(x, f"{name}_prelu")
    if include_top:
        x = common.classes(tf.keras.layers.Flatten(name="flatten")(x), num_classes)
    return common.finish(image, x, "vgg_small", weights)
