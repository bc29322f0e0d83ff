"""Files of all formats, read by a fresh process; clones; frozen layers; binary files."""

import copy
import json
import pathlib
import subprocess
import sys

import larq as lq
import numpy as np
import pytest
import saved_networks as nets
import tensorflow as tf

import larq_ext as lqx

# What does not survive a plain file of weights, or a checkpoint: constraints are not tracked.
KEEPS_HYPERPARAMETERS = {".keras", ".h5", ".savedmodel"}


@pytest.fixture(scope="module")
def read_by_another_process(tmp_path_factory):
    """The folder, the predictions of this process, and what the other process found."""
    folder = tmp_path_factory.mktemp("saved")
    expected = {}
    for name in nets.METHODS:
        model = nets.trained(name)
        expected[name] = model(nets.pictures(), training=False).numpy()
        for form in nets.FORMATS:
            nets.save(model, folder / f"{name}{form}")
        with lq.context.quantized_scope(True):
            for form in (".keras", ".h5"):
                nets.save(model, folder / f"{name}-binary{form}")
    done = subprocess.run(
        [sys.executable, nets.__file__, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    arrays = dict(np.load(folder / "read.npz"))
    return expected, arrays, json.loads((folder / "read.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("form", nets.FORMATS)
@pytest.mark.parametrize("name", nets.METHODS)
def test_a_fresh_process_predicts_exactly_the_same(read_by_another_process, name, form):
    expected, arrays, _ = read_by_another_process
    assert np.abs(expected[name]).max() > 0.1
    np.testing.assert_array_equal(arrays[name + form], expected[name])


@pytest.mark.parametrize("form", nets.FORMATS)
@pytest.mark.parametrize("name", ["fda", "siman"])
def test_hyperparameters_survive(read_by_another_process, name, form):
    _, _, answers = read_by_another_process
    found = answers[name + form]["hyperparameters"]
    assert len(found) == {"fda": 12, "siman": 3}[name]
    keeps = form in KEEPS_HYPERPARAMETERS or form == ".checkpoint"
    values = {"n": 13, "alpha": 0.03, "percent": 7.5}
    defaults = {"n": 9, "alpha": 0.1, "percent": 15.0}
    assert {(key, value) for _, key, value in found} == {
        (key, (values if keeps else defaults)[key]) for _, key, _ in found
    }


@pytest.mark.parametrize("form", nets.FORMATS)
def test_a_shared_classifier_stays_shared(read_by_another_process, form):
    _, _, answers = read_by_another_process
    assert answers["mlp_classifier" + form]["quantizers"] == 1
    assert answers["mlp_classifier" + form]["weights"] == len(
        nets.network("mlp_classifier").weights
    )
    assert answers["fda" + form]["quantizers"] == 3


@pytest.mark.parametrize("form", [".keras", ".h5"])
@pytest.mark.parametrize("name", nets.METHODS)
def test_files_of_binarized_weights_predict_the_same(read_by_another_process, name, form):
    """Larq's way to save a binary model; scales may be off by their last bit."""
    expected, arrays, _ = read_by_another_process
    np.testing.assert_allclose(arrays[f"{name}-binary{form}"], expected[name], rtol=1e-4, atol=1e-5)


def latent(model):
    return [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel_quantizer")]


@pytest.mark.parametrize("name", nets.METHODS)
def test_our_layers_save_latent_weights_in_keras_files_even_in_the_scope(name, tmp_path):
    model = nets.trained(name)
    with lq.context.quantized_scope(True):
        model.save(tmp_path / "model.keras")
    for before, after in zip(
        latent(model), latent(nets.load(tmp_path / "model.keras")), strict=True
    ):
        np.testing.assert_array_equal(after, before)
        assert len(np.unique(np.abs(before))) > 10


@pytest.mark.parametrize("name", nets.METHODS)
def test_clones(name):
    """A clone has parameters of its own, and shares among its layers what the model shares."""
    model = nets.trained(name)
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x = nets.pictures()
    expected = model(x, training=False)
    np.testing.assert_array_equal(clone(x, training=False), expected)
    assert nets.hyperparameters(clone) == nets.hyperparameters(model)
    assert not {id(w) for w in model.weights} & {id(w) for w in clone.weights}
    quantizers = {id(x.kernel_quantizer) for x in clone.layers if hasattr(x, "kernel_quantizer")}
    assert len(quantizers) == (1 if name == "mlp_classifier" else 3)
    for variable in clone.weights:
        variable.assign(tf.zeros_like(variable.value()) + 0.3)
    np.testing.assert_array_equal(model(x, training=False), expected)
    again = tf.keras.models.clone_model(clone)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(x, training=False), expected)


@pytest.mark.parametrize("name", nets.METHODS)
def test_frozen_layers_keep_their_parameters(name, tmp_path):
    """A learned scale stays in the weights of a frozen layer, and nothing in it moves."""
    model = nets.trained(name)
    count = len(model.weights)
    names = {w.name for w in model.weights}
    frozen = model.get_layer("one")
    frozen.trainable = False
    assert len(model.weights) == count
    assert {w.name for w in model.weights} == names
    before = [w.copy() for w in frozen.get_weights()]
    assert not frozen.trainable_weights
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    model.fit(nets.pictures(), np.ones((6, 3)), verbose=0)
    for one, two in zip(before, frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    moved = model.get_layer("two").get_weights()
    start = nets.trained(name).get_layer("two").get_weights()
    assert any(np.any(a != b) for a, b in zip(moved, start, strict=True))
    for form in (".keras", ".h5", ".weights.h5"):
        nets.save(model, tmp_path / f"{name}{form}")
        loaded = nets.load(tmp_path / f"{name}{form}")
        x = nets.pictures()
        np.testing.assert_array_equal(loaded(x, training=False), model(x, training=False))


def test_a_shared_classifier_trains_with_all_of_its_layers():
    """Whatever was said last: a layer that is frozen would change with it."""
    model = nets.trained("mlp_classifier")
    one, two = model.get_layer("one"), model.get_layer("two")
    shared = one.kernel_quantizer
    assert shared is two.kernel_quantizer and shared.trainable_weights
    for frozen, other in ((one, two), (two, one)):
        frozen.trainable = False
        other.trainable = True
        assert not shared.trainable_weights
        frozen.trainable = True
        assert shared.trainable_weights
    model.trainable = False
    two.trainable = True
    assert not shared.trainable_weights
    assert two.trainable and not one.trainable
    part = tf.keras.Sequential([tf.keras.Input(two.input_shape[1:]), two])
    part.trainable = True
    assert not shared.trainable_weights, "Keras says it to layers one by one"
    copied = copy.deepcopy(one)
    copied.trainable = False
    assert not copied.kernel_quantizer.trainable and copied.kernel_quantizer is not shared
    model.trainable = True
    assert shared.trainable_weights


def test_layers_that_are_frozen_from_the_start():
    frozen = lqx.layers.QuantDense(2, quantizer="learnable_scale", trainable=False)
    frozen.build((None, 3))
    assert not frozen.kernel_quantizer.trainable_weights
    shared = lqx.quantizers.FDA()
    layers = [
        lqx.layers.QuantDense(3, input_quantizer=shared, trainable=trainable)
        for trainable in (False, True)
    ]
    model = tf.keras.Sequential([tf.keras.Input((3,)), *layers])
    own = [layers[1].kernel, layers[1].bias]
    assert {id(v) for v in model.trainable_weights} == {id(v) for v in own}
    layers[0].trainable = True
    assert len(model.trainable_weights) == 6


@pytest.mark.parametrize("form", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["fda", "mlp_classifier"])
def test_layers_that_files_name_by_their_class_alone(name, form, tmp_path):
    """Nested models in `.h5` files, and wrappers in both, say no package."""
    inner = tf.keras.Sequential(
        [
            tf.keras.Input((5, 5, 3)),
            lqx.layers.QuantConv2D(3, 3, quantizer=name, name="nested"),
            tf.keras.layers.Reshape((9, 3)),
            tf.keras.layers.TimeDistributed(lqx.layers.QuantDense(4, quantizer=name, name="each")),
        ]
    )
    model = tf.keras.Sequential([tf.keras.Input((5, 5, 3)), inner, tf.keras.layers.Flatten()])
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype("float32")
    expected = model(x)
    model.save(tmp_path / f"model{form}")
    loaded = tf.keras.models.load_model(tmp_path / f"model{form}")
    np.testing.assert_array_equal(loaded(x), expected)
    assert type(loaded.layers[0].get_layer("nested")) is lqx.layers.QuantConv2D
    larq_layer = lq.layers.QuantConv2D(2, 3, name="plain")
    assert type(lq.layers.QuantConv2D.from_config(larq_layer.get_config())) is type(larq_layer)


def test_weights_of_another_method_say_so(tmp_path):
    nets.network("ste_sign").save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(ValueError, match=r"written with another method.*models\.requantize"):
        nets.network("fda").load_weights(tmp_path / "x.weights.h5")


@pytest.mark.parametrize("kind", ["conv", "dense"])
@pytest.mark.parametrize("name", nets.METHODS)
def test_a_layers_configuration_makes_the_same_layer(name, kind):
    make = {
        "conv": lambda **k: lqx.layers.QuantConv2D(3, 3, strides=2, **k),
        "dense": lambda **k: lqx.layers.QuantDense(3, **k),
    }[kind]
    layer = make(quantizer=name, scale="learned", name="layer")
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    json.dumps(config, default=lambda o: o.get_config())


def test_a_file_needs_only_the_import_of_the_package(read_by_another_process):
    """The other process knew nothing but `import larq_ext`."""
    _, arrays, _ = read_by_another_process
    assert len(arrays) == len(nets.METHODS) * (len(nets.FORMATS) + 2)
    assert "custom_objects" not in pathlib.Path(nets.__file__).read_text()
