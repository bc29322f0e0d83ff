"""Weight decay, clipping and optimizers: the algorithms, and which variables they touch."""

from __future__ import annotations

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_experiment, tiny_network

import larq_ext as lqx
import larq_ext_zoo as zoo
from larq_ext_recipes import UsageError
from larq_ext_recipes._optimizers import (
    binary_kernels,
    create_variables,
    decayed_variables,
    make_optimizer,
    quantizer_parameters,
)
from larq_ext_recipes._schedules import LearningRate
from larq_ext_recipes._training_step import StepOptions, softened, with_step
from larq_ext_recipes._two_step import drop_kernel_quantizers


def two_weights(name="sgd", **options):
    """A model `probability = x * w` of two inputs, of which only the first weight decays.

    The loss `sum(x * w)` has the gradient x.
    """
    x = tf.keras.Input((2,))
    first = tf.keras.layers.Dense(1, use_bias=False, name="first")
    second = tf.keras.layers.Dense(1, use_bias=False, name="second")
    network = tf.keras.Model(x, tf.keras.layers.Add()([first(x[:, :1]), second(x[:, 1:])]))
    first.kernel.assign([[1.0]])
    second.kernel.assign([[-2.0]])
    model = with_step(network, StepOptions(decayed=lambda model: [first.kernel], **options))
    optimizer = make_optimizer(name, LearningRate(0.5, 10, 1, "constant"), model, momentum=0.9)
    model.compile(optimizer, loss=lambda labels, outputs: tf.reduce_sum(outputs, -1))
    return model, first.kernel, second.kernel


@pytest.mark.parametrize("clip", [None, 0.5])
def test_sgd_adds_l2_to_the_clipped_gradient_before_the_momentum(clip):
    model, first, second = two_weights(weight_decay=0.1, gradient_clip_norm=clip)
    expected, decays = np.array([1.0, -2.0]), np.array([0.1, 0.0])
    velocity = np.zeros_like(expected)
    for step in range(3):
        gradient = np.array([0.3, 1.0 + step])
        logs = model.train_on_batch(gradient[None], np.zeros([1, 1]), return_dict=True)
        norm = np.linalg.norm(gradient)
        np.testing.assert_allclose(logs["gradient_norm"], norm, rtol=1e-6)
        scale = clip / norm if clip and norm > clip else 1.0
        velocity = 0.9 * velocity - 0.5 * (gradient * scale + decays * expected)
        expected = expected + velocity
    np.testing.assert_allclose([first.numpy().item(), second.numpy().item()], expected, rtol=1e-5)


def test_adam_sees_l2_as_gradient():
    model, first, second = two_weights("adam", weight_decay=0.1)
    model.train_on_batch(np.zeros([1, 2]), np.zeros([1, 1]))
    # Adam's first step has the size of the learning rate, whatever the size of the gradient.
    np.testing.assert_allclose(first.numpy(), [[0.5]], rtol=1e-4)
    np.testing.assert_allclose(second.numpy(), [[-2.0]], rtol=1e-4)


def test_a_gradient_that_is_not_finite_changes_no_weight():
    model, first, second = two_weights()
    logs = model.train_on_batch(np.array([[np.inf, 1.0]]), np.zeros([1, 1]), return_dict=True)
    assert not np.isfinite(logs["gradient_norm"])
    assert (first.numpy().item(), second.numpy().item()) == (1.0, -2.0)


def test_distillation_formula():
    """Against plain numpy: `(1 - a) CE(labels) + a T^2 CE(teacher at T, student at T)`."""
    student, teacher = np.array([[0.7, 0.2, 0.1]]), np.array([[0.5, 0.4, 0.1]])
    x = tf.keras.Input((3,))
    model = with_step(
        tf.keras.Model(
            x, tf.keras.layers.Dense(3, use_bias=False, kernel_initializer="Identity")(x)
        ),
        StepOptions(
            teacher=lambda images: tf.constant(teacher),
            teacher_loss=tiny_experiment("unused", temperature=2.0).teacher_loss,
            distillation=0.9,
        ),
    )
    model.compile("sgd", loss="sparse_categorical_crossentropy")

    def at(p, temperature):
        p = p ** (1 / temperature)
        return p / p.sum()

    expected = 0.1 * 1.5 - 0.9 * 4 * (at(teacher, 2) * np.log(at(student, 2))).sum()
    found = model._distilled(tf.constant(1.5), x, tf.constant(student, tf.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(tf.exp(softened(tf.constant(student), 1.0)), student, rtol=1e-6)


def names(variables):
    return {variable.name.split(":")[0] for variable in variables}


def test_binary_layers_never_decay():
    model = tiny_network(input_shape=(8, 8, 1), num_classes=10, quantizer="fda")
    assert names(decayed_variables(model)) == {"stem/kernel", "logits/kernel"}
    every = names(decayed_variables(model, include_norm_and_bias=True))
    assert every >= {"stem/bias", "norm1/gamma", "norm2/beta", "logits/bias", "stem/kernel"}
    assert not any("binary" in name or "moving" in name for name in every)


def test_quantizers_of_a_first_step_never_decay():
    """Where kernels are real, those of inputs are left."""
    model = drop_kernel_quantizers(zoo.DigitsNet(quantizer="fda"))
    parameters = names(quantizer_parameters(model))
    every = names(decayed_variables(model, include_norm_and_bias=True))
    assert parameters and not parameters & every
    assert any("unit1_conv/kernel" in name for name in every)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_new_and_legacy_optimizers_take_the_same_steps(name):
    weights = {}
    for kind in (True, False):
        tf.keras.utils.set_random_seed(0)
        model = with_step(
            tiny_network(input_shape=(8, 8, 1), num_classes=3, quantizer="siman"), StepOptions()
        )
        rate = LearningRate(0.01, 10, 1)
        model.compile(
            make_optimizer(name, rate, model, momentum=0.9, legacy=kind),
            "sparse_categorical_crossentropy",
        )
        create_variables(model.optimizer, model)
        assert isinstance(model.optimizer, tf.keras.optimizers.legacy.Optimizer) == kind
        images = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
        for _ in range(3):
            model.train_on_batch(images, np.arange(6) % 3)
        # The gradient of that bias, in front of a norm, is rounding alone, and Adam makes it large.
        weights[kind] = [v.numpy() for v in model.weights if v.name != "stem/bias:0"]
    for one, other in zip(weights[True], weights[False], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_rate_for_quantizers_that_have_no_parameters_is_left_out():
    model = tiny_network(input_shape=(8, 8, 1), num_classes=3, quantizer="ste_sign")
    rate = LearningRate(0.01, 10, 1)
    optimizer = make_optimizer("adam", rate, model, momentum=0.9, quantizer_rate=rate)
    assert isinstance(optimizer, tf.keras.optimizers.Adam)


def test_bop_and_a_rate_for_the_quantizers():
    model = tiny_network(input_shape=(8, 8, 1), num_classes=3, quantizer="mlp_classifier")
    assert names(binary_kernels(model)) == {"binary/kernel"}
    parameters = quantizer_parameters(model)
    assert len(parameters) == 2 and not names(parameters) & names(binary_kernels(model))
    model = with_step(model, StepOptions())
    optimizer = make_optimizer(
        "sgd",
        LearningRate(1e-9, 10, 1, "constant"),
        model,
        momentum=0.0,
        bop=(0.0, 0.9),
        quantizer_rate=LearningRate(0.01, 10, 1, "constant"),
    )
    assert isinstance(optimizer, lq.optimizers.CaseOptimizer)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    create_variables(model.optimizer, model)
    model.get_layer("binary").kernel.assign(tf.sign(model.get_layer("binary").kernel))
    before = {v.name: v.numpy() for v in model.trainable_variables}
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
    model.train_on_batch(images, np.arange(6) % 3)
    for variable in model.trainable_variables:
        change = np.abs(variable.numpy() - before[variable.name]).max()
        if variable.name == "binary/kernel:0":
            assert change == 2  # Bop flips, and does nothing else
        elif any(variable is parameter for parameter in parameters):
            assert 1e-5 < change < 0.011, variable.name  # Adam's first step is 0.01 at most
        else:
            assert change < 1e-6, variable.name


def test_variables_of_one_name_that_are_trained_differently_are_refused():
    parts = [
        tf.keras.Sequential([tf.keras.Input((8, 8, 3)), layer])
        for layer in (
            lqx.layers.QuantConv2D(3, 3, quantizer="ste_sign", name="conv"),
            tf.keras.layers.Conv2D(4, 3, name="conv"),
        )
    ]
    image = tf.keras.Input((8, 8, 3))
    model = tf.keras.Model(image, parts[1](parts[0](image)))
    options = StepOptions(weight_decay=0.1, decayed=decayed_variables)
    with pytest.raises(UsageError, match=r"named conv/kernel:0, and are to be trained"):
        with_step(model, options)
    with pytest.raises(UsageError, match="give their layers different names"):
        make_optimizer("sgd", LearningRate(0.1, 10, 1), model, momentum=0.9, bop=(0.0, 0.9))


def test_adamw_decays_only_what_may_decay():
    model = tiny_network(input_shape=(8, 8, 1), num_classes=3, quantizer="fda")
    optimizer = make_optimizer(
        "adamw",
        LearningRate(0.1, 10, 1, "constant"),
        model,
        momentum=0.9,
        decoupled_decay=0.5,
        decayed=decayed_variables(model),
    )
    optimizer.build(model.trainable_variables)
    before = [v.numpy() for v in model.trainable_variables]
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
    for variable, old in zip(model.trainable_variables, before, strict=True):
        decays = variable.name.split(":")[0] in ("stem/kernel", "logits/kernel")
        np.testing.assert_allclose(variable.numpy(), old * (0.95 if decays else 1), rtol=1e-5)
