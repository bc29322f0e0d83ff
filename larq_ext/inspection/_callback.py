"""How many bits flip while a model trains."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from larq_ext.inspection._inspect import binary_kernels


class FlipRatio(tf.keras.callbacks.Callback):
    """Logs the share of kernel bits that differ from those an epoch before.

    Larq's metric of this name compares quantized values step by step, as integers, so that a
    scale below 1 hides every flip. This one compares bits, whatever the quantizer, and costs
    nothing in the steps. A bit that flips and flips back within an epoch does not count.

    !!! example
        ```python
        model.fit(..., callbacks=[lqx.inspection.FlipRatio()])
        ```

    # Arguments
        by_layer: Whether to log `flip_ratio/<layer>` for each layer too.

    # Raises
        ValueError: at the start of training, if the model has no binary kernel.
    """

    def __init__(self, by_layer: bool = False):
        super().__init__()
        self.by_layer = by_layer

    def _bits(self) -> dict[str, np.ndarray]:
        return {kernel.name: kernel.bits for kernel in binary_kernels(self.model)}

    def on_train_begin(self, logs=None):
        self._before = self._bits()
        if not self._before:
            raise ValueError(f"The model {self.model.name!r} has no binary kernel to watch.")

    def on_epoch_end(self, epoch, logs=None):
        now = self._bits()
        flips = {name: bits != self._before[name] for name, bits in now.items()}
        self._before = now
        if logs is None:
            return
        total = sum(flipped.size for flipped in flips.values())
        logs["flip_ratio"] = float(sum(flipped.sum() for flipped in flips.values()) / total)
        if self.by_layer:
            logs.update({f"flip_ratio/{name}": float(f.mean()) for name, f in flips.items()})
