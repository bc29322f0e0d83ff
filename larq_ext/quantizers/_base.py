"""What the quantizers share: a role, numbers that can be scheduled, parameters, the flip ratio."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import larq as lq
import numpy as np
import tensorflow as tf
from tf_keras.src.engine.base_layer_utils import call_context

from larq_ext._summary import no_operand

ROLES = ("input", "kernel")


class KernelForm(NamedTuple):
    """What a binary kernel is at inference: `scale * signs`, or `scale * (signs + 1) / 2`.

    `signs` is exactly +-1 in the shape of the kernel, `scale` has one number per output channel,
    and `zero_one` tells which of the two formulas holds.
    """

    signs: np.ndarray
    scale: np.ndarray
    zero_one: bool = False


class InputForm(NamedTuple):
    """What a binary input is at inference.

    With `c` the mean of the sample if `center`, else 0:
    `scale * sign(x - c)`, or `scale * [x - c > threshold]` if `zero_one`.
    """

    scale: float = 1.0
    zero_one: bool = False
    center: bool = False
    threshold: float = 0.0


class Hyperparameter:
    """An attribute that graphs read at run time, so that a schedule may set it between steps.

    The number lives in a variable that is in checkpoints but not in `weights`: it is no parameter
    of the network, and weight files stay exchangeable between quantizers.
    """

    def __init__(self, minimum: float = -np.inf, maximum: float = np.inf, integer: bool = False):
        self.minimum, self.maximum, self.integer = minimum, maximum, integer

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = getattr(instance._hyperparameters, self.name).numpy().item()
        return round(value) if self.integer else value

    def check(self, owner: type, value: float) -> None:
        """Refuses what is no value of it.

        # Raises
            ValueError: with what is.
        """
        is_number = isinstance(value, int | float | np.number)
        fits = is_number and np.isfinite(value) and self.minimum <= value <= self.maximum
        if not fits or (self.integer and value != int(value)):
            kind = "an integer" if self.integer else "a number"
            raise ValueError(
                f"`{self.name}` of {owner.__name__} is {kind} from {self.minimum} to "
                f"{self.maximum}, received {value!r}."
            )

    def __set__(self, instance: Any, value: float) -> None:
        self.check(type(instance), value)
        if not hasattr(instance, "_hyperparameters"):
            instance._hyperparameters = tf.__internal__.tracking.AutoTrackable()
        with tf.init_scope():
            if hasattr(instance._hyperparameters, self.name):
                getattr(instance._hyperparameters, self.name).assign(value)
            else:
                # Python floats are doubles: the variable is one too, so that what was set is read.
                variable = tf.Variable(value, trainable=False, dtype=tf.float64, name=self.name)
                setattr(instance._hyperparameters, self.name, variable)


def read_hyperparameter(instance: Any, name: str) -> tf.Tensor:
    """The present value of a `Hyperparameter` as a float32 scalar, for use inside graphs."""
    return tf.cast(getattr(instance._hyperparameters, name), tf.float32)


def hyperparameters(instance: Any) -> list[str]:
    """Names of the attributes of `instance` that can be scheduled."""
    return [
        name
        for owner in reversed(type(instance).__mro__)
        for name, value in vars(owner).items()
        if isinstance(value, Hyperparameter)
    ]


def hyperparameter_holders(model: tf.keras.Model) -> list[Any]:
    """The quantizers and constraints of a model that have something to schedule, in its order."""
    found: dict[int, Any] = {}
    for layer in model._flatten_layers():
        for candidate in (layer, *(v for k, v in vars(layer).items() if "constraint" in k)):
            if hyperparameters(candidate):
                found[id(candidate)] = candidate
    return list(found.values())


def copy_hyperparameters(source: tf.keras.Model, target: tf.keras.Model) -> None:
    """Sets what can be scheduled in `target` to what it is in `source`, a network of the same kind.

    `set_weights` leaves these numbers out, as they are no weights.
    """
    pairs = zip(hyperparameter_holders(source), hyperparameter_holders(target), strict=True)
    for one, other in pairs:
        for name in hyperparameters(one):
            setattr(other, name, getattr(one, name))


def one_of(name: str, value: Any, allowed: tuple) -> Any:
    """`value` if it is allowed, else an error that lists what is."""
    if value not in allowed:
        raise ValueError(f"`{name}` is one of {list(allowed)}, received {value!r}.")
    return value


def factor_kernel(kernel: np.ndarray) -> KernelForm | None:
    """Splits a quantized kernel into +-1 and one positive number per output channel.

    # Arguments
        kernel: Quantized kernel, output channels last.

    # Returns
        A `KernelForm`, or `None` if a channel is zero, not finite or holds two magnitudes.
    """
    magnitudes = np.abs(kernel).reshape(-1, kernel.shape[-1])
    scale = magnitudes[0]
    if not (np.isfinite(magnitudes).all() and (scale > 0).all()):
        return None
    # Some quantizers round: `x + (sign(x) - x)` is off by one unit in the last place or two.
    if (np.abs(magnitudes - scale) > 1e-6 * scale).any():
        return None
    return KernelForm(np.where(kernel >= 0, 1.0, -1.0).astype("float32"), scale)


_OF_KERNELS = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
_PLACES = ("input_quantizer", "activation", *_OF_KERNELS)


class RoleQuantizer(lq.quantizers.Quantizer):
    """Base class of quantizers that treat inputs and kernels in different ways.

    # Arguments
        role: `"input"` or `"kernel"`: what is quantized. `None` finds out at first use (Larq's
            layers quantize kernels inside `larq.context.quantized_scope`, inputs outside).
    """

    alias: str | None = None  # what it is registered as

    def __init__(self, *, role: str | None = None, name: str | None = None, **kwargs):
        # Keras would call `SiMaN` "si_ma_n".
        kind = self.alias or type(self).__name__.lower()
        name = name or f"{kind}_{tf.keras.backend.get_uid(kind)}"
        super().__init__(name=name, **kwargs)
        self.role: str | None = None
        if role is not None:
            self.set_role(one_of("role", role, ROLES))

    def set_role(self, role: str) -> None:
        """Says what is quantized, as a layer knows it.

        # Raises
            ValueError: if this instance is for the other role, or cannot have this one.
        """
        if self.role not in (None, role):
            raise ValueError(
                f"`{role}_quantizer` is a {type(self).__name__} for {self.role}s "
                f"(role={self.role!r}): make one with role={role!r}, or without a role."
            )
        self.role = role

    def __call__(self, inputs, *args, **kwargs):
        # The layer knows better than the scope, in which activations are called too; and one
        # instance may stand in both places.
        layer = call_context().layer
        for name in _PLACES:
            if getattr(layer, name, None) is self:
                self.set_role("kernel" if name in _OF_KERNELS else "input")
                # What comes is of the layer's type, which may not be that of Keras' policy.
                self._autocast = False
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape):
        if self.role is None:
            is_static = None not in tf.TensorShape(input_shape).as_list()
            self.set_role("kernel" if is_static and lq.context.should_quantize() else "input")
        super().build(input_shape)

    def _in_type_of(self, inputs: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Integers would cut off what a scale makes of them."""
        return tf.cast(outputs, inputs.dtype if inputs.dtype.is_floating else self.compute_dtype)

    def get_build_config(self):
        # Keras would build what it reads from a file before the layer does that it belongs to,
        # with the sizes of the layer in the file.
        return None

    def get_config(self):
        return {**super().get_config(), "role": self.role}


class _Layers(weakref.WeakSet):
    """Layers that are not kept alive; a copy of a network has copies of them."""

    def __reduce__(self):
        return type(self), (list(self),)


class BinaryQuantizer(RoleQuantizer):
    """Base class of quantizers with one bit per output.

    A class of your own defines `quantize(x, training)`, which gets a float32 tensor. To be
    deployed on inputs it defines `input_form()`, which tells what they are at inference; kernels
    are looked at as they are quantized, unless it defines `kernel_form(kernel)`.

    The output channels of a kernel are its last axis, as in dense layers and convolutions; the
    kernels of depthwise and transposed ones are laid out otherwise and not supported. Channels
    of an input are its last axis too.

    # Arguments
        role: `"input"` or `"kernel"`: what is quantized. `None` finds out at first use (Larq's
            layers quantize kernels inside `larq.context.quantized_scope`, inputs outside).
        metrics: List of metrics, of which Larq knows `"flip_ratio"`. `None` takes those of
            `larq.context.metrics_scope` if this turns out to be a kernel quantizer.
    """

    precision = 1

    def __init__(
        self,
        *,
        role: str | None = None,
        metrics: list[str] | None = None,
        sharing: tuple[str, int] | None = None,
        **kwargs,
    ):
        super().__init__(role=role, **kwargs)
        # Set and read by `_sharing`: who uses this instance, and if several do an identifier and
        # how many they were when the configuration was written.
        self.sharing = None if sharing is None else (sharing[0], sharing[1])
        self._users: list[str] = []
        self.using_layers = _Layers()
        self._custom_metrics = metrics
        self._scope_metrics = list(lq.context.get_training_metrics())

    @property
    def trainable(self):
        # Where a layer that shares it is frozen, it would change with another one.
        return self._trainable and all(layer.trainable for layer in self.using_layers)

    @trainable.setter
    def trainable(self, value):
        tf.keras.layers.Layer.trainable.fset(self, value)

    def build(self, input_shape):
        super().build(input_shape)
        self._built_for = tuple(tf.TensorShape(input_shape).as_list())
        metrics = self._custom_metrics
        if metrics is None:
            metrics = self._scope_metrics if self.role == "kernel" else []
        if "flip_ratio" in metrics:
            self.flip_ratio = lq.metrics.FlipRatio(name=f"flip_ratio/{self.name}")
            self.flip_ratio.build(input_shape)

    def call(self, inputs, training=None):
        # Mirrored variables come as they are: only a tensor has the operators used below.
        inputs = tf.convert_to_tensor(inputs)
        self._check_shape(inputs)
        # Surrogate gradients and scales lose their tail in half precision.
        outputs = self._in_type_of(inputs, self.quantize(tf.cast(inputs, tf.float32), training))
        if hasattr(self, "flip_ratio"):
            if len(self.users) > 1:
                raise ValueError(
                    f"Larq's flip ratio compares the kernels of one layer, and {self.name!r} is "
                    f"shared by {', '.join(self.users[:3])} and others: leave the metric out, and "
                    "give `fit` the callback larq_ext.inspection.FlipRatio()."
                )
            # FlipRatio compares integers, and a scale below 1 would round every value to 0.
            self.add_metric(self.flip_ratio(tf.sign(outputs)))
        return outputs

    @property
    def users(self) -> list[str]:
        """Names of the layers that use this instance."""
        return self._users

    def quantize(self, x: tf.Tensor, training) -> tf.Tensor:
        """Quantizes a float32 tensor."""
        raise NotImplementedError

    def parameter_key(self, shape: tuple) -> tuple:
        """The part of a tensor's shape that the parameters depend on."""
        return ()

    def _check_shape(self, inputs: tf.Tensor) -> None:
        shape = tuple(inputs.shape.as_list())
        if self.parameter_key(shape) != self.parameter_key(self._built_for):
            raise ValueError(
                f"The quantizer `{self.name}` ({type(self).__name__}) has parameters for tensors "
                f"of shape {self._built_for} and was given one of shape {shape}. One instance "
                "used in several layers shares its parameters, so the layers must agree in "
                "shape: give each layer its own"
                + (f', for example by the name "{self.alias}".' if self.alias else ".")
            )

    def add_parameter(self, name: str, shape, initializer, *, deployed: bool, **kwargs):
        """Adds a trainable parameter; `deployed` tells whether it exists at inference."""
        variable = self.add_weight(
            name=f"{self.role}_{name}",
            shape=shape,
            initializer=initializer,
            dtype=tf.float32,
            experimental_autocast=False,
            **kwargs,
        )
        return no_operand(variable, deployed)

    def load_own_variables(self, store):
        if self.weights and not store.keys():
            raise ValueError(
                f"The file has no parameters for the quantizer {self.name!r}. Either it was "
                "written with another method, or another setting of this one: build the model as "
                "it was then, load, and change it by larq_ext.models.requantize. Or the quantizer "
                "was shared between layers that are not from larq_ext.layers, or that have equal "
                "names: use larq_ext.layers with different names, or save weights "
                "(`.weights.h5`) and load them into a model that is built the same way."
            )
        super().load_own_variables(store)

    @property
    def non_trainable_weights(self):
        # The counters of a metric are neither parameters nor to be saved with them.
        hidden = {id(v) for v in getattr(getattr(self, "flip_ratio", None), "variables", [])}
        return [v for v in super().non_trainable_weights if id(v) not in hidden]

    def initialize_from(self, kernel: np.ndarray) -> None:
        """Sets parameters whose initial value depends on the kernel. By default there are none."""

    def kernel_form(self, kernel: np.ndarray) -> KernelForm | None:
        """What `kernel` is at inference, or `None` where it is not binary.

        # Arguments
            kernel: Latent kernel, output channels last.
        """
        return factor_kernel(self(tf.constant(kernel, tf.float32), training=False).numpy())

    def input_form(self) -> InputForm:
        """What an input is at inference."""
        return InputForm()

    def get_config(self):
        config = super().get_config()
        if self._custom_metrics is not None:
            config["metrics"] = self._custom_metrics
        if self.sharing is not None:
            config["sharing"] = (self.sharing[0], len(self.users))
        return config


def register(alias: str):
    """Makes a class known to Keras and Larq by its name and by `alias`.

    Larq looks names up in Keras' custom objects, `.h5` files hold the bare class name, and
    `.keras` files the name with its package: all three are needed.
    """

    def decorate(cls):
        cls.alias = alias
        return lq.utils.register_alias(alias)(register_class(cls))

    return decorate


def register_class(cls: type) -> type:
    """Makes a class known by its name alone too, which no class of Keras or Larq may have."""
    cls = tf.keras.utils.register_keras_serializable(package="larq_ext")(cls)
    return lq.utils.register_keras_custom_object(cls)
