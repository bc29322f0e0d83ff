"""Keras optimizers by name, and several of them for one network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import larq as lq
import tensorflow as tf

from larq_ext_recipes._errors import UsageError

# The kernels a layer may have, and what Larq calls their quantizers.
KERNELS = {
    "kernel": "kernel_quantizer",
    "depthwise_kernel": "depthwise_quantizer",
    "pointwise_kernel": "pointwise_quantizer",
}

LearningRateSchedule = tf.keras.optimizers.schedules.LearningRateSchedule


def make_optimizer(
    name: str,
    learning_rate: LearningRateSchedule,
    model: tf.keras.Model,
    *,
    momentum: float,
    legacy: bool = False,
    decoupled_decay: float = 0.0,
    decayed: Iterable[tf.Variable] = (),
    bop: tuple[float, float] | None = None,
    quantizer_rate: LearningRateSchedule | None = None,
) -> tf.keras.optimizers.Optimizer:
    """Builds SGD with momentum, Adam or AdamW, and Larq's `CaseOptimizer` around several.

    # Arguments
        name: `"sgd"`, `"adam"` or `"adamw"`.
        learning_rate: The schedule.
        model: The network.
        momentum: Momentum of SGD; first decay rate (`beta_1`) of Adam.
        legacy: Whether to take Keras' legacy optimizer; several are always legacy.
        decoupled_decay: Weight decay of AdamW.
        decayed: The variables that AdamW lets decay.
        bop: Threshold and adaptivity rate of Larq's Bop for binary kernels.
        quantizer_rate: Schedule of an Adam for the parameters of the quantizers, if they have any.

    # Returns
        The optimizer.
    """
    if name == "adamw":
        optimizer = tf.keras.optimizers.AdamW(
            learning_rate, weight_decay=decoupled_decay, beta_1=momentum
        )
        kept = {id(variable) for variable in decayed}
        optimizer.exclude_from_weight_decay(
            var_list=[v for v in model.trainable_variables if id(v) not in kept]
        )
        return optimizer
    of_quantizers = quantizer_parameters(model) if quantizer_rate is not None else []
    # Larq's optimizers and its CaseOptimizer exist for the legacy ones only.
    legacy = legacy or bop is not None or bool(of_quantizers)
    kinds = tf.keras.optimizers.legacy if legacy else tf.keras.optimizers
    if name == "sgd":
        network = kinds.SGD(learning_rate, momentum=momentum)
    else:
        network = kinds.Adam(learning_rate, beta_1=momentum)
    cases = []
    if bop is not None:
        threshold, gamma = bop
        cases.append(
            (_is_one_of(binary_kernels(model), model), lq.optimizers.Bop(threshold, gamma))
        )
    if of_quantizers:
        adam = tf.keras.optimizers.legacy.Adam(quantizer_rate)
        cases.append((_is_one_of(of_quantizers, model), adam))
    return lq.optimizers.CaseOptimizer(*cases, default_optimizer=network) if cases else network


def _is_one_of(
    variables: Iterable[tf.Variable], model: tf.keras.Model
) -> Callable[[tf.Variable], bool]:
    names = own_names(variables, model)
    return lambda variable: variable.name in names


def own_names(variables: Iterable[tf.Variable], model: tf.keras.Model) -> set[str]:
    """The names that some variables of a network have and none of the others.

    A strategy replaces variables by parts of its own; the names stay.

    # Raises
        UsageError: if others have one of them too, as in nested models.
    """
    chosen = {id(variable): variable.name for variable in variables}
    others = {v.name for v in model.trainable_variables if id(v) not in chosen}
    shared = sorted(others & set(chosen.values()))
    if shared:
        raise UsageError(
            f"Several variables of {model.name} are named {', '.join(shared)}, and are to be "
            "trained in different ways (weight decay, or an optimizer of their own): give their "
            "layers different names."
        )
    return set(chosen.values())


def create_variables(optimizer: tf.keras.optimizers.Optimizer, model: tf.keras.Model) -> None:
    """Makes all variables of an optimizer exist, so that a checkpoint can restore them."""
    variables = model.trainable_variables
    if not isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer):
        return optimizer.build(variables)
    if isinstance(optimizer, lq.optimizers.CaseOptimizer):
        optimizer._compute_var_opt_mapping([(None, variable) for variable in variables])
        groups = [[] for _ in optimizer.optimizers]
        for variable in variables:
            groups[optimizer.var_opt_mapping[lq.optimizers._var_key(variable)]].append(variable)
        _ = optimizer.iterations
        for part, group in zip(optimizer.optimizers, groups, strict=True):
            part._create_all_weights(group)
    else:
        optimizer._create_all_weights(variables)
    return None


def _layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    return list(model._flatten_layers(include_self=False, recursive=True))


def _binary_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    return [
        layer
        for layer in _layers(model)
        if any(getattr(layer, quantizer, None) is not None for quantizer in KERNELS.values())
    ]


def _trainable(model: tf.keras.Model, variables: Iterable[tf.Variable]) -> list[tf.Variable]:
    """Those that are trained, each once."""
    trainable = {id(variable) for variable in model.trainable_variables}
    unique = {id(variable): variable for variable in variables}
    return [variable for key, variable in unique.items() if key in trainable]


def binary_kernels(model: tf.keras.Model) -> list[tf.Variable]:
    """The latent kernels of binary layers."""
    return _trainable(
        model,
        [
            getattr(layer, kernel)
            for layer in _binary_layers(model)
            for kernel, quantizer in KERNELS.items()
            if getattr(layer, quantizer, None) is not None
        ],
    )


def _quantizers(model: tf.keras.Model) -> list:
    names = ("input_quantizer", *KERNELS.values())
    found = (getattr(layer, name, None) for layer in _layers(model) for name in names)
    return [quantizer for quantizer in found if quantizer is not None]


def quantizer_parameters(model: tf.keras.Model) -> list[tf.Variable]:
    """The trained parameters of the quantizers, such as a classifier's or a scale."""
    return _trainable(
        model,
        [
            variable
            for quantizer in _quantizers(model)
            for variable in getattr(quantizer, "trainable_weights", [])
        ],
    )


def decayed_variables(
    model: tf.keras.Model, include_norm_and_bias: bool = False
) -> list[tf.Variable]:
    """The variables that may decay: never those of a binary layer or of a quantizer.

    Only the sign of a latent binary weight is used, so shrinking it does not regularise the
    network, it only brings the weight closer to flipping.

    # Arguments
        model: The network.
        include_norm_and_bias: Also batch normalisation, PReLU slopes and biases of the layers
            that are not binary, not only their kernels.

    # Returns
        Trainable variables.
    """
    # Often a layer inside of another one, with parameters of its own; also where kernels are real.
    quantizers = [q for q in _quantizers(model) if isinstance(q, tf.keras.layers.Layer)]
    kept = [*_binary_layers(model), *quantizers]
    spared = {id(inner) for layer in kept for inner in layer._flatten_layers()}
    found = []
    for layer in _layers(model):
        if id(layer) in spared:
            continue
        if include_norm_and_bias:
            found += layer._trainable_weights  # its own, not those of layers inside it
        else:
            found += [getattr(layer, name) for name in KERNELS if hasattr(layer, name)]
    return _trainable(model, found)
