"""Keras optimizers with weight decay for chosen variables only."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


def make_optimizer(
    name: str,
    learning_rate: tf.keras.optimizers.schedules.LearningRateSchedule,
    *,
    momentum: float,
    gradient_clip_norm: float | None,
    weight_decay: float,
    decayed: Iterable[tf.Variable],
) -> tf.keras.optimizers.Optimizer:
    """Builds SGD with momentum, or Adam.

    # Arguments
        name: `"sgd"` or `"adam"`.
        learning_rate: The schedule.
        momentum: Momentum of SGD; first decay rate (`beta_1`) of Adam.
        gradient_clip_norm: Norm that all gradients together may have, or `None`.
        weight_decay: L2 weight decay as PyTorch and MindSpore define it: `weight_decay * w` is
            added to the gradient after clipping, so that it passes through the momentum.
        decayed: The variables that decay.

    # Returns
        The optimizer.
    """
    common = {"learning_rate": learning_rate, "global_clipnorm": gradient_clip_norm}
    if name == "sgd":
        return _with_l2(tf.keras.optimizers.SGD)(weight_decay, decayed, momentum=momentum, **common)
    return _with_l2(tf.keras.optimizers.Adam)(weight_decay, decayed, beta_1=momentum, **common)


def _with_l2(base: type[tf.keras.optimizers.Optimizer]) -> type[tf.keras.optimizers.Optimizer]:
    """Keras' own `weight_decay` argument is the decoupled kind, which is another algorithm."""

    class WithL2(base):
        def __init__(self, l2: float, decayed: Iterable[tf.Variable], **kwargs) -> None:
            super().__init__(name=base.__name__, **kwargs)
            self._l2 = l2
            self._l2_keys = frozenset(self._var_key(variable) for variable in decayed)

        def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
            if self._l2 and self._var_key(variable) in self._l2_keys:
                gradient = gradient + tf.cast(self._l2, variable.dtype) * variable
            super().update_step(gradient, variable)

    return WithL2


def decayed_variables(
    model: tf.keras.Model, include_norm_and_bias: bool = False
) -> list[tf.Variable]:
    """The variables that may decay: never those of a binary layer.

    Only the sign of a latent binary weight is used, so shrinking it does not regularise the
    network, it only brings the weight closer to flipping.

    # Arguments
        model: The network.
        include_norm_and_bias: Also batch normalisation, PReLU slopes and biases of the layers
            that are not binary, not only their kernels.

    # Returns
        Trainable variables.
    """
    layers = list(model._flatten_layers(include_self=False, recursive=True))
    binary = [
        layer
        for layer in layers
        if any(getattr(layer, f"{kernel}_quantizer", None) is not None for kernel in _KERNELS)
    ]
    # A quantizer is a layer inside the binary one, often with parameters of its own.
    spared = {id(inner) for layer in binary for inner in layer._flatten_layers()}
    found = []
    for layer in layers:
        if id(layer) in spared:
            continue
        if include_norm_and_bias:
            found += layer._trainable_weights  # its own, not those of layers inside it
        else:
            found += [getattr(layer, name) for name in _KERNELS if hasattr(layer, name)]
    trainable = {id(variable) for variable in model.trainable_variables}
    unique = {id(variable): variable for variable in found}
    return [variable for key, variable in unique.items() if key in trainable]
