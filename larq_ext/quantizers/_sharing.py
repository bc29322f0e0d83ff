"""Keeps one quantizer shared between layers when a model is saved, loaded or cloned.

Keras rebuilds each layer from its own configuration, so a quantizer used by eighteen layers
would come back as eighteen. Here the configuration of a shared quantizer tells an identifier and
how many layers use it. A layer that is rebuilt joins the latest rebuilt quantizer of its
identifier, until that has as many layers as it should: then another copy of the model begins.
"""

from __future__ import annotations

import uuid
import weakref
from typing import Any

from larq_ext.quantizers._base import BinaryQuantizer

_rebuilt: weakref.WeakValueDictionary[str, BinaryQuantizer] = weakref.WeakValueDictionary()


def part(quantizer: BinaryQuantizer) -> None:
    """Lets no layer that is rebuilt later join a quantizer: its model has all it should have."""
    if quantizer.sharing is None:
        return
    identifier, _ = quantizer.sharing
    if _rebuilt.get(identifier) is quantizer:
        del _rebuilt[identifier]
    quantizer.sharing = (uuid.uuid4().hex, len(quantizer.users))


def keep_apart(model: Any) -> None:
    """Lets no layer that is rebuilt later join a quantizer of this model."""
    for layer in model._flatten_layers():
        if isinstance(layer, BinaryQuantizer):
            part(layer)


def join(quantizer: BinaryQuantizer, layer: Any) -> BinaryQuantizer:
    """Registers a layer as a user of a quantizer, or of the one that it shares with others.

    # Returns
        The quantizer that the layer has to use.
    """
    if quantizer.sharing is not None and not quantizer.users:
        identifier, count = quantizer.sharing
        latest = _rebuilt.get(identifier)
        if latest is not None and len(latest.users) < count and layer.name not in latest.users:
            quantizer = latest
        else:
            _rebuilt[identifier] = quantizer
    elif quantizer.users and quantizer.sharing is None:
        quantizer.sharing = (uuid.uuid4().hex, 0)
    quantizer.users.append(layer.name)
    quantizer.using_layers.add(layer)
    return quantizer
