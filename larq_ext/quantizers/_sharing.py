"""Keeps one quantizer shared between layers when a model is saved, loaded or cloned.

Keras rebuilds each layer from its own configuration, so a quantizer used by eighteen layers
would come back as eighteen. Here each shared quantizer carries an identifier in its
configuration, and remembers the names of its layers: a layer that is rebuilt joins the latest
quantizer of its identifier, unless that already has a layer of this name, which means that
another copy of the model has begun.
"""

from __future__ import annotations

import uuid
import weakref

from larq_ext.quantizers._base import BinaryQuantizer

_latest: weakref.WeakValueDictionary[str, BinaryQuantizer] = weakref.WeakValueDictionary()


def join(quantizer: BinaryQuantizer, layer_name: str) -> BinaryQuantizer:
    """Registers a layer as a user of a quantizer, or of the one that it shares with others.

    # Returns
        The quantizer that the layer has to use.
    """
    if quantizer.sharing is not None and not quantizer.users:
        latest = _latest.get(quantizer.sharing)
        if latest is not None and layer_name not in latest.users:
            quantizer = latest
    quantizer.users.add(layer_name)
    if len(quantizer.users) > 1 and quantizer.sharing is None:
        quantizer.sharing = uuid.uuid4().hex
    if quantizer.sharing is not None:
        _latest[quantizer.sharing] = quantizer
    return quantizer
