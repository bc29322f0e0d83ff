"""ONNX files: what onnxruntime computes from them, against the baked Keras model."""

import sys

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import larq_ext as lqx
import larq_ext_zoo as zoo
from larq_ext import cli
from larq_ext.deploy import DeploymentError, export_onnx

METHODS = ("fda", "learnable_scale", "siman", "mlp_classifier", "ste_sign")


@pytest.fixture(scope="module")
def onnx():
    pytest.importorskip("tf2onnx")
    return pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def session(onnx):
    runtime = pytest.importorskip("onnxruntime")
    return lambda path: runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def outputs(session, model, arrays):
    """By the names of the Keras model, so a wrong name is an error."""
    return session.run(model.output_names, dict(zip(model.input_names, arrays, strict=True)))


def lively(model, seed=0):
    """Norms with random values: sums of exactly zero would be rounded either way."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.beta.assign(0.3 * generator.normal(size=layer.beta.shape))
    return model


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=() if name in usual else pytest.mark.exhaustive)
        for usual in [("learnable_scale", "siman")]
        for name in METHODS
    ],
)
def test_shipped_networks(method, session, tmp_path):
    from sklearn.datasets import load_digits

    images = (load_digits().images[:200, ..., None] / 8.0 - 1.0).astype(np.float32)
    model = zoo.get(f"digits_net.{method}_digits")

    found = session(export_onnx(model, tmp_path / "digits.onnx"))

    expected = lqx.deploy.bake(model).predict(images, verbose=0)
    for count in (1, 200):  # any batch
        (actual,) = outputs(found, model, [images[:count]])
        equal = (np.abs(actual - expected[:count]) < 1e-4).all(1)
        assert equal.mean() > 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(f"{network}.{method}", marks=marks)
        for network in ("ResNet20", "VGGSmall")
        for method in METHODS
        for marks in [
            () if (network, method) == ("VGGSmall", "learnable_scale") else pytest.mark.exhaustive
        ]
    ],
)
def test_networks_of_the_zoo(name, session, tmp_path):
    network, method = name.split(".")
    model = lively(getattr(zoo, network)(quantizer=method))
    images = np.random.default_rng(1).normal(size=(12, 32, 32, 3)).astype(np.float32)

    (actual,) = outputs(session(export_onnx(model, tmp_path / "m.onnx")), model, [images])

    expected = lqx.deploy.bake(model).predict(images, verbose=0)
    assert np.ptp(expected, axis=0).max() > 1e-3
    # A sign at a rounding tie may turn in a few images.
    assert (np.abs(actual - expected) < 1e-4).all(1).mean() >= 0.75


@pytest.mark.parametrize("opset", [13, 15, 18])
def test_the_file_is_valid_and_bears_the_names_of_keras(opset, branches, onnx, session, tmp_path):
    path = export_onnx(branches, tmp_path / "new" / "branches.onnx", opset=opset)

    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")] == [opset]
    found = session(path)
    assert [one.name for one in found.get_inputs()] == ["z", "a"]
    assert [one.name for one in found.get_outputs()] == branches.output_names
    for one in (*found.get_inputs(), *found.get_outputs()):
        assert one.shape[0] == "batch"
    generator = np.random.default_rng(3)
    inputs = [generator.normal(size=(3, 6, 6, 32)).astype(np.float32) for _ in range(2)]
    expected = branches.predict(inputs, verbose=0)
    for one, other in zip(outputs(found, branches, inputs), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_kernels_of_8_bits_are_integers(opset, onnx, session, tmp_path):
    """What a runtime makes of integers it is told; kernels of floats it would round anew."""
    from sklearn.datasets import load_digits

    images = (load_digits().images[:300, ..., None] / 8.0 - 1.0).astype(np.float32)
    edged = lqx.deploy.int8_edges(zoo.get("digits_net.ste_sign_digits"), images[:100])
    path = export_onnx(edged, tmp_path / "edged.onnx", opset=opset)

    (actual,) = outputs(session(path), edged, [images])

    expected = lqx.deploy.bake(edged).predict(images, verbose=0)
    assert (np.abs(actual - expected) < 1e-4).all(1).mean() > 0.98
    kernels = [one for one in onnx.load(path).graph.initializer if len(one.dims) == 4]
    types = [one.data_type for one in kernels]
    assert types.count(onnx.TensorProto.INT8) == 2, "the first and the last one"


def test_groups_upsampling_a_fixed_batch_and_an_input_passed_on(onnx, session, tmp_path):
    image = tf.keras.Input((4, 6, 64), batch_size=2, name="image")
    x = lqx.layers.QuantConv2D(32, 3, groups=2, padding="same", quantizer="ste_sign")(image)
    x = tf.keras.layers.UpSampling2D((2, 3))(tf.keras.layers.Conv2D(8, 3, groups=2)(x))
    x = tf.keras.layers.Reshape((-1, 8), name="pixels")(x)
    model = tf.keras.Model(image, [x, image])
    path = export_onnx(model, tmp_path / "m.onnx")
    images = np.random.default_rng(5).normal(size=(3, 4, 6, 64)).astype(np.float32)

    pixels, same = session(path).run(["pixels", "image_output"], {"image": images})

    expected, _ = lqx.deploy.bake(model)(images)
    np.testing.assert_allclose(pixels, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(same, images)
    (resize,) = (node for node in onnx.load(path).graph.node if node.op_type == "Resize")
    assert b"asymmetric" in [attribute.s for attribute in resize.attribute]


def test_zero_counts_as_plus_one(session, tmp_path):
    """ONNX's own Sign gives 0 there."""
    layer = lq.layers.QuantConv2D(
        3, 1, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
    )
    model = tf.keras.Sequential([tf.keras.Input((1, 1, 4)), layer])
    layer.set_weights([np.ones((1, 1, 4, 3), np.float32)])
    images = np.array([[0.0, -0.0, 0.0, 0.0], [0.0, -1.0, -1.0, 1.0]], np.float32)

    found = session(export_onnx(model, tmp_path / "m.onnx"))

    (actual,) = outputs(found, model, [images.reshape(2, 1, 1, 4)])
    np.testing.assert_array_equal(actual.reshape(2, 3), [[4] * 3, [0] * 3])


def test_dense_layers(session, tmp_path):
    model = tf.keras.Sequential(
        [
            tf.keras.Input((20,)),
            lqx.layers.QuantDense(16, quantizer="learnable_scale"),
            tf.keras.layers.BatchNormalization(beta_initializer="normal"),
            lqx.layers.QuantDense(4, quantizer="siman"),
        ]
    )
    x = np.random.default_rng(4).normal(size=(9, 20)).astype(np.float32)
    found = session(export_onnx(model, tmp_path / "dense.onnx"))
    expected = lqx.deploy.bake(model).predict(x, verbose=0)
    np.testing.assert_allclose(outputs(found, model, [x])[0], expected, rtol=1e-4, atol=1e-4)


def test_an_operation_without_onnx_is_named(onnx, tmp_path):
    image = tf.keras.Input((4,))
    model = tf.keras.Model(image, tf.math.digamma(image))
    with pytest.raises(DeploymentError, match="no operator for Digamma"):
        export_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_are_refused(classifier, tmp_path):
    with pytest.raises(ValueError, match=r"written to a \.onnx file, received.+m\.npz"):
        export_onnx(classifier, tmp_path / "m.npz")
    with pytest.raises(ValueError, match="one of 13, 14, 15, 16, 17, 18, received 99"):
        export_onnx(classifier, tmp_path / "m.onnx", opset=99)


def test_a_missing_package_is_the_line_to_type(classifier, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"type `pip install 'tf2onnx>=1\.16"):
        export_onnx(classifier, tmp_path / "m.onnx")


def test_the_command(classifier, session, tmp_path):
    classifier.save(tmp_path / "model.keras")
    output = tmp_path / "model.onnx"
    result = CliRunner().invoke(
        cli.main, ["export", str(tmp_path / "model.keras"), "-o", str(output)]
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"Wrote {output} (")
    assert session(output).get_inputs()[0].shape == ["batch", 8, 8, 40]
