"""Forwards and soft functions of the papers in float64, written without the package.

The gradient of a quantizer is by definition that of a "soft" function. Central differences of the
soft functions below are therefore what automatic differentiation of the package has to give.
"""

from __future__ import annotations

import numpy as np


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def leading(x):
    """The axes of a kernel that make up a filter."""
    return tuple(range(x.ndim - 1))


def differences(function, x, step=1e-5):
    """Gradient of a scalar function by central differences."""
    x = np.array(x, np.float64)
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = function(x)
        x[index] = kept - step
        below = function(x)
        x[index] = kept
        result[index] = (above - below) / (2 * step)
    return result


def area(y, x):
    """Integral by the trapezoidal rule."""
    return np.sum((y[1:] + y[:-1]) / 2 * np.diff(x))


# FDA


def fourier_series(x, n, omega=0.1):
    i = 2 * np.arange(n + 1) + 1
    return 4 / np.pi * np.sum(np.sin(i * omega * np.asarray(x)[..., None]) / i, axis=-1)


def fourier_slope(x, n, omega=0.1):
    i = 2 * np.arange(n + 1) + 1
    return 4 * omega / np.pi * np.sum(np.cos(i * omega * np.asarray(x)[..., None]), axis=-1)


def noise(rows, w1, w2, shortcut=lambda t: 0.1 * np.sin(t)):
    """The noise adaptation module on row vectors."""
    return np.maximum(rows @ w1, 0) @ w2 + shortcut(rows)


def kernel_rows(kernel):
    """One row per output channel."""
    return np.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1)


def from_kernel_rows(rows, shape):
    return np.moveaxis(rows.reshape((shape[-1], *shape[:-1])), 0, -1)


# Trained binarization: antiderivatives of the slopes


def soft_triangle(w):
    """4w - 4w|w| up to 0.5, then the sign."""
    return np.where(np.abs(w) <= 0.5, 4 * w - 4 * w * np.abs(w), np.sign(w))


def soft_long_tail(x):
    u = np.abs(x)
    middle = np.where(u <= 0.4, 2 * u - 2 * u**2, 0.48 + 0.4 * (u - 0.4))
    return 0.72 + np.sign(x) * np.where(u > 1, 0.72, middle)


def soft_polynomial(x):
    """Antiderivative of max(2 - 2|x|, 0)."""
    return np.where(np.abs(x) <= 1, 2 * x - x * np.abs(x), np.sign(x))


def soft_clip(x):
    return np.clip(x, -1, 1)


# SiMaN


def standardize(x, axes):
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt(x.var(axes, keepdims=True, ddof=1) + 1e-5)


def magnitude_bits(kernel):
    """The larger half of each filter, without regard to ties."""
    rows = np.abs(kernel_rows(kernel - kernel.mean(leading(kernel))))
    ranks = np.argsort(np.argsort(-rows, axis=1, kind="stable"), axis=1)
    return from_kernel_rows((ranks < rows.shape[1] // 2).astype(float), kernel.shape)


def clip_magnitudes(kernel, percent):
    centred = kernel - kernel.mean(leading(kernel))
    low, high = np.percentile(np.abs(centred), [percent, 100 - percent])
    return np.sign(centred) * np.clip(np.abs(centred), low, high)


# Binarizing by classification


def classifier(x, u, v, b=0.0, d=0.0, function=np.tanh):
    """Outputs along a new last axis."""
    return function(np.asarray(x)[..., None] * u + b) @ v.T + d


def gated(outputs):
    """Straight through while an output is inside (-1, 1)."""
    return np.clip(outputs, -1, 1).sum(-1)
