"""Larq's layers with a `quantizer` that stands for a whole method of binarization.

```python
lqx.layers.QuantConv2D(64, 3, padding="same", quantizer="fda")
```

And `LearnableBias`, which moves the thresholds of the signs behind it.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext._convolution import convolve, on_cpu
from larq_ext._scope import dtype_policy, quantized_scope
from larq_ext._summary import no_operand
from larq_ext.quantizers import FDA, BinaryQuantizer, LearnableScale, MagnitudeClip, method
from larq_ext.quantizers._base import RoleQuantizer
from larq_ext.quantizers._sharing import join

__all__ = ["LearnableBias", "QuantConv2D", "QuantDense"]

SCALES = ("learned", None)
# Quantizers to 0 and something: 1 would be another value at the border.
_ZERO_ONE = (LearnableScale, lq.quantizers.SteHeaviside, lq.quantizers.DoReFa)
_ZERO_ONE_FUNCTIONS = (lq.quantizers.ste_heaviside,)


@contextmanager
def _without_constraint_warning(silent: bool):
    """Holds back Larq's warning of starved weights where the method has no such constraint."""
    logger = logging.getLogger("larq.layers_base")
    before = logger.disabled
    logger.disabled = before or silent
    try:
        yield
    finally:
        logger.disabled = before


def _of_latent(constraint):
    """The constraint applied to latent weights, even where the scope was left on by an error."""

    def constrain(w):
        with quantized_scope(False):
            return constraint(w)

    return constrain


def _instance(quantizer):
    """Larq would call a class with the tensor; a class here means its defaults."""
    return quantizer() if isinstance(quantizer, type) else quantizer


def gives_zero_and_one(quantizer: Any) -> bool:
    """Whether the values of a one-bit quantizer of inputs are 0 and another one, not two signs."""
    if isinstance(quantizer, _ZERO_ONE) or quantizer in _ZERO_ONE_FUNCTIONS:
        return True
    try:
        return isinstance(quantizer, BinaryQuantizer) and quantizer.input_form().zero_one
    except AttributeError:  # somebody's own that knows it when it is built
        return False


class _MethodLayer(tf.keras.layers.Layer):
    """What the layers share: the method's parts, and a scale per output channel."""

    def __init__(
        self,
        *args,
        quantizer: str | None = None,
        scale: str | None = "method",
        input_quantizer=None,
        kernel_quantizer=None,
        kernel_constraint="method",
        **kwargs,
    ):
        with dtype_policy(kwargs.get("dtype")):  # Larq's quantizers cast to their own type
            chosen = {} if quantizer is None else method(quantizer).arguments()
            input_quantizer = lq.quantizers.get(_instance(input_quantizer))
            kernel_quantizer = lq.quantizers.get(_instance(kernel_quantizer))
        self.quantizer = quantizer
        self.scale_mode = chosen.get("scale") if scale == "method" else scale
        if self.scale_mode not in SCALES:
            raise ValueError(f"`scale` is one of {list(SCALES)}, received {scale!r}.")
        # The constraint belongs to the method's kernel quantizer, not to another one.
        own_kernel = quantizer is not None and (
            kernel_quantizer is None or type(kernel_quantizer) is type(chosen["kernel_quantizer"])
        )
        if kernel_constraint == "method":
            kernel_constraint = chosen["kernel_constraint"] if own_kernel else None
        if input_quantizer is not None:
            several_bits = getattr(input_quantizer, "precision", 1) != 1
            if several_bits or gives_zero_and_one(input_quantizer):
                chosen["pad_values"] = 0.0
            elif chosen:
                chosen["pad_values"] = 1.0
        input_quantizer = input_quantizer or chosen.get("input_quantizer")
        kernel_quantizer = kernel_quantizer or chosen.get("kernel_quantizer")
        if "pad_values" in kwargs and kwargs["pad_values"] is None:
            kwargs["pad_values"] = chosen.get("pad_values", 0.0)
        with _without_constraint_warning(silent=own_kernel):
            super().__init__(
                *args,
                input_quantizer=input_quantizer,
                kernel_quantizer=kernel_quantizer,
                kernel_constraint=kernel_constraint,
                **kwargs,
            )
        if isinstance(self.kernel_constraint, MagnitudeClip):
            # Keras puts what layers hold into checkpoints, but not what constraints hold.
            self._constraint_state = self.kernel_constraint._hyperparameters
        if isinstance(self.activation, RoleQuantizer):
            self.activation.set_role("input")
        for role in ("input", "kernel"):
            part = getattr(self, f"{role}_quantizer")
            if isinstance(part, RoleQuantizer):
                part.set_role(role)
            if isinstance(part, BinaryQuantizer):
                setattr(self, f"{role}_quantizer", join(part, self))
        if not kwargs.get("trainable", True):
            # Its parts too, of which Keras has not known before.
            tf.keras.layers.Layer.trainable.fset(self, False)

    @contextmanager
    def _own_padding(self):
        """Gives the layer its padding back, which Larq sets to "valid" while it pads itself."""
        padding = getattr(self, "padding", None)
        try:
            yield
        finally:  # after an error too, or the layer would be saved with another one
            if padding is not None:
                self.padding = padding

    def build(self, input_shape):
        with self._own_padding():
            super().build(input_shape)
        # As numpy: Keras builds layers in its autocast scope, which would round to half precision.
        with quantized_scope(False), tf.init_scope():
            kernel = self.kernel.numpy()
        # Now rather than at the first call, so that a layer that is built has all its weights.
        for quantizer, shape in (
            (self.input_quantizer, tf.TensorShape(input_shape)),
            (self.kernel_quantizer, self.kernel.shape),
        ):
            if isinstance(quantizer, BinaryQuantizer) and not quantizer.built:
                with tf.name_scope(quantizer.name):
                    quantizer.build(shape)
                quantizer.initialize_from(kernel)
        if self.scale_mode == "learned":
            axes = tuple(range(kernel.ndim - 1))
            scale = self.add_weight(
                name="scale",
                shape=self.kernel.shape[-1:],
                initializer=tf.keras.initializers.Constant(np.abs(kernel).mean(axes)),
            )
            self.scale = no_operand(scale)
        if isinstance(self.kernel_constraint, MagnitudeClip):
            # The paper's code clips before each forward pass: the first one is not after an update.
            with tf.init_scope():
                self.kernel.assign(self.kernel_constraint(tf.constant(kernel)))

    def add_weight(self, name=None, shape=None, **kwargs):
        if kwargs.get("constraint") is not None:
            kwargs["constraint"] = _of_latent(kwargs["constraint"])
        return super().add_weight(name=name, shape=shape, **kwargs)

    def call(self, inputs):
        with quantized_scope(), self._own_padding():
            return super().call(inputs)

    def build_from_config(self, config):
        # As where a model uses it: variables bear the name of their layer.
        with tf.name_scope(self.name):
            super().build_from_config(config)

    def save_own_variables(self, store):
        # A binary kernel in a file of latent weights could not be trained on.
        with quantized_scope(False):
            super().save_own_variables(store)

    def get_config(self):
        return {
            **super().get_config(),
            "quantizer": self.quantizer,
            "scale": self.scale_mode,
        }


@tf.keras.utils.register_keras_serializable(package="larq_ext")
class QuantConv2D(_MethodLayer, lq.layers.QuantConv2D):
    """Larq's `QuantConv2D` with the parts of a method under one name.

    `output = activation(scale * conv(input_quantizer(input), kernel_quantizer(kernel)) + bias)`

    # Arguments
        filters: Number of output channels.
        kernel_size: Integer or pair of integers.
        quantizer: Name of a method: `"fda"`, `"learnable_scale"`, `"siman"`,
            `"mlp_classifier"`, or `"ste_sign"` (Larq's, with `ApproxSign` for inputs). It sets
            the arguments below that are not given, and each that is given overrides it. What
            the method changes over the epochs needs `larq_ext.callbacks.method_schedules`.
        scale: `"learned"` for a trained scale per output channel, `None` for none; by default
            what the method says.
        pad_values: What `padding="same"` pads with; `None` is what the method says, +1 for -1 and
            +1 inputs and 0 for 0 and 1 inputs, and 0 without `quantizer`. The papers' code,
            where there is any, pads with 0.
        input_quantizer: Quantizer of the input, as in Larq.
        kernel_quantizer: Quantizer of the kernel, as in Larq.
        kernel_constraint: Constraint of the latent kernel, as in Larq; by default what the method
            says, if the kernel quantizer is of its class.
        **kwargs: All other arguments of `larq.layers.QuantConv2D`.

    # Input shape
        `(samples, rows, columns, channels)`

    # Output shape
        `(samples, new_rows, new_columns, filters)`

    # Raises
        ValueError: for an unknown method, with the known ones, or a quantizer in a role that it
            does not have.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        pad_values=None,
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            pad_values=pad_values,
            **kwargs,
        )
        mixes_channels = isinstance(self.input_quantizer, FDA) and self.input_quantizer.noise
        if mixes_channels and self.data_format == "channels_first":
            raise ValueError(
                "The noise module of FDA mixes channels, and takes the last axis for them: use "
                'data_format="channels_last", or input_quantizer=FDA(noise=False).'
            )

    def convolution_op(self, inputs, kernel):
        plain = (
            self.strides == self.dilation_rate == (1, 1)
            and self.groups == 1
            and self.data_format == "channels_last"
            and inputs.shape.rank == 4
        )
        if plain and on_cpu():
            outputs = convolve(inputs, tf.convert_to_tensor(kernel), self.padding.upper())
        else:
            outputs = super().convolution_op(inputs, kernel)
        if self.scale_mode != "learned":
            return outputs
        channels_first = self.data_format == "channels_first"
        return outputs * (self.scale[:, None, None] if channels_first else self.scale)


@tf.keras.utils.register_keras_serializable(package="larq_ext")
class QuantDense(_MethodLayer, lq.layers.QuantDense):
    """Larq's `QuantDense` with the parts of a method under one name.

    `output = activation(scale * (input_quantizer(input) @ kernel_quantizer(kernel)) + bias)`

    # Arguments
        units: Number of outputs.
        quantizer: Name of a method, see `QuantConv2D`.
        scale: `"learned"` or `None`; by default what the method says.
        input_quantizer: Quantizer of the input, as in Larq.
        kernel_quantizer: Quantizer of the kernel, as in Larq.
        kernel_constraint: Constraint of the latent kernel, as in Larq; by default what the method
            says, if the kernel quantizer is of its class.
        **kwargs: All other arguments of `larq.layers.QuantDense`.

    # Input shape
        `(samples, ..., channels)`

    # Output shape
        `(samples, ..., units)`

    # Raises
        ValueError: for an unknown method, with the known ones, or a quantizer in a role that it
            does not have.
    """

    def call(self, inputs):
        if self.scale_mode != "learned":
            return super().call(inputs)
        with quantized_scope():
            if self.input_quantizer:
                inputs = self.input_quantizer(inputs)
            with lq.context.quantized_scope(True):
                kernel = tf.convert_to_tensor(self.kernel)
                outputs = tf.tensordot(tf.cast(inputs, kernel.dtype), kernel, 1)
            outputs *= self.scale
            if self.use_bias:
                outputs += self.bias
            return outputs if self.activation is None else self.activation(outputs)


@tf.keras.utils.register_keras_serializable(package="larq_ext")
class LearnableBias(tf.keras.layers.Layer):
    """A trained number for each channel, added to it.

    `output = input + bias`; the gradient for the input is that of the output, the one for the bias
    its sum over samples and positions.

    In front of a binary layer it moves the threshold of the signs alone, which a norm in front of
    a shortcut cannot: `LearnableBias` and a quantizer of inputs are the RSign of ReActNet, and a
    `PReLU` between two of them is its RPReLU.

    Deploys as: part of the binary convolution straight before it, or its norm; behind a sum or a
    PReLU a float `ADD`, which `larq_ext.runtime` joins to that convolution; elsewhere one of its
    own. The next layer stays binary.

    # Arguments
        bias_initializer: Initializer of the numbers.
        **kwargs: Arguments of `tf.keras.layers.Layer`.

    # Input shape
        `(samples, ..., channels)`

    # Output shape
        That of the input.

    # References
        - [ReActNet](https://arxiv.org/abs/2003.03488)
    """

    def __init__(self, bias_initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.bias_initializer = tf.keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        self.bias = self.add_weight(
            name="bias", shape=input_shape[-1:], initializer=self.bias_initializer
        )
        super().build(input_shape)

    def call(self, inputs):
        return inputs + self.bias

    def get_config(self):
        initializer = tf.keras.initializers.serialize(self.bias_initializer)
        return {**super().get_config(), "bias_initializer": initializer}


def _found_by_name(of_larq: Any, ours: Any) -> None:
    """Lets Larq's class make ours from our configuration.

    Nested models in `.h5` files, and wrappers in any, name a layer by its class alone: our
    layers bear the names of Larq's, which Keras then takes.
    """

    of_class = of_larq.from_config.__func__

    def from_config(cls, config):
        is_ours = cls is of_larq and {"quantizer", "scale"} <= config.keys()
        return of_class(ours if is_ours else cls, config)

    of_larq.from_config = classmethod(from_config)


_found_by_name(lq.layers.QuantConv2D, QuantConv2D)
_found_by_name(lq.layers.QuantDense, QuantDense)
