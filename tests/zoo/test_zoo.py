"""Every network with every method: sizes, registry, and one exam for all."""

import numpy as np
import pytest

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import tensorflow as tf

import larq_ext_zoo as zoo

METHODS = (*lqx.quantizers.METHODS, None)


def binary_layers(model):
    return [layer for layer in model.layers if isinstance(layer, lqx.layers.QuantConv2D)]


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def test_sizes_are_those_of_the_official_code():
    """Of SiMaN's code: 271,194 and 4,663,562 parameters."""
    model = zoo.ResNet20(quantizer="siman", variant="siman")
    assert trainable(model) == 271_194
    kernels = [int(np.prod(layer.kernel.shape)) for layer in binary_layers(model)]
    assert (len(kernels), sum(kernels)) == (18, 267_264)

    model = zoo.VGGSmall(quantizer="siman", variant="siman")
    assert trainable(model) == 4_663_562
    kernels = [int(np.prod(layer.kernel.shape)) for layer in binary_layers(model)]
    assert (len(kernels), sum(kernels)) == (5, 4_571_136)


def check_baked(model):
    baked = lqx.deploy.bake(model)
    assert not lqx.deploy.float_reasons(baked)
    count = sum(isinstance(layer, lqx.deploy.BinaryConv2D) for layer in baked.layers)
    assert count == len(binary_layers(model))


@pytest.mark.parametrize("method", METHODS)
def test_a_training_step(method):
    model = zoo.DigitsNet(quantizer=method, num_classes=7)
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32")
    before = [layer.kernel.numpy() for layer in binary_layers(model)]
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(8) % 7, verbose=0)
    for layer, kernel in zip(binary_layers(model), before, strict=True):
        assert np.isfinite(layer.kernel.numpy()).all()
        assert (layer.kernel.numpy() != kernel).any(), layer.name
    check_baked(model)


@pytest.mark.parametrize("network", [zoo.ResNet20, zoo.VGGSmall])
@pytest.mark.parametrize("method", METHODS)
def test_every_network_takes_every_method(network, method):
    model = network(quantizer=method, num_classes=7)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    outputs = model(images, training=False).numpy()
    assert outputs.shape == (2, 7)
    np.testing.assert_allclose(outputs.sum(-1), 1.0, atol=1e-5)
    check_baked(model)


def test_features_are_those_of_the_whole_network():
    whole = zoo.ResNet20(quantizer="fda")
    part = zoo.ResNet20(quantizer="fda", include_top=False)
    for layer in part.layers:
        layer.set_weights(whole.get_layer(layer.name).get_weights())
    last = tf.keras.Model(whole.input, whole.get_layer("stage3_unit6_prelu").output)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    features = part.predict(images, verbose=0)
    assert features.shape == (2, 8, 8, 64)
    np.testing.assert_array_equal(part.predict(images, verbose=0), last.predict(images, verbose=0))


def test_input_tensor_and_weights_file(tmp_path):
    image = tf.keras.Input((16, 16, 1), name="mine")
    model = zoo.ResNet20(input_tensor=image, num_classes=3)
    assert model.input_shape == (None, 16, 16, 1)
    model.save_weights(tmp_path / "a.weights.h5")
    again = zoo.ResNet20(input_shape=(16, 16, 1), num_classes=3, weights=tmp_path / "a.weights.h5")
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("network", [zoo.DigitsNet, zoo.ResNet20, zoo.VGGSmall])
def test_a_saved_network_loads_without_the_zoo(network):
    """`import larq_ext` is enough: no layer is the zoo's own."""
    for layer in network(quantizer="siman").layers:
        assert not type(layer).__module__.startswith("larq_ext_zoo"), layer.name


def test_one_classifier_serves_a_network():
    model = zoo.ResNet20(quantizer="mlp_classifier")
    assert len({id(layer.kernel_quantizer) for layer in binary_layers(model)}) == 1
    assert len({id(layer.input_quantizer) for layer in binary_layers(model)}) == 18


def test_registry():
    assert "resnet20.siman" in zoo.list_models("resnet20*")
    assert all(name.startswith("vgg_small.") for name in zoo.list_models("vgg*"))
    assert zoo.list_models(pretrained=True) == []
    assert zoo.get("digits_net.siman", num_classes=4).output_shape == (None, 4)
    with pytest.raises(ValueError, match=r"resnet20\.fda"):
        zoo.get("resnet20.fdaa")
    entry = zoo.entry("resnet20.fda")
    with pytest.raises(ValueError, match="already"):
        zoo.registry.register(entry)


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match="mlp_classifier"):
        zoo.ResNet20(quantizer="sign")
