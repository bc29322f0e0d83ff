"""The linter against the truth: what it says before conversion, the audit says after it."""

from functools import partial

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import larq_ext as lqx
from larq_ext.deploy import audit, convert, lint
from larq_ext.deploy._causes import CAUSES, markdown
from larq_ext.deploy.errors import DeploymentError

layers = tf.keras.layers
sign = lq.math.sign
BINARY = ""


class Own(lq.quantizers.Quantizer):
    """A quantizer of somebody else, who says that it has one bit."""

    precision = 1

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(inputs)

    def get_config(self):
        return {"function": self.function}


class Learned(lq.quantizers.Quantizer):
    """A sign with a scale that is trained, for all or for each channel."""

    precision = 1

    def __init__(self, per_channel=False):
        super().__init__()
        self.per_channel = per_channel

    def build(self, shape):
        shape = (shape[-1],) if self.per_channel else ()
        self.scale = self.add_weight(
            "scale", shape, initializer=tf.keras.initializers.Constant(1.7)
        )

    def call(self, inputs):
        return self.scale * sign(inputs)

    def get_config(self):
        return {"per_channel": self.per_channel}


# Functions with a line of their own, because Keras reads their source.
def select(x):
    return tf.where(x >= 0, 1.0, -1.0)


def select_below(x):
    return tf.where(x < 0, -1.0, 1.0)


def select_above(x):
    return tf.where(x > 0.3, 1.0, -1.0)


def select_ones_like(x):
    return tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x))


def select_scaled(x):
    return tf.where(x >= 0, 1.5, -1.5)


def centred(x):
    return sign(x - tf.reduce_mean(x, [1, 2, 3], keepdims=True))


def affine(x):
    return sign(2.0 * x + 0.5)


def network_then_sign(x):
    return sign(0.7 * tf.nn.relu(0.3 * x + 0.1) - tf.nn.relu(0.2 - x))


def twice_cast(x):
    return 2.0 * tf.cast(x >= 0, tf.float32) - 1.0


def scaled(x):
    return 1.7 * sign(x)


def by_mean(x):
    return sign(x) * tf.reduce_mean(tf.abs(x))


def clipped(x):
    return tf.clip_by_value(sign(x), -1.0, 1.0)


def detached(x):
    return x + tf.stop_gradient(sign(x) - x)


def detached_clip(x):
    return tf.stop_gradient(sign(x) - tf.clip_by_value(x, -1, 1)) + tf.clip_by_value(x, -1, 1)


def step(x):
    return tf.cast(x > 0, tf.float32)


def half(x):
    return 0.5 * (sign(x) + 1.0)


def one_bit_round(x):
    return tf.round(tf.clip_by_value(x, 0.0, 1.0))


def nothing_more(x):
    return 1.0 * sign(x) + 0.0


def sines(x):
    return tf.sin(x) + tf.sin(3 * x) / 3


def channel_scale(w):
    return sign(w) * tf.constant(np.linspace(-1, 2, 8, dtype="float32"))


def mean_size(w):
    return sign(w) * tf.reduce_mean(tf.abs(w), [0, 1, 2])


def median(w):
    return 2.0 * tf.cast(tf.abs(w) > 0.6, tf.float32) - 1.0


def zero_channel(w):
    return sign(w) * tf.constant([1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])


def tiny_channel(w):
    return sign(w) * tf.constant([1.0, 1.0, 1e-8, 1.0, 1.0, 1.0, 1.0, 1.0])


def by_input_channel(w):
    return sign(w) * tf.reshape(tf.linspace(1.0, 2.0, 32), (1, 1, 32, 1))


def by_network(w):
    hidden = tf.nn.relu(tf.reshape(w, (-1, 1)) * tf.linspace(-1.0, 1.0, 32))
    return sign(tf.reshape(tf.reduce_sum(hidden, -1), w.shape) - 2.0)


def uneven(w):
    return sign(w) * (1.0 + 0.001 * tf.sin(100.0 * w))


SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
ZEROS = {"padding": "valid", "pad_values": 0.0}


def conv(name, filters=8, **kwargs):
    settings = {**SIGNS, "padding": "same", "pad_values": 1.0, **kwargs}
    return [lq.layers.QuantConv2D(filters, 3, name=name, **settings)]


def from_input(quantizer, **kwargs):
    return lambda name: conv(name, input_quantizer=quantizer, **kwargs)


def from_kernel(quantizer, **kwargs):
    return lambda name: conv(name, kernel_quantizer=quantizer, **kwargs)


def behind(*kinds, **kwargs):
    return lambda name: [
        *(kind() for kind in kinds),
        *conv(name, input_quantizer=None, **kwargs),
    ]


def of(kind, *arguments, **kwargs):
    return lambda name: [kind(*arguments, name=name, **kwargs)]


# Name: (what makes the layers, cause by the engine's own converter, by ours); "" is binary.
CASES = {
    # Inputs, as functions and as classes
    "larqs_sign": (from_input("approx_sign"), BINARY, BINARY),
    "select": (from_input(select), BINARY, BINARY),
    "select_below": (from_input(Own(select_below)), BINARY, BINARY),
    "select_above": (from_input(select_above), BINARY, BINARY),
    "select_ones_like": (from_input(select_ones_like), BINARY, BINARY),
    "centred": (from_input(Own(centred)), BINARY, BINARY),
    "affine": (from_input(affine), BINARY, BINARY),
    "network_then_sign": (from_input(Own(network_then_sign)), BINARY, BINARY),
    "nothing_more": (from_input(nothing_more), BINARY, BINARY),
    "bare": (from_input(tf.sign), "bare-sign", "bare-sign"),
    "twice_cast": (from_input(twice_cast), "sign-form", "sign-form"),
    "scaled": (from_input(Own(scaled)), "scaled-sign", "scaled-sign"),
    "scaled_valid": (from_input(scaled, **ZEROS), "scaled-sign", "scaled-sign"),
    "learned": (from_input(Learned()), "scaled-sign", "scaled-sign"),
    "learned_channels": (from_input(Learned(True), **ZEROS), "scaled-sign", "scaled-sign"),
    "by_mean": (from_input("magnitude_aware_sign"), "scaled-sign", "scaled-sign"),
    "own_by_mean": (from_input(by_mean), "scaled-sign", "scaled-sign"),
    "select_scaled": (from_input(Own(select_scaled)), "scaled-sign", "scaled-sign"),
    "clipped": (from_input(clipped), "op-after-sign", "op-after-sign"),
    "detached": (from_input(detached), "detach-trick", "detach-trick"),
    "detached_clip": (from_input(Own(detached_clip)), "detach-trick", "detach-trick"),
    "step": (from_input(Own(step)), "input-values", "input-values"),
    "heaviside": (from_input("ste_heaviside", **ZEROS), "input-values", BINARY),
    "half": (from_input(half, **ZEROS), "input-values", "input-values"),
    "dorefa": (from_input(lq.quantizers.DoReFa(1), **ZEROS), "input-values", BINARY),
    "one_bit_round": (from_input(one_bit_round), "input-values", "input-values"),
    "sines": (from_input(Own(sines)), "input-values", "input-values"),
    # Kernels
    "channel_scale": (from_kernel(channel_scale), BINARY, BINARY),
    "mean_size": (from_kernel(Own(mean_size)), BINARY, BINARY),
    "median": (from_kernel(median), BINARY, BINARY),
    "bare_kernel": (from_kernel(tf.sign), BINARY, BINARY),
    "zero_channel": (from_kernel(zero_channel), "zero-channel-scale", "zero-channel-scale"),
    "tiny_channel": (from_kernel(Own(tiny_channel)), "zero-channel-scale", BINARY),
    "by_input_channel": (
        from_kernel(Own(by_input_channel)),
        "unequal-channel-scale",
        "unequal-channel-scale",
    ),
    "zero_one": (from_kernel(Own(step)), "unequal-channel-scale", "unequal-channel-scale"),
    "by_network": (from_kernel(by_network, filters=40), "kernel-left-in-graph", BINARY),
    "large": (from_kernel(select, filters=1000), "kernel-left-in-graph", BINARY),
    "not_finite": (from_kernel("ste_sign"), "not-finite-kernel", "not-finite-kernel"),
    # Layers
    "border": (from_input("ste_sign", pad_values=-1.0), "unfused-padding", "unfused-padding"),
    "zeros": (from_input("ste_sign", pad_values=0.0), BINARY, BINARY),
    "strided": (from_input("ste_sign", strides=2), BINARY, BINARY),
    "dilated": (from_input("ste_sign", dilation_rate=2), BINARY, BINARY),
    "sign_in_front": (behind(lq.quantizers.SteSign), BINARY, BINARY),
    "permuted": (
        behind(lq.quantizers.SteSign, partial(layers.Permute, (2, 1, 3))),
        "op-after-sign",
        "op-after-sign",
    ),
    "border_behind": (
        behind(lq.quantizers.SteSign, layers.ZeroPadding2D, **ZEROS),
        "unfused-padding",
        "unfused-padding",
    ),
    "border_in_front": (
        lambda name: [layers.ZeroPadding2D(), *conv(name, **ZEROS)],
        BINARY,
        BINARY,
    ),
    "dense": (
        lambda name: [layers.Flatten(), lq.layers.QuantDense(8, name=name, **SIGNS)],
        "dense",
        BINARY,
    ),
    "depthwise": (
        of(
            lq.layers.QuantDepthwiseConv2D,
            3,
            input_quantizer="ste_sign",
            depthwise_quantizer="ste_sign",
        ),
        "depthwise",
        "depthwise",
    ),
    "transposed": (
        of(lq.layers.QuantConv2DTranspose, 8, 4, strides=2, **SIGNS),
        "transposed",
        BINARY,
    ),
    "odd_transposed": (
        of(lq.layers.QuantConv2DTranspose, 8, 3, strides=2, **SIGNS),
        "transposed",
        "transposed",
    ),
    "local": (
        of(lq.layers.QuantLocallyConnected2D, 8, 3, **SIGNS),
        "locally-connected",
        "locally-connected",
    ),
}
SEPARABLE = {"separable (depthwise)": "depthwise", "separable (pointwise)": "pointwise"}
OTHER_INPUTS = {
    "sound": (of(lq.layers.QuantConv1D, 8, 3, **SIGNS), (8, 32), "conv1d"),
    "volume": (of(lq.layers.QuantConv3D, 8, 3, **SIGNS), (4, 4, 4, 32), "conv3d"),
}


SAME = {"padding": "same", "quantizer": "learnable_scale"}


def branches(cases):
    """One network with a branch of its own for each case: one conversion serves all."""
    inputs, outputs = [], []
    for name, make, shape in cases:
        x = tf.keras.Input(shape)
        inputs.append(x)
        for layer in make(name):
            x = layer(x)
        outputs.append(x)
    model = tf.keras.Model(inputs, outputs)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        for variable in layer.trainable_weights:
            if len(variable.shape) > 1:
                variable.assign(generator.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def truth(networks, tmp_path_factory):
    cases = [(name, make, (6, 6, 32)) for name, (make, _, _) in CASES.items()]
    cases += [(name, make, shape) for name, (make, shape, _) in OTHER_INPUTS.items()]
    quantizers = {f"{part}_quantizer": "ste_sign" for part in ("input", "depthwise", "pointwise")}
    separable = of(lq.layers.QuantSeparableConv2D, 8, 3, **quantizers)
    model = branches([*cases, ("separable", separable, (6, 6, 32))])
    kernel = model.get_layer("not_finite").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    report = lint(model)
    ours = convert(model, allow_float=True).report
    engine = audit(networks.convert_as_it_is(model, tmp_path_factory.mktemp("engine")), model)
    return report, ours, engine


EXPECTED = {
    **{name: causes for name, (_, *causes) in CASES.items()},
    **{name: [cause, cause] for name, (_, _, cause) in OTHER_INPUTS.items()},
    **{name: [cause, cause] for name, cause in SEPARABLE.items()},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_lint_and_audit_say_the_same(name, truth):
    report, ours, engine = truth
    by_engine, by_ours = EXPECTED[name]
    (row,) = [layer for layer in report.layers if layer.name == name]
    assert (row.by_engine, row.binary, row.cause) == (
        by_engine == BINARY,
        by_ours == BINARY,
        by_ours or by_engine,
    )
    for audited, cause in ((ours, by_ours), (engine, by_engine)):
        (layer,) = [layer for layer in audited.layers if layer.name == name]
        assert (layer.binary, layer.cause) == (cause == BINARY, cause)
        assert (layer.op == "LceBconv2d") == layer.binary
        assert bool(layer.reason and layer.advice) == (cause != BINARY)
    severities = {
        finding.severity: finding.cause
        for finding in report.findings
        if finding.layer == name and finding.severity != "note"
    }
    if by_ours:
        assert severities == {"float": by_ours}
    else:
        assert severities == ({"mended": by_engine} if by_engine else {})


def test_every_layer_is_in_all_reports(truth):
    for report in truth:
        assert {layer.name for layer in report.layers} == set(EXPECTED)
        assert not report.ok


def test_the_offending_operation_is_named(truth):
    report, ours, _ = truth
    finding = next(f for f in report.findings if f.layer == "border")
    assert finding.offender.startswith("PADV2 (op ") and "/border/" in finding.offender
    layer = next(layer for layer in ours.layers if layer.name == "border")
    assert layer.offender.startswith("PADV2 (op ") and "/border/" in layer.offender
    text = str(ours)
    assert "[unfused-padding]" in text and layer.offender in " ".join(text.split())
    rows = {row["name"]: row for row in ours.to_dict()["layers"]}
    assert rows["border"]["cause"] == "unfused-padding"


def test_values_are_shown(truth):
    finding = next(f for f in truth[0].findings if f.layer == "step")
    assert ": 0, 1" in finding.reason


def test_small_groups(networks, tmp_path):
    """In a model of its own, because Keras hides them in a function that has to be inlined."""
    make = {
        "small": (from_input("ste_sign", groups=2), (6, 6, 32)),
        "large": (from_input("ste_sign", groups=2), (6, 6, 64)),
    }
    model = branches([(name, layer, shape) for name, (layer, shape) in make.items()])
    causes = {"small": "small-groups", "large": BINARY}
    report, audited = lint(model), convert(model, allow_float=True).report
    for layer in (*report.layers, *audited.layers):
        assert (layer.binary, layer.cause) == (not causes[layer.name], causes[layer.name])
    assert "2 groups has 16 input channels" in str(report)


def test_channels_first():
    layer = lq.layers.QuantConv2D(8, 3, data_format="channels_first", **SIGNS)
    report = lint(tf.keras.Sequential([tf.keras.Input((32, 6, 6)), layer]))
    assert [row.cause for row in report.layers] == ["channels-first"]


def plus_two(x):
    return tf.sign(tf.sign(x) + 2.0)


def plus_less(x):
    return tf.sign(tf.sign(x) + -0.1)


def plus_input(x):
    return tf.sign(tf.sign(x) + x)


# The engine takes all of these for a plain sign.
@pytest.mark.parametrize(
    "quantizer",
    [plus_two, Own(plus_less), plus_input, lq.quantizers.SteTern()],
    ids=["function", "class", "no constant", "ste_tern"],
)
def test_sums_of_signs_are_found_where_convert_refuses_them(quantizer):
    model = branches([("wrong", from_input(quantizer), (6, 6, 32)), ("right", conv, (6, 6, 32))])
    report = lint(model)
    assert not report.ok
    (finding,) = [finding for finding in report.findings if finding.severity == "float"]
    assert finding.cause == "sign-of-sign" and finding.layer.startswith("wrong")
    with pytest.raises(DeploymentError, match=r"sign\(sign\(x\) \+ c\)"):
        convert(model)


def test_other_precisions_are_mended():
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = branches([("half", conv, (6, 6, 32))])
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    report = lint(model)
    assert report.ok and not report.layers[0].by_engine
    assert [(f.severity, f.cause) for f in report.findings] == [("mended", "dtype-policy")]
    assert "nothing to do" in str(report)
    assert convert(model).report.ok


def test_unknown_sizes_are_refused():
    settings = {**SIGNS, **ZEROS}
    layer = lq.layers.QuantConv2D(8, 3, name="conv", **settings)
    model = tf.keras.Sequential([tf.keras.Input((None, None, 32)), layer])
    report = lint(model)
    assert [(row.name, row.binary, row.cause) for row in report.layers] == [
        ("conv", False, "unknown-size")
    ]
    assert not report.ok and "(None, None, None, 32)" in report.findings[0].reason
    with pytest.raises(DeploymentError, match="height, width"):
        convert(model)


def test_what_cannot_be_rebuilt_is_a_finding():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = conv("hidden_one")[0]

        def call(self, inputs):
            return self.inner(inputs)

    report = lint(tf.keras.Sequential([tf.keras.Input((6, 6, 32)), Block()]))
    assert not report.ok
    assert [finding.cause for finding in report.findings] == ["not-rebuildable"]
    assert "hidden_one" in report.findings[0].reason


def notes(*made):
    cases = [(f"l{i}", make, (6, 6, 32)) for i, make in enumerate(made)]
    return {(f.layer, f.cause) for f in lint(branches(cases)).findings if f.severity == "note"}


def test_notes():
    shared = Learned()
    found = notes(
        from_input(None),
        from_kernel(None),
        from_input(lq.quantizers.DoReFa(2)),
        from_input("ste_sign", pad_values=0.0),
        from_kernel(Own(uneven)),
        from_kernel(shared),
        from_kernel(shared),
        conv,
    )
    assert found == {
        ("l0", "float-input"),
        ("l1", "unused-input-quantizer"),
        ("l2", "several-bits"),
        ("l3", "zero-padding"),
        ("l4", "uneven-scale"),
        ("l5", "shared-quantizer"),
        ("l6", "shared-quantizer"),
    }
    report = lint(branches([("odd", conv, (6, 6, 40))]))
    assert report.ok and [finding.cause for finding in report.findings] == ["odd-channels"]


def test_our_own_methods_are_binary_and_so_are_baked_models():
    cases = [
        (method, lambda name, m=method: [lqx.layers.QuantConv2D(8, 3, quantizer=m, name=name)])
        for method in lqx.quantizers.METHODS
    ]
    model = branches([(name, make, (6, 6, 32)) for name, make in cases])
    for form in (model, lqx.deploy.bake(model)):
        report = lint(form)
        assert report.ok, report
        assert len(report.layers) == len(cases)


def test_notes_are_of_the_layer_as_it_is_deployed():
    """Zeros around inputs of 0 and 1 become ones around signs."""
    model = branches(
        [
            ("zero_one", of(lqx.layers.QuantConv2D, 8, 3, **SAME), (6, 6, 32)),
            ("up", of(lq.layers.QuantConv2DTranspose, 8, 4, strides=2, **SIGNS), (6, 6, 32)),
        ]
    )
    report = lint(model)
    assert report.ok
    assert not [finding for finding in report.findings if finding.severity == "note"]


def test_a_derived_class_is_judged_by_what_it_computes():
    class Steps(lqx.quantizers.SiMaN):
        def quantize(self, x, training):
            return tf.cast(x > 0, tf.float32)

    report = lint(branches([("steps", from_input(Steps()), (6, 6, 32))]))
    assert [finding.cause for finding in report.findings] == ["input-values"]


def test_what_is_no_model_is_refused():
    with pytest.raises(DeploymentError, match=r"Expected a tf.keras.Model, received str"):
        lint("model.keras")


def test_a_float_network_is_not_ok():
    report = lint(tf.keras.Sequential([tf.keras.Input((4, 4, 3)), layers.Conv2D(2, 3)]))
    assert not report.ok
    assert "no layer is meant to be binary" in str(report)


def test_nested_and_repeated_layers():
    inner = branches([("conv", from_input("ste_sign", filters=32), (6, 6, 32))])
    x = tf.keras.Input((6, 6, 32))
    report = lint(tf.keras.Model(x, inner(tf.nn.relu(inner(x)))))
    assert [(row.name, row.binary) for row in report.layers] == [(f"{inner.name}/conv", True)]


def test_every_cause_is_tested():
    tested = {cause for causes in EXPECTED.values() for cause in causes} - {BINARY}
    tested |= {"small-groups", "channels-first", "sign-of-sign", "dtype-policy", "unknown-size"}
    tested |= {"not-rebuildable", "float-input", "unused-input-quantizer", "several-bits"}
    tested |= {"zero-padding", "uneven-scale", "shared-quantizer", "odd-channels"}
    assert tested == set(CAUSES) - {"not-in-file"}  # the audit's own


def test_the_documentation_has_the_table_of_causes(request):
    text = (request.config.rootpath / "docs" / "conversion.md").read_text()
    assert markdown() in text, "paste what `python -m larq_ext.deploy._causes` prints"


@pytest.mark.slow
def test_a_network_of_larq_zoo():
    zoo = pytest.importorskip("larq_zoo")
    model = zoo.sota.QuickNetSmall(weights=None, input_shape=(64, 64, 3))
    report, audited = lint(model), convert(model).report
    assert [row.name for row in report.layers] == [row.name for row in audited.layers]
    assert (report.ok, report.binary) == (audited.ok, audited.binary) == (True, 16)
