"""Larq's summary of networks with the methods: operations, memory, and what is not deployed."""

import pathlib

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import larq_ext as lqx

# Width of the first layer, and of its filters; the second is dense.
FILTERS, CHANNELS, UNITS = 8, 4, 2


def network(name):
    return tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, CHANNELS)),
            lqx.layers.QuantConv2D(
                FILTERS, 3, padding="same", use_bias=False, quantizer=name, name="conv"
            ),
            tf.keras.layers.BatchNormalization(name="norm"),
            tf.keras.layers.Flatten(name="flatten"),
            lqx.layers.QuantDense(UNITS, quantizer=name, name="dense"),
        ],
        name=name,
    )


def table_of(name):
    """The layers' rows and the summary's numbers."""
    profile = lq.models.ModelProfile(network(name))
    header, *rows = profile.generate_table()
    return header, {row[0]: row[1:] for row in rows}, dict(profile.generate_summary())


# Trained parameters which the deployed network has, and which it has not, per layer.
SCALES = {
    "fda": (0, 0),
    "learnable_scale": (FILTERS + 1, UNITS + 1),
    "siman": (FILTERS, UNITS),
    "mlp_classifier": (0, 0),
    "ste_sign": (0, 0),
}
ROW, FLAT = 9 * CHANNELS, 36 * FILTERS
TRAINING_ONLY = {
    # One hidden unit for the filter's 36 weights, one for the 4 channels; 288 // 64 = 4 for each.
    "fda": (2 * ROW + 2 * CHANNELS, 2 * 4 * FLAT * 2),
    "learnable_scale": (0, 0),
    "siman": (0, 0),
    "mlp_classifier": (300, 300),
    "ste_sign": (0, 0),
}


def macs(*layers, shape):
    return lq.models.ModelProfile(tf.keras.Sequential([tf.keras.Input(shape), *layers])).op_count(
        "mac"
    )


def test_transposed_convolutions_spread_their_inputs():
    kinds = (tf.keras.layers.Conv2DTranspose, lq.layers.QuantConv2DTranspose)
    for kind in kinds:
        for padding in ("same", "valid"):
            layer = kind(5, 4, strides=2, padding=padding, use_bias=False)
            assert macs(layer, shape=(6, 7, 3)) == 6 * 7 * 16 * 3 * 5
    line = tf.keras.layers.Conv1DTranspose(5, 4, strides=2, use_bias=False)
    assert macs(line, shape=(6, 3)) == 6 * 4 * 3 * 5
    transposed = kinds[1](
        5,
        4,
        strides=2,
        padding="valid",
        use_bias=False,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
    )
    baked = lqx.deploy.bake(tf.keras.Sequential([tf.keras.Input((6, 7, 3)), transposed]))
    profile = lq.models.ModelProfile(baked)
    # The convolution it becomes has 2 x 2 taps for 4 outputs a pixel, on an image with a border.
    assert profile.op_count("mac", 1) == 7 * 8 * (2 * 2 * 3 * 5 * 4)


def test_multiply_adds_of_images_of_any_kind():
    conv = tf.keras.layers.Conv2D
    expected = 5 * 4 * 9 * 3 * 8
    assert macs(conv(8, 3), shape=(7, 6, 3)) == expected
    assert macs(conv(8, 3, data_format="channels_first"), shape=(3, 7, 6)) == expected
    assert macs(conv(8, 3, activation=tf.keras.layers.PReLU()), shape=(7, 6, 3)) == expected
    for shape in ((None, None, 3), (7, None, 3)):
        assert not macs(conv(8, 3), shape=shape), "unknown, and not below zero"
    assert macs(tf.keras.layers.Dense(4), shape=(5, 3)) == 5 * 3 * 4


def test_volumes_and_lines_and_layers_that_are_not_known():
    volume = tf.keras.layers.Conv3D(4, 3, use_bias=False)
    assert macs(volume, shape=(5, 6, 5, 2)) == 3 * 4 * 3 * 27 * 2 * 4
    spread = tf.keras.layers.Conv3DTranspose(4, 2, strides=2, use_bias=False)
    assert macs(spread, shape=(5, 6, 5, 2)) == 5 * 6 * 5 * 8 * 2 * 4
    line = tf.keras.layers.DepthwiseConv1D(3, use_bias=False)
    assert macs(line, shape=(7, 2)) == 5 * 3 * 2
    head = tf.keras.layers.Dense(4, use_bias=False, name="unbiased_head")
    assert macs(head, shape=(3,)) == 12
    for layer in (
        tf.keras.layers.TimeDistributed(tf.keras.layers.Dense(4)),
        tf.keras.layers.GRU(4),
        tf.keras.layers.EinsumDense("abc,cd->abd", (None, 4)),
    ):
        model = tf.keras.Sequential([tf.keras.Input((5, 3)), layer, tf.keras.layers.Dense(2)])
        assert not lq.models.ModelProfile(model).has_op_count, layer.name
    plain = tf.keras.Sequential([tf.keras.Input((5, 3)), tf.keras.layers.LayerNormalization()])
    assert lq.models.ModelProfile(plain).has_op_count


def test_layers_that_are_called_twice_work_twice():
    layer = tf.keras.layers.Dense(4, use_bias=False)
    nested = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(5, use_bias=False)])
    inputs = [tf.keras.Input((3,)) for _ in range(2)]
    model = tf.keras.Model(inputs, [nested(layer(x)) for x in inputs])
    profile = lq.models.ModelProfile(model)
    assert profile.op_count("mac") == 2 * (3 * 4 + 4 * 5)
    once = lq.models.ModelProfile(tf.keras.Model(inputs[0], layer(inputs[0])))
    assert once.op_count("mac") == 3 * 4


def test_the_second_kernel_of_a_separable_layer_meets_sums():
    both = {"depthwise_quantizer": "ste_sign", "pointwise_quantizer": "ste_sign"}
    layer = lq.layers.QuantSeparableConv2D(8, 3, input_quantizer="ste_sign", **both)
    model = tf.keras.Sequential([tf.keras.Input((6, 6, 4)), layer])
    profile = lq.models.ModelProfile(model)
    assert profile.op_count("mac", 1) == 16 * 9 * 4
    assert profile.op_count("mac", 32) == 16 * 4 * 8


def test_a_pose_network_of_transposed_convolutions():
    import larq_ext_zoo as zoo

    network = zoo.get("simple_baseline18.float")
    found = lq.models.ModelProfile(network).op_count("mac")
    assert found == pytest.approx(2.897e9, rel=1e-3)


@pytest.mark.parametrize("name", SCALES)
def test_operations_and_memory_are_those_of_a_plain_network_and_the_scales(name):
    model, plain = network(name), network("ste_sign")
    profile, reference = lq.models.ModelProfile(model), lq.models.ModelProfile(plain)
    for precision in (None, 1, 32):
        assert profile.op_count("mac", precision) == reference.op_count("mac", precision)
    assert profile.op_count("mac", 1) == 36 * ROW * FILTERS + FLAT * UNITS
    assert profile.unique_op_precisions == [1]
    extra = sum(SCALES[name])
    assert profile.memory - reference.memory == 32 * extra
    assert profile.fp_equivalent_memory - reference.fp_equivalent_memory == 32 * extra
    assert profile.weight_count(32) - reference.weight_count(32) == extra
    assert profile.weight_count(1) == reference.weight_count(1) == (ROW * FILTERS + FLAT * UNITS)
    assert profile.weight_count(0) == sum(TRAINING_ONLY[name])
    for index, layer in enumerate(("conv", "dense")):
        one = next(p for p in profile.layer_profiles if p.name == layer)
        two = next(p for p in reference.layer_profiles if p.name == layer)
        assert one.memory - two.memory == 32 * SCALES[name][index]
        assert one.weight_count(0) == TRAINING_ONLY[name][index]
        assert one.input_precision == 1


@pytest.mark.parametrize("name", SCALES)
def test_table(name):
    """A snapshot of the numbers that `larq.models.summary` prints."""
    header, rows, _ = table_of(name)
    columns = [cell.split("\n")[0] for cell in header]
    training_only = any(TRAINING_ONLY[name])
    assert columns == [
        "Layer",
        "Input prec.",
        "Outputs",
        *(["# 0-bit"] if training_only else []),
        "# 1-bit",
        "# 32-bit",
        "Memory",
        "1-bit MACs",
    ]
    scales, hidden = SCALES[name], TRAINING_ONLY[name]

    def row(shape, index, bits, full, macs, precision=1):
        zero = [hidden[index] if index is not None else 0] if training_only else []
        return [precision, str(shape), *zero, bits, full, (bits + 32 * full) / 8 / 1024, macs]

    conv, dense = ROW * FILTERS, FLAT * UNITS
    expected = {
        "conv": row((-1, 6, 6, FILTERS), 0, conv, scales[0], 36 * conv),
        "norm": row((-1, 6, 6, FILTERS), None, 0, 2 * FILTERS, 0, "-"),
        "flatten": row((-1, FLAT), None, 0, 0, 0, "-"),
        "dense": row((-1, UNITS), 1, dense, scales[1] + UNITS, dense),
    }
    for layer, cells in expected.items():
        assert rows[layer] == pytest.approx(cells), layer


SNAPSHOTS = pathlib.Path(__file__).parent / "quantizers" / "summaries.txt"


@pytest.mark.parametrize("name", SCALES)
def test_printed_summary(name, capsys):
    """What `larq.models.summary` prints, to the letter."""
    lq.models.summary(network(name))
    text = capsys.readouterr().out
    assert f"+{name} stats-" in text
    assert text in SNAPSHOTS.read_text()


def test_a_frozen_layer_counts_its_scales_as_before():
    model = network("learnable_scale")
    before = lq.models.ModelProfile(model)
    model.trainable = False
    after = lq.models.ModelProfile(model)
    assert after.memory == before.memory
    assert after.weight_count() == before.weight_count()
    assert after.weight_count(trainable=True) == 0


def test_other_layers_are_summarized_as_larq_does_it():
    """Only weights that are marked are treated differently."""
    model = tf.keras.Sequential(
        [tf.keras.Input((4,)), lq.layers.QuantDense(3, kernel_quantizer="ste_sign",
                                                     kernel_constraint="weight_clip")]
    )  # fmt: skip
    profile = lq.models.ModelProfile(model)
    assert profile.memory == 12 + 32 * 3
    assert profile.fp_equivalent_memory == 32 * 15
    assert profile.op_count("mac", 32) == 12
    assert np.isclose(dict(profile.generate_summary())["Compression Ratio of Memory"], 108 / 480)
