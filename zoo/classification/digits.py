"""A network of a few layers for images of a few pixels."""

from __future__ import annotations

import tensorflow as tf

from larq_ext_zoo import _common as common


def DigitsNet(
    *,
    input_shape: tuple[int, int, int] = (8, 8, 1),
    input_tensor=None,
    weights: str | None = None,
    include_top: bool = True,
    num_classes: int = 10,
    quantizer: str | None = "fda",
    pad_values: float | None = None,
) -> tf.keras.Model:
    """A residual network with three binary layers, for scikit-learn's 8x8 digits.

    A real 3x3 convolution, three units `PReLU(x + BN(binary convolution(x)))` with 64 filters,
    average pooling and a real classifier: 110,592 binary weights.

    # Arguments
        input_shape: Height, width and channels.
        input_tensor: Optional Keras tensor to use as the input.
        weights: File of weights to load, or `None` for random ones.
        include_top: Whether to end in the classifier, or in the last feature map.
        num_classes: Number of classes.
        quantizer: Name of a method, or `None` for a network in floating point.
        pad_values: What borders are padded with; `None` is what the method says.

    # Returns
        A model from images to probabilities `(samples, num_classes)`, or features
        `(samples, height / 2, width / 2, 64)`.
    """
    layers = common.BinaryLayers(quantizer, pad_values)
    image = common.network_input(input_shape, input_tensor)
    x = tf.keras.layers.Conv2D(64, 3, padding="same", use_bias=False, name="stem")(image)
    x = common.norm(x, "stem_norm")
    for unit in range(3):
        name = f"unit{unit + 1}"
        y = common.norm(layers.conv(x, 64, name=f"{name}_conv"), f"{name}_norm")
        x = tf.keras.layers.Add(name=f"{name}_add")([x, y])
        x = common.prelu(x, f"{name}_prelu")
        if unit == 0:
            x = tf.keras.layers.AveragePooling2D(2, name="pool")(x)
            # An average of PReLUs is not centred: without this, most signs would be +1.
            x = common.norm(x, "pool_norm")
    if include_top:
        x = tf.keras.layers.Flatten(name="flatten")(x)
        x = common.classes(x, num_classes)
    return common.finish(image, x, "digits_net", weights)
