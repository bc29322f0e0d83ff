"""The entries of the zoo: an architecture and what it was made with, under one name."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

import larq_ext as lqx
from larq_ext_zoo.classification import DigitsNet, ResNet20, VGGSmall


@dataclass(frozen=True)
class Entry:
    """A network that `get` can make.

    # Arguments
        name: `architecture.tag`.
        build: Makes the model; takes the keyword arguments of the architecture.
        quantizer: Name of the method.
        description: One line.
        weights: File of pretrained weights, or `None`.
    """

    name: str
    build: Callable[..., tf.keras.Model]
    quantizer: str
    description: str
    weights: str | None = None


_ENTRIES: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Adds an entry.

    # Raises
        ValueError: if the name is taken.
    """
    if entry.name in _ENTRIES:
        raise ValueError(f"The zoo already has a model {entry.name!r}.")
    _ENTRIES[entry.name] = entry


_ARCHITECTURES = {
    "digits_net": (DigitsNet, "8x8"),
    "resnet20": (ResNet20, "32x32"),
    "vgg_small": (VGGSmall, "32x32"),
}
for _name, (_build, _size) in _ARCHITECTURES.items():
    for _method in lqx.quantizers.METHODS:
        register(
            Entry(
                f"{_name}.{_method}",
                _build,
                _method,
                f"{_build.__name__} for {_size} images, binarized by {_method}, not trained",
            )
        )


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of the models, sorted.

    # Arguments
        pattern: Shell-style wildcard, such as `"resnet20*"`.
        pretrained: Whether to list only those with trained weights.
    """
    names = fnmatch.filter(sorted(_ENTRIES), pattern)
    return [name for name in names if not pretrained or _ENTRIES[name].weights]


def entry(name: str) -> Entry:
    """The entry of this name.

    # Raises
        ValueError: if there is none, with the names that come near.
    """
    if name not in _ENTRIES:
        near = difflib.get_close_matches(name, _ENTRIES, n=3) or list_models()
        raise ValueError(f"The zoo has no model {name!r}. Did you mean one of {near}?")
    return _ENTRIES[name]


def get(name: str, **kwargs) -> tf.keras.Model:
    """Makes the model of this name, with its trained weights if it has any.

    # Arguments
        name: A name of `list_models()`.
        **kwargs: Arguments of the architecture, such as `num_classes`.

    # Returns
        The model.

    # Raises
        ValueError: for an unknown name, with the names that come near.
    """
    found = entry(name)
    return found.build(**{"quantizer": found.quantizer, "weights": found.weights, **kwargs})
