"""What a run was made with: machine and versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import platform
from typing import Any

import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port

import larq_ext
from larq_ext._convolution import on_cpu


def hardware() -> dict[str, Any]:
    """The machine: CPU model, usable cores, memory in GiB and accelerators."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    devices = [
        device for kind in ("GPU", "TPU") for device in tf.config.list_physical_devices(kind)
    ]
    return {
        "cpu": _first_value("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": cores,
        "memory_gib": _memory_gib(),
        "accelerators": [
            tf.config.experimental.get_device_details(device).get("device_name", device.name)
            for device in devices
        ],
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that the numbers depend on."""
    packages = ("tensorflow", "tf_keras", "larq", "numpy", "keras-cv", "tensorflow-datasets")
    found = {"python": platform.python_version(), "larq_ext": larq_ext.__version__}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def environment() -> dict[str, str]:
    """The variables of the environment that choose TensorFlow's kernels, where they are set."""
    names = ("TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "NVIDIA_TF32_OVERRIDE")
    return {name: os.environ[name] for name in names if name in os.environ}


def lacks_for_bfloat16() -> str | None:
    """What keeps convolutions in bfloat16 from being fast here, or `None` if nothing does.

    Without oneDNN they are not even exact: TensorFlow's own add up in bfloat16, too.
    """
    if not on_cpu():
        return "is for training on a CPU"
    if "avx512_bf16" not in _first_value("/proc/cpuinfo", "flags").split():
        return "needs a CPU with avx512_bf16 (see /proc/cpuinfo)"
    if not _pywrap_util_port.IsMklEnabled():
        return "needs oneDNN: TF_ENABLE_ONEDNN_OPTS=1, before TensorFlow is imported"
    return None


def _memory_gib() -> float | None:
    kib = _first_value("/proc/meminfo", "MemTotal").split()
    return round(int(kib[0]) / 2**20, 1) if kib else None


def _first_value(path: str, key: str) -> str:
    """The first `key: value` of a file of the Linux kernel, empty on other systems."""
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
