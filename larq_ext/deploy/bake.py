"""Turns a trained model into its deployed form: plain signs, kernels of +-1, float32."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace as replace_field
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext._rebuild import hidden_layers, obstacle, set_weights
from larq_ext._scope import flips_unnoticed, float32_policy, quantized_scope
from larq_ext.deploy._int8_fold import trained_int8
from larq_ext.deploy._probe import computes_otherwise
from larq_ext.deploy._rewrite import Rewrite, check_names, rewrite_graph
from larq_ext.deploy._surgery import configuration, made
from larq_ext.deploy._transposed import BinaryConv2DTranspose, transposed_weights
from larq_ext.deploy.errors import DeploymentError
from larq_ext.deploy.layers import BinaryConv2D, BinaryDense, DeployedSign, deployed_weights
from larq_ext.layers import (
    _ZERO_ONE_FUNCTIONS,
    QuantConv2D,
    QuantDense,
    _without_constraint_warning,
)
from larq_ext.quantizers import ApproxSign, BinaryQuantizer, InputForm, KernelForm, factor_kernel
from larq_ext.quantizers._sharing import keep_apart

# Which variable each quantizer of a Larq layer belongs to.
_KERNELS = {
    "kernel_quantizer": "kernel",
    "depthwise_quantizer": "depthwise_kernel",
    "pointwise_quantizer": "pointwise_kernel",
}
_PLAIN_SIGNS = (
    lq.quantizers.SteSign,
    lq.quantizers.ApproxSign,
    lq.quantizers.SwishSign,
    ApproxSign,
)
_PLAIN_FUNCTIONS = (
    lq.quantizers.ste_sign,
    lq.quantizers.approx_sign,
    lq.quantizers.swish_sign,
    lq.math.sign,
)
_KNOWN_LAYERS = (
    lq.layers.QuantConv2D,
    lq.layers.QuantConv2DTranspose,
    lq.layers.QuantDense,
    QuantConv2D,
    QuantDense,
    BinaryConv2D,
    BinaryDense,
)


def bake(model: tf.keras.Model, *, without: Collection[str] = ()) -> tf.keras.Model:
    """Makes the deployed form of a model: another model with equal outputs.

    Each layer with a binary kernel and a binary input becomes a `BinaryConv2D` or `BinaryDense`:
    a plain sign, a kernel of +-1, and a scale and a bias after the convolution. Other quantized
    kernels become constants; layers trained with the quantizer `Int8` become `Int8Conv2D` or
    `Int8Dense`, whose outputs are rounded too. Everything is float32; constraints, regularizers
    and what else only training needs is gone. A layer that is meant to be binary and cannot be
    baked keeps its class, and `float_reasons` tells why. What is changed beyond that, exactly
    (`REWRITES`), is listed by `applied_rewrites`.

    # Arguments
        model: Built functional or sequential model, with layers of Larq or of `larq_ext.layers`.
        without: Names of rewrites to leave out, from `REWRITES`.

    # Returns
        A new model; a model that is baked already is only rewritten, or returned as it is where
        there is nothing to do.

    # Raises
        ValueError: for an unknown name in `without`, with the known ones.
        DeploymentError: if the model cannot be rebuilt layer by layer: a subclassed model, one
            without an input shape, or a layer that holds quantized layers.
    """
    check_names(without)
    with float32_policy():
        if not is_baked(model):
            model = trained_int8(_bake(model, without))
        rewritten, found = rewrite_graph(model, without)
        if found:
            rewritten._rewrites = (*applied_rewrites(model), *found)
        return rewritten


def _bake(model: tf.keras.Model, without: Collection[str]) -> tf.keras.Model:
    """The deployed form of every layer."""
    problem = obstacle(model)
    if problem is not None:
        raise DeploymentError(problem)
    weights: dict[str, list[np.ndarray]] = {}
    reasons: dict[str, str] = {}
    rewrites: list[Rewrite] = []

    def replace(layer):
        if isinstance(layer, tf.keras.Model):
            nested = bake(layer, without=without)
            reasons.update({f"{layer.name}/{k}": v for k, v in float_reasons(nested).items()})
            rewrites.extend(
                replace_field(r, layer=f"{layer.name}/{r.layer}") for r in applied_rewrites(nested)
            )
            return nested
        new, weights[layer.name], reason = _bake_layer(layer, without)
        if reason is not None:
            reasons[layer.name] = reason
        rewrites.extend(_rewrites_of(new))
        return new

    # Latent weights are what counts, wherever this is called and whatever failed before.
    with quantized_scope(False), _without_constraint_warning(silent=True):
        baked = tf.keras.models.clone_model(model, clone_function=replace)
    keep_apart(baked)
    for layer in baked.layers:
        if weights.get(layer.name):
            set_weights(layer, weights[layer.name])
    baked._float_reasons = reasons
    baked._rewrites = tuple(rewrites)
    return baked


def is_baked(model: tf.keras.Model) -> bool:
    """Whether `bake` made this model."""
    return hasattr(model, "_float_reasons")


def float_reasons(baked: tf.keras.Model) -> dict[str, str]:
    """Why layers of a baked model that were meant to be binary are not, by layer name."""
    return getattr(baked, "_float_reasons", {})


def applied_rewrites(baked: tf.keras.Model) -> tuple[Rewrite, ...]:
    """What `bake` changed beyond making layers binary."""
    return getattr(baked, "_rewrites", ())


def _rewrites_of(layer) -> Iterator[Rewrite]:
    """What was rewritten within one layer."""
    if isinstance(layer, BinaryDense):
        yield Rewrite("dense", layer.name, "it is a 1x1 convolution")
    if isinstance(layer, BinaryConv2DTranspose):
        yield Rewrite(
            "transposed", layer.name, "it is a convolution, depth-to-space and a border's constants"
        )
    if isinstance(layer, BinaryConv2D):
        if layer.ones_filter:
            yield Rewrite("zero_one", layer.name, "its kernel of 0 and 1 is one of signs")
        if layer.input_quantizer.negate:
            yield Rewrite("zero_one", layer.name, "its inputs of 0 and 1 are negated signs")


def _bake_layer(layer, without: Collection[str]) -> tuple[Any, list[np.ndarray], str | None]:
    """The deployed layer, its weights, and the reason if a binary layer stays as it is."""
    config = configuration(layer)
    found = {name: getattr(layer, name, None) for name in _KERNELS}
    quantizers = {name: q for name, q in found.items() if q is not None}
    if not quantizers:
        problem = hidden_layers(layer, _is_quantized)
        if problem is not None:
            raise DeploymentError(problem)
        return made(layer, config), layer.get_weights(), None
    if not _is_binary(getattr(layer, "input_quantizer", None)) or not all(
        _is_binary(q) for q in quantizers.values()
    ):
        return *_constant_kernels(layer, config, quantizers), None
    parts = _binary_parts(layer, without)
    if isinstance(parts, str):
        return *_constant_kernels(layer, config, quantizers), parts
    return *_binary_layer(layer, config, *parts), None


def _is_quantized(layer) -> bool:
    return any(getattr(layer, name, None) is not None for name in _KERNELS)


def _is_binary(quantizer) -> bool:
    return getattr(quantizer, "precision", None) == 1 or quantizer in (
        *_PLAIN_FUNCTIONS,
        *_ZERO_ONE_FUNCTIONS,
    )


def _constant_kernels(layer, config, quantizers):
    """The same layer with its quantized kernels as constants."""
    constants = {}
    for name, quantizer in quantizers.items():
        variable = getattr(layer, _KERNELS[name])
        value = tf.cast(tf.convert_to_tensor(variable), tf.float32)
        with flips_unnoticed(quantizer):
            constants[id(variable)] = np.asarray(quantizer(value))
        # Larq's NoOp keeps the value, and the number of bits for Larq's summary.
        config[name] = lq.quantizers.NoOp(precision=getattr(quantizer, "precision", 32) or 32)
        # What is for the latent kernel, in a class of somebody else's too.
        part = name.removesuffix("_quantizer")
        gone = (f"{part}_constraint", f"{part}_regularizer")
        config.update({key: None for key in gone if key in config})
    owned = {id(w) for q in quantizers.values() for w in getattr(q, "weights", [])}
    kept = [w for w in layer.weights if id(w) not in owned]
    weights = [constants.get(id(w), np.asarray(w)) for w in kept]
    return made(layer, config), weights


def _input_form(quantizer) -> InputForm | None:
    if isinstance(quantizer, BinaryQuantizer):
        return None if computes_otherwise(quantizer, "input_form") else quantizer.input_form()
    if _is_one_of(quantizer, DeployedSign, *_PLAIN_SIGNS) or quantizer in _PLAIN_FUNCTIONS:
        return InputForm()
    if _is_one_of(quantizer, lq.quantizers.SteHeaviside) or quantizer in _ZERO_ONE_FUNCTIONS:
        return InputForm(zero_one=True)
    if _is_one_of(quantizer, lq.quantizers.DoReFa) and quantizer.mode == "activations":
        return InputForm(zero_one=True, threshold=0.5)
    return None


def _is_one_of(quantizer: Any, *kinds: Any) -> bool:
    """Whether it is of one of these classes, or of one derived from it that computes the same."""
    return any(isinstance(quantizer, k) and type(quantizer).call is k.call for k in kinds)


def _binary_parts(layer, without: Collection[str]) -> tuple[KernelForm, InputForm] | str:
    """The forms of kernel and input, or why the layer cannot be a binary convolution."""
    name = type(layer).__name__
    transposed = isinstance(layer, lq.layers.QuantConv2DTranspose)
    if not transposed and not isinstance(layer, lq.layers.QuantConv2D | lq.layers.QuantDense):
        return f"{name} has no binary kernel in the Larq Compute Engine"
    if (method := _changed_method(layer)) is not None:
        return f"{name} has a `{method}` of its own, so it may compute something else"
    if transposed and (problem := _untransposable(layer)):
        return problem
    for rewrite, is_needed in (
        ("dense", isinstance(layer, lq.layers.QuantDense)),
        ("transposed", transposed),
    ):
        if is_needed and rewrite in without:
            return _SWITCHED_OFF.format(name=name, rewrite=rewrite)
    if getattr(layer, "data_format", None) == "channels_first":
        return "the Larq Compute Engine takes channels last: use data_format='channels_last'"
    if isinstance(layer, lq.layers.QuantDense) and any(len(s) != 2 for s in _input_shapes(layer)):
        return "QuantDense on inputs of more than two dimensions"
    inputs = _input_form(layer.input_quantizer)
    if inputs is None:
        return (
            f"the input quantizer {_name(layer.input_quantizer)} is not known to be a plain sign, "
            "as ste_sign, approx_sign, swish_sign, ste_heaviside and larq_ext's are"
        )
    if transposed and inputs != InputForm(scale=inputs.scale):
        return f"{name} needs inputs of -1 and +1 that are neither centred nor shifted"
    latent = np.asarray(tf.cast(tf.convert_to_tensor(layer.kernel), tf.float32))
    if not np.isfinite(latent).all():
        return "the kernel has values that are not finite: training has failed"
    quantizer = layer.kernel_quantizer
    ours = isinstance(quantizer, BinaryQuantizer)
    # Ours take the last axis for the output channels, so of a transposed kernel only the values
    # can tell.
    with flips_unnoticed(quantizer):
        if ours and not transposed and not computes_otherwise(quantizer, "kernel_form"):
            kernel = quantizer.kernel_form(latent)
        else:
            values = np.asarray(quantizer(tf.constant(latent)))
            # Transposed convolutions have their output channels second to last.
            kernel = factor_kernel(values.swapaxes(-1, -2) if transposed else values)
    if kernel is None:
        return (
            f"the kernel quantized by {_name(layer.kernel_quantizer)} is not +-c with one c above "
            "zero per output channel"
        )
    if (kernel.zero_one or inputs.zero_one) and "zero_one" in without:
        return _SWITCHED_OFF.format(name=name, rewrite="zero_one")
    if kernel.zero_one and getattr(layer, "groups", 1) != 1:
        return "kernels of zeros and ones need one more filter, which groups do not allow"
    # A transposed convolution pads with nothing.
    padded = not transposed and getattr(layer, "padding", "valid") == "same"
    if inputs.zero_one and padded and np.max(layer.kernel_size) > 1 and layer.pad_values != 0.0:
        return (
            f"inputs of 0 and {inputs.scale:g} are padded with {layer.pad_values}, which is not "
            "one of them: set pad_values=0.0"
        )
    if padded and not inputs.zero_one and inputs.scale != 1 and np.max(layer.kernel_size) > 1:
        fitting = (0.0, inputs.scale, -inputs.scale)
        if layer.pad_values not in fitting:
            return (
                f"inputs of +-{abs(inputs.scale):g} are padded with {layer.pad_values}, which is "
                f"not one of them: set pad_values={abs(inputs.scale):g}"
            )
    return kernel, inputs


def _changed_method(layer) -> str | None:
    """The method that a class derived from the known layers computes its output with."""
    for method in ("call", "convolution_op"):
        if getattr(type(layer), method, None) not in [
            getattr(known, method, None) for known in _KNOWN_LAYERS
        ]:
            return method
    return None


_SWITCHED_OFF = "{name} would need the rewrite {rewrite!r}, which was switched off"


def _untransposable(layer) -> str | None:
    """Why a transposed convolution cannot be a convolution and depth-to-space."""
    (stride, *others), sizes = layer.strides, layer.kernel_size
    if stride == 1 or others != [stride]:
        return (
            f"QuantConv2DTranspose with strides {layer.strides}: use 2 or more, the same for "
            "height and width (with 1 it is a QuantConv2D)"
        )
    if any(size % stride for size in sizes):
        return (
            f"QuantConv2DTranspose with a kernel of {sizes}, which is no multiple of the strides "
            f"{layer.strides}: use {stride} or {2 * stride}"
        )
    if layer.dilation_rate != (1, 1) or layer.output_padding is not None:
        return "QuantConv2DTranspose with a dilation or an output padding"
    sizes_of_images = {tuple(shape[1:3]) for shape in _input_shapes(layer)}
    if len(sizes_of_images) > 1:
        return f"QuantConv2DTranspose on images of several sizes, {sorted(sizes_of_images)}"
    if None in sizes_of_images.pop():
        return "QuantConv2DTranspose on images of unknown size: give the model an input shape"
    return None


def _input_shapes(layer) -> list[tuple[int | None, ...]]:
    """The shapes of the inputs wherever a layer is used."""
    return [tuple(layer.get_input_shape_at(i)) for i in range(len(layer.inbound_nodes))]


def _name(quantizer) -> str:
    return getattr(quantizer, "__name__", type(quantizer).__name__)


def _binary_layer(layer, config, kernel: KernelForm, inputs: InputForm):
    """The deployed layer and its weights."""
    if isinstance(layer, lq.layers.QuantConv2DTranspose):
        return _transposed_layer(layer, config, kernel, inputs)
    dense = isinstance(layer, lq.layers.QuantDense)
    outputs = kernel.signs.shape[-1]
    kept = ["name", "trainable", "dtype", "activation"]
    if not dense:
        kept += ["kernel_size", "strides", "padding", "pad_values", "data_format"]
        kept += ["dilation_rate", "groups"]
    arguments = {name: config[name] for name in kept}
    if not dense:
        # The scale of the inputs comes behind the convolution: what pads them is without it.
        padding = 1.0 if inputs.zero_one else arguments["pad_values"] / inputs.scale
        arguments["pad_values"] = padding
    new = (BinaryDense if dense else BinaryConv2D).from_config(
        {
            **arguments,
            "filters": outputs + kernel.zero_one,
            "ones_filter": kernel.zero_one,
            "input_quantizer": DeployedSign(
                center=inputs.center, negate=inputs.zero_one, threshold=inputs.threshold
            ),
        }
    )
    if dense:
        kernel = kernel._replace(signs=kernel.signs[None, None])
    learned = getattr(layer, "scale_mode", None) == "learned"
    scale = np.asarray(layer.scale) if learned else np.ones(outputs)
    bias = np.asarray(layer.bias) if layer.use_bias else np.zeros(outputs)
    weights = deployed_weights(kernel, inputs, scale, bias)
    return new, weights + _activation_weights(layer)


def _transposed_layer(layer, config, kernel: KernelForm, inputs: InputForm):
    """The deployed layer and its weights, of a transposed convolution."""
    kept = ("name", "trainable", "dtype", "activation", "filters", "kernel_size", "strides")
    new = BinaryConv2DTranspose.from_config(
        {
            **{name: config[name] for name in (*kept, "padding")},
            "input_quantizer": DeployedSign(),
        }
    )
    bias = np.asarray(layer.bias) if layer.use_bias else np.zeros(layer.filters)
    weights = transposed_weights(
        kernel.signs.swapaxes(-1, -2),
        kernel.scale * inputs.scale,
        bias,
        layer.get_input_shape_at(0)[1:3],
        layer.strides[0],
        layer.padding,
    )
    return new, weights + _activation_weights(layer)


def _activation_weights(layer) -> list[np.ndarray]:
    """The weights of an activation that is a layer, such as a PReLU."""
    return [np.asarray(weight) for weight in getattr(layer.activation, "weights", [])]
