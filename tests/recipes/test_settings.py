"""Each setting reaches what it is for: optimizer, rate, step, augmentation and loss."""

from __future__ import annotations

import functools
import math

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from stick_figures import pose_experiment
from tiny import tiny_experiment, tiny_network

from larq_ext_recipes import UsageError
from larq_ext_recipes._augmentation import Augmentation
from larq_ext_recipes._optimizers import binary_kernels, decayed_variables, quantizer_parameters
from larq_ext_recipes._pose_loss import pose_loss
from larq_ext_recipes._pose_views import PoseAugmentation
from larq_ext_recipes._start import step_options
from larq_ext_recipes._two_step import drop_kernel_quantizers

SHAPE = {"input_shape": (8, 8, 1), "num_classes": 3}


@pytest.fixture(scope="module")
def network():
    return tiny_network(**SHAPE, quantizer="mlp_classifier")


def optimizer(network, tmp_path, **settings):
    settings = {"quantizer": "mlp_classifier", **settings}
    experiment = tiny_experiment(tmp_path, epochs=10, **settings)
    return experiment.make_optimizer(network, experiment.make_learning_rate(7))


def rate_at(optimizer, step: int) -> float:
    schedule = optimizer._hyper["learning_rate"]
    return float(schedule(step))


def test_rates_by_hand(tmp_path):
    def rate(step, **settings):
        experiment = tiny_experiment(tmp_path, epochs=10, learning_rate=0.5, **settings)
        return float(experiment.make_learning_rate(7)(step))

    assert rate(6) == rate(0) == 0.5, "of an epoch"
    cosine = 0.5 * (1 + math.cos(math.pi * 3 / 70)) / 2
    assert rate(3, schedule_per_step=True) == pytest.approx(cosine)
    assert rate(0, warmup_epochs=4) == pytest.approx(0.5 / 4)
    steps = {"schedule": "step", "milestones": (2, 5), "step_factor": 0.3}
    assert [rate(7 * epoch, **steps) for epoch in (1, 2, 5)] == pytest.approx([0.5, 0.15, 0.045])
    assert rate(35, schedule="linear") == pytest.approx(0.25)


def test_optimizers(network, tmp_path):
    sgd = optimizer(network, tmp_path, momentum=0.7)
    assert isinstance(sgd, tf.keras.optimizers.SGD) and sgd.momentum == 0.7
    adam = optimizer(network, tmp_path, optimizer="adam", momentum=0.8)
    assert isinstance(adam, tf.keras.optimizers.Adam) and adam.beta_1 == 0.8
    old = optimizer(network, tmp_path, optimizer="adam", legacy_optimizer=True)
    assert isinstance(old, tf.keras.optimizers.legacy.Adam)
    decoupled = optimizer(network, tmp_path, optimizer="adamw", weight_decay=0.03)
    assert decoupled.weight_decay == 0.03
    mine = lambda rate, model: (rate, model)  # noqa: E731
    rate, model = optimizer(network, tmp_path, optimizer=mine)
    assert (float(rate(0)), model) == (pytest.approx(0.05), network)


def test_optimizers_for_a_part(network, tmp_path):
    rates = {"quantizer_learning_rate": 0.5, "quantizer_milestones": (3,)}
    of_quantizers, of_the_rest = optimizer(network, tmp_path, **rates).optimizers
    bops = {"binary_optimizer": "bop", "bop_threshold": 0.25, "bop_gamma": 0.125}
    bop, _ = optimizer(network, tmp_path, quantizer="ste_sign", **bops).optimizers
    assert isinstance(bop, lq.optimizers.Bop)
    assert (bop.threshold, bop._get_hyper("gamma")) == (0.25, 0.125)
    assert [rate_at(of_quantizers, 7 * epoch) for epoch in (2, 3)] == pytest.approx([0.5, 0.05])
    assert rate_at(of_the_rest, 0) == pytest.approx(0.05)


def test_decay_of_a_step(network, tmp_path):
    def options(**settings):
        return step_options(tiny_experiment(tmp_path, **settings), network)

    some = options(weight_decay=0.25, gradient_clip_norm=3.0)
    assert (some.weight_decay, some.gradient_clip_norm) == (0.25, 3.0)
    kernels = {variable.name for variable in some.decayed(network)}
    assert kernels == {"stem/kernel:0", "logits/kernel:0"}
    every = options(weight_decay=0.25, decay_norm_and_bias=True).decayed(network)
    assert {variable.name for variable in every} > kernels
    assert options(weight_decay=0.25, optimizer="adamw").weight_decay == 0, "it is the optimizer's"
    assert options().decayed(network) == []


def test_augmentation(tmp_path):
    settings = {"crop_padding": 2, "flip": True, "color_jitter": 0.1, "lighting": 0.2}
    settings |= {"randaugment": 0.3, "mixup": 0.4, "cutmix": 0.5}
    assert tiny_experiment(tmp_path, **settings).augmentation == Augmentation(**settings)
    crops = tiny_experiment(tmp_path, crop_padding=0, crop_scale=(0.2, 0.9)).augmentation
    assert (crops.crop_padding, crops.crop_scale) == (0, (0.2, 0.9))


def test_pose(tmp_path):
    experiment = pose_experiment(
        tmp_path, tmp_path / "run", scale=0.1, rotation=20.0, half_body=0.4, flip=False
    )
    assert experiment.augmentation == PoseAugmentation(0.1, 20.0, 0.4, False)
    generator = np.random.default_rng(0)
    maps = tf.constant(generator.normal(size=(2, 8, 6, 17)), tf.float32)
    points = generator.uniform(0, 24, size=(2, 17, 2))
    labels = tf.constant(np.concatenate([points, np.ones((2, 17, 1))], -1), tf.float32)
    settings = {"sigma": 1.5, "unrounded_targets": True, "ohkm": 8, "joint_weights": True}
    found = experiment.replace(**settings).loss(labels, maps)
    wanted = pose_loss(labels, maps, sigma=1.5, unrounded=True, hardest=8, joint_weights=True)
    np.testing.assert_array_equal(found, wanted)
    for name, other in (("sigma", 2.0), ("ohkm", 0), ("joint_weights", False)):
        changed = experiment.replace(**{**settings, name: other}).loss(labels, maps)
        assert not np.allclose(found, changed), name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_accuracy_of_mixed_labels(tmp_path, smoothing):
    experiment = tiny_experiment(tmp_path, label_smoothing=smoothing)
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(4), 3).astype("float32")
    outputs = generator.dirichlet(np.ones(4), 3).astype("float32")
    smooth = shares * (1 - smoothing) + smoothing / 4
    wanted = -(smooth * np.log(outputs)).sum(-1)
    found = experiment.loss(tf.constant(shares), tf.constant(outputs))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    metric = experiment.metric()
    metric.update_state(tf.constant(shares), tf.constant(outputs))
    assert float(metric.result()) == pytest.approx((shares.argmax(-1) == outputs.argmax(-1)).mean())


def unnamed_network(*, input_shape, num_classes, quantizer):
    image = tf.keras.Input(input_shape)
    x = lq.layers.QuantConv2D(4, 3, input_quantizer=quantizer, kernel_quantizer=quantizer)(image)
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(image, tf.keras.layers.Dense(num_classes, "softmax")(x))


def test_layers_without_names_have_the_same_ones_each_time(tmp_path):
    """Or the second of two steps would find nothing of the first, after hours."""
    experiment = tiny_experiment(tmp_path, network=unnamed_network, quantizer="ste_sign")
    data = experiment.load_data()
    names = [[layer.name for layer in experiment.build_model(data).layers] for _ in range(2)]
    assert names[0] == names[1]


def test_the_first_step_has_its_own_share_of_all_schedules(tmp_path):
    settings = {"schedule": "step", "milestones": (90, 120), "quantizer_milestones": (30,)}
    experiment = tiny_experiment(
        tmp_path, epochs=140, first_step_epochs=70, warmup_epochs=4, **settings
    )
    first = experiment.first_step(tmp_path / "first_step")
    assert (first.epochs, first.milestones, first.warmup_epochs) == (70, (45, 60), 2)
    assert (first.quantizer_milestones, first.binarize) == ((15,), "inputs")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "step"}, "schedule=step needs milestones"),
        ({"optimizer": lambda rate, model: None, "binary_optimizer": "bop"}, "is the only one"),
        ({"optimizer": lambda rate, model: None, "legacy_optimizer": True}, "is the only one"),
    ],
)
def test_settings_that_would_do_nothing(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        tiny_experiment(tmp_path, quantizer="ste_sign", **settings)


def test_a_function_without_a_name_is_a_setting_too(tmp_path):
    network = functools.partial(tiny_network)
    values = tiny_experiment(tmp_path, network=network).to_dict()
    assert values["network"] == "tiny.tiny_network"


def depthwise_network():
    quantizers = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign"}
    image = tf.keras.Input((8, 8, 4))
    x = lq.layers.QuantDepthwiseConv2D(3, **quantizers, name="depthwise")(image)
    x = lq.layers.QuantSeparableConv2D(
        5, 3, **quantizers, pointwise_quantizer="ste_sign", name="separable"
    )(x)
    x = tf.keras.layers.SeparableConv2D(3, 1, use_bias=False, name="real")(x)
    return tf.keras.Model(image, tf.keras.layers.GlobalAveragePooling2D()(x))


def test_kernels_of_depthwise_layers_are_binary_too():
    model = depthwise_network()
    names = {variable.name.split(":")[0] for variable in binary_kernels(model)}
    assert names == {
        "depthwise/depthwise_kernel",
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
    }
    decayed = {variable.name.split(":")[0] for variable in decayed_variables(model)}
    assert decayed == {"real/depthwise_kernel", "real/pointwise_kernel"}
    assert quantizer_parameters(model) == []
    real = drop_kernel_quantizers(model)
    assert real.get_layer("depthwise").depthwise_quantizer is None
    assert real.get_layer("separable").pointwise_quantizer is None
    assert real.get_layer("separable").input_quantizer is not None
