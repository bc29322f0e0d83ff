"""The pose networks: sizes of the parents' official code, and counts of what is binary."""

from __future__ import annotations

import re

import larq_ext as lqx  # isort: skip  (Keras 2, before anything uses tf.keras)
import numpy as np
import pytest
import tensorflow as tf

from larq_ext_zoo import classification, pose
from larq_ext_zoo.pose import bhrnet as bhrnet_room
from larq_ext_zoo.pose import hrnet

unusual = pytest.mark.exhaustive
TINY = (64, 32, 3)
# As often as the layers of a module with this name are there in all, from (1, 1, 2) modules.
MODULES = {"stage3_module1": 4, "stage4_module1": 2}


def weights(layer):
    return int(np.prod(layer.kernel.shape))


def macs(layer):
    """Each weight meets each output, in a transposed convolution each input."""
    transposed = isinstance(layer, tf.keras.layers.Conv2DTranspose)
    return weights(layer) * int(
        np.prod((layer.input_shape if transposed else layer.output_shape)[1:3])
    )


def is_binary(layer):
    return isinstance(layer, lqx.layers.QuantConv2D)


def multiplicity(layer):
    return MODULES.get("_".join(layer.name.split("_")[:2]), 1)


def shorten(monkeypatch):
    """One block of the first layer in the place of four."""
    for room in (hrnet, bhrnet_room):
        monkeypatch.setattr(room, "LAYER1_BLOCKS", 1)


def counts(model, times=lambda layer: 1):
    """Real and binary multiply-adds and weights of all convolutions."""
    found = np.zeros((2, 2), np.int64)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            found[:, int(is_binary(layer))] += np.multiply(
                (macs(layer), weights(layer)), times(layer)
            )
    return found


def parameters(model, times=lambda layer: 1):
    return sum(
        times(layer) * sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)
        for layer in model.layers
    )


def check_row(model, row, times=lambda layer: 1):
    """A row of a table: real and binary MACs (1e9), OPs (1e9), storage (MB)."""
    (real, binary), (words, bits) = counts(model, times)
    found = real / 1e9, binary / 1e9, (real + binary / 64) / 1e9, (words * 4 + bits / 8) / 1e6
    assert (
        tuple(round(value, digits) for value, digits in zip(found, (3, 3, 3, 2), strict=True))
        == row
    )


@pytest.mark.parametrize(
    ("backbone", "expected", "billions"),
    [
        (18, 15_376_721, 2.897),
        pytest.param(34, 25_484_881, 4.709, marks=unusual),
        (50, 33_999_697, 5.426),
        pytest.param(101, 52_991_825, 9.063, marks=unusual),
        pytest.param(152, 68_635_473, 12.699, marks=unusual),
    ],
)
def test_simple_baseline(backbone, expected, billions):
    model = pose.SimpleBaseline(backbone=backbone)
    assert parameters(model) == expected
    (real, binary), _ = counts(model)
    assert (round(real / 1e9, 3), binary) == (billions, 0)
    assert model.output_shape == (None, 64, 48, 17)


@pytest.mark.parametrize(
    ("width", "expected", "billions"),
    [(32, 28_536_113, 7.645), pytest.param(48, 63_595_745, 15.692, marks=unusual)],
)
def test_hrnet(width, expected, billions):
    model = pose.HRNet(width=width, modules=(1, 1, 2))
    assert parameters(model, multiplicity) == expected
    assert round(counts(model, multiplicity)[0].sum() / 1e9, 3) == billions
    if width == 32:
        norms = [x for x in model.layers if isinstance(x, tf.keras.layers.BatchNormalization)]
        assert sum(map(multiplicity, norms)) == 292
        assert sum(multiplicity(norm) * norm.gamma.shape[0] for norm in norms) == 27_168


SBPN = {
    (18, "real_transposed"): (1.255, 1.642, 1.281, 18.89),
    (18, "transposed"): (0.148, 2.749, 0.191, 2.64),
    (18, "nearest"): (0.148, 4.133, 0.212, 2.41),
    (34, "real_transposed"): (1.255, 3.454, 1.309, 20.16),
    (34, "transposed"): (0.148, 4.561, 0.219, 3.90),
    (34, "nearest"): (0.148, 5.945, 0.241, 3.67),
}


@pytest.mark.parametrize(
    ("backbone", "head"), [pytest.param(*c, marks=unusual if c[0] == 34 else ()) for c in SBPN]
)
def test_sbpn(backbone, head):
    model = pose.SBPN(backbone=backbone, head=head, quantizer="ste_sign")
    check_row(model, SBPN[backbone, head])
    assert model.output_shape == (None, 64, 48, 17)
    assert model.output_names == ["heatmaps"]


# Convolutions, weights and multiply-adds of each group.
GROUPS = {
    "stem": (2, 38_592, 134_479_872),
    "layer1": (12, 266_240, 817_889_280),
    "projection": (1, 16_384, 50_331_648),
    "transition1": (2, 221_184, 339_738_624),
    "transition2": (1, 73_728, 14_155_776),
    "transition3": (1, 294_912, 14_155_776),
    "stage2 branch": (16, 368_640, 452_984_832),
    "stage2 fuse": (2, 20_480, 15_728_640),
    "stage3 branch": (96, 6_193_152, 2_717_908_992),
    "stage3 fuse": (28, 610_304, 185_597_952),
    "stage4 branch": (96, 18_800_640, 2_717_908_992),
    "stage4 fuse": (35, 1_576_960, 182_452_224),
    "heatmaps": (1, 544, 1_671_168),
}
BUDGETS = {
    "A": (1.756, 5.889, 1.848, 15.65),
    "B": (1.344, 6.301, 1.443, 5.66),
    "C": (1.004, 6.641, 1.108, 4.81),
    "D": (0.186, 7.459, 0.303, 3.78),
    "E": (0.136, 7.509, 0.253, 3.71),
}


def group(layer):
    first, *others = re.split(r"[_\d]+", layer.name)
    if first == "stage":
        return f"{layer.name.split('_')[0]} {others[1]}"
    if "shortcut" in others:
        return "projection"
    return layer.name.split("_")[0] if first in ("layer", "transition") else first


# Of an input of 64 x 64, which this part of 256 x 192 is.
AREA = 12


@pytest.fixture(scope="module")
def bhrnet():
    tf.keras.utils.set_random_seed(0)
    return pose.BHRNet(quantizer="ste_sign", modules=(1, 1, 2), input_shape=(64, 64, 3))


def test_bhrnet_is_made_of_the_convolutions_of_hrnet(bhrnet):
    found = dict.fromkeys(GROUPS, (0, 0, 0))
    for layer in bhrnet.layers:
        if hasattr(layer, "kernel"):
            more = np.multiply((1, weights(layer), AREA * macs(layer)), multiplicity(layer))
            found[group(layer)] = tuple(found[group(layer)] + more)
    assert found == GROUPS


BINARY = {
    "A": {"stage2 branch", "stage3 branch", "stage4 branch"},
    "B": {"stage2 fuse", "stage3 fuse", "stage4 fuse", "transition2", "transition3"},
    "C": {"transition1"},
    "D": {"layer1"},
    "E": {"projection"},
}


@pytest.mark.parametrize("budget", BINARY)
def test_a_budget_is_binary_in_its_groups(budget, monkeypatch):
    """With the test above, that is the table of the budgets."""
    shorten(monkeypatch)
    model = pose.BHRNet(
        budget=budget,
        quantizer="ste_sign",
        width=8,
        modules=(1, 1),
        blocks=1,
        input_shape=(32, 32, 3),
    )
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    found = {group(layer) for layer in layers if is_binary(layer)}
    expected = set().union(*(BINARY[name] for name in BINARY if name <= budget))
    assert found == expected - {"stage4 branch", "stage4 fuse", "transition3"}
    assert not found & {group(layer) for layer in layers if not is_binary(layer)}


@unusual
@pytest.mark.parametrize("budget", BUDGETS)
def test_budgets(budget):
    model = pose.BHRNet(budget=budget, quantizer="ste_sign")
    check_row(model, BUDGETS[budget])


def test_basic_first_layer():
    model = pose.BHRNet(
        quantizer="ste_sign", layer1="basic", width=16, modules=(1,), input_shape=TINY
    )
    units = [layer for layer in model.layers if re.fullmatch(r"layer1_unit\d_conv", layer.name)]
    assert [layer.kernel.shape for layer in units] == [(3, 3, 64, 64)] * 8


def test_a_classifier_starts_a_pose_network(tmp_path):
    """Layers by name, as recipes load initial weights."""
    two_step = pytest.importorskip("larq_ext_recipes._two_step")
    arguments = {"quantizer": "ste_sign", "width": 8, "input_shape": TINY}
    classifier = classification.ResNet18(num_classes=3, variant="mlp_classifier", **arguments)
    classifier.save(tmp_path / "model.keras")
    network = pose.SBPN(**arguments)
    with pytest.warns(UserWarning, match="keep their new weights: head1"):
        two_step.load_initial_weights(network, tmp_path / "model.keras")
    same = [layer.name for layer in classifier.layers if layer.weights and layer.name != "logits"]
    assert len(same) == 2 + 16 * 3 + 3 * 2 + 1
    for name in same:
        ours, theirs = network.get_layer(name).weights, classifier.get_layer(name).weights
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize(
    ("name", "arguments", "pooled"),
    [
        ("SimpleBaseline", {"width": 8}, 64),
        ("HRNet", {"width": 8, "modules": (1, 1), "blocks": 1}, 8 + 16 + 32),
    ],
)
def test_pose_networks_classify_first(name, arguments, pooled, monkeypatch):
    shorten(monkeypatch)
    network = getattr(pose, name)
    classifier = network(num_classes=5, input_shape=TINY, **arguments)
    assert classifier.output_shape == (None, 5)
    assert classifier.get_layer("logits").kernel.shape == (pooled, 5)
    names = {layer.name for layer in network(input_shape=TINY, **arguments).layers}
    body = {x.name for x in classifier.layers if x.weights and x.name != "logits"}
    assert body <= names


def test_signs_are_balanced_at_first(bhrnet):
    """Shortcuts and PReLUs move all values up, until no sign tells anything."""
    for layer in bhrnet.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    images = np.random.default_rng(0).normal(size=(8, 64, 64, 3)).astype("float32")
    bhrnet(images, training=True)
    binary = [layer for layer in bhrnet.layers if is_binary(layer)]
    inputs = tf.keras.Model(bhrnet.input, [layer.input for layer in binary])(images)
    for layer, values in zip(binary, inputs, strict=True):
        assert 0.1 < np.mean(values.numpy() >= 0) < 0.95, layer.name


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("SBPN", {"input_shape": (100, 64, 3)}, r"sides that divide by 32.*\(100, 64, 3\)"),
        ("BHRNet", {"input_shape": (None, 64, 3)}, r"sides that divide by 32.*\(None, 64, 3\)"),
        ("SBPN", {"backbone": 101}, r"`backbone` is one of \[18, 34, 50\], received 101"),
        ("SBPN", {"head": "bilinear"}, r"`head` is one of \['nearest', 'transposed', 'real_tr"),
        ("SBPN", {"quantizer": "sign"}, "mlp_classifier"),
        ("BHRNet", {"budget": "F"}, r"`budget` is one of \['A', 'B', 'C', 'D', 'E'\], received"),
        ("BHRNet", {"layer1": "real"}, r"budget 'E' `layer1` is one of \['bottleneck', 'basic'\]"),
        ("BHRNet", {"modules": (1, 0, 3)}, r"each at least 1 .*received \(1, 0, 3\)"),
        ("HRNet", {"modules": ()}, r"`modules` is how many .*received \(\)"),
        ("HRNet", {"blocks": 0}, r"`blocks` is an integer from 1, received 0"),
        ("HRNet", {"quantizer": "fda"}, "HRNet, which is real-valued, received 'fda': take BHRNet"),
    ],
)
def test_wrong_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(pose, name)(**arguments)


def test_any_input_and_number_of_keypoints(tmp_path):
    image = tf.keras.Input((96, 32, 1), name="mine")
    model = pose.SBPN(input_tensor=image, width=8, num_keypoints=5, quantizer=None)
    assert model.output_shape == (None, 24, 8, 5)
    assert not any(map(is_binary, model.layers))
    model.save_weights(tmp_path / "a.weights.h5")
    again = pose.SBPN(
        input_shape=(96, 32, 1),
        width=8,
        num_keypoints=5,
        quantizer=None,
        weights=tmp_path / "a.weights.h5",
    )
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
