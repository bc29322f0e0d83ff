"""Networks as bits: what the reader in the documentation computes from the file alone."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import larq_ext as lqx
import larq_ext_zoo as zoo
from larq_ext import cli
from larq_ext.deploy import DeploymentError, export_bits
from larq_ext.deploy._flatbuffer import read_graph

METHODS = ("fda", "learnable_scale", "siman", "mlp_classifier", "ste_sign")
PAGE = Path(__file__).parents[2] / "docs" / "export_bits.md"

pytest.importorskip("larq_compute_engine")


def one_of_each_kind(*usual):
    """All methods; a conversion takes seconds, so those that add no operator only if asked for."""
    return [
        pytest.param(name, marks=() if name in usual else pytest.mark.exhaustive)
        for name in METHODS
    ]


@pytest.fixture(scope="module")
def source():
    (found,) = re.findall(r"^```python\n(import json\n.+?)^```$", PAGE.read_text(), re.M | re.S)
    return found


@pytest.fixture(scope="module")
def run(source):
    """The reader's function, which needs only what it imports."""
    namespace = {}
    exec(compile(source, str(PAGE), "exec"), namespace)
    return namespace["run"]


def topology_of(path):
    return json.loads(bytes(np.load(path)["topology"]))


def operators(path):
    return {op["op"] for op in topology_of(path)["ops"]}


def assert_samples_agree(actual, expected):
    """Equal but for rounding; a sign at a rounding tie may turn in a few samples."""
    assert actual.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 0
    difference = np.abs(actual - expected).reshape(len(expected), -1).max(1)
    assert (difference <= 1e-4 * scale).mean() >= 0.75, np.sort(difference / scale)


def lively(model, seed=0):
    """Norms such that signals neither vanish nor hit exactly zero, with scales of both signs."""
    generator = np.random.default_rng(seed)
    norms = [
        layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(generator.normal(size=(8, *model.input_shape[1:])).astype(np.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if norm.scale:
            signs = generator.choice([-1.0, 1.0], norm.gamma.shape)
            norm.gamma.assign(signs * generator.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(generator.normal(size=norm.beta.shape))
    return model


def digits(count):
    from sklearn.datasets import load_digits

    return (load_digits().images[:count, ..., None] / 8.0 - 1.0).astype(np.float32)


# The reader


def test_the_reader_is_short_and_imports_numpy_only(source):
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert sorted(ast.unparse(node) for node in imports) == ["import json", "import numpy as np"]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    docstrings = [ast.get_docstring(one) for one in functions if ast.get_docstring(one)]
    code = [line for line in source.splitlines() if line.strip()]
    assert len(code) - len(docstrings) <= 60


@pytest.mark.parametrize("method", one_of_each_kind("fda", "learnable_scale", "siman"))
def test_shipped_networks(method, run, tmp_path):
    """Trained weights and real images: the file against Larq Compute Engine and Keras."""
    model = zoo.get(f"digits_net.{method}_digits")
    conversion = lqx.deploy.convert(model)
    path = export_bits(conversion, tmp_path / "digits.npz")
    images = digits(200)

    (actual,) = run(path, images)

    engine = lqx.runtime.Interpreter(conversion.flatbuffer, engine="lce").predict(images)
    keras = model.predict(images, verbose=0)
    for expected in (engine, keras):
        assert (np.abs(actual - expected).max(1) < 1e-4).mean() > 0.97
        assert (actual.argmax(1) == expected.argmax(1)).mean() > 0.98
    assert path.stat().st_size < 1.05 * len(conversion.flatbuffer)
    topology = topology_of(path)
    assert (topology["inputs"], topology["outputs"]) == (model.input_names, model.output_names)


@pytest.mark.slow
@pytest.mark.parametrize("method", one_of_each_kind("siman"))
def test_resnet20(method, run, tmp_path):
    network = zoo.ResNet20(quantizer=method)
    # Random logits are so far apart that probabilities would be 0 and 1.
    model = lively(tf.keras.Model(network.input, network.get_layer("logits").output))
    conversion = lqx.deploy.convert(model)
    path = export_bits(conversion, tmp_path / "resnet20.npz")
    images = np.random.default_rng(1).normal(size=(8, 32, 32, 3)).astype(np.float32)

    (actual,) = run(path, images)

    engine = lqx.runtime.Interpreter(conversion.flatbuffer).predict(images)
    assert np.ptp(engine, axis=0).max() > 1e-3  # signals that vanish would prove nothing
    assert_samples_agree(actual, engine)
    assert_samples_agree(actual, model.predict(images, verbose=0))
    assert path.stat().st_size < 1.05 * len(conversion.flatbuffer)


@pytest.fixture(scope="module")
def binary_kinds(networks):
    """Outputs of binary convolutions of every kind, each behind a norm of both signs."""
    image = tf.keras.Input((9, 10, 64), name="image")
    kinds = {
        "plain": {},
        "strided": {"strides": 2},
        "uneven": {"kernel_size": (2, 4), "strides": (1, 2)},
        "dilated": {"dilation_rate": 2},
        "valid": {"padding": "valid", "pad_values": 0.0},
        "zeros": {"pad_values": 0.0},
        "zeros_strided": {"pad_values": 0.0, "strides": 2},
        "grouped": {"groups": 2},
        "clipped": {"activation": "relu"},
        "bias": {"use_bias": True},
    }
    outputs = []
    for name, settings in kinds.items():
        x = networks.quant_conv(12, name=name, **{"kernel_size": 3, **settings})(image)
        outputs.append(tf.keras.layers.BatchNormalization(name=f"{name}_norm")(x))
    model = networks.randomize(tf.keras.Model(image, outputs))
    return model, lqx.deploy.convert(model)


def test_all_kinds_of_binary_convolutions(binary_kinds, run, tmp_path):
    model, conversion = binary_kinds
    path = export_bits(conversion, tmp_path / "kinds.npz")
    images = np.random.default_rng(1).normal(size=(3, 9, 10, 64)).astype(np.float32)
    images[0, 0, 0] = 0.0  # counts as +1

    actual = run(path, images)

    assert topology_of(path)["outputs"] == model.output_names
    for name, one, other in zip(
        model.output_names, actual, model.predict(images, verbose=0), strict=True
    ):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3, err_msg=name)
    ops = [op for op in topology_of(path)["ops"] if op["op"] == "binary_conv2d"]
    attributes = [op["attributes"] for op in ops]
    assert len(ops) == 10
    assert {one["padding_value"] for one in attributes} == {0, 1}
    assert {one["groups"] for one in attributes} == {1, 2}
    assert any("minimum" in one for one in attributes)


def test_bits_stay_packed_from_layer_to_layer(networks, run, tmp_path):
    """Thresholds, the pooling of bits, and channels that fill no byte."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((12, 12, 21)),
            networks.quant_conv(37),
            layers.BatchNormalization(),
            layers.MaxPool2D(2),
            networks.quant_conv(33, strides=2),
            layers.BatchNormalization(),
            layers.MaxPool2D(3, strides=1, padding="same"),
            networks.quant_conv(19, padding="valid", pad_values=0.0),
            layers.BatchNormalization(),
            networks.quant_conv(5, kernel_size=1, padding="valid", pad_values=0.0),
            layers.GlobalAveragePooling2D(),
        ]
    )
    networks.randomize(model)
    conversion = lqx.deploy.convert(model)
    path = export_bits(conversion, tmp_path / "chain.npz")
    images = np.random.default_rng(2).normal(size=(20, 12, 12, 21)).astype(np.float32)

    (actual,) = run(path, images)

    np.testing.assert_allclose(actual, model.predict(images, verbose=0), rtol=1e-5, atol=1e-4)
    arrays, topology = np.load(path), topology_of(path)
    counts = [op["op"] for op in topology["ops"]]
    assert counts.count("binary_conv2d_to_bits") == 3
    assert counts.count("max_pool_bits") == 2
    thresholds = [name for name in arrays if name.endswith(".thresholds")]
    assert [arrays[name].dtype for name in thresholds] == [np.int32] * 3
    bits = [name for name in arrays if name.endswith(".bits")]
    assert [arrays[name].shape for name in bits] == [
        (37, 3, 3, 3),
        (33, 3, 3, 5),
        (19, 3, 3, 5),
        (5, 1, 1, 3),
    ]
    assert (arrays[bits[0]][..., -1] >> 5 == 0).all()  # bits left over
    packed = [one["shape"] for one in topology["tensors"].values() if one["type"] == "bits"]
    assert [12, 12, 21] in packed and [12, 12, 37] in packed


def test_signs_as_numbers(networks, run, tmp_path):
    image = tf.keras.Input((6, 6, 21))
    signs = lq.quantizers.SteSign()(image)
    x = networks.quant_conv(21)(signs)
    model = networks.randomize(tf.keras.Model(image, [x + signs, signs]))
    path = export_bits(model, tmp_path / "signs.npz")
    images = np.random.default_rng(6).normal(size=(3, 6, 6, 21)).astype(np.float32)
    images[0, 0] = 0.0

    for one, other in zip(run(path, images), model.predict(images, verbose=0), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)
    assert "unpack_signs" in operators(path)


def test_dense_layers_on_maps_and_transposed_convolutions(networks, run, tmp_path):
    up = lq.layers.QuantConv2DTranspose(
        7, 4, strides=2, padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign"
    )
    image = tf.keras.Input((5, 4, 32))
    model = networks.randomize(tf.keras.Model(image, tf.keras.layers.Dense(3)(up(image))))
    images = np.random.default_rng(8).normal(size=(3, 5, 4, 32)).astype(np.float32)
    (actual,) = run(export_bits(model, tmp_path / "up.npz"), images)
    assert_samples_agree(actual, model.predict(images, verbose=0))


def test_float_operators(networks, run, tmp_path):
    layers = tf.keras.layers
    image = tf.keras.Input((8, 8, 32))
    x = networks.quant_conv(16)(image)
    parts = [
        layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x),
        layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="relu6")(x),
        layers.Conv2D(8, 3, padding="same", groups=2)(x),
        layers.AveragePooling2D(3, strides=1, padding="same")(x),
        layers.MaxPool2D(3, strides=1, padding="same")(x),
        layers.LeakyReLU(0.3)(x),
        layers.PReLU(shared_axes=(1, 2), alpha_initializer="normal")(x),
        layers.ReLU()(x) * layers.GlobalAveragePooling2D(keepdims=True)(x),
        layers.Reshape((8, 8, 16))(layers.Permute((2, 1, 3))(x)),
        layers.ZeroPadding2D(((1, 0), (0, 2)))(x)[:, 1:, :8],
        tf.nn.depth_to_space(layers.Conv2D(16, 2, strides=2)(x), 2),
        tf.concat(tf.split(x, 2, axis=-1)[::-1], -1),
        layers.UpSampling2D((4, 2))(layers.MaxPool2D((4, 2))(x)),
        tf.maximum(tf.abs(x), tf.sqrt(tf.square(x) + 1.0) * 0.5) / (tf.exp(-tf.abs(x)) + 1.0),
        tf.tanh(-x),
    ]
    x = layers.Concatenate()(parts)
    gate = layers.Dense(x.shape[-1], activation="sigmoid")(tf.reduce_max(x, (1, 2)))
    x = layers.Flatten()(x * layers.Reshape((1, 1, x.shape[-1]))(gate))[:, ::7]
    model = tf.keras.Model(image, [layers.Softmax()(layers.Dense(5)(x)), x])
    conversion = lqx.deploy.convert(model)
    path = export_bits(conversion, tmp_path / "floats.npz")
    images = np.random.default_rng(3).normal(size=(4, 8, 8, 32)).astype(np.float32)

    actual = run(path, images)

    for one, other in zip(actual, model.predict(images, verbose=0), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    documented = set(
        re.findall(
            r"`(\w+)`", re.search(r"^## Operators$.+?^## ", PAGE.read_text(), re.M | re.S)[0]
        )
    )
    assert operators(path) <= documented
    assert {"conv2d", "prelu", "slice", "reduce", "transpose", "pad", "sigmoid"} <= operators(path)


# The file


def test_bits_are_the_signs_of_the_kernel(networks, tmp_path):
    layer = networks.quant_conv(6, name="conv")
    model = networks.randomize(tf.keras.Sequential([tf.keras.Input((5, 5, 11)), layer]))
    with lq.context.quantized_scope(False):
        kernel = layer.kernel.numpy()

    arrays = np.load(export_bits(model, tmp_path / "one.npz"))

    (name,) = (name for name in arrays if name.endswith(".bits"))
    bits = np.unpackbits(arrays[name], axis=-1, count=11, bitorder="little")
    np.testing.assert_array_equal(bits, kernel.transpose(3, 0, 1, 2) < 0)
    assert (arrays[name.replace(".bits", ".multiplier")] == 1).all()


def test_files_and_bytes_and_a_fresh_process(source, classifier_conversion, run, tmp_path):
    images = np.random.default_rng(4).normal(size=(6, 8, 8, 40)).astype(np.float32)
    expected = classifier_conversion.model.predict(images, verbose=0)
    flatbuffer = classifier_conversion.save(tmp_path / "model.tflite")
    from_path = export_bits(str(flatbuffer), tmp_path / "new" / "path.npz")
    from_bytes = export_bits(flatbuffer.read_bytes(), tmp_path / "bytes.npz")
    assert from_path.read_bytes() == from_bytes.read_bytes()
    assert topology_of(from_path)["inputs"] == ["input_000"]
    np.testing.assert_allclose(run(from_path, images)[0], expected, rtol=1e-4, atol=1e-4)

    np.save(tmp_path / "images.npy", images)
    (tmp_path / "reader.py").write_text(source)
    program = (
        "import sys\n"
        "for name in ('tensorflow', 'larq', 'larq_ext', 'larq_compute_engine'):\n"
        "    sys.modules[name] = None\n"
        "sys.path.insert(0, '.')\n"
        "import numpy as np, reader\n"
        "np.save('outputs.npy', reader.run('new/path.npz', np.load('images.npy'))[0])\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, rtol=1e-4, atol=1e-4)


def test_several_inputs_and_outputs_keep_names_and_order(
    branches, branches_conversion, run, tmp_path
):
    path = export_bits(branches_conversion, tmp_path / "branches.npz")
    generator = np.random.default_rng(5)
    inputs = [generator.normal(size=(2, 6, 6, 32)).astype(np.float32) for _ in range(2)]
    actual, expected = run(path, *inputs), branches.predict(inputs, verbose=0)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
    topology = topology_of(path)
    assert (topology["inputs"], topology["outputs"]) == (["z", "a"], branches.output_names)
    assert (topology["format"], topology["version"]) == ("larq-ext bits", 1)


# What is refused


def test_an_unknown_operator_is_named_with_the_known_ones(networks, tmp_path):
    image = tf.keras.Input((6, 6, 32))
    model = tf.keras.Model(image, tf.sin(networks.quant_conv(8)(image)))
    path = tmp_path / "old.npz"
    path.write_bytes(b"old")
    with pytest.raises(DeploymentError, match=r"is SIN, which.+It knows ABS, ADD,.+LceBconv2d"):
        export_bits(model, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["old.npz"]


def test_other_ways_of_resizing_are_refused(networks, tmp_path):
    image = tf.keras.Input((6, 6, 32))
    x = networks.quant_conv(8)(image)
    model = tf.keras.Model(image, tf.image.resize(x, (5, 9), "nearest"))
    with pytest.raises(DeploymentError, match=r"makes 6 x 6 pixels 5 x 9; .*by whole factors"):
        export_bits(model, tmp_path / "resized.npz")


def test_operators_across_samples_are_refused(classifier_conversion, tmp_path):
    """The file is made for one sample, so the reader could not tell samples from the rest."""
    wrong = bytearray(classifier_conversion.flatbuffer)
    graph = read_graph(wrong)
    (mean,) = (op for op in graph.ops if op.name == "MEAN")
    axes = graph.tensors[mean.inputs[1]].data  # a view of `wrong`
    assert axes.tolist() == [1, 2]
    axes[0] = 0
    with pytest.raises(DeploymentError, match=r"\(MEAN\) works across samples"):
        export_bits(bytes(wrong), tmp_path / "wrong.npz")


def test_a_part_that_is_there_once_is_refused(tmp_path):
    image = tf.keras.Input((4, 4, 8))
    joined = tf.concat([image, tf.ones_like(image)], -1)
    x = tf.keras.layers.Conv2D(8, 1)(joined)
    conversion = lqx.deploy.convert(tf.keras.Model(image, x), allow_float=True)
    with pytest.raises(DeploymentError, match=r"\(CONCATENATION\) joins a constant"):
        export_bits(conversion, tmp_path / "wrong.npz")


def test_wrong_paths_and_files_are_refused(classifier_conversion, tmp_path):
    with pytest.raises(ValueError, match=r"written to a \.npz file, received.+model\.bin"):
        export_bits(classifier_conversion, tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        export_bits(tmp_path / "gone.tflite", tmp_path / "model.npz")
    with pytest.raises(ValueError, match="Expected a TensorFlow Lite model"):
        export_bits(b"no model at all", tmp_path / "model.npz")


# The command


def command(*arguments):
    return CliRunner().invoke(cli.main, ["export", *map(str, arguments)])


def test_the_command_writes_bits(classifier_conversion, run, tmp_path):
    flatbuffer = classifier_conversion.save(tmp_path / "model.tflite")
    result = command(flatbuffer, "-o", tmp_path / "model.npz")
    assert result.exit_code == 0, result.stderr
    assert "Wrote" in result.stdout and "kB" in result.stdout
    images = np.ones((1, 8, 8, 40), np.float32)
    assert run(tmp_path / "model.npz", images)[0].shape == (1, 5)


def test_the_command_writes_what_stays_float_if_told(networks, tmp_path):
    binary = networks.quant_conv(8, 1, padding="valid", pad_values=0.0)
    lost = lq.layers.QuantDepthwiseConv2D(
        3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign"
    )
    layers = [tf.keras.Input((4, 4, 8)), binary, lost]
    networks.randomize(tf.keras.Sequential(layers)).save(tmp_path / "partly.keras")
    words = (tmp_path / "partly.keras", "-o", tmp_path / "model.npz")
    result = command(*words)
    assert result.exit_code == 1 and "--allow-float" in result.stderr
    assert not (tmp_path / "model.npz").exists()
    assert command(*words, "--allow-float").exit_code == 0
    assert (tmp_path / "model.npz").stat().st_size > 0
    result = command(words[0], "-o", tmp_path / "model.onnx", "--allow-float")
    assert result.exit_code == 2 and "--allow-float is for bits" in result.stderr


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        ("gone.keras", "model.npz", "There is no file gone.keras"),
        ("gone.tflite", "model.npz", "There is no file gone.tflite"),
        ("gone.tflite", "model.onnx", "ONNX is made of a model"),
    ],
)
def test_wrong_use_of_the_command_is_one_line(model, output, message):
    result = command(model, "-o", output)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and message in line


def test_other_suffixes_are_wrong_use():
    result = command("model.keras", "-o", "model.bin")
    assert result.exit_code == 2
    assert "must end in .npz or .onnx, received 'model.bin'" in result.stderr
