"""Any network of Larq's with another method of binarization, in one call.

```python
model = lqx.models.requantize(larq_zoo.sota.QuickNet(), "fda")
```
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_ext._rebuild import (
    complete_configuration,
    has_known_configuration,
    hidden_layers,
    obstacle,
)
from larq_ext._scope import dtype_policy, quantized_scope
from larq_ext._text import did_you_mean
from larq_ext.deploy.bake import _KERNELS, _is_binary
from larq_ext.deploy.layers import BinaryConv2D
from larq_ext.layers import (
    QuantConv2D,
    QuantDense,
    _instance,
    _without_constraint_warning,
    gives_zero_and_one,
)
from larq_ext.quantizers import (
    METHODS,
    BinaryQuantizer,
    method,
    network_arguments,
)
from larq_ext.quantizers._sharing import keep_apart

__all__ = ["requantize"]

# What becomes what. The kernels of other layers are laid out otherwise, or have no binary form.
_SUCCESSORS = {
    lq.layers.QuantConv2D: QuantConv2D,
    QuantConv2D: QuantConv2D,
    lq.layers.QuantDense: QuantDense,
    QuantDense: QuantDense,
}
_KERNEL_ARGUMENTS = ("kernel_quantizer", "kernel_constraint", "scale")
_ARGUMENTS = ("quantizer", "input_quantizer", *_KERNEL_ARGUMENTS, "pad_values")
_FLOAT = {"input_quantizer": None, "kernel_quantizer": None}

Choice = str | dict[str, Any] | None


def requantize(
    model: tf.keras.Model,
    quantizer: Choice | Callable[[Any], Choice] = "fda",
    *,
    pad_values: float | None = None,
    unsupported: str = "warn",
) -> tf.keras.Model:
    """Makes the same network with another method of binarization.

    Each binary `QuantConv2D` and `QuantDense`, Larq's or ours, becomes the layer of
    `larq_ext.layers` with the quantizers, the constraint, the scale and the padding of the
    method. Latent weights are kept, and so is everything else: names, strides, dilation, groups,
    biases, regularizers, batch norms, layers that are float, and what is shared.

    A layer counts as binary where its kernel quantizer or its input quantizer has one bit. Where
    only one of the two has, only that one is replaced, with the constraint and the scale if it
    is the kernel's. Signs that are layers of their own (a quantizer, or an `Activation` with
    one) are replaced too: if nothing but binary convolutions and dense layers follow, these take
    the quantizer over as their `input_quantizer`, and a linear activation stays in its place.

    Latent weights are kept, outputs are not: a method with other scales or other bits computes
    something else until it has been trained, and batch norms need new statistics. Parameters of
    quantizers are kept where a quantizer remains of its class, and set from the kernels
    elsewhere; a constraint of the method acts from the first update on. The new model is not
    compiled.

    !!! example
        ```python
        model = lqx.models.requantize(larq_zoo.literature.BiRealNet(), "siman")
        # Only the inputs, and only of some layers:
        lqx.models.requantize(
            model,
            lambda layer: {"input_quantizer": "fda"} if layer.name != "first" else None,
        )
        ```

    # Arguments
        model: Built functional or sequential model; models inside it are treated alike.
        quantizer: Name of a method, see `larq_ext.quantizers.METHODS`. Or a dictionary with some
            of the arguments `quantizer`, `input_quantizer`, `kernel_quantizer`,
            `kernel_constraint`, `scale` and `pad_values` of `larq_ext.layers.QuantConv2D`, where
            each layer gets copies of what it holds, and keeps what it does not name. Or a
            function from a layer to either, or to `None` for a layer to leave alone. `None` is a
            float network: the same layers without quantizers, with their latent weights.
        pad_values: What `padding="same"` pads with. `None` keeps what a layer had, unless its
            inputs change between -1 and +1, 0 and 1, and float: a border of the old kind would
            then be a third value, so that the method's own is taken.
        unsupported: `"warn"` leaves binary layers of other kinds (depthwise, separable,
            transposed, one- and three-dimensional ones, and classes derived from Larq's) as they
            are, with one warning that names them; `"raise"` makes it an error.

    # Returns
        A new model; the old one is as it was.

    # Raises
        ValueError: for an unknown method or argument, a model that cannot be rebuilt layer by
            layer, one that is baked, or one with nothing to requantize.
    """
    if unsupported not in ("warn", "raise"):
        raise ValueError(f"`unsupported` is one of ['warn', 'raise'], received {unsupported!r}.")
    rebuild = _Rebuild(model, quantizer, pad_values)
    with quantized_scope(False), _without_constraint_warning(silent=True):
        new = rebuild.clone(model)
    # A part of the layers may have been left out: the next copy of `model` must not fill their
    # places.
    keep_apart(new)
    if not rebuild.replaced:
        others = f" Binary layers of other kinds: {_list(rebuild.unsupported)}."
        raise ValueError(
            f"The model {model.name!r} has no layer to requantize: none of its QuantConv2D and "
            "QuantDense has a kernel quantizer or an input quantizer of one bit"
            + (" that `quantizer` chooses." if callable(quantizer) else ".")
            + (others if rebuild.unsupported else "")
        )
    if rebuild.unsupported:
        message = (
            "These binary layers are of other kinds than QuantConv2D and QuantDense, and keep "
            f"the quantizers they have: {_list(rebuild.unsupported)}."
        )
        if unsupported == "raise":
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)
    rebuild.transfer_weights()
    return new


def _list(layers: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in layers.items())


class _Chooser:
    """Turns what the user asked for into arguments for one layer, new ones at each call."""

    def __init__(self, quantizer: Any):
        _refuse_quantizer(quantizer)
        self._asked = quantizer if callable(quantizer) else self._checked(quantizer)
        self._networks: dict[str, Callable[[], dict[str, Any]]] = {}

    def pick(self, layer: Any) -> Choice:
        """The name or the arguments for a layer, `None` to leave it alone."""
        if not callable(self._asked):
            return self._asked
        picked = self._asked(layer)
        _refuse_quantizer(picked)
        return None if picked is None else self._checked(picked)

    @staticmethod
    def _checked(choice: Any) -> str | dict[str, Any]:
        if choice is None:
            return _FLOAT
        if not isinstance(choice, dict):
            return method(choice).name
        choice = {k: v for k, v in choice.items() if (k, v) != ("quantizer", None)}
        for name in choice:
            if name not in _ARGUMENTS:
                raise ValueError(
                    f"`quantizer` may hold {list(_ARGUMENTS)}, received {name!r}."
                    + did_you_mean(name, _ARGUMENTS)
                )
        if "quantizer" in choice:
            method(choice["quantizer"])
        return choice

    def arguments(self, choice: str | dict[str, Any]) -> dict[str, Any]:
        """The layer arguments that a choice sets, with quantizers that nobody uses yet."""
        if isinstance(choice, str):
            if choice not in self._networks:
                self._networks[choice] = network_arguments(choice)
            # The second holds the kernel quantizer of the whole network, if there is one.
            return {**method(choice).arguments(), **self._networks[choice]()}
        given = {name: _copied(value) for name, value in choice.items() if name != "quantizer"}
        for role in ("input", "kernel"):
            if f"{role}_quantizer" in given:
                part = lq.quantizers.get(_instance(given[f"{role}_quantizer"]))
                given[f"{role}_quantizer"] = part
        base = {}
        if "quantizer" in choice:
            base = self.arguments(choice["quantizer"])
            own = type(base["kernel_quantizer"])
            if type(given.get("kernel_quantizer", base["kernel_quantizer"])) is not own:
                base["kernel_constraint"] = None  # it belongs to the method's own
        return {**base, **given}


def _refuse_quantizer(choice: Any) -> None:
    """Raises for a quantizer, which would be called as a function from layers to choices."""
    if isinstance(choice, (type, tf.keras.layers.Layer)):
        name = choice.__name__ if isinstance(choice, type) else type(choice).__name__
        raise ValueError(
            f"`quantizer` is the name of a method ({', '.join(sorted(METHODS))}), a dictionary or "
            f"a function, received {name}: say what it is for, with "
            f'{{"kernel_quantizer": {name}()}} or {{"input_quantizer": {name}()}}.'
        )


def _sets_inputs(choice: Choice) -> bool:
    return isinstance(choice, str) or bool(choice and {"quantizer", "input_quantizer"} & {*choice})


def _copied(part: Any) -> Any:
    """A quantizer or constraint of one's own; what is no such object as it is."""
    if not isinstance(part, (tf.keras.layers.Layer, tf.keras.constraints.Constraint)):
        return part
    config = _complete(part)
    config.pop("name", None)
    return type(part).from_config(config)


def _complete(part: Any) -> dict[str, Any]:
    try:
        return complete_configuration(part)
    except TypeError as error:
        raise ValueError(f"A part of the model would lose what it was made with: {error}") from None


class _Rebuild:
    """One run of `requantize` over a model and the models inside it."""

    def __init__(self, model: tf.keras.Model, quantizer: Any, pad_values: float | None):
        self.chooser = _Chooser(quantizer)
        self.pad_values = pad_values
        self.replaced: set[str] = set()
        self.unsupported: dict[str, str] = {}
        self._made: dict[int, tuple[Any, Any]] = {}
        graph = _Graph(model)
        # Sign layers that their followers take over, and by follower: the sign and its call.
        self._dissolved: set[int] = set()
        self._taken_over: dict[int, tuple[Any, int]] = {}
        self._shared_signs: dict[tuple[int, int], Any] = {}
        for sign, followers in graph.signs():
            if _sets_inputs(self.chooser.pick(sign)) and all(
                self._can_take_over(layer) for layer, _ in followers
            ):
                self._dissolved.add(id(sign))
                for layer, call in followers:
                    self._taken_over.setdefault(id(layer), (sign, call))

    def _can_take_over(self, layer: Any) -> bool:
        return (
            type(layer) in _SUCCESSORS
            and _is_binary(layer.kernel_quantizer)
            and layer.input_quantizer is None
            and self.chooser.pick(layer) is not None
        )

    def clone(self, model: tf.keras.Model) -> tf.keras.Model:
        return tf.keras.models.clone_model(model, clone_function=self._successor)

    def _successor(self, layer: Any) -> Any:
        # Not once for each model that a layer is in: what is shared stays shared.
        if id(layer) not in self._made:
            if isinstance(layer, tf.keras.Model):
                new = self.clone(layer)
            else:
                _refuse(layer)
                new = self._replacement(layer)
            self._made[id(layer)] = (layer, new)
        return self._made[id(layer)][1]

    def _replacement(self, layer: Any) -> Any:
        if id(layer) in self._dissolved:
            self.replaced.add(layer.name)
            return _linear(layer)
        is_sign = _sign_of(layer) is not None
        if not is_sign and not _has_binary_part(layer):
            return _as_it_is(layer)
        choice = self.chooser.pick(layer)
        if choice is None:
            return _as_it_is(layer)
        with dtype_policy(layer._dtype_policy):  # Larq's quantizers cast to their own type
            return self._with_choice(layer, choice, is_sign)

    def _with_choice(self, layer: Any, choice: Any, is_sign: bool) -> Any:
        if is_sign:
            return self._new_sign(layer, choice)
        if type(layer) in _SUCCESSORS:
            return self._new_layer(layer, choice)
        if _has_binary_quantizer(layer):
            self.unsupported[layer.name] = type(layer).__name__
            return _as_it_is(layer)
        return type(layer).from_config({**_config(layer), **self._activation(layer, choice)})

    def _new_sign(self, layer: Any, choice: Any) -> Any:
        if not _sets_inputs(choice):
            return _as_it_is(layer)
        self.replaced.add(layer.name)
        part = self.chooser.arguments(choice)["input_quantizer"]
        if part is None:
            return _linear(layer)
        if not isinstance(part, tf.keras.layers.Layer):
            return tf.keras.layers.Activation(part, name=layer.name)
        _set_role(part, "input")
        return type(part).from_config({**part.get_config(), "name": layer.name})

    def _activation(self, layer: Any, choice: Any) -> dict[str, Any]:
        """The new activation of a layer that ends in a quantizer."""
        if not _is_binary(getattr(layer, "activation", None)) or not _sets_inputs(choice):
            return {}
        self.replaced.add(layer.name)
        part = self.chooser.arguments(choice)["input_quantizer"]
        _set_role(part, "input")
        return {"activation": part or "linear"}

    def _new_layer(self, layer: Any, choice: Any) -> Any:
        arguments = self.chooser.arguments(choice)
        sign, call = self._taken_over.get(id(layer), (None, 0))
        old_inputs = layer.input_quantizer if sign is None else _sign_of(sign)
        if sign is not None:
            asked: Any = self.chooser.pick(sign)
            taken = self.chooser.arguments(asked)["input_quantizer"]
            # The layers behind one call of the sign go on sharing it.
            taken = self._shared_signs.setdefault((id(sign), call), taken)
            arguments = {**arguments, "input_quantizer": taken}
        kept = {
            "input_quantizer": layer.input_quantizer,
            "kernel_quantizer": layer.kernel_quantizer,
            "kernel_constraint": layer.kernel_constraint,
            "scale": getattr(layer, "scale_mode", None),
        }
        changed = {}
        if _is_binary(old_inputs) and "input_quantizer" in arguments:
            changed["input_quantizer"] = arguments["input_quantizer"]
        if _is_binary(layer.kernel_quantizer):
            if "kernel_quantizer" in arguments:  # constraint and scale go with the old one
                changed = {**changed, "kernel_constraint": None, "scale": None}
            changed |= {name: arguments[name] for name in _KERNEL_ARGUMENTS if name in arguments}
        activation = self._activation(layer, choice)
        parts = {k: _copied(v) for k, v in kept.items() if k not in changed} | changed
        gone = (*kept, "quantizer")
        config = {k: v for k, v in _config(layer, gone).items() if k not in gone}
        padding = config.get("pad_values")
        if padding is not None:
            config["pad_values"] = self._padding(layer, choice, old_inputs, parts)
        if not changed and not activation and config.get("pad_values") == padding:
            return _as_it_is(layer)
        self.replaced.add(layer.name)
        # The name is right where both halves are the method's, if not all their settings.
        whole = all(changed.get(f"{role}_quantizer") for role in ("input", "kernel"))
        name = choice if isinstance(choice, str) else choice.get("quantizer")
        if not changed:
            whole, name = True, getattr(layer, "quantizer", None)
        return _SUCCESSORS[type(layer)](
            **{**config, **parts, **activation}, quantizer=name if whole else None
        )

    def _padding(self, layer: Any, choice: Any, old_inputs: Any, parts: dict[str, Any]) -> float:
        asked = choice.get("pad_values") if isinstance(choice, dict) else None
        for value in (self.pad_values, asked):
            if value is not None:
                return value
        kind = _kind(parts["input_quantizer"])
        if kind == _kind(old_inputs):
            return layer.get_config()["pad_values"]
        return 1.0 if kind == "signs" else 0.0

    def transfer_weights(self) -> None:
        with quantized_scope(False):
            for old, new in self._made.values():
                if not isinstance(old, tf.keras.Model) and id(old) not in self._dissolved:
                    _transfer_weights(old, new)
            for follower, (sign, _) in self._taken_over.items():
                if follower in self._made:
                    _assign_if_alike(self._made[follower][1].input_quantizer, _sign_of(sign))


class _Graph:
    """Who takes what from whom, in a model and the models inside it."""

    def __init__(self, model: tf.keras.Model):
        self._layers: dict[int, Any] = {}
        self._followers: dict[int, list[tuple[Any, int]]] = {}
        self._outputs: set[int] = set()
        self._walk(model)

    def _walk(self, model: tf.keras.Model) -> None:
        problem = obstacle(model)
        if problem is not None:
            raise ValueError(problem)
        self._outputs |= {id(tensor._keras_history.layer) for tensor in model.outputs}
        for node in (node for nodes in model._nodes_by_depth.values() for node in nodes):
            for tensor in node.keras_inputs:
                layer, call, _ = tensor._keras_history
                self._layers[id(layer)] = layer
                self._followers.setdefault(id(layer), []).append((node.outbound_layer, call))
        for layer in model.layers:
            if isinstance(layer, tf.keras.Model):
                self._walk(layer)

    def signs(self) -> Iterator[tuple[Any, list[tuple[Any, int]]]]:
        """Sign layers that are no outputs, each with its followers and the call they follow."""
        for key, followers in self._followers.items():
            layer = self._layers[key]
            if _sign_of(layer) is not None and key not in self._outputs:
                yield layer, followers


def _sign_of(layer: Any) -> Any:
    """The quantizer of a layer that does nothing but binarize, else `None`."""
    if isinstance(layer, tf.keras.layers.Activation):
        layer = layer.activation
    elif not isinstance(layer, lq.quantizers.Quantizer):
        return None
    return layer if _is_binary(layer) else None


def _has_binary_quantizer(layer: Any) -> bool:
    return any(_is_binary(getattr(layer, name, None)) for name in ("input_quantizer", *_KERNELS))


def _has_binary_part(layer: Any) -> bool:
    return _has_binary_quantizer(layer) or _is_binary(getattr(layer, "activation", None))


def _kind(quantizer: Any) -> str:
    """What the values of an input are: `"float"`, `"signs"`, or `"bits"` of 0 and something."""
    if not _is_binary(quantizer):
        return "float"
    return "bits" if gives_zero_and_one(quantizer) else "signs"


def _set_role(part: Any, role: str) -> None:
    if isinstance(part, BinaryQuantizer):
        part.set_role(role)


def _linear(layer: Any) -> tf.keras.layers.Layer:
    return tf.keras.layers.Activation("linear", name=layer.name, dtype=layer.get_config()["dtype"])


def _as_it_is(layer: Any) -> Any:
    return type(layer).from_config(_config(layer))


def _config(layer: Any, without: Collection[str] = ()) -> dict[str, Any]:
    config = layer.get_config()
    # What a class of somebody else's calls an activation may be anything.
    activation = ["activation"] if has_known_configuration(layer) else []
    for name in ("input_quantizer", *activation, *_KERNELS):
        part = getattr(layer, name, None)
        # Keras writes a function by a name that it may not find again.
        if name not in config or name in without or part is None:
            continue
        if isinstance(part, tf.keras.layers.Layer):
            _complete(part)
        else:
            config[name] = part
    return config


def _refuse(layer: Any) -> None:
    """Raises for layers whose quantizers cannot be replaced."""
    if isinstance(layer, BinaryConv2D):
        raise ValueError("The model is baked already: take the one it was made from.")
    if not _has_binary_quantizer(layer) and _sign_of(layer) is None:
        problem = hidden_layers(layer, _has_binary_quantizer)
        if problem is not None:
            raise ValueError(problem)


def _parts(layer: Any) -> dict[str, Any]:
    """The quantizers of a layer that may hold weights."""
    found = {name: getattr(layer, name, None) for name in ("input_quantizer", "activation")}
    found["kernel_quantizer"] = getattr(layer, "kernel_quantizer", None)
    return {name: part for name, part in found.items() if isinstance(part, tf.keras.layers.Layer)}


def _own_weights(layer: Any) -> list[tf.Variable]:
    """Weights that a layer has whatever the method."""
    of_method = {id(w) for part in _parts(layer).values() for w in part.weights}
    if getattr(layer, "scale_mode", None) == "learned":
        of_method.add(id(layer.scale))
    return [w for w in layer.weights if id(w) not in of_method]


def _transfer_weights(old: Any, new: Any) -> None:
    if _sign_of(old) is not None:
        _assign_if_alike(_sign_of(new), _sign_of(old))
        return
    for variable, value in zip(_own_weights(new), _own_weights(old), strict=True):
        variable.assign(tf.convert_to_tensor(value))
    if isinstance(new, tf.keras.layers.Normalization):
        new.finalize_state()
    kernel: Any = None
    if hasattr(new, "kernel"):
        kernel = np.asarray(tf.convert_to_tensor(new.kernel))
    before = _parts(old)
    for name, part in _parts(new).items():
        if not _assign_if_alike(part, before.get(name)) and isinstance(part, BinaryQuantizer):
            part.initialize_from(kernel)
    if getattr(new, "scale_mode", None) == "learned":
        if getattr(old, "scale_mode", None) == "learned":
            new.scale.assign(tf.convert_to_tensor(old.scale))
        else:
            new.scale.assign(np.abs(kernel).mean(tuple(range(kernel.ndim - 1))))


def _assign_if_alike(new: Any, old: Any) -> bool:
    """Copies the weights between quantizers of one class, if they are as many and as large."""
    if type(new) is not type(old) or not isinstance(new, tf.keras.layers.Layer):
        return False
    if [w.shape for w in new.weights] != [w.shape for w in old.weights]:
        return False
    for variable, value in zip(new.weights, old.weights, strict=True):
        variable.assign(tf.convert_to_tensor(value))
    return True
