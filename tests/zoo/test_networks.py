"""The networks: sizes and orders of layers that were published, and what they promise."""

from __future__ import annotations

import functools
import json
import pathlib
import subprocess
import sys

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_ext_zoo import classification as zoo

SMALL = {
    "AlexNet": (64, 64, 3),
    "DigitsNet": (8, 8, 1),
    "ResNet18": (64, 64, 3),
    "ResNet18Cifar": (16, 16, 3),
    "ResNet20": (16, 16, 3),
    "ResNet34": (64, 64, 3),
    "VGGSmall": (16, 16, 3),
}

unusual = pytest.mark.exhaustive
# Of the two left out, one is ResNet-18 for CIFAR with another stem, the other a longer one.
EACH = [pytest.param(n, marks=unusual if n in ("ResNet18", "ResNet34") else ()) for n in SMALL]


def network(name, **arguments):
    return getattr(zoo, name)(**arguments)


@functools.lru_cache
def small(name, variant="default"):
    """One for all tests that only look at it."""
    arguments = {} if variant == "default" else {"variant": variant}
    return network(name, quantizer="ste_sign", input_shape=SMALL[name], num_classes=3, **arguments)


def binary_layers(model):
    kinds = (lqx.layers.QuantConv2D, lqx.layers.QuantDense)
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


# Parameters, binary layers and weights: counted in the official code of SiMaN and of Binarizing
# by Classification. SiMaN's count has its scales (one per filter) and not its stored bits; the
# other has the 300 weights of the classifier that all layers share.
# Multiply-adds: of Binarizing by Classification at 224 pixels; a strided 1x1 convolution has as
# many as a pooled one. Of Trained Binarization as derived for binary 1x1 convolutions. The others
# follow from the sizes of the layers.
PUBLISHED = [
    ("ResNet20", "siman", 271_194, 18, 267_264, None, None),
    ("ResNet18Cifar", "siman", 11_179_722, 19, 11_157_504, None, None),
    ("VGGSmall", "siman", 4_663_562, 5, 4_571_136, 603_979_776, 3_538_944 + 81_920),
    ("VGGSmall", "learnable_scale", None, 5, 4_571_136, 603_979_776, 3_538_944 + 81_920),
    ("ResNet18", "siman", 11_698_216, 16, 10_985_472, 1_676_279_808, 137_793_536),
    pytest.param(
        *("ResNet34", "siman", 21_813_800, 32, 21_086_208, 3_525_967_872, 137_793_536),
        marks=unusual,  # ten seconds to build
    ),
    ("ResNet18", "mlp_classifier", 11_693_716, 16, 10_985_472, 1_676_279_808, 137_793_536),
    ("ResNet34", "mlp_classifier", 21_805_588, 32, 21_086_208, 3_525_967_872, 137_793_536),
    (
        *("ResNet18", "learnable_scale", None, 19, 10_985_472 + 172_032),
        *(1_695_547_392, 118_013_952 + 512_000),
    ),
]


# What a sum is made of, so that no error in it hides another.
PARTS = {
    ("ResNet18", "siman"): {
        "kernel": 10_985_472 + 9_408 + 172_032 + 512_000,
        "scale": 3_840,  # one for each filter of the binary layers
        "alpha": 3_840,  # slopes of PReLUs
        "gamma": 64 + 3_840 + 896 + 512,  # stem, units, shortcuts, top
        "beta": 64 + 3_840 + 896 + 512,
        "bias": 1_000,
    }
}


# Bytes with weights of one bit where they are binary, all else in float32. "About", says the sheet.
STORAGE = {("ResNet18", "mlp_classifier"): 4.20e6, ("ResNet34", "mlp_classifier"): 5.51e6}


def parts(model):
    sizes = {}
    for weight in model.trainable_weights:
        part = weight.name.split("/")[-1].split(":")[0]
        sizes[part] = sizes.get(part, 0) + count([weight])
    return sizes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "paper", "parameters", "layers", "weights", "binary_macs", "real_macs"), PUBLISHED
)
def test_sizes_are_those_published(
    name, paper, parameters, layers, weights, binary_macs, real_macs
):
    model = network(name, quantizer=paper, variant=paper)
    found = binary_layers(model)
    assert (len(found), count(layer.kernel for layer in found)) == (layers, weights)
    if parameters is not None:
        assert count(model.trainable_weights) == parameters
        if (name, paper) in PARTS:
            assert parts(model) == PARTS[name, paper]
    profile = lq.models.ModelProfile(model)
    if binary_macs is not None:
        assert profile.op_count("mac", 1) == binary_macs
        assert profile.op_count("mac", 32) == real_macs
    if (name, paper) in STORAGE:
        assert profile.memory / 8 == pytest.approx(STORAGE[name, paper], rel=2e-3)


def test_storage_of_the_small_network_of_trained_binarization():
    """One first and one last layer in float32, 1,664 alphas and 5 betas; without norms."""
    model = network("VGGSmall", quantizer="learnable_scale", variant="learnable_scale")
    norm = tf.keras.layers.BatchNormalization
    norms = {layer.name for layer in model.layers if isinstance(layer, norm)}
    profiles = lq.models.ModelProfile(model).layer_profiles
    assert sum(p.memory for p in profiles if p.name not in norms) == 8 * 919_612


def test_alexnet():
    model = zoo.AlexNet(quantizer="ste_sign")
    kernels = [5 * 5 * 96 * 256, 9 * 256 * 384, 9 * 384 * 384, 9 * 384 * 256, 9216 * 4096, 4096**2]
    assert [count([layer.kernel]) for layer in binary_layers(model)] == kernels
    pixels = [27**2, 13**2, 13**2, 13**2, 1, 1]
    profile = lq.models.ModelProfile(model)
    assert profile.op_count("mac", 1) == sum(np.multiply(kernels, pixels))
    assert profile.op_count("mac", 32) == 55**2 * 11 * 11 * 3 * 96 + 4096 * 1000
    assert model.get_layer("flatten").input_shape == (None, 6, 6, 256)


KINDS = {
    "Add": "add",
    "AveragePooling2D": "mean",
    "BatchNormalization": "norm",
    "Conv2D": "real",
    "Dense": "real",
    "Flatten": "flat",
    "GlobalAveragePooling2D": "mean",
    "MaxPooling2D": "pool",
    "PReLU": "prelu",
    "QuantConv2D": "conv",
    "ZeroPadding2D": "pad",
}


def kind(layer):
    if isinstance(layer, tf.keras.layers.Activation):
        return layer.activation.__name__
    return KINDS[type(layer).__name__]


def producer(tensor):
    return tensor.node.layer


def main_path(model):
    """The layers from the stem to the classifier, at a sum through the convolution."""
    layers, layer = [], model.get_layer("logits")
    while layer.name != "image":
        layers.insert(0, layer)
        layer = producer(layer.input[0] if isinstance(layer.input, list) else layer.input)
    return layers


def shortcuts(main):
    """What lies on the other way to each sum."""
    found = []
    for add in (layer for layer in main if kind(layer) == "add"):
        layer, kinds = producer(add.input[1]), []
        while layer not in main:
            kinds.insert(0, kind(layer))
            layer = producer(layer.input)
        found.append(" ".join(kinds))
    return found


BI_REAL = "conv norm add prelu"
ORDERS = {
    ("ResNet20", "default"): ("real norm", BI_REAL, "pool pad", "mean norm real"),
    ("ResNet20", "siman"): ("real norm relu", BI_REAL, "pool pad", "mean norm real"),
    ("ResNet20", "fda"): (
        *("real norm", "conv prelu norm conv prelu norm add", "pool pad", "relu mean real"),
    ),
    ("ResNet18Cifar", "default"): ("real norm", BI_REAL, "mean real norm", "mean norm real"),
    ("ResNet18Cifar", "siman"): (
        *("real norm", "conv norm hard_tanh conv norm add hard_tanh", "conv norm"),
        "mean norm real",
    ),
    ("ResNet18", "default"): ("real norm pool", BI_REAL, "mean real norm", "mean real"),
    ("ResNet18", "mlp_classifier"): (
        *("real norm prelu pool", BI_REAL, "mean real norm", "mean real"),
    ),
    ("ResNet18", "siman"): ("real norm relu pool", BI_REAL, "real norm", "mean norm real"),
    ("ResNet18", "learnable_scale"): (
        *("real norm pool", "norm conv norm conv add", "norm conv", "norm mean real"),
    ),
}


@pytest.mark.parametrize(("name", "variant"), ORDERS)
def test_orders_of_residual_networks(name, variant):
    """Those of the papers' code, as far as it was found."""
    stem, block, shrinking, top = ORDERS[name, variant]
    model = small(name, variant)
    main = main_path(model)
    stages = 3 if name == "ResNet20" else 4
    convolutions = 18 if name == "ResNet20" else 16
    sums = convolutions * block.count("add") // block.count("conv")
    assert " ".join(map(kind, main)) == " ".join([stem, *[block] * sums, top])
    found = shortcuts(main)
    assert len(found) == sums
    per_stage = sums // stages
    for index, seen in enumerate(found):
        assert seen == (shrinking if index >= per_stage and index % per_stage == 0 else "")


@pytest.mark.parametrize(
    ("variant", "first", "second"),
    [
        ("default", "norm pool prelu", "norm prelu"),
        ("siman", "pool norm prelu", "norm prelu"),
        ("learnable_scale", "pool norm", "norm"),
    ],
)
def test_orders_of_vgg(variant, first, second):
    model = small("VGGSmall", variant)
    expected = f"real {second} conv {first} conv {second} conv {first} conv {second} conv {first}"
    assert " ".join(map(kind, main_path(model))) == f"{expected} flat real"


def test_first_values_of_weights():
    model = small("ResNet18", "siman")
    gammas = {
        layer.name: layer.gamma.numpy()
        for layer in model.layers
        if isinstance(layer, tf.keras.layers.BatchNormalization)
    }
    np.testing.assert_array_equal(gammas.pop("top_norm"), 1.0)
    assert len(gammas) == 1 + 16 + 3
    np.testing.assert_allclose(np.concatenate(list(gammas.values())), 1e-8)
    again = zoo.ResNet18(quantizer=None, variant="siman", input_shape=(32, 32, 3), gamma=0.5)
    np.testing.assert_array_equal(again.get_layer("stem_norm").gamma, 0.5)

    # One initializer for all layers would give them all the same kernel.
    model = small("ResNet18Cifar", "siman")
    one, other = (model.get_layer(f"stage4_unit{unit}_conv").kernel.numpy() for unit in (3, 4))
    assert (one != other).mean() > 0.9
    stem = model.get_layer("stem").kernel.numpy()
    bound = 1 / np.sqrt(27)
    assert 0.95 * bound < np.abs(stem).max() <= bound


@pytest.mark.parametrize("name", ["VGGSmall", "AlexNet", "ResNet20", "ResNet18Cifar"])
def test_binary_layers_see_both_signs(name):
    """Or they would learn next to nothing at first; on noise, where maxima are largest."""
    model = tf.keras.models.clone_model(small(name))
    images = np.random.default_rng(0).normal(size=(16, *SMALL[name])).astype("float32")
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    layers = binary_layers(model)
    inputs = tf.keras.Model(model.input, [layer.input for layer in layers])(images)
    for layer, values in zip(layers, inputs, strict=True):
        assert 0.1 < np.mean(values.numpy() >= 0) < 0.9, layer.name


@pytest.mark.parametrize("name", ["ResNet18", "VGGSmall", "AlexNet"])
def test_no_float_network_is_linear(name):
    """Where only signs bend, floating point has ReLUs in their places."""
    binary = small(name, "learnable_scale")
    plain = network(name, quantizer=None, variant="learnable_scale", input_shape=SMALL[name])
    for layer in binary_layers(binary):
        before = producer(plain.get_layer(layer.name).input)
        assert kind(before) == "relu", layer.name


def test_floating_point():
    model = zoo.ResNet20(quantizer=None, input_shape=SMALL["ResNet20"], num_classes=7)
    assert not binary_layers(model)
    outputs = model(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), training=False)
    assert outputs.shape == (2, 7)
    np.testing.assert_allclose(np.sum(outputs, -1), 1.0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_features_are_those_of_the_whole_network(name):
    whole = small(name)
    part = network(name, quantizer="ste_sign", input_shape=SMALL[name], include_top=False)
    for layer in part.layers:
        layer.set_weights(whole.get_layer(layer.name).get_weights())
    first = whole.get_layer("flatten" if "flatten" in {x.name for x in whole.layers} else "pool")
    expected = tf.keras.Model(whole.input, first.input)
    images = np.random.default_rng(0).normal(size=(2, *SMALL[name])).astype("float32")
    features = part.predict(images, verbose=0)
    assert features.ndim == 4 and np.ptp(features) > 0
    np.testing.assert_array_equal(features, expected.predict(images, verbose=0))


def test_input_tensor_and_weights_file(tmp_path):
    image = tf.keras.Input((16, 16, 1), name="mine")
    model = zoo.ResNet20(input_tensor=image, num_classes=3)
    assert model.input_shape == (None, 16, 16, 1)
    model.save_weights(tmp_path / "a.weights.h5")
    again = zoo.ResNet20(input_shape=(16, 16, 1), num_classes=3, weights=tmp_path / "a.weights.h5")
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("weights", ["imagenet", "resnet20.fda_cifar10", "a.safetensors"])
def test_weights_that_are_no_file_of_keras(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=f"received '{weights}'.*form=\"training\""):
        zoo.DigitsNet(weights=weights)


@pytest.mark.parametrize("name", EACH)
def test_a_saved_network_loads_without_the_zoo(name):
    """`import larq_ext` is enough: no layer is the zoo's own."""
    for layer in small(name).layers:
        assert not type(layer).__module__.startswith("larq_ext_zoo"), layer.name


def test_one_classifier_serves_a_network():
    model = zoo.ResNet20(quantizer="mlp_classifier")
    assert len({id(layer.kernel_quantizer) for layer in binary_layers(model)}) == 1
    assert len({id(layer.input_quantizer) for layer in binary_layers(model)}) == 18


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match="mlp_classifier"):
        zoo.ResNet20(quantizer="sign")


@pytest.mark.slow
def test_norms_see_the_whole_batch():
    """On two devices, whose halves of the batch have different means."""
    program = pathlib.Path(__file__).parent / "two_devices.py"
    result = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["synchronized"]
    np.testing.assert_allclose(answer["variance"], answer["expected"], rtol=1e-3)


def test_norms_are_plain_on_one_device():
    """The synchronized kind is slower there."""
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = zoo.DigitsNet(quantizer="ste_sign")
    assert not model.get_layer("stem_norm").synchronized
    assert model.get_layer("stem_norm").fused
