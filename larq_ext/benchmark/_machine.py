"""What the numbers were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
# Those that decide which kernels run; Linux writes them in these words.
_FEATURES = ("avx2", "avx512bw", "avx512_vnni", "avx512_vpopcntdq", "asimd")
_PACKAGES = ("larq-ext", "tensorflow", "larq-compute-engine", "larq", "numpy")


def machine() -> dict[str, Any]:
    """Describes this machine and the versions of what is measured on it.

    # Returns
        The processor's name and the features that matter here, the cores this process may use,
        the processes that were running in the last minute (with more of them than cores, times
        are not to be trusted, ratios neither: long inferences are interrupted more often), the
        system, and the versions of Python and the packages.
    """
    fields = _cpuinfo()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cpu_family": fields.get("cpu family"),
        "cpu_model": fields.get("model"),
        "features": [feature for feature in _FEATURES if feature in flags],
        "cores": _usable_cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _cpuinfo() -> dict[str, str]:
    """The fields of the first processor; none outside Linux."""
    if not _CPUINFO.is_file():
        return {}
    first, _, _ = _CPUINFO.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
