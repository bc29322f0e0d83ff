"""Numbers on bits, kernels and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from larq_ext._scope import flips_unnoticed

# Where gradients of weights depend on each other they are taken one by one, for so many weights or
# more, from all filters: the standard error of a share is then at most 1.6 %.
_SAMPLED_WEIGHTS = 1024


def entropy(positive: Any) -> np.ndarray:
    """Entropy of bits in bits, from the share of those that are +1; element by element."""
    p = np.asarray(positive, "float64")
    q = 1.0 - p
    # 0 log 0 is 0.
    return -(p * np.log2(np.where(p > 0, p, 1)) + q * np.log2(np.where(q > 0, q, 1)))


def outside_window(quantizer: Any, kernel: np.ndarray, seed: int = 0) -> tuple[float, bool]:
    """Share of latent weights whose own bit passes no gradient to them.

    The gradient is the quantizer's, whatever it is. Where it is one factor for each weight, all
    are looked at. Where a filter is centred or scaled by all of its weights, the gradient of
    each reaches all others; then the gradient of a bit by its own weight is taken for a sample.

    # Arguments
        quantizer: Quantizer of kernels.
        kernel: Latent kernel, output channels last.
        seed: Seed of the sample.

    # Returns
        The share, and whether it is exact.
    """
    generator = np.random.default_rng(seed)
    gradient = _gradient(quantizer, kernel)
    slope = gradient(np.ones(kernel.shape))
    probe = generator.normal(size=kernel.shape)
    response = gradient(probe)
    if np.allclose(response, probe * slope, rtol=1e-4, atol=1e-6 * np.abs(response).max()):
        return float(np.mean(slope == 0)), True

    filters = kernel.shape[-1]
    weights = kernel.size // filters
    passes = min(weights, -(-_SAMPLED_WEIGHTS // filters))
    every = np.tile(np.arange(weights)[:, None], filters)
    chosen = every if passes == weights else generator.integers(weights, size=(passes, filters))
    zeros = 0
    for row in chosen:
        # One weight of each filter at once: filters do not know each other.
        at = (row, np.arange(filters))
        upstream = np.zeros((weights, filters))
        upstream[at] = 1.0
        zeros += np.count_nonzero(gradient(upstream).reshape(weights, filters)[at] == 0)
    return zeros / chosen.size, passes == weights


def _gradient(quantizer: Any, kernel: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The gradient of a latent kernel as a function of that of the quantized one."""
    latent = tf.constant(kernel)
    with flips_unnoticed(quantizer), tf.GradientTape(persistent=True) as tape:
        tape.watch(latent)
        outputs = quantizer(latent)

    def gradient(upstream: np.ndarray) -> np.ndarray:
        upstream = tf.constant(upstream.reshape(kernel.shape), latent.dtype)
        found = tape.gradient(outputs, latent, output_gradients=upstream)
        return np.zeros(kernel.shape) if found is None else found.numpy()

    return gradient


class BitCounter:
    """Counts the bits of a layer's inputs, channel by channel.

    # Arguments
        channel_axis: Axis of the channels.
        zero_one: Whether the two values are 0 and another one, instead of -1 and +1.
    """

    def __init__(self, channel_axis: int = -1, zero_one: bool = False):
        self.channel_axis, self.zero_one = channel_axis, zero_one
        self.positive: np.ndarray | None = None
        self.total = 0
        self.binary = True

    def update(self, values: np.ndarray) -> None:
        """Adds a batch of quantized inputs."""
        low, high = values.min(), values.max()
        if not ((values == low) | (values == high)).all():
            self.binary = False
            return
        bits = values != 0 if self.zero_one else values > 0
        bits = np.moveaxis(bits, self.channel_axis, -1).reshape(-1, values.shape[self.channel_axis])
        counts = bits.sum(0)
        self.positive = counts if self.positive is None else self.positive + counts
        self.total += len(bits)

    def shares(self) -> np.ndarray | None:
        """Share of +1 in each channel; `None` if inputs were not binary or there were none."""
        if self.positive is None or not self.binary:
            return None
        return self.positive / self.total
