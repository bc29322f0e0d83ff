"""Weight decay: the algorithm, and which variables it touches."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_network

from larq_ext_recipes._optimizers import decayed_variables, make_optimizer
from larq_ext_recipes._schedules import LearningRate


def optimizer_for(name, variables, decayed, clip=None, decay=0.1):
    optimizer = make_optimizer(
        name,
        LearningRate(0.5, 10, 1, "constant"),
        momentum=0.9,
        gradient_clip_norm=clip,
        weight_decay=decay,
        decayed=decayed,
    )
    optimizer.build(variables)
    return optimizer


@pytest.mark.parametrize("clip", [None, 0.5])
def test_sgd_adds_l2_to_the_clipped_gradient_before_the_momentum(clip):
    with_decay, without = tf.Variable([1.0, -2.0]), tf.Variable([1.0, -2.0])
    optimizer = optimizer_for("sgd", [with_decay, without], [with_decay], clip)
    expected, decays = np.array([[1.0, -2.0]] * 2), np.array([[0.1], [0.0]])
    velocity = np.zeros_like(expected)
    for step in range(3):
        gradient = np.array([[0.3, 0.4], [1.0, step]])
        optimizer.apply_gradients(
            zip([tf.constant(g, tf.float32) for g in gradient], [with_decay, without], strict=True)
        )
        norm = np.linalg.norm(gradient)
        scale = clip / norm if clip and norm > clip else 1.0
        velocity = 0.9 * velocity - 0.5 * (gradient * scale + decays * expected)
        expected = expected + velocity
    np.testing.assert_allclose([with_decay.numpy(), without.numpy()], expected, rtol=1e-5)


def test_adam_sees_l2_as_gradient():
    variable = tf.Variable([3.0])
    optimizer = optimizer_for("adam", [variable], [variable])
    optimizer.apply_gradients([(tf.constant([0.0]), variable)])
    # Adam's first step has the size of the learning rate, whatever the size of the gradient.
    np.testing.assert_allclose(variable.numpy(), [2.5], rtol=1e-4)


def names(variables):
    return {variable.name.split(":")[0] for variable in variables}


def test_binary_layers_never_decay():
    model = tiny_network(input_shape=(8, 8, 1), num_classes=10, quantizer="fda")
    assert names(decayed_variables(model)) == {"stem/kernel", "logits/kernel"}
    every = names(decayed_variables(model, include_norm_and_bias=True))
    assert every >= {"stem/bias", "norm1/gamma", "norm2/beta", "logits/bias", "stem/kernel"}
    assert not any("binary" in name or "moving" in name for name in every)
