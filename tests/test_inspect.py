"""What the bits of a model are, against plain numpy."""

import json
import shutil
import sys

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from larq_ext import cli
from larq_ext.inspection import FlipRatio, inspect
from larq_ext.inspection._inspect import binary_kernels
from larq_ext.inspection._statistics import BitCounter, entropy, outside_window
from larq_ext.quantizers import FDA, METHODS, LearnableScale, MLPClassifier, SiMaN


def conv(filters, name, **kwargs):
    settings = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "use_bias": False,
        **kwargs,
    }
    return lq.layers.QuantConv2D(filters, 3, name=name, **settings)


def network(seed=0, **kwargs):
    """Its first convolution has its kernel and its inputs in plain sight."""
    tf.keras.utils.set_random_seed(seed)
    return tf.keras.Sequential(
        [
            tf.keras.Input((7, 7, 5)),
            conv(6, "one", kernel_initializer=tf.keras.initializers.RandomNormal(0, 1.0)),
            tf.keras.layers.BatchNormalization(),
            conv(4, "two", **kwargs),
        ],
        name="net",
    )


def plain_entropy(p):
    return sum(-q * np.log2(q) for q in (p, 1 - p) if q > 0)


def samples(n=20):
    return np.random.default_rng(3).normal(0.5, 1.0, size=(n, 7, 7, 5)).astype("float32")


def test_kernel_and_inputs_against_numpy():
    model, x = network(), samples()
    report = inspect(model, inputs=x)
    kernel = model.get_layer("one").kernel.numpy()
    bits = kernel >= 0
    found = report.layers[0].kernel
    assert found.shape == kernel.shape
    assert found.positive == pytest.approx(bits.mean())
    assert found.entropy == pytest.approx(plain_entropy(bits.mean()))
    by_filter = [plain_entropy(bits[..., o].mean()) for o in range(6)]
    assert found.filter_entropy == pytest.approx(np.mean(by_filter))
    assert found.outside == pytest.approx(np.mean(np.abs(kernel) > 1))
    assert 0.2 < found.outside < 0.5
    assert found.outside_exact
    assert found.scale == (1.0, 1.0, 1.0)
    inputs = report.layers[0].inputs
    assert inputs.positive == pytest.approx((x >= 0).mean())
    assert inputs.entropy == pytest.approx(plain_entropy((x >= 0).mean()))
    channels = [plain_entropy((x[..., c] >= 0).mean()) for c in range(5)]
    assert inputs.channel_entropy == pytest.approx(np.mean(channels))
    # What enters the second one has passed the first one and the norm.
    inner = tf.keras.Model(model.inputs, model.layers[1].output)(x).numpy()
    assert report.layers[1].inputs.positive == pytest.approx((inner >= 0).mean())
    assert report.source == "20 samples given"


def test_entropy_of_bits():
    np.testing.assert_allclose(entropy([0.0, 0.5, 1.0, 0.25]), [0, 1, 0, 0.8112781], rtol=1e-6)


def gradient_of_each_bit_by_its_weight(quantizer, kernel):
    """Each bit's gradient by its own weight, one weight at a time."""
    latent = tf.constant(kernel)
    slopes = []
    for i in range(kernel.size):
        with tf.GradientTape() as tape:
            tape.watch(latent)
            bit = tf.reshape(quantizer(latent), [-1])[i]
        slopes.append(tape.gradient(bit, latent).numpy().ravel()[i])
    return np.array(slopes)


@pytest.mark.parametrize(
    "quantizer",
    [
        lambda: lq.quantizers.SteSign(0.7),
        lq.quantizers.ApproxSign,
        lq.quantizers.SwishSign,
        lq.quantizers.MagnitudeAwareSign,
        lambda: lq.quantizers.ste_sign,
        lambda: FDA(role="kernel", clip_value=0.5),
        lambda: LearnableScale(role="kernel"),
        lambda: MLPClassifier(hidden=0, role="kernel"),
        lambda: SiMaN(role="kernel"),
    ],
)
def test_window_of_any_quantizer(quantizer):
    """Filters so small that each weight is looked at."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 3)).astype("float32")
    quantizer = quantizer()
    share, looked_at_all = outside_window(quantizer, kernel)
    diagonal = gradient_of_each_bit_by_its_weight(quantizer, kernel)
    assert share == pytest.approx(np.mean(diagonal == 0))
    assert looked_at_all


def test_window_of_a_classifier_is_sampled_in_large_kernels():
    """With f linear and slope 0.5 each, the window is where |c| < 2 in the centred filter."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 64, 64), scale=2.0).astype("float32")
    share, exact = outside_window(MLPClassifier(hidden=0, role="kernel"), kernel)
    centred = kernel - kernel.mean((0, 1, 2))
    expected = np.mean(np.abs(centred) >= 2)
    assert not exact
    assert share == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(1024))
    assert 0.2 < expected < 0.5


def test_window_with_parameters_of_each_filter_in_a_large_kernel():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 64)).astype("float32")
    quantizer = LearnableScale(role="kernel")
    quantizer(tf.constant(kernel))
    share, exact = outside_window(quantizer, kernel)
    assert (share, exact) == (pytest.approx(np.mean(np.abs(kernel) >= 0.5)), True)


@pytest.mark.parametrize("method", METHODS)
def test_scales_and_bits_of_every_method(method):
    source = network()
    model = lqx.models.requantize(source, method)
    kernel = source.get_layer("one").kernel.numpy()
    mean = np.abs(kernel).mean((0, 1, 2))
    centred = np.abs(kernel - kernel.mean((0, 1, 2))).mean((0, 1, 2))
    scale = {
        "fda": np.full(6, np.abs(kernel).mean()),
        "learnable_scale": mean,
        "siman": mean,
        "mlp_classifier": centred,
        "ste_sign": np.ones(6),
    }[method]
    found = inspect(model, before=source, samples=2).layers[0].kernel
    np.testing.assert_allclose(found.scale, (scale.min(), scale.mean(), scale.max()), rtol=1e-5)
    if method == "siman":
        assert found.positive == pytest.approx(22 / 45)  # half of each filter of 45
        assert 0.3 < found.flipped < 0.7
    elif method == "mlp_classifier":
        bits = kernel >= kernel.mean((0, 1, 2))
        assert found.flipped == pytest.approx(np.mean(bits != (kernel >= 0)))
    else:
        assert found.flipped == 0


def test_a_negative_scale_turns_bits():
    model = lqx.models.requantize(network(), "learnable_scale")
    layer = model.get_layer("one")
    before = inspect(model, samples=1).layers[0].kernel
    layer.kernel_quantizer.scale.assign(-layer.kernel_quantizer.scale)
    after = inspect(model, samples=1).layers[0].kernel
    assert after.positive == pytest.approx(1 - before.positive)
    assert after.scale == before.scale


def test_flips_between_two_states():
    before, after = network(), network()
    kernel = before.get_layer("one").kernel.numpy()
    flipped = kernel.copy()
    flipped[0] *= -1
    after.get_layer("one").kernel.assign(flipped)
    report = inspect(after, before, samples=1)
    one, two = (layer.kernel.flipped for layer in report.layers)
    assert one == pytest.approx(1 / 3)
    assert two == 0
    total = (kernel.size / 3) / (kernel.size + after.get_layer("two").kernel.numpy().size)
    assert report.totals["flipped"] == pytest.approx(total)
    assert "Flips %" in str(report)
    assert "Flips %" not in str(inspect(after, samples=1))


def test_kernels_that_have_no_match_are_named():
    other = tf.keras.Sequential([tf.keras.Input((7, 7, 5)), conv(6, "one"), conv(5, "two")])
    report = inspect(network(), other, samples=1)
    assert report.layers[1].kernel.flipped is None
    assert "two: another shape, (3, 3, 6, 5) before, (3, 3, 6, 4) now." in report.notes
    with pytest.raises(ValueError, match="take two states of one network"):
        inspect(network(), tf.keras.Sequential([tf.keras.Input((7, 7, 5)), conv(6, "x")]))


def test_inputs_of_zeros_and_ones():
    model = network(input_quantizer=lq.quantizers.SteHeaviside())
    x = samples()
    inner = tf.keras.Model(model.inputs, model.layers[1].output)(x).numpy()
    assert inspect(model, inputs=x).layers[1].inputs.positive == pytest.approx((inner > 0).mean())
    counter = BitCounter(zero_one=True)  # a learned scale below zero
    counter.update(np.array([[0.0, -0.5], [0.0, 0.0]]))
    np.testing.assert_array_equal(counter.shares(), [0.0, 0.5])


def test_warnings():
    model = network()
    one, two = model.get_layer("one"), model.get_layer("two")
    kernel = one.kernel.numpy()
    kernel[..., 0] = 3.0
    one.kernel.assign(kernel)
    two.kernel.assign(np.sign(two.kernel) * 1.5)
    model.layers[1].set_weights([np.ones(6), np.full(6, 1e6), np.zeros(6), np.ones(6)])
    x = samples()
    x[..., 2] = -np.abs(x[..., 2])
    report = inspect(model, inputs=x)
    first, second = report.layers
    assert "1 of 6 filters have equal bits throughout" in first.warnings
    assert "1 of 5 input channels never change (0 always +1)" in first.warnings
    assert "100 % of the latent weights get no gradient" in second.warnings
    assert any("all inputs are +1" in warning for warning in second.warnings)
    assert "! two: 100 % of the latent weights" in str(report)
    two.kernel.assign(np.full(two.kernel.shape, np.nan))
    assert any("not finite" in w for w in inspect(model, samples=1).layers[1].warnings)


def test_halves_and_signs_apart():
    image = tf.keras.Input((8, 8, 4))
    x = conv(5, "weights", input_quantizer=None)(image)
    x = conv(5, "inputs", kernel_quantizer=None)(x)
    x = lq.quantizers.SteSign()(x)
    x = conv(5, "apart", input_quantizer=None)(x)
    report = inspect(tf.keras.Model(image, x), samples=4)
    weights, inputs, apart = report.layers
    assert (weights.inputs, inputs.kernel) == (None, None)
    assert weights.warnings == ("its inputs are float",)
    assert inputs.warnings[0] == "its kernel is float"
    assert apart.inputs is not None and not apart.warnings
    assert inputs.inputs.channels == 5


def test_quantizers_of_somebody_elses():
    """They are what they compute, as for conversion."""

    @tf.custom_gradient
    def own_sign(x):
        return tf.where(x < 0, -1.0, 1.0), lambda dy: dy

    class Own(lq.quantizers.Quantizer):
        def call(self, inputs):
            return 0.5 * own_sign(inputs)

    image = tf.keras.Input((8, 8, 4))
    x = conv(5, "function", input_quantizer=own_sign, kernel_quantizer=own_sign)(image)
    x = conv(5, "class", kernel_quantizer=Own())(x)
    x = conv(5, "ternary", kernel_quantizer="ste_tern")(x)
    model = tf.keras.Model(image, x)
    report = inspect(model, samples=4)
    one, two, three = report.layers
    expected = (model.layers[1].kernel.numpy() >= 0).mean()
    assert one.kernel.positive == pytest.approx(expected) and one.inputs.channels == 4
    assert two.kernel.scale == (0.5, 0.5, 0.5)
    assert three.kernel is None and three.warnings[0] == "its kernel has 2 bits"
    assert {kernel.name for kernel in binary_kernels(model)} == {"function", "class"}


def test_scales_of_a_transposed_kernel_are_those_of_its_outputs():
    layer = lq.layers.QuantConv2DTranspose(
        4, 3, input_quantizer="ste_sign", kernel_quantizer=LearnableScale(role="kernel")
    )
    image = tf.keras.Input((5, 5, 6))
    model = tf.keras.Model(image, layer(image))
    (kernel,) = binary_kernels(model)
    assert kernel.bits.shape == (4, 54) and kernel.scale.shape == (4,)


def test_layers_in_models_and_wrappers_and_parts_of_kernels():
    separable = lq.layers.QuantSeparableConv2D(
        6,
        3,
        input_quantizer="ste_sign",
        depthwise_quantizer="ste_sign",
        pointwise_quantizer="ste_sign",
        name="sep",
    )
    inner = tf.keras.Sequential([tf.keras.Input((7, 7, 5)), separable], name="inner")
    dense = lq.layers.QuantDense(
        3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="dense"
    )
    image = tf.keras.Input((2, 7, 7, 5))
    x = tf.keras.layers.TimeDistributed(inner, name="frames")(image)
    x = tf.keras.layers.Reshape((2, -1))(x)
    model = tf.keras.Model(image, tf.keras.layers.TimeDistributed(dense, name="each")(x))
    rows = inspect(model, samples=3).layers
    assert [row.name for row in rows] == [
        "frames/sep (depthwise)",
        "frames/sep (pointwise)",
        "each",
    ]
    assert [row.inputs is None for row in rows] == [False, True, False]
    assert "its inputs are float" in rows[1].warnings, "sums of the first kernel"
    depthwise = separable.depthwise_kernel.numpy()
    expected = np.mean([plain_entropy((depthwise[..., c, 0] >= 0).mean()) for c in range(5)])
    assert rows[0].kernel.filter_entropy == pytest.approx(expected)


class Block(tf.keras.layers.Layer):
    """Layers inside of a layer of somebody's own."""

    def __init__(self, *inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = list(inner)

    def call(self, inputs):
        return tf.add_n([layer(inputs) for layer in self.inner])


def test_layers_inside_of_layers():
    branches = [Block(conv(6, "inner"), name=name) for name in "aab"]
    model = tf.keras.Sequential(
        [tf.keras.Input((7, 7, 5)), Block(*branches, name="block"), conv(4, "two")]
    )
    report = inspect(model, inputs=samples())
    names = ["block/a/inner", "block/a_2/inner", "block/b/inner", "two"]
    assert [row.name for row in report.layers] == names
    assert report.layers[0].inputs.positive == pytest.approx((samples() >= 0).mean(), abs=1e-6)
    model.compile(tf.keras.optimizers.SGD(20.0), "mse")
    y = np.random.default_rng(0).normal(size=(20, 3, 3, 4))
    history = model.fit(samples(), y, verbose=0, callbacks=[FlipRatio(by_layer=True)])
    assert "flip_ratio/block/a_2/inner" in history.history


class Turned(SiMaN):
    def quantize(self, x, training):
        return -super().quantize(x, training)


def test_a_derived_quantizer_is_what_it_computes():
    model = network(kernel_quantizer=Turned(role="kernel"), kernel_constraint=None)
    plain = network(kernel_quantizer=SiMaN(role="kernel"), kernel_constraint=None)
    (_, turned), (_, other) = (binary_kernels(m) for m in (model, plain))
    np.testing.assert_array_equal(turned.bits, ~other.bits)


def test_what_is_not_finite_has_words_in_json():
    model = network()
    layer = model.get_layer("two")
    layer.kernel.assign(np.full(layer.kernel.shape, np.nan))
    text = json.dumps(inspect(model, inputs=samples()).to_dict(), allow_nan=False)
    assert json.loads(text)["layers"][1]["kernel"]["scale"] == ["nan", "nan", "nan"]


def test_a_model_is_left_as_it_was():
    model = network()
    x = samples(2)
    before = model(x).numpy()
    weights = [w.name for w in model.weights]
    with lq.context.quantized_scope(True):  # latent weights are what counts
        inspected = inspect(model, inputs=x)
    assert inspected.layers[0].kernel.outside > 0
    assert all("call" not in vars(layer) for layer in model.layers)
    assert [w.name for w in model.weights] == weights
    np.testing.assert_array_equal(model(x), before)


def test_metrics_of_training_do_not_notice():
    with lq.context.metrics_scope(["flip_ratio"]):
        model = network()
    metrics = [model.get_layer(name).kernel_quantizer.flip_ratio for name in ("one", "two")]
    before = [[variable.numpy() for variable in metric.variables] for metric in metrics]
    inspect(model, samples=2)
    assert len(metrics[0].variables) > 1
    after = [[variable.numpy() for variable in metric.variables] for metric in metrics]
    for one, other in zip(before, after, strict=True):
        for value, found in zip(one, other, strict=True):
            np.testing.assert_array_equal(found, value)


def test_flip_ratio_of_a_training_run():
    """Against bits taken by hand; the scale below 1 would hide flips from Larq's metric."""
    model = network()
    model = lqx.models.requantize(model, "learnable_scale")
    x = samples(16)
    model.compile(tf.keras.optimizers.SGD(20.0), "mse", run_eagerly=True)

    def bits():
        layers = [model.get_layer(name) for name in ("one", "two")]
        return [la.kernel_quantizer(tf.constant(la.kernel.numpy())).numpy() > 0 for la in layers]

    kept = [bits()]
    keep = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(bits()))
    y = np.random.default_rng(0).normal(size=(16, 3, 3, 4))
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[FlipRatio(by_layer=True), keep])
    for epoch in range(2):
        changed = [a != b for a, b in zip(kept[epoch], kept[epoch + 1], strict=True)]
        total = sum(c.sum() for c in changed) / sum(c.size for c in changed)
        assert history.history["flip_ratio"][epoch] == pytest.approx(total)
        assert history.history["flip_ratio/two"][epoch] == pytest.approx(changed[1].mean())
    assert history.history["flip_ratio"][0] > 0


def plain():
    return tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda: 3, {}, "tf.keras.Model, received int"),
        (plain, {}, "no binary layer"),
        (lambda: lqx.deploy.bake(network()), {}, "baked already"),
        (network, {"inputs": np.zeros((2, 7, 7, 4))}, r"received \[\(2, 7, 7, 4\)\]"),
        (network, {"inputs": np.zeros((0, 7, 7, 5))}, "samples from 1"),
        (network, {"samples": 0}, "`samples` is a number from 1"),
    ],
)
def test_wrong_use(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        inspect(make(), **arguments)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    network().save(folder / "a.keras")
    network(seed=1).save(folder / "b.h5")
    np.save(folder / "x.npy", samples())
    return folder


def run(*arguments):
    result = CliRunner().invoke(cli.main, ["inspect", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_command(files):
    result = run(files / "a.keras", "--before", files / "b.h5", "--inputs", files / "x.npy")
    assert result.exit_code == 0, result.stderr
    assert f"20 samples of {files / 'x.npy'}" in " ".join(result.stdout.split())
    assert "net: 486 binary weights in 2 kernels" in result.stdout
    assert "16 random inputs, standard normal, seed 0" in run(files / "a.keras").stdout


def test_command_prints_json_and_draws(files, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "deep" / "bits.png"
    result = run(files / "a.keras", "--samples", 3, "--seed", 7, "--json", "--picture", picture)
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    expected = inspect(network(), samples=3, seed=7).to_dict()
    assert values == json.loads(json.dumps(expected))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in picture.parent.iterdir()] == ["bits.png"]
    inputs = shutil.copy(files / "x.npy", tmp_path / "price_$5_x_$_.npy")  # no formula
    assert run(files / "a.keras", "--inputs", inputs, "--picture", picture).exit_code == 0


def test_command_help_and_errors(files):
    assert "larq-ext inspect model.keras" in run("--help").stdout.split("Examples:")[1]
    for arguments, message in (
        (["gone.keras"], "gone.keras"),
        ([files / "a.keras", "--inputs", "gone.npy"], "no file gone.npy"),
        ([files / "a.keras", "--samples", 0], "0 is not in the range"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr


def test_without_matplotlib_the_error_is_the_line_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        inspect(network(), samples=1).draw(tmp_path / "x.png")
