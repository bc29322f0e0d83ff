"""`variant="reactnet"` against ReActNet's own block, which has two biases more for each PReLU."""

from __future__ import annotations

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import numpy as np
import pytest
import tensorflow as tf

import larq_ext_zoo as zoo

CASES = {
    "ResNet18": ({"input_shape": (64, 64, 3), "width": 8}, 16),
    "ResNet20": ({"input_shape": (16, 16, 3)}, 18),
}


def random_weights(model: tf.keras.Model, rng: np.random.Generator) -> None:
    """Variances and scales around 1, all else around 0; sums of signs are made that small, too."""
    for weight in model.weights:
        draw = rng.normal(0, 0.5, weight.shape)
        positive = any(part in weight.name for part in ("gamma", "variance"))
        weight.assign(np.exp(draw / 2) if positive else draw)
    for name in units_of(model):
        signs = np.prod(model.get_layer(f"{name}_conv").kernel.shape[:3])
        variance = model.get_layer(f"{name}_norm").moving_variance
        variance.assign(variance * signs)


def units_of(model: tf.keras.Model) -> list[str]:
    return [one.name[: -len("_bias")] for one in model.layers if one.name.endswith("_bias")]


def official(model: tf.keras.Model, before: list, behind: list) -> tf.keras.Model:
    """The same layers with a bias before and one behind each PReLU, as in the official code, up to
    the logits: `move0, sign, convolution, norm, sum, move1, PReLU, move2`.
    """
    layer, units = model.get_layer, units_of(model)
    names = [one.name for one in model.layers]
    x = layer(f"{units[0]}_bias").input
    for name, move1, move2 in zip(units, before, behind, strict=True):
        shortcut = x
        for part in ("shortcut_pool", "shortcut_conv", "shortcut_norm", "subsample", "pad"):
            if f"{name}_{part}" in names:
                shortcut = layer(f"{name}_{part}")(shortcut)
        y = layer(f"{name}_norm")(layer(f"{name}_conv")(layer(f"{name}_bias")(x)))
        x = layer(f"{name}_prelu")(y + shortcut + move1) + move2
    for name in names[names.index(f"{units[-1]}_prelu") + 1 : -1]:
        x = layer(name)(x)
    return tf.keras.Model(model.input, x)


def fold(model: tf.keras.Model, before: list, behind: list) -> None:
    """Puts the two biases into what the network has."""
    layer, units = model.get_layer, units_of(model)
    names = [one.name for one in model.layers]
    moved = np.zeros(layer(f"{units[0]}_bias").bias.shape, "float32")
    for name, move1, move2 in zip(units, before, behind, strict=True):
        layer(f"{name}_bias").bias.assign_add(moved)
        if f"{name}_shortcut_conv" in names:
            kernel = layer(f"{name}_shortcut_conv").kernel.numpy()[0, 0]
            layer(f"{name}_shortcut_norm").moving_mean.assign_sub(moved @ kernel)
            moved = np.zeros(kernel.shape[1], "float32")
        missing = len(move1) - len(moved)
        moved = np.pad(moved, (missing // 2, missing - missing // 2))
        layer(f"{name}_norm").beta.assign_add(moved + move1)
        moved = move2
    if "top_norm" in names:
        layer("top_norm").moving_mean.assign_sub(moved)
    else:
        layer("logits").bias.assign_add(moved @ layer("logits").kernel.numpy())


@pytest.mark.parametrize("name", CASES)
def test_the_biases_left_out_change_nothing_that_others_could_not(name):
    arguments, units = CASES[name]
    model = getattr(zoo, name)(quantizer="ste_sign", variant="reactnet", num_classes=5, **arguments)
    rng = np.random.default_rng(0)
    random_weights(model, rng)
    filters = [one.filters for one in model.layers if isinstance(one, lqx.layers.QuantConv2D)]
    assert len(filters) == len(units_of(model)) == units
    before, behind = ([rng.normal(0, 0.5, n).astype("float32") for n in filters] for _ in range(2))
    images = rng.normal(size=(16, *arguments["input_shape"])).astype("float32")
    logits = tf.keras.Model(model.input, model.get_layer("logits").output)
    without = logits.predict(images, verbose=0)
    expected = official(model, before, behind).predict(images, verbose=0)
    spread = np.ptp(expected, axis=0).max()
    assert np.abs(without - expected).max() > spread / 10
    fold(model, before, behind)
    # Rounding may turn a sign, and with it much of what follows of one image.
    differences = np.abs(logits.predict(images, verbose=0) - expected).max(-1)
    assert (differences < 1e-4 * spread).sum() >= 15
